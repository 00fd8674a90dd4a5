// What of a buffer is worth writing: the runs of blocks that are not all zeros. And the page-aligned memory
// such buffers are in, which a device can write from as it is. Thread: any.
#pragma once

#include <cstdlib>
#include <memory>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "io/device.h"

namespace obraz {

struct BlockRun {
  size_t offset = 0, length = 0;  // in the buffer; a multiple of kBlockSize
  friend bool operator==(const BlockRun&, const BlockRun&) = default;
};

// The maximal runs of blocks with a byte other than zero, ascending. The last block may be a part of one.
std::vector<BlockRun> data_runs(ConstBytes bytes);

class AlignedBytes {
 public:
  explicit AlignedBytes(size_t size)
      : memory_(static_cast<std::byte*>(std::aligned_alloc(kBlockSize, round_up(size, kBlockSize)))),
        size_(size) {
    OBRAZ_CHECK(memory_ != nullptr);
  }
  Bytes bytes() const { return {memory_.get(), size_}; }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte, Free> memory_;
  size_t size_;
};

}  // namespace obraz
