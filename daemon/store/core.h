// StoreCore: the store's moving parts around State and Journal — commits, checkpoints, the drop rule,
// admission, growth, the reclaimer, recovery — and the data path of volumes (data_path.cpp).
//
// Invariants: whoever will stage a record holds an Admission (journal room, pages, place among the dirty
// nodes) first and takes it while it is in nobody's way: not registered in `io`, so that no drop waits for
// it. A failed flush, journal or checkpoint write fails the store for good: read-only, nothing acknowledged.
// What a crash leaves behind: docs/disk-format.md, sections 7 and 8, step by step. Thread: the executor's.
#pragma once

#include <boost/container/small_vector.hpp>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/sync.h"
#include "store/clone_cache.h"
#include "store/disk_format.h"
#include "store/journal.h"
#include "store/request_order.h"
#include "store/state.h"
#include "store/store.h"
#include "store/unflushed.h"
#include "store/write_behind.h"

namespace obraz {

class StoreCore {
 public:
  StoreCore(Executor& executor, Device& meta, Device& data, const StoreOptions& options,
            const disk::Superblock& superblock);
  StoreCore(const StoreCore&) = delete;

  // --- opening and closing (recovery.cpp)
  // ----------------------------------------------------------------------------- Superblock, label, tables,
  // replay: everything of recovery that writes nothing. The checker stops here.
  static Task<Result<std::unique_ptr<StoreCore>>> load(Executor& executor, Device& meta, Device& data,
                                                       StoreOptions options);
  // The checkpoint that begins a run; then the background work starts.
  Task<Status> start();
  Task<Status> close();
  Task<void> abandon();

  // Puts what the journal carries of the cluster, and recovery has not put in its place yet, over its bytes.
  void lay_carried(PhysicalCluster cluster, Bytes bytes) const;

  // --- commits
  // ----------------------------------------------------------------------------------------------------------
  // Waits for a commit sealed after this call. Everything staged, and every data write completed, before it
  // is durable then.
  Task<Status> join_commit();
  // Applies the records and puts them into one batch. Synchronous; admitted, admissible and loaded before.
  void stage(std::span<const disk::Record> records);
  Task<Status> run_checkpoint(bool clean);
  Task<Status> commit(Transaction transaction);

  // --- admission
  // --------------------------------------------------------------------------------------------------------
  class Admission {
   public:
    Admission() = default;
    Admission(const Admission&) = delete;
    ~Admission() { release(); }
    explicit operator bool() const { return core_ != nullptr; }
    void release();

   private:
    friend class StoreCore;
    StoreCore* core_ = nullptr;
    uint64_t journal_bytes_ = 0, pages_ = 0;
  };
  struct Cost {
    uint64_t record_bytes = 0;  // of what will be staged together
    uint64_t node_pages = 0;    // that may be made
    uint64_t table_pages = 0;   // by which the tables of the next checkpoint may grow
    // Gives space back in the end, or is small: may use what is kept from all others.
    bool essential = false;
  };
  // May wait for a checkpoint. Errors: no_space (of metadata), read_only (failed store).
  Task<Status> admit(const Cost& cost, Admission& admission);
  // The same where nothing need be waited for; whether that was so.
  bool admit_now(const Cost& cost, Admission& admission);
  enum class Lack : uint8_t { nothing, pages, clean_nodes, journal };
  using Clusters = boost::container::small_vector<PhysicalCluster, 16>;
  // Adds free clusters to `clusters` until it has `count`; may wait for growth or for the reclaimer.
  // no_space.
  Task<Status> allocate_clusters(uint64_t count, uint64_t hint, Clusters& clusters);
  // The same with what is free now; whether it was enough.
  bool take_clusters(uint64_t count, uint64_t hint, Clusters& clusters);
  void give_back(PhysicalCluster cluster);

  // --- data path (data_path.cpp)
  // ----------------------------------------------------------------------------------------
  using VolumePtr = std::shared_ptr<VolumeState>;
  Task<Status> read(VolumePtr volume, uint64_t offset, Bytes into, std::vector<Extent>* extents,
                    ReadFrom from);
  Task<Status> write(VolumePtr volume, uint64_t offset, ConstBytes from, bool fua);
  Task<Status> zero(VolumePtr volume, uint64_t offset, uint64_t length, bool keep_allocated, bool fua);
  Task<Status> discard(VolumePtr volume, uint64_t offset, uint64_t length, bool fua);
  Task<Status> cache(VolumePtr volume, uint64_t offset, uint64_t length);
  Task<Status> block_status(VolumePtr volume, uint64_t offset, uint64_t length, size_t max_extents,
                            std::vector<Extent>& out);
  // What was read of summed clusters: whole blocks, all of one cluster.
  struct ToVerify {
    PhysicalCluster cluster;
    uint64_t offset = 0;  // in the volume
    ConstBytes bytes;
  };
  using ToVerifyList = boost::container::small_vector<ToVerify, 4>;
  // Compares them with their checksums; bad ones are remembered and named. corruption. The caller's request
  // was in flight since before it looked the clusters up.
  Task<Status> verify(VolumeState& volume, std::span<const ToVerify> parts);
  // The same as far as the checksums are in memory: takes what it has compared off the front of `parts`.
  Status verify_now(VolumeState& volume, std::span<const ToVerify>& parts);
  // --- whole trees (tree_walk.cpp)
  // ---------------------------------------------------------------------------------------
  Task<Status> diff(VolumePtr a, VolumePtr b, std::move_only_function<bool(Extent)> visit);
  Task<Result<Store::Usage>> usage(VolumePtr volume);
  // Bytes of data that deleting all of them would free.
  Task<Result<uint64_t>> freed_by_deleting(std::vector<VolumePtr> volumes);

  // The leaf for a cluster, loaded if need be. The view is good until the next co_await of the caller.
  Task<Result<LeafView>> leaf(VolumePtr volume, VirtualCluster cluster);
  // Loads what is missing; a damaged node marks the volume.
  Task<Status> load_missing(const Missing& missing, VolumeState& volume);

  // Clusters that what is known to be dropped will free; a lower bound, for only so much of it is looked at.
  uint64_t reclaimable_clusters() const;

  // Frozen volumes whose checksums are still to be computed, the one under way included.
  uint64_t volumes_to_sum() const { return to_sum_.size(); }

  Status check_usable() const;  // unavailable when closing, read_only when failed
  void fail(const char* what, const Error& error);
  void end_io(IoTracker::Entry& entry) {
    entry.end();
    settle();
  }

  Executor& executor;
  Device& meta;
  WriteBehind data;
  const StoreOptions options;
  disk::Superblock superblock;  // of the last durable checkpoint
  State state;
  Journal journal;
  Unflushed unflushed;  // what the next commit makes durable in `data`
  IoTracker io;         // device requests of all volumes
  Gate operations;      // requests and transactions under way
  StoreStats counters;
  std::string failure;  // why the store is read-only; empty when it is not
  uint64_t damaged_events = 0;
  CloneCache clone_cache;
  // Snapshots and clones that wait for writes which were in flight at their instant.
  unsigned landing = 0;

 private:
  struct Frozen {
    FrozenState state;
    disk::Superblock superblock;
  };
  struct PendingDrop {
    Drop drop;
    uint64_t record, io_mark;
  };
  struct Window;
  class CachedRead;  // cached_read.h
  struct Segment {
    uint64_t device_offset = 0;
    Bytes bytes;
    bool write = false;
  };

  using Segments = boost::container::small_vector<Segment, 4>;

  Task<void> commit_loop();
  Task<void> commit_once();
  bool can_carry(bool freezes) const;
  Status seal_flushed(Journal::Sealed& sealed);
  // Flushes `meta`, with the batches if any written before.
  Task<Status> flush_meta(const Journal::Sealed* sealed = nullptr);
  Task<void> ticker();
  Task<void> checkpoint_loop();
  Task<void> reclaim_loop();
  Task<void> reclaim_step();
  Task<Status> make_room_in_recovery(uint64_t pages, bool allocate);
  Task<void> give_back_loop();
  void space_freed();
  // --- checksums of data (integrity.cpp)
  // ------------------------------------------------------------------------------------------------------
  struct LeafClusters;
  Task<void> sum_loop();
  Task<Status> sum_volume(VolumePtr volume);
  Task<Status> sum_leaf(VolumePtr volume, VirtualCluster at, Page leaf);
  static Segment whole_cluster(PhysicalCluster cluster, Bytes buffer, size_t i);
  Task<Status> read_to_sum(LeafClusters& clusters);
  Task<Status> store_sums(VolumePtr volume, LeafClusters& clusters);
  Task<Status> load_sums(PhysicalCluster cluster, VolumeState& volume);
  Task<void> scrub_loop();
  Task<void> scrub_pass();
  Task<Status> scrub_leaf(VolumePtr volume, VirtualCluster at, std::vector<bool>& visited);
  void report_bad(VolumeState& volume, VirtualCluster at, PhysicalCluster cluster, uint16_t blocks,
                  const char* what);
  bool ending() const { return stopping_ || !failure.empty(); }
  Task<Status> write_checkpoint(Frozen& frozen);
  Task<void> write_run(uint64_t first_page, AlignedBytes* bytes, Status* status);
  std::unique_ptr<Frozen> freeze();
  Lack try_admit(const Cost& cost, Admission& admission);
  void want_commit();
  void want_checkpoint();
  void settle();
  Task<Status> grow(Space& space, Device& device, uint64_t unit_bytes, Mutex& mutex);
  Status check_transaction(std::span<const disk::Record> records) const;
  Task<Status> load_table(unsigned id);
  Task<Status> land_carried();
  Task<Status> replay();
  Task<void> stop_background();
  Task<void> stop_commits();

  Status check_range(const VolumeState& volume, uint64_t offset, uint64_t length) const;
  // The same, and whether the range may be zeroed or discarded.
  Status check_change(const VolumeState& volume, uint64_t offset, uint64_t length) const;
  Task<Status> write_window(const VolumePtr& volume, uint64_t offset, ConstBytes from);
  std::optional<Missing> look(Window& window);
  bool plan_now(Window& window);
  Task<Status> plan(Window& window);
  bool prepare_now(Window& window);
  Task<Status> prepare(Window& window);
  void gather(const Window& window, Segments& segments);
  bool write_later(const Window& window, const Segments& segments);
  Task<Status> move_data(Window& window);
  Task<Status> copy_own(Window& window);
  Result<std::optional<Missing>> record(Window& window);
  static void append(Segments& segments, const Segment& next);
  // All of them, or an error. The segments stay in place until it has ended.
  Task<Status> transfer(const Segments& segments);
  Task<Status> transfer_one(const Segment& segment);
  Task<Status> transfer_all(const Segments& segments);
  Task<void> transfer_beside(const Segment& segment, Status& status);
  Task<Status> write_segment(Segment segment);
  Task<Status> read_bounced(VolumePtr volume, uint64_t offset, Bytes into, std::vector<Extent>* extents,
                            ReadFrom from);
  Task<Status> read_piece(VolumePtr volume, uint64_t offset, Bytes into, bool direct,
                          std::vector<Extent>* extents, ReadFrom from);
  Task<Status> read_block(VolumeState& volume, const Slot& slot, uint64_t offset, Bytes into);
  struct SubtreeView {
    LeafView leaf;
    std::optional<unsigned> drop_level;  // a whole node of this level can go
  };
  Task<Result<SubtreeView>> leaf_or_subtree(VolumePtr volume, VirtualCluster cluster, uint64_t block,
                                            uint64_t reach);
  Task<Status> deallocate(VolumePtr volume, uint64_t first_block, uint64_t end_block);

  // The blocks that could not be written as the journal carries them now; WriteBehind::stuck_version().
  uint64_t carried_stuck_ = 0;
  // Recovery's: what the journal carries and has not landed, by its place in `data`.
  std::map<uint64_t, AlignedBytes> carried_;
  std::deque<PendingDrop> drops_;
  std::vector<Drop> applied_drops_;  // of one record; kept so that staging allocates nothing
  uint64_t records_ = 0, durable_records_ = 0, sealed_ = 0, reserved_pages_ = 0;
  bool commit_wanted_ = false, checkpoint_wanted_ = false, freeze_wanted_ = false, stopping_ = false;
  bool committing_ = false;
  bool giving_back_ = false;       // a slab that is neither free nor ungrown meanwhile
  bool commits_stopping_ = false;  // later than stopping_: whoever is stopping may still need a commit
  std::unique_ptr<Frozen> frozen_;
  Event commit_event_, staged_event_, checkpoint_event_, room_event_, space_event_, reclaim_event_,
      give_back_event_, sum_event_;
  std::array<Event, 2> commit_done_;  // by parity of the commit's number: one runs, the next gathers
  Mutex checkpoint_mutex_, page_growth_, cluster_growth_, transaction_order_, meta_flush_;
  Timer commit_timer_, reclaim_timer_, give_back_timer_, sum_timer_, scrub_timer_;
  std::deque<VolumePtr> to_sum_;
  Gate background_, committer_;
};

}  // namespace obraz
