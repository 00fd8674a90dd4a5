// Microsoft VHDX, version 1 ([MS-VHDX]). All integers are little-endian; GUIDs are compared as they lie in
// the file.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <vector>

#include "base/crc32c.h"
#include "base/limits.h"
#include "image/inspect.h"

namespace obraz {
namespace {

using limits::KiB;
using limits::MiB;

constexpr auto kFormat = ImageFormat::vhdx;
constexpr uint64_t kHeaderOffsets[] = {64 * KiB, 128 * KiB}, kRegionOffsets[] = {192 * KiB, 256 * KiB};
constexpr size_t kHeaderSize = 4 * KiB, kTableSize = 64 * KiB;
constexpr uint64_t kMaxLog = 256 * MiB, kMaxMetadata = 64 * MiB;
constexpr uint32_t kHasParent = 2;
constexpr unsigned kFullyPresent = 6, kPartiallyPresent = 7;

using Guid = std::array<uint8_t, 16>;
constexpr Guid kBatRegion = {0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42,
                             0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08};
constexpr Guid kMetadataRegion = {0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b,
                                  0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e};
constexpr Guid kFileParameters = {0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d,
                                  0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b};
constexpr Guid kVirtualDiskSize = {0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48,
                                   0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8};
constexpr Guid kVirtualDiskId = {0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45,
                                 0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46};
constexpr Guid kLogicalSector = {0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47,
                                 0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f};
constexpr Guid kPhysicalSector = {0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44,
                                  0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56};
constexpr Guid kParentLocator = {0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45,
                                 0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c};

bool is_guid(const std::byte* at, const Guid& guid) {
  return std::memcmp(at, guid.data(), guid.size()) == 0;
}

// The CRC-32C in bytes 4–7 covers the whole structure with that field as zeros.
bool checksum_holds(std::vector<std::byte> bytes) {
  const uint32_t stated = load_le<uint32_t>(&bytes[4]);
  std::fill_n(bytes.begin() + 4, 4, std::byte(0));
  return crc32c(bytes) == stated;
}

struct Region {
  uint64_t offset = 0, length = 0;
};

Answer<std::vector<std::byte>> read_bytes(const FileView& file, uint64_t offset, uint64_t length,
                                          const char* what) {
  std::vector<std::byte> bytes(length);
  OBRAZ_ASK(file.read(offset, bytes, what));
  return bytes;
}

// The valid header with the higher sequence number is the current one.
Answer<std::vector<std::byte>> read_header(const FileView& file) {
  std::vector<std::byte> current;
  for (const uint64_t offset : kHeaderOffsets) {
    auto header = read_bytes(file, offset, kHeaderSize, "the vhdx header");
    if (!header)
      return header;
    if (std::memcmp(header->data(), "head", 4) != 0 || !checksum_holds(*header))
      continue;
    if (current.empty() || load_le<uint64_t>(&(*header)[8]) > load_le<uint64_t>(&current[8]))
      current = std::move(*header);
  }
  if (current.empty())
    return refuse_damaged(kFormat, "neither of its two headers is valid");
  return current;
}

// An entry of the log that bears the header's log id has still to be replayed.
Answer<void> check_log(const FileView& file, const std::vector<std::byte>& header,
                       const std::stop_token& stop) {
  if (load_le<uint16_t>(&header[66]) != 1 || load_le<uint16_t>(&header[64]) != 0)
    return refuse_source("the vhdx image has an unknown version");
  const std::byte* log_id = &header[48];
  if (is_zero(ConstBytes(log_id, 16)))
    return {};
  const uint64_t length = load_le<uint32_t>(&header[68]), offset = load_le<uint64_t>(&header[72]);
  if (length > kMaxLog || length % MiB != 0 || offset % MiB != 0 || !file.holds(offset, length))
    return refuse_damaged(kFormat, fmt::format("its log has {} bytes at {}", length, offset));
  std::byte entry[64];
  for (uint64_t at = 0; at < length; at += kHeaderSize) {
    if (stop.stop_requested())
      return refuse_cancelled();
    OBRAZ_ASK(file.read(offset + at, entry, "the log"));
    if (std::memcmp(entry, "loge", 4) == 0 && std::memcmp(entry + 32, log_id, 16) == 0)
      return refuse_source(
          "the vhdx image was not closed cleanly and its log has to be replayed; open it once with its "
          "hypervisor, or "
          "run qemu-img check -r all on it");
  }
  return {};
}

struct Regions {
  Region bat, metadata;
};

Answer<Regions> read_regions(const FileView& file) {
  for (const uint64_t place : kRegionOffsets) {
    auto table = read_bytes(file, place, kTableSize, "the region table");
    if (!table)
      return std::unexpected(std::move(table.error()));
    const uint32_t entries = load_le<uint32_t>(&(*table)[8]);
    if (std::memcmp(table->data(), "regi", 4) != 0 || !checksum_holds(*table) || entries > 2047)
      continue;
    Regions regions;
    for (uint32_t i = 0; i < entries; ++i) {
      const std::byte* entry = &(*table)[16 + i * 32];
      const Region region{load_le<uint64_t>(entry + 16), load_le<uint32_t>(entry + 24)};
      const bool bat = is_guid(entry, kBatRegion), metadata = is_guid(entry, kMetadataRegion);
      if (bat)
        regions.bat = region;
      if (metadata)
        regions.metadata = region;
      if (!bat && !metadata && (load_le<uint32_t>(entry + 28) & 1))
        return refuse_source("the vhdx image needs a region of an unknown kind");
    }
    for (const Region& region : {regions.bat, regions.metadata})
      if (region.offset % MiB != 0 || region.offset < MiB || region.length == 0 || region.length % MiB != 0)
        return refuse_damaged(kFormat, "it lacks a region, or has it in a wrong place");
    if (!file.holds(regions.bat.offset, regions.bat.length))
      return refuse_truncated(kFormat, file, regions.bat.offset + regions.bat.length);
    if (!file.holds(regions.metadata.offset, regions.metadata.length))
      return refuse_truncated(kFormat, file, regions.metadata.offset + regions.metadata.length);
    return regions;
  }
  return refuse_damaged(kFormat, "neither of its two region tables is valid");
}

struct Metadata {
  uint64_t size = 0;
  uint32_t block = 0, flags = 0, logical_sector = 0;
};

Answer<Metadata> read_metadata(const FileView& file, const Region& region) {
  auto table = read_bytes(file, region.offset, kTableSize, "the metadata table");
  if (!table)
    return std::unexpected(std::move(table.error()));
  const uint16_t entries = load_le<uint16_t>(&(*table)[10]);
  if (std::memcmp(table->data(), "metadata", 8) != 0 || entries > 2047 || region.length > kMaxMetadata)
    return refuse_damaged(kFormat, "its metadata table is not one");
  Metadata metadata;
  for (uint16_t i = 0; i < entries; ++i) {
    const std::byte* entry = &(*table)[32 + i * 32];
    const uint64_t offset = load_le<uint32_t>(entry + 16), length = load_le<uint32_t>(entry + 20);
    if (is_guid(entry, kParentLocator))
      return refuse_source("the vhdx image is a difference to a parent disk; merge it into its parent first");
    const bool ignored = is_guid(entry, kVirtualDiskId) || is_guid(entry, kPhysicalSector);
    const bool known =
        is_guid(entry, kFileParameters) || is_guid(entry, kVirtualDiskSize) || is_guid(entry, kLogicalSector);
    if (!ignored && !known && (load_le<uint32_t>(entry + 24) & 4))
      return refuse_source("the vhdx image needs metadata of an unknown kind");
    if (!known)
      continue;
    if (length > 8 || length < 4 || offset > region.length - 8)
      return refuse_damaged(kFormat, "a metadata item has a wrong length or place");
    std::byte item[8] = {};
    OBRAZ_ASK(file.read(region.offset + offset, Bytes(item, length), "a metadata item"));
    if (is_guid(entry, kFileParameters)) {
      metadata.block = load_le<uint32_t>(item);
      metadata.flags = load_le<uint32_t>(item + 4);
    } else if (is_guid(entry, kVirtualDiskSize)) {
      metadata.size = load_le<uint64_t>(item);
    } else {
      metadata.logical_sector = load_le<uint32_t>(item);
    }
  }
  return metadata;
}

Answer<void> check_blocks(const FileView& file, const Region& bat, const Metadata& metadata,
                          const std::stop_token& stop) {
  // After every `ratio` entries for blocks the table has one for a sector bitmap.
  const uint64_t block = metadata.block, ratio = (uint64_t(1) << 23) * metadata.logical_sector / block;
  const uint64_t blocks = divide_up(metadata.size, block), entries = blocks + (blocks - 1) / ratio;
  if (entries * 8 > bat.length || entries * 8 > limits::kMaxFormatTable)
    return refuse_damaged(
        kFormat, fmt::format("its block table has {} bytes, {} are needed", bat.length, entries * 8));
  auto table = read_bytes(file, bat.offset, entries * 8, "the block allocation table");
  if (!table)
    return std::unexpected(std::move(table.error()));
  if (stop.stop_requested())
    return refuse_cancelled();
  for (uint64_t i = 0; i < blocks; ++i) {
    const uint64_t entry = load_le<uint64_t>(&(*table)[(i + i / ratio) * 8]);
    const unsigned state = entry & 7;
    if (state == kPartiallyPresent)
      return refuse_source("the vhdx image is a difference to a parent disk; merge it into its parent first");
    if (state == 4 || state == 5)
      return refuse_damaged(kFormat, "a block has an undefined state");
    const uint64_t offset = entry & ~uint64_t(MiB - 1), length = std::min(block, metadata.size - i * block);
    if (state == kFullyPresent && offset < MiB)
      return refuse_damaged(kFormat, "a block has no place");
    if (state == kFullyPresent && !file.holds(offset, length))
      return refuse_truncated(kFormat, file, offset + length);
  }
  return {};
}

}  // namespace

Answer<Inspection> inspect_vhdx(const FileView& file, const std::stop_token& stop) {
  auto header = read_header(file);
  if (!header)
    return std::unexpected(std::move(header.error()));
  OBRAZ_ASK(check_log(file, *header, stop));
  auto regions = read_regions(file);
  if (!regions)
    return std::unexpected(std::move(regions.error()));
  auto metadata = read_metadata(file, regions->metadata);
  if (!metadata)
    return std::unexpected(std::move(metadata.error()));
  if (metadata->flags & kHasParent)
    return refuse_source("the vhdx image is a difference to a parent disk; merge it into its parent first");
  if (!std::has_single_bit(metadata->block) || metadata->block < MiB || metadata->block > 256 * MiB)
    return refuse_damaged(kFormat, fmt::format("its blocks have {} bytes", metadata->block));
  if (metadata->logical_sector != 512 && metadata->logical_sector != 4096)
    return refuse_damaged(kFormat, fmt::format("its sectors have {} bytes", metadata->logical_sector));
  OBRAZ_ASK(check_virtual_size(metadata->size));
  if (metadata->size % metadata->logical_sector != 0)
    return refuse_damaged(kFormat, "its disk has not whole sectors");
  OBRAZ_ASK(check_blocks(file, regions->bat, *metadata, stop));
  return Inspection{.virtual_size = metadata->size};
}

}  // namespace obraz
