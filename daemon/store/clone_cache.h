// CloneCache: blocks of clusters that more than one volume shows, kept in memory, so that many disks of one
// image read it from the device once (docs/architecture.md, "The cache of clones").
//
// Invariants: what is valid here is what the device holds, and nobody is writing it. Whoever is about to
// write to a cluster calls drop() first, in the same instant; that also voids the fills of it that are under
// way, so that a read which began before the write leaves nothing behind. Bounded in bytes, what describes
// the blocks included; all of it is one mapping, which takes memory only as it fills, and nothing allocates
// after the construction. Every operation takes constant time, eviction amortized.
//
// Eviction is S3-FIFO (Yang and others, "FIFO queues are all you need for cache eviction", SOSP 2023): what
// is new enters a small queue, a tenth of the whole; what was used more than once there moves to the main
// queue, where it gets second chances; what leaves the small queue unused is remembered by its number for as
// long as it takes to evict once what the whole cache holds, and goes to the main queue if it comes back. A
// scan thus passes through a tenth of the cache.
//
// What one volume reads while no other one does would be of use to nobody but its guest, which caches it
// itself; so of that only the beginning is kept, as much as a boot reads. Of the rest it is remembered who
// has read it, and it is kept when another volume asks for it. Thread: the store's. No I/O.
#pragma once

#include <memory>

#include "base/bytes.h"
#include "base/limits.h"
#include "io/sync.h"
#include "store/types.h"

namespace obraz {

// Blocks `mask` of a cluster in the memory of a request: `bytes` begins with block `first`.
struct BlockRun {
  PhysicalCluster cluster;
  unsigned first = 0;
  Bytes bytes;
  uint16_t mask() const {
    const unsigned end = first + unsigned(bytes.size() / kBlockSize);
    return uint16_t(((1u << end) - 1) & ~((1u << first) - 1));
  }
  Bytes block(unsigned block) const { return bytes.subspan((block - first) * kBlockSize, kBlockSize); }
};

class CloneCache {
 public:
  // bytes: what it may take; less than a few clusters, or no memory for it: it is off.
  CloneCache(Executor& executor, uint64_t bytes);
  CloneCache(const CloneCache&) = delete;
  ~CloneCache();
  bool on() const { return frame_count_ > 0; }
  // So much is kept of what one volume reads while no other one does (kClonesKeptForOne).
  void keep_for_one(uint64_t bytes) { blocks_for_one_ = bytes / kBlockSize; }

  // --- looking; an answer is good until the next co_await
  struct Found {
    uint16_t valid = 0, filling = 0;  // blocks that are here; that somebody is reading for the cache
    uint32_t entry = 0;
  };
  Found look(PhysicalCluster cluster) const;
  // Copies the blocks of the mask, all of them valid, into the run. Counts as one use of the cluster.
  void copy(const Found& found, uint16_t mask, const BlockRun& into);

  // --- filling
  // A read of the device whose blocks are to be kept. Lives in a pool of the cache, from begin() to end().
  class Fill {
   public:
    uint16_t mask() const { return mask_; }
    Fill* next = nullptr;  // for its owner, who may have several

   private:
    friend class CloneCache;
    BlockRun run_;
    uint16_t mask_ = 0;
    bool pending_ = false;  // neither ended nor voided
    Fill* chain_ = nullptr;
    WaitQueue waiters_;
  };
  struct Reader {
    VolumeId volume;
    bool scan = false;  // the request is a copy, a backup
  };
  // From before the read of the device. mask: blocks of the run, none valid, none being filled. nullptr: they
  // are not to be kept, because too many fills are under way, or the cluster was not evicted lately and the
  // request is a scan, or the volume reads alone. The run's memory is the caller's until end().
  Fill* begin(const BlockRun& run, uint16_t mask, const Reader& reader);
  // good: the run holds what the device holds, verified; kept then, unless the fill was voided. Wakes who
  // waits.
  void end(Fill* fill, bool good);
  // The fill of any of the blocks; nullptr: none is under way.
  Fill* filling(PhysicalCluster cluster, uint16_t mask) const;
  // co_await ended(*fill): resumes when it has ended or was voided; the caller looks again by itself. It must
  // not have a fill of its own meanwhile, or two could wait for each other.
  struct Awaiter {
    Fill& fill;
    WaitQueue::Node node;
    bool await_ready() const { return false; }
    void await_suspend(std::coroutine_handle<> waiter) {
      node.waiter = waiter;
      fill.waiters_.push(node);
    }
    void await_resume() const {}
  };
  static Awaiter ended(Fill& fill) { return {fill, {}}; }

  // The cluster is about to be written, or is not to be believed any more.
  void drop(PhysicalCluster cluster);

  // --- counts; hits and misses in blocks
  uint64_t size_bytes() const { return mapped_bytes_; }  // at most, with all that describes it
  uint64_t used_bytes() const { return used_frames_ * kBlockSize; }
  uint64_t hits() const { return hits_; }
  uint64_t misses() const { return misses_; }
  void count_misses(unsigned blocks) { misses_ += blocks; }
  uint64_t fills_under_way() const { return fills_under_way_; }

 private:
  // Numbers of entries begin at 1; 0 is none. Zeroed memory is an empty cache.
  struct Entry {
    uint32_t cluster = 0;  // fits: kMaxDataSize has 2^30
    uint32_t chain = 0;    // the next of the same bucket; of the free ones
    uint32_t newer = 0, older = 0;
    uint16_t valid = 0;
    uint8_t uses = 0;
    bool is_main = false;
    uint32_t frames[kBlocksPerCluster] = {};
  };
  struct Queue {
    uint32_t newest = 0, oldest = 0;
    uint64_t frames = 0;
  };
  struct Ghost {
    uint32_t cluster = 0, evicted_at = 0;
  };
  struct Seen {
    uint32_t cluster = 0, volume = 0;  // the low half of its number
  };
  static constexpr uint8_t kMostUses = 3;

  static uint64_t hash(PhysicalCluster cluster) { return cluster.value * 0x9e3779b97f4a7c15u >> 32; }
  uint32_t* bucket(PhysicalCluster cluster) const { return &buckets_[hash(cluster) & bucket_mask_]; }
  Fill** fill_bucket(PhysicalCluster cluster) const { return &fill_buckets_[hash(cluster) & fill_mask_]; }
  uint32_t find(PhysicalCluster cluster) const;
  bool is_ghost(PhysicalCluster cluster) const;
  bool is_for_others(PhysicalCluster cluster, VolumeId volume, unsigned blocks);
  void keep(const Fill& fill);
  void evict_one();
  void remove(uint32_t index);
  void push(uint32_t index);  // as newest of its queue
  void unlink(uint32_t index);
  Queue& queue_of(const Entry& entry) { return entry.is_main ? main_ : small_; }
  uint32_t take_entry();
  uint32_t take_frame();
  std::byte* frame(uint32_t number) const { return frames_ + uint64_t(number - 1) * kBlockSize; }
  void settle(Fill* fill);  // nobody finds it any more, and who waits goes on

  Executor& executor_;
  uint64_t frame_count_ = 0, used_frames_ = 0, mapped_bytes_ = 0;
  std::byte* memory_ = nullptr;
  Entry* entries_ = nullptr;
  uint32_t* buckets_ = nullptr;
  Ghost* ghosts_ = nullptr;
  Seen* seen_ = nullptr;
  std::byte* frames_ = nullptr;
  uint64_t bucket_mask_ = 0;  // of buckets and of ghosts
  uint64_t seen_mask_ = 0;
  uint32_t free_entry_ = 0, fresh_entries_ = 0, free_frame_ = 0,
           fresh_frames_ = 0;    // fresh: never used so far
  uint32_t evicted_frames_ = 0;  // the clock of the ghosts
  Queue small_, main_;
  std::unique_ptr<Fill[]> fills_;
  std::unique_ptr<Fill*[]> fill_buckets_;
  uint64_t fill_mask_ = 0, fills_under_way_ = 0;
  Fill* free_fill_ = nullptr;
  uint64_t hits_ = 0, misses_ = 0;
  uint64_t blocks_for_one_ = limits::kClonesKeptForOne / kBlockSize;
  VolumeId last_reader_;
  uint64_t read_alone_ = 0;  // blocks, by the last reader, since another one read
};

}  // namespace obraz
