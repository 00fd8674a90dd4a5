// WriteBehind: the data device with a little memory in front of it. A small write that needs a commit to mean
// anything is kept here and written later; the commit's journal write carries its blocks (unflushed.h), so
// that such a write and a flush cost one trip to the device, not two. To everybody else it is a Device like
// any other.
//
// Invariants: a block is kept once, with its newest content; reads see it; nothing is written over it, and
// its place is not discarded, while it is kept; flush() writes everything that was kept when it began. What
// is kept and was neither carried nor flushed is lost with the process, like the records that name it. A
// block that cannot be written stays readable, and from then on every flush fails. Memory: most_blocks,
// allocated once. Thread: the store's.
#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <vector>

#include "io/device.h"
#include "io/sync.h"
#include "store/journal.h"

namespace obraz {

class WriteBehind final : public Device {
 public:
  // most_blocks: kept at a time; 0: none.
  WriteBehind(Executor& executor, Device& device, uint64_t most_blocks);

  // Whether the blocks were taken; then they count as written. Whole blocks; nobody else writes there
  // meanwhile.
  bool write_later(uint64_t offset, ConstBytes from);
  // Whether every block of the range is kept and may still change.
  bool keeps(uint64_t offset, uint64_t length) const;
  uint64_t kept_blocks() const { return places_.size(); }

  // Writes nothing that is not being written already, and waits for that.
  Task<void> stop();

  uint64_t size_bytes() const override { return device_.size_bytes(); }
  Task<Status> read(uint64_t offset, Bytes into) override;
  Task<Status> write(uint64_t offset, ConstBytes from) override;
  Task<Status> flush() override;
  Task<Status> discard(uint64_t offset, uint64_t length) override;
  Task<Status> allocate(uint64_t offset, uint64_t length) override {
    return device_.allocate(offset, length);
  }
  bool can_allocate() const override { return device_.can_allocate(); }

 private:
  struct Kept {
    uint64_t offset = 0, number = 0;
    bool used = false, writing = false;
  };
  // Writing begins when it is nearly full, and ends when it is nearly empty.
  bool is_crowded() const { return places_.size() > kept_.size() - kept_.size() / 4; }
  bool is_thinned() const { return places_.size() <= kept_.size() / 8; }
  Bytes content(size_t index) const { return contents_.bytes().subspan(index * kBlockSize, kBlockSize); }
  bool touches(uint64_t offset, uint64_t length) const;
  Task<Status> read_around(uint64_t offset, Bytes into);
  Task<void> read_run(uint64_t offset, Bytes into, Status& status);
  Task<Status> write_after(uint64_t offset, ConstBytes from);
  Task<Status> flush_kept();
  Task<Status> discard_after(uint64_t offset, uint64_t length);
  void put(size_t index);
  Task<void> put_now(size_t index);
  Task<void> thin_out();

  Executor& executor_;
  Device& device_;
  std::vector<Kept> kept_;
  std::vector<uint32_t> free_;
  boost::unordered_flat_map<uint64_t, uint32_t> places_;  // offset → index
  AlignedBytes contents_;
  uint64_t next_number_ = 1, writing_ = 0;
  Status error_;  // of the first block that could not be written
  bool thinning_ = false, stopping_ = false;
  Event changed_;
  Gate gate_;
};

}  // namespace obraz
