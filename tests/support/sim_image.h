// SimImage: the bytes of a simulated device, sparse and cheap to copy: pages of 4 KiB in a hash map, shared
// between copies until one of them is written. What was never written reads as zeros. Thread: the test's.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <unordered_map>

#include "base/bytes.h"

namespace obraz::test {

constexpr uint64_t kSectorSize = 512;  // what a device writes whole or not at all

class SimImage {
 public:
  static constexpr uint64_t kPageSize = 4096;

  // Any alignment.
  void read(uint64_t offset, Bytes into) const;
  void write(uint64_t offset, ConstBytes from);
  void clear(uint64_t offset, uint64_t length);

  bool has_page(uint64_t index) const { return pages_.contains(index); }
  uint64_t stored_bytes() const { return pages_.size() * kPageSize; }
  // Bytes equal, whatever is stored.
  friend bool operator==(const SimImage& a, const SimImage& b);

 private:
  using Page = std::array<std::byte, kPageSize>;
  bool covers(const SimImage& other) const;

  std::unordered_map<uint64_t, std::shared_ptr<Page>> pages_;
};

}  // namespace obraz::test
