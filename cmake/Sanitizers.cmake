# OBRAZ_SANITIZE is a list for -fsanitize, e.g. "address,undefined" or "thread"; set by the presets.
set(OBRAZ_SANITIZE "" CACHE STRING "value of -fsanitize for every target")
option(OBRAZ_FUZZ "build libFuzzer targets (clang)" OFF)
if(OBRAZ_SANITIZE)
  # Little optimization and line tables only: building takes longer than running here.
  add_compile_options(-O1 -g1 -fsanitize=${OBRAZ_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${OBRAZ_SANITIZE})
  if(OBRAZ_SANITIZE MATCHES "undefined")
    # That check opens a pipe to look at memory, and calls it a bad object when there are no descriptors left: which is
    # what one test is about.
    add_compile_options(-fno-sanitize=vptr)
  endif()
  if(OBRAZ_FUZZ)
    add_compile_options(-fsanitize=fuzzer-no-link)
  endif()
  if(OBRAZ_SANITIZE MATCHES "thread" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # Boost.Asio fences its handlers with atomic_thread_fence, which GCC warns that the sanitizer does not see.
    add_compile_options(-Wno-tsan)
  endif()
endif()
