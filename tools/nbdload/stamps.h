// What blocks hold, for runs that verify: each write puts a stamp of place and version into every 8 bytes of
// its block, and the newest version of each block is remembered. Thread: one.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace obraz::load {

class Stamps {
 public:
  // Blocks of block_size bytes (a multiple of 8) from `offset` on.
  Stamps(uint64_t offset, uint64_t length, uint64_t block_size)
      : offset_(offset), block_size_(block_size), versions_(length / block_size), busy_(versions_.size()) {}

  // A block with a request in flight: what it holds is not known until that has ended.
  bool take(uint64_t offset) {
    const size_t block = index(offset);
    if (busy_[block])
      return false;
    busy_[block] = true;
    return true;
  }
  void give_back(uint64_t offset) { busy_[index(offset)] = false; }

  // Fills what is going to be written; the block then has a new version.
  void stamp(uint64_t offset, std::span<std::byte> bytes);
  // Whether the bytes are the block's newest version; true for a block that has never been written here.
  bool holds(uint64_t offset, std::span<const std::byte> bytes) const;
  bool written(uint64_t offset) const { return versions_[index(offset)] != 0; }

 private:
  size_t index(uint64_t offset) const { return size_t((offset - offset_) / block_size_); }
  static uint64_t word(uint64_t at, uint32_t version) {
    return (at + 1) * 0x9e3779b97f4a7c15u ^ uint64_t(version) << 17;
  }

  const uint64_t offset_, block_size_;
  std::vector<uint32_t> versions_;  // 0: not written by this run
  std::vector<bool> busy_;
};

}  // namespace obraz::load
