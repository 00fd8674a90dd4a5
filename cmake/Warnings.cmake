# Warnings are errors for our own targets; headers of libraries come in as SYSTEM.
add_library(obraz_warnings INTERFACE)
target_compile_options(obraz_warnings INTERFACE -Wall -Wextra -Werror -Wnon-virtual-dtor -Woverloaded-virtual)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 reports these two falsely inside coroutine frames and inlined std::string code at -O2.
  target_compile_options(obraz_warnings INTERFACE -Wno-maybe-uninitialized -Wno-restrict)
  target_compile_options(obraz_warnings INTERFACE -Wno-error=array-bounds -Wno-error=stringop-overflow)
  # Where it inlines the operator new of Boost.Asio's coroutine frames and not their delete, it takes them for a mismatched
  # pair. AddressSanitizer, which sees the real calls, watches over that.
  target_compile_options(obraz_warnings INTERFACE -Wno-mismatched-new-delete)
endif()
