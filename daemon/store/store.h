// Store: all volumes of a daemon on two devices, with one journal (docs/disk-format.md).
//
// Invariants: properties P1–P13 of docs/architecture.md. What a crash leaves behind: everything acknowledged
// as durable, nothing half-done; open() is recovery. Thread: one, the executor's; nothing here takes a lock.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/limits.h"
#include "base/result.h"
#include "base/uuid.h"
#include "io/device.h"
#include "io/executor.h"
#include "io/task.h"
#include "store/types.h"
#include "store/volume.h"

namespace obraz {

struct FormatOptions {
  Uuid uuid;  // of the new store
  uint64_t journal_bytes = limits::kDefaultJournalSize;
};

struct StoreOptions {
  uint64_t node_cache_bytes = limits::kDefaultNodeCacheSize;
  uint64_t dirty_nodes = limits::kDefaultDirtyNodes;    // a checkpoint starts at this many
  uint64_t carried_blocks = limits::kMaxCarriedBlocks;  // at most, by the journal in one commit; 0: none
  uint64_t kept_blocks =
      limits::kKeptBlocks;                  // at most, of small writes that go to the device later; 0: none
  uint64_t commit_interval_us = 1'000'000;  // records wait at most this long for a commit nobody asked for
  uint64_t reclaim_pause_us = 1'000;        // between steps of the reclaimer
  unsigned reclaim_step_nodes = 16;         // nodes dropped in one step
  uint64_t slab_bytes = limits::kSlabSize;  // data preallocated at a time
  uint64_t give_back_bytes_per_s = limits::kGiveBackRate;  // of slabs that nothing uses any more
  // Bytes read per second; 0: not at all.
  uint64_t sum_bytes_per_s = limits::kDefaultSumRate;                           // to checksum what was frozen
  uint64_t scrub_bytes_per_s = limits::kDefaultScrubRate;                       // to verify it again
  uint64_t scrub_interval_us = limits::kDefaultScrubDays * 86'400 * 1'000'000;  // from start to start
  uint64_t clone_cache_bytes = 0;  // memory for data that several volumes show; 0: none
  uint64_t clones_kept_for_one = limits::kClonesKeptForOne;  // bytes, of what only one volume reads
};

class StoreCore;

class Store {
 public:
  // Writes an empty store over whatever the devices hold. Refuses sizes beyond limits.h.
  static Task<Status> format(Device& meta, Device& data, FormatOptions options);
  // How large `meta` should be for `data_bytes` of data (bytes, multiple of 4 KiB).
  static uint64_t meta_bytes_for(uint64_t data_bytes, uint64_t journal_bytes);

  // Recovers and serves. Errors: not_found (neither superblock is one of ours: not a store), corruption
  // (superblocks or counts damaged beyond use), unsupported (feature or version), io. The devices and the
  // executor outlive the store.
  static Task<Result<std::unique_ptr<Store>>> open(Executor& executor, Device& meta, Device& data,
                                                   StoreOptions options);
  ~Store();

  // Checkpoints, so that the next open replays nothing, and stops the background work. Requests and
  // transactions must have ended; new ones get `unavailable`. Call it before destruction.
  Task<Status> close();
  // Stops the background work without a checkpoint and without any further write; for tests of crashes.
  Task<void> abandon();

  // A number for a new volume; unused ones are never used again.
  VolumeId new_volume_id();
  // Applies all changes at one instant, or none, and returns when they are durable (and, for clones of disks,
  // when every write that was in flight at that instant is in them). Transactions take effect in the order of
  // the calls. Errors name the first change at fault.
  Task<Status> commit(Transaction transaction);

  Result<Volume> open_volume(VolumeId id);
  std::vector<VolumeInfo> volumes() const;
  Result<VolumeInfo> volume_info(VolumeId id) const;
  // Every resource, ordered by key.
  const std::vector<std::pair<std::string, std::string>> resources() const;

  // Durability for all volumes at once: joins the next commit.
  Task<Status> flush();
  Task<Status> checkpoint();

  // Calls `visit` with the ranges (multiples of 4 KiB) in which `a` and `b` may differ, ascending, merged, in
  // time proportional to the difference. Different sizes: what lies beyond the smaller one counts as zeros.
  // Ranges that hold equal bytes in different clusters are reported; equal clusters never are.
  // visit answers whether to go on.
  Task<Status> diff(Volume a, Volume b, std::move_only_function<bool(Extent)> visit);
  // Bytes of clusters the volume names (mapped), and of those that only this one cluster slot names
  // (exclusive).
  struct Usage {
    uint64_t mapped_bytes = 0, exclusive_bytes = 0;
  };
  Task<Result<Usage>> usage(Volume volume);
  // Bytes of data that deleting all of these volumes would free; exact when nothing changes meanwhile. Takes
  // time in proportion to what only they hold.
  Task<Result<uint64_t>> freed_by_deleting(std::vector<Volume> volumes);

  // Blocks of frozen data that were found not to fit their checksums; kMaxBadClusters clusters at most.
  std::vector<DataDamage> data_damage() const;

  SpaceInfo space() const;
  StoreHealth health() const;
  std::string health_reason() const;  // empty when ok
  StoreStats stats() const;
  Uuid uuid() const;

 private:
  friend class Volume;
  explicit Store(std::unique_ptr<StoreCore> core);
  std::unique_ptr<StoreCore> core_;
};

}  // namespace obraz
