// A data device that swallows what is written, for benchmarks of metadata on more data than most machines
// hold.
#pragma once

#include <algorithm>
#include <array>

#include "io/device.h"

namespace obraz::bench {

class NullDevice final : public Device {
 public:
  explicit NullDevice(uint64_t size_bytes) : size_bytes_(size_bytes) {}
  uint64_t size_bytes() const override { return size_bytes_; }
  Task<Status> read(uint64_t, Bytes into) override {
    // The store wants its label back.
    std::ranges::copy(ConstBytes(label_).first(std::min(into.size(), label_.size())), into.begin());
    co_return Status();
  }
  Task<Status> write(uint64_t offset, ConstBytes from) override {
    if (offset == 0)
      std::ranges::copy(from.first(label_.size()), label_.begin());
    co_return Status();
  }
  Task<Status> flush() override { co_return Status(); }
  Task<Status> discard(uint64_t, uint64_t) override { co_return Status(); }
  Task<Status> allocate(uint64_t, uint64_t) override { co_return Status(); }

 private:
  const uint64_t size_bytes_;
  std::array<std::byte, kBlockSize> label_{};
};

}  // namespace obraz::bench
