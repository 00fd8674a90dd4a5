// What a write of the workload puts into a block, and what the judge reads out of it: each sector of 512
// bytes holds the number of its write and its place in the volume, all over. Numbers of writes are never used
// twice, so a sector tells which write of which volume it is, also when it is found in the wrong one.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>

namespace obraz::vm {

constexpr uint64_t kBlock = 4096, kSector = 512, kSectorsPerBlock = kBlock / kSector;
constexpr uint64_t kWordsPerSector = kSector / sizeof(uint64_t);

// `sector` counts from the start of the volume.
inline void stamp_sector(unsigned char* out, uint64_t write, uint64_t sector) {
  for (uint64_t i = 0; i < kWordsPerSector; i += 2) {
    const uint64_t pair[2] = {write, sector | i << 48};
    std::memcpy(out + i * sizeof(uint64_t), pair, sizeof pair);
  }
}

// The write's number, 0 for zeros, nothing for what no write to this place has made.
inline std::optional<uint64_t> read_sector(const unsigned char* bytes, uint64_t sector) {
  uint64_t write = 0;
  std::memcpy(&write, bytes, sizeof write);
  unsigned char wanted[kSector] = {};
  if (write != 0)
    stamp_sector(wanted, write, sector);
  if (std::memcmp(bytes, wanted, kSector) != 0)
    return std::nullopt;
  return write;
}

}  // namespace obraz::vm
