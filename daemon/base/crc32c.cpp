#include "base/crc32c.h"

#include <isa-l/crc.h>

#include "base/check.h"

namespace obraz {

uint32_t crc32c(ConstBytes bytes, uint32_t seed) {
  OBRAZ_CHECK(bytes.size() <= INT32_MAX);
  // The library leaves the inversions to its caller, and takes what it only reads as not const.
  auto* data = const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(bytes.data()));
  return ~crc32_iscsi(data, int(bytes.size()), ~seed);
}

}  // namespace obraz
