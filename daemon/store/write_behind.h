// WriteBehind: the data device with a little memory in front of it. A small write that needs a commit to mean
// anything is kept here and written later; the commit's journal write carries its blocks (unflushed.h), so
// that such a write and a flush cost one trip to the device, not two. To everybody else it is a Device like
// any other.
//
// Invariants: a block is kept once, with its newest content; reads see it; nothing is written over it, and
// its place is not discarded, while it is kept; flush() writes everything that was kept when it began. What
// is kept and was neither carried nor flushed is lost with the process, like the records that name it. A
// block that cannot be written is *stuck*: it stays here, readable and unchanged, until a flush or a write to
// its place succeeds or the place is discarded, and the store has the journal carry it; while there are any,
// nothing else is kept. Memory: most_blocks and kMaxStuckBlocks, allocated once. Thread: the store's.
#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <vector>

#include "io/device.h"
#include "io/sync.h"
#include "store/disk_format.h"
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

  uint64_t stuck_blocks() const { return stuck_; }
  static constexpr uint64_t kNoVersion = UINT64_MAX;
  uint64_t stuck_version() const { return stuck_version_; }  // another one for each change of what is stuck
  // Views into memory of this object, until the caller's next co_await.
  std::vector<disk::BlockRecord> stuck() const;
  // A block that recovery could not write; whether there was room.
  bool keep_stuck(uint64_t offset, ConstBytes content);

  // Writes nothing that is not being written already, and waits for that.
  Task<void> stop();

  uint64_t size_bytes() const override { return device_.size_bytes(); }
  Task<Status> read(uint64_t offset, Bytes into) override;
  Task<Status> write(uint64_t offset, ConstBytes from) override;
  // Does not fail for a block that is stuck.
  Task<Status> flush() override;
  Task<Status> discard(uint64_t offset, uint64_t length) override;
  Task<Status> allocate(uint64_t offset, uint64_t length) override {
    return device_.allocate(offset, length);
  }
  bool can_allocate() const override { return device_.can_allocate(); }

 private:
  struct Kept {
    uint64_t offset = 0, number = 0;
    bool used = false, stuck = false;
    bool busy = false;  // on its way to the device, or not to be replaced for another reason
  };
  // Writing begins when it is nearly full, and ends when it is nearly empty.
  bool is_crowded() const { return places_.size() > most_ - most_ / 4; }
  bool is_thinned() const { return places_.size() <= most_ / 8; }
  Bytes content(size_t index) const { return contents_.bytes().subspan(index * kBlockSize, kBlockSize); }
  bool touches(uint64_t offset, uint64_t length) const;
  size_t take(uint64_t offset);
  void drop(size_t index);
  void set_stuck(Kept& kept, bool stuck);
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
  const uint64_t most_;
  std::vector<Kept> kept_;
  std::vector<uint32_t> free_;
  boost::unordered_flat_map<uint64_t, uint32_t> places_;  // offset → index
  AlignedBytes contents_;
  uint64_t next_number_ = 1, writing_ = 0, stuck_ = 0, stuck_version_ = 0;
  bool thinning_ = false, stopping_ = false;
  Event changed_;
  Gate gate_;
};

}  // namespace obraz
