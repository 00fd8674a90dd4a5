// Journal: the ordered log of records in a ring of `meta` (docs/disk-format.md, section 6).
//
// Invariants: records are staged in the order in which they were applied; what is staged together is in one
// batch; a seal takes what was closed off before; position − tail never exceeds the ring, because room is
// reserved before the work that will stage. Blocks of data are carried at the head of a seal's first batch.
// What a crash leaves behind: a chain of whole batches from the last checkpoint on, ended by the first that
// does not verify. Thread: the store's.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/limits.h"
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
  // Every batch has room for a landed record beside its header.
  static constexpr uint64_t kMaxRecordBytes =
      limits::kMaxBatchSize - disk::BatchHeader::kSize - disk::kLandedRecordSize;
  // What staging records of `record_bytes` together may take, at most.
  static constexpr uint64_t cost_of(uint64_t record_bytes) {
    return round_up(disk::BatchHeader::kSize + disk::kLandedRecordSize + record_bytes, disk::kPageSize);
  }
  bool try_reserve(uint64_t cost);
  void unreserve(uint64_t cost) { reserved_ -= cost; }
  // Bytes between the tail and what staged records will reach.
  uint64_t used() const { return position_ - tail_ + staged_bytes(); }
  uint64_t size() const { return size_; }
  // A checkpoint is durable whose next batch is at the position; nothing before it carries what has not
  // landed.
  void free_up_to(uint64_t position) { tail_ = position; }

  // --- staging and writing
  // ---------------------------------------------------------------------------------------------- Room must
  // have been reserved; the caller gives its reservation back after this.
  void stage(std::span<const disk::Record> records);
  bool empty() const { return batches_.empty(); }
  uint64_t staged_bytes() const;
  struct Sealed {
    uint64_t position = 0;
    Bytes bytes;  // whole batches, one after the other; the journal's, until the next seal
    uint64_t batches = 0;
  };
  // What is staged now will be sealed next; what comes later goes into other batches.
  void close_off() { closed_ = batches_.size(); }
  // Whether the blocks can be carried by the next seal: all in one batch with everything that is staged, in
  // what is left of the ring when all reservations are used.
  bool can_carry(size_t blocks) const;
  // Whether there is room for a seal that says that blocks have landed, but for so many that it carries on.
  bool can_carry_on(size_t blocks) const;
  // Everything closed off becomes batches with their place, sequence and chain. Memory only. With `blocks`,
  // for which there is room, or `landed`, there is a batch in any case. Landed are all blocks but these.
  Sealed seal(bool landed = false, std::span<const disk::BlockRecord> blocks = {});
  // Whether the ring holds blocks that have not landed.
  bool carries() const { return carries_; }
  Task<Status> write_and_flush(const Sealed& sealed);

  // As of the last seal.
  Sequence sequence() const { return sequence_; }
  uint32_t chain() const { return chain_; }
  uint64_t position() const { return position_; }
  void start_run(uint64_t run) { run_ = run; }

  // --- recovery
  // -----------------------------------------------------------------------------------------------------------
  struct Batch {
    std::vector<disk::Record> records;  // none: the journal has ended
    AlignedBytes bytes;                 // into which they point
  };
  // The next batch that follows. Errors: io, corruption (a batch that verifies holds what is no record).
  Task<Result<Batch>> read_next();
  // Where the journal ends for read_next(): whether it does, or a batch that was durable is damaged there and
  // others follow it. Reads the rest of the ring. Errors: io, corruption.
  Task<Status> check_end();

 private:
  enum class Way : uint8_t { read, write_and_flush };
  Task<Status> transfer(uint64_t position, Bytes bytes, Way way);
  uint64_t place(uint64_t position) const {
    return disk::kJournalFirstPage * disk::kPageSize + position % size_;
  }

  Device& meta_;
  const Uuid uuid_;
  const uint64_t size_;
  uint64_t run_, position_, tail_, reserved_ = 0;
  Sequence sequence_;
  uint32_t chain_;
  std::vector<std::vector<std::byte>> batches_;  // staged
  size_t closed_ = 0;                            // the first ones, which take no more
  uint64_t full_batches_bytes_ = 0;              // of all but the last, rounded
  // Memory of what was sealed, kept for the next time, when it has been written.
  std::vector<std::byte> spare_batch_, head_;
  AlignedBytes sealed_;
  // While set, some of the ring is reserved, so that there is room to say that the blocks have landed, and to
  // carry on those that cannot, before and after a checkpoint.
  bool carries_ = false;
};

}  // namespace obraz
