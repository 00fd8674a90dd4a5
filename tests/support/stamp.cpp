#include "support/stamp.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace obraz::test {
namespace {

constexpr uint64_t kUnit = 16;
constexpr uint16_t kMark = 0x5a17;

std::array<std::byte, kUnit> unit_bytes(uint64_t volume, uint64_t unit, uint32_t version) {
  std::array<std::byte, kUnit> out;
  store_le(out.data(), kMark);
  store_le(out.data() + 2, uint16_t(volume));
  store_le(out.data() + 4, version);
  store_le(out.data() + 8, unit);
  return out;
}

}  // namespace

void stamp(Bytes out, uint64_t volume, uint64_t offset, uint32_t version) {
  while (!out.empty()) {
    const auto unit = unit_bytes(volume, offset / kUnit, version);
    const size_t at = offset % kUnit, n = std::min<size_t>(out.size(), kUnit - at);
    std::memcpy(out.data(), unit.data() + at, n);
    out = out.subspan(n);
    offset += n;
  }
}

std::string describe_stamp(ConstBytes bytes, uint64_t offset) {
  if (is_zero(bytes))
    return "zeros";
  const uint64_t skip = (kUnit - offset % kUnit) % kUnit;
  if (bytes.size() < skip + kUnit)
    return "too short to tell";
  const std::byte* at = bytes.data() + skip;
  if (load_le<uint16_t>(at) != kMark)
    return is_zero(bytes.subspan(skip, kUnit)) ? "zeros at first"
                                               : fmt::format("noise {:#x}", load_le<uint64_t>(at));
  return fmt::format("volume {} offset {:#x} version {}", load_le<uint16_t>(at + 2),
                     load_le<uint64_t>(at + 8) * kUnit, load_le<uint32_t>(at + 4));
}

}  // namespace obraz::test
