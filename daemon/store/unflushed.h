// Unflushed: what was written to `data` since the last commit was sealed. While that is a few small writes,
// it keeps their contents, so that the commit can have the journal carry them instead of flushing `data`
// (docs/disk-format.md, section 7); when it becomes more, it only knows that there is something.
//
// Invariant: while known(), blocks() are exactly what was written, each place once, with its newest content.
// Thread: the store's. Memory: kMost blocks, allocated once.
#pragma once

#include <span>

#include "base/limits.h"
#include "store/disk_format.h"
#include "store/journal.h"

namespace obraz {

class Unflushed {
 public:
  // most_blocks: beyond which nothing is known. 0: it is never known what was written.
  explicit Unflushed(uint64_t most_blocks)
      : most_(std::min(most_blocks, kMost)), contents_(most_ * kBlockSize) {
    blocks_.reserve(most_);
  }

  bool any() const { return !blocks_.empty() || !known_; }
  bool known() const { return known_; }
  // Views into memory of this object, until the next change.
  std::span<const disk::BlockRecord> blocks() const { return blocks_; }

  // Whole blocks that were written to this place of the device.
  void add(uint64_t offset, ConstBytes bytes) {
    if (!known_)
      return;
    // A long write is better flushed than copied.
    if (bytes.size() > limits::kMaxCarriedWrite)
      return add_unknown();
    for (; !bytes.empty(); bytes = bytes.subspan(kBlockSize), offset += kBlockSize) {
      const Bytes content = place({offset / kClusterSize}, uint32_t(offset % kClusterSize / kBlockSize));
      if (content.empty())
        return add_unknown();
      std::copy_n(bytes.data(), kBlockSize, content.data());
    }
  }
  void add_unknown() {
    known_ = false;
    blocks_.clear();
  }
  void clear() {
    known_ = true;
    blocks_.clear();
  }

 private:
  static constexpr uint64_t kMost = limits::kMaxCarriedBlocks;

  // Where the content of the block goes; empty when there is no room.
  Bytes place(PhysicalCluster cluster, uint32_t block) {
    size_t at = 0;
    while (at < blocks_.size() && !(blocks_[at].cluster == cluster && blocks_[at].block == block))
      ++at;
    if (at == most_)
      return {};
    const Bytes content = contents_.bytes().subspan(at * kBlockSize, kBlockSize);
    if (at == blocks_.size())
      blocks_.push_back({cluster, block, content});
    return content;
  }

  const uint64_t most_;
  bool known_ = true;
  std::vector<disk::BlockRecord> blocks_;
  AlignedBytes contents_;
};

}  // namespace obraz
