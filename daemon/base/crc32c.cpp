#include "base/crc32c.h"

#include <array>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace obraz {
namespace {

constexpr std::array<uint32_t, 256> make_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit)
      c = (c & 1) ? (c >> 1) ^ 0x82f63b78u : c >> 1;
    table[i] = c;
  }
  return table;
}
constexpr auto kTable = make_table();

uint32_t portable(const std::byte* p, size_t n, uint32_t c) {
  for (; n > 0; --n, ++p)
    c = kTable[(c ^ uint32_t(*p)) & 0xff] ^ (c >> 8);
  return c;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) uint32_t hardware(const std::byte* p, size_t n, uint32_t crc) {
  uint64_t c = crc;
  for (; n >= 8; n -= 8, p += 8)
    c = _mm_crc32_u64(c, load_le<uint64_t>(p));
  for (; n > 0; --n, ++p)
    c = _mm_crc32_u8(uint32_t(c), uint8_t(*p));
  return uint32_t(c);
}
#endif

using Function = uint32_t (*)(const std::byte*, size_t, uint32_t);

Function choose() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("sse4.2"))
    return hardware;
#endif
  return portable;
}

}  // namespace

uint32_t crc32c(ConstBytes bytes, uint32_t seed) {
  static const Function function = choose();
  return ~function(bytes.data(), bytes.size(), ~seed);
}

}  // namespace obraz
