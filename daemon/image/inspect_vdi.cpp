// VirtualBox disk images, version 1.1. All integers are little-endian.
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/limits.h"
#include "image/inspect.h"

namespace obraz {
namespace {

constexpr auto kFormat = ImageFormat::vdi;
constexpr uint64_t kHeaderSize = 512;
constexpr uint32_t kVersion = 0x0001'0001, kDynamic = 1, kFixed = 2;
constexpr uint32_t kDiscarded = 0xffff'fffe;  // this and the value above it: no block behind the entry
constexpr uint64_t kBlock = limits::MiB;

}  // namespace

Answer<Inspection> inspect_vdi(const FileView& file, const std::stop_token& stop) {
  std::vector<std::byte> header(kHeaderSize);
  OBRAZ_ASK(file.read(0, header, "the vdi header"));
  const auto u32 = [&](size_t at) { return load_le<uint32_t>(&header[at]); };
  const uint32_t version = u32(0x44), type = u32(0x4c);
  if (version != kVersion)
    return refuse_source(
        fmt::format("vdi version {}.{} is unknown; 1.1 can be imported", version >> 16, version & 0xffff));
  if (type != kDynamic && type != kFixed)
    return refuse_source("the vdi image is a difference to another one; clone it to a full image first");
  const ConstBytes uuid_link(&header[0x1a8], 16), uuid_parent(&header[0x1b8], 16);
  if (!is_zero(uuid_link) || !is_zero(uuid_parent))
    return refuse_source("the vdi image is linked to a parent image; clone it to a full image first");

  const uint64_t map_offset = u32(0x154), data_offset = u32(0x158), blocks = u32(0x180);
  const uint64_t size = load_le<uint64_t>(&header[0x170]);
  if (u32(0x168) != 512 || u32(0x178) != kBlock || u32(0x17c) != 0)
    return refuse_source("the vdi image has sectors other than 512 bytes or blocks other than 1 MiB");
  OBRAZ_ASK(check_virtual_size(size));
  if (map_offset % 512 != 0 || data_offset % 512 != 0 || map_offset < kHeaderSize)
    return refuse_damaged(kFormat, "its tables are not where sectors begin");
  const uint64_t needed = divide_up(size, kBlock);
  if (blocks < needed || blocks * 4 > limits::kMaxFormatTable)
    return refuse_damaged(kFormat,
                          fmt::format("its block map has {} entries, {} are needed", blocks, needed));

  std::vector<std::byte> map(needed * 4);
  OBRAZ_ASK(file.read(map_offset, map, "the block map"));
  if (stop.stop_requested())
    return refuse_cancelled();
  if (data_offset < map_offset + blocks * 4)
    return refuse_damaged(kFormat, "its block map and its data overlap");
  for (uint64_t i = 0; i < needed; ++i) {
    const uint32_t entry = load_le<uint32_t>(&map[i * 4]);
    if (entry >= kDiscarded)
      continue;
    const uint64_t offset = data_offset + entry * kBlock, length = std::min(kBlock, size - i * kBlock);
    if (!file.holds(offset, length))
      return refuse_truncated(kFormat, file, offset + length);
  }
  return Inspection{.virtual_size = size};
}

}  // namespace obraz
