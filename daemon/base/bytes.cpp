#include "base/bytes.h"

namespace obraz {

bool is_zero(ConstBytes bytes) {
  // A buffer is all zeros when its first bytes are and it equals itself shifted by as much; memcmp is the
  // fastest loop the C library has, and it ends at the first difference.
  constexpr size_t kHead = 16;
  for (size_t i = 0; i < bytes.size() && i < kHead; ++i)
    if (bytes[i] != std::byte{0})
      return false;
  return bytes.size() <= kHead || std::memcmp(bytes.data(), bytes.data() + kHead, bytes.size() - kHead) == 0;
}

}  // namespace obraz
