// Journal: the ordered log of records in a ring of `meta` (docs/disk-format.md, section 6).
//
// Invariants: records are staged in the order in which they were applied; what is staged together is in one
// batch; position − tail never exceeds the ring, because room is reserved before the work that will stage.
// What a crash leaves behind: a chain of whole batches from the last checkpoint on, ended by the first that
// does not verify. Thread: the store's.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "io/device.h"
#include "store/disk_format.h"

namespace obraz {

// Memory for device I/O: 4 KiB aligned, a multiple of 4 KiB, zeroed.
class AlignedBytes {
 public:
  AlignedBytes() = default;
  explicit AlignedBytes(size_t size);
  Bytes bytes() const { return {data_.get(), size_}; }
  size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(std::byte* data) const;
  };
  std::unique_ptr<std::byte, Free> data_;
  size_t size_ = 0;
};

class Journal {
 public:
  Journal(Device& meta, const disk::Superblock& superblock);

  // --- room
  // -----------------------------------------------------------------------------------------------------------
  // What staging records of `record_bytes` together may take, at most.
  static uint64_t cost_of(uint64_t record_bytes) {
    return round_up(record_bytes + disk::BatchHeader::kSize, disk::kPageSize);
  }
  bool try_reserve(uint64_t cost);
  void unreserve(uint64_t cost) { reserved_ -= cost; }
  // Bytes between the tail and what staged records will reach.
  uint64_t used() const { return position_ - tail_ + staged_bytes(); }
  uint64_t size() const { return size_; }
  void free_up_to(uint64_t position) { tail_ = position; }

  // --- staging and writing
  // ---------------------------------------------------------------------------------------------- Room must
  // have been reserved; the caller gives its reservation back after this.
  void stage(std::span<const disk::Record> records);
  bool empty() const { return batches_.empty(); }
  uint64_t staged_bytes() const;
  struct Sealed {
    uint64_t position = 0;
    AlignedBytes bytes;  // whole batches, one after the other
    uint64_t batches = 0;
  };
  // Everything staged becomes batches with their place, sequence and chain. Memory only.
  Sealed seal();
  // Not durable before the device is flushed.
  Task<Status> write(const Sealed& sealed);

  // As of the last seal.
  Sequence sequence() const { return sequence_; }
  uint32_t chain() const { return chain_; }
  uint64_t position() const { return position_; }
  void start_run(uint64_t run) { run_ = run; }

  // --- recovery
  // -----------------------------------------------------------------------------------------------------------
  // The next batch that follows, as its records; empty when the journal ends here. Errors: io, corruption (a
  // batch that verifies holds what is no record).
  Task<Result<std::vector<disk::Record>>> read_next();
  // Where the journal ends for read_next(): whether it does, or a batch that was durable is damaged there and
  // others follow it. Reads the rest of the ring. Errors: io, corruption.
  Task<Status> check_end();

 private:
  Task<Status> transfer(uint64_t position, Bytes bytes, bool writing);
  uint64_t place(uint64_t position) const {
    return disk::kJournalFirstPage * disk::kPageSize + position % size_;
  }

  Device& meta_;
  const Uuid uuid_;
  const uint64_t size_;
  uint64_t run_, position_, tail_, reserved_ = 0;
  Sequence sequence_;
  uint32_t chain_;
  std::vector<std::vector<std::byte>> batches_;  // staged, each with room for its header in front
  uint64_t full_batches_bytes_ = 0;              // of all but the last, rounded
};

}  // namespace obraz
