#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace obraz {

void check_failed(const char* expression, const char* file, int line) {
  std::fprintf(stderr, "obraz: bug: %s is false at %s:%d\n", expression, file, line);
  std::abort();
}

}  // namespace obraz
