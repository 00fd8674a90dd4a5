# OBRAZ_SANITIZE is a list for -fsanitize, e.g. "address,undefined" or "thread"; set by the presets.
set(OBRAZ_SANITIZE "" CACHE STRING "value of -fsanitize for every target")
option(OBRAZ_FUZZ "build libFuzzer targets (clang)" OFF)
if(OBRAZ_SANITIZE)
  add_compile_options(-fsanitize=${OBRAZ_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${OBRAZ_SANITIZE})
endif()
