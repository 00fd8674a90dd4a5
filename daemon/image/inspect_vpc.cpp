// Microsoft VHD 1.0 ("vpc"), fixed and dynamic. All integers are big-endian.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>
#include <vector>

#include "base/limits.h"
#include "image/inspect.h"

namespace obraz {
namespace {

constexpr auto kFormat = ImageFormat::vpc;
constexpr size_t kFooterSize = 512, kDynamicHeaderSize = 1024;
constexpr uint32_t kFixed = 2, kDynamic = 3, kDifferencing = 4;
constexpr uint32_t kNoBlock = 0xffff'ffff;
constexpr uint64_t kMaxGeometry = 65535ull * 16 * 255 * 512;  // cylinders, heads and sectors can tell no more
constexpr uint64_t kMaxBlock = 256 * limits::MiB;             // 2 MiB is usual

struct Footer {
  bool present = false;
  uint64_t data_offset = 0, current_size = 0, geometry_size = 0;
  uint32_t type = 0;
  bool from_virtual_pc = false;
  std::byte unique_id[16] = {};
};

// The one's complement of the sum of all bytes, the field itself taken as zeros.
bool checksum_holds(ConstBytes bytes, size_t field) {
  uint32_t sum = 0;
  for (size_t i = 0; i < bytes.size(); ++i)
    if (i < field || i >= field + 4)
      sum += uint32_t(bytes[i]);
  return ~sum == load_be<uint32_t>(&bytes[field]);
}

Answer<Footer> read_footer(const FileView& file, uint64_t offset) {
  std::byte bytes[kFooterSize];
  OBRAZ_ASK(file.read(offset, bytes, "the vhd footer"));
  Footer footer;
  footer.present = std::memcmp(bytes, "conectix", 8) == 0;
  if (!footer.present)
    return footer;
  if (!checksum_holds(bytes, 64))
    return refuse_damaged(kFormat, "the checksum of its footer is wrong");
  footer.data_offset = load_be<uint64_t>(bytes + 16);
  footer.current_size = load_be<uint64_t>(bytes + 48);
  footer.geometry_size =
      uint64_t(load_be<uint16_t>(bytes + 56)) * uint8_t(bytes[58]) * uint8_t(bytes[59]) * 512;
  footer.type = load_be<uint32_t>(bytes + 60);
  // Virtual PC means the size that its cylinders, heads and sectors make, all later programs the size they
  // state.
  footer.from_virtual_pc = std::memcmp(bytes + 28, "vpc ", 4) == 0;
  std::memcpy(footer.unique_id, bytes + 68, sizeof footer.unique_id);
  return footer;
}

Answer<void> check_blocks(const FileView& file, const Footer& footer, uint64_t size,
                          const std::stop_token& stop) {
  std::byte header[kDynamicHeaderSize];
  OBRAZ_ASK(file.read(footer.data_offset, header, "the dynamic disk header"));
  if (std::memcmp(header, "cxsparse", 8) != 0)
    return refuse_damaged(kFormat, "it has no dynamic disk header");
  if (!checksum_holds(header, 36))
    return refuse_damaged(kFormat, "the checksum of its dynamic disk header is wrong");
  if (!is_zero(ConstBytes(header + 40, 16)))
    return refuse_source("the vhd names a parent disk; merge it into its parent first");
  const uint64_t table_offset = load_be<uint64_t>(header + 16);
  const uint64_t entries = load_be<uint32_t>(header + 28), block = load_be<uint32_t>(header + 32);
  if (!std::has_single_bit(block) || block < 512 || block > kMaxBlock)
    return refuse_damaged(kFormat, fmt::format("its blocks have {} bytes", block));
  const uint64_t needed = divide_up(size, block);
  if (entries < needed || entries * 4 > limits::kMaxFormatTable)
    return refuse_damaged(kFormat,
                          fmt::format("its block table has {} entries, {} are needed", entries, needed));
  std::vector<std::byte> table(needed * 4);
  OBRAZ_ASK(file.read(table_offset, table, "the block allocation table"));
  if (stop.stop_requested())
    return refuse_cancelled();
  const uint64_t bitmap = round_up(divide_up(block / 512, 8), 512);
  for (uint64_t i = 0; i < needed; ++i) {
    const uint32_t sector = load_be<uint32_t>(&table[i * 4]);
    if (sector == kNoBlock)
      continue;
    const uint64_t end = uint64_t(sector) * 512 + bitmap + std::min(block, size - i * block);
    if (end + kFooterSize > file.size_bytes)
      return refuse_truncated(kFormat, file, end + kFooterSize);
  }
  return {};
}

}  // namespace

Answer<Inspection> inspect_vpc(const FileView& file, const std::stop_token& stop) {
  if (file.size_bytes < kFooterSize)
    return refuse_truncated(kFormat, file, kFooterSize);
  auto first = read_footer(file, 0);
  if (!first)
    return std::unexpected(std::move(first.error()));
  auto last = read_footer(file, file.size_bytes - kFooterSize);
  if (!last)
    return std::unexpected(std::move(last.error()));
  if (first->type == kDifferencing || last->type == kDifferencing)
    return refuse_source("the vhd is a differencing disk; merge it into its parent first");
  if (!last->present)
    return refuse_source("the vpc image is truncated: its end has no footer");
  // Only dynamic disks begin with a copy of their footer.
  const uint32_t expected = first->present ? kDynamic : kFixed;
  if (last->type != expected || (first->present && first->type != expected))
    return refuse_damaged(kFormat, fmt::format("its footer states the disk type {}", last->type));
  if (first->present &&
      (first->current_size != last->current_size || first->data_offset != last->data_offset ||
       std::memcmp(first->unique_id, last->unique_id, sizeof last->unique_id) != 0))
    return refuse_damaged(kFormat, "the two copies of its footer differ");

  const Footer& footer = *last;
  const bool geometry =
      footer.from_virtual_pc && footer.geometry_size != 0 && footer.geometry_size != kMaxGeometry;
  const uint64_t size = geometry ? footer.geometry_size : footer.current_size;
  OBRAZ_ASK(check_virtual_size(size));
  if (size % 512 != 0)
    return refuse_damaged(kFormat, fmt::format("its disk has {} bytes, not whole sectors", size));
  if (first->present)
    OBRAZ_ASK(check_blocks(file, footer, size, stop));
  else if (size + kFooterSize > file.size_bytes)
    return refuse_truncated(kFormat, file, size + kFooterSize);
  return Inspection{.virtual_size = size, .size_from_geometry = geometry};
}

}  // namespace obraz
