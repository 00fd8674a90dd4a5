// State: the whole metadata of a store in memory, and the one function that changes it: apply(record). Run
// time, replay and the checker call the same.
//
// Invariants: changes are synchronous and complete; what they need must be in memory (needs() names what is
// not, and the caller loads it). Counts go up in apply() at once; what a change drops is returned as Drops
// and comes down only in release(), which the caller delays by the drop rule (docs/architecture.md). freeze()
// is the state at one instant. Thread: the store's. No coroutine, no I/O. What a crash leaves behind: nothing
// of this; see journal and checkpoint.
#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "store/disk_format.h"
#include "store/free_runs.h"
#include "store/node_cache.h"
#include "store/request_order.h"
#include "store/space.h"
#include "store/table.h"

namespace obraz {

struct VolumeState {
  explicit VolumeState(Executor& executor) : locks(executor), writes(executor) {}
  VolumeId id;
  VolumeKind kind = VolumeKind::disk;
  uint64_t size_bytes = 0;
  disk::PageRef root;       // its checksum is meaningful only while the root is not dirty
  unsigned level = 0;       // of the root
  uint64_t generation = 0;  // raised by revert: a write that began before it is not recorded
  uint32_t entry = 0;       // in the volume table
  bool deleted = false, damaged = false, changed = false;
  RangeLock locks;
  IoTracker writes;  // in flight, for snapshots
  uint64_t clusters() const { return divide_up(size_bytes, kClusterSize); }
};

// A reference that a change gave up and that still counts.
struct Drop {
  disk::PageRef node;  // or
  PhysicalCluster cluster;
  uint8_t level = 0;  // of the node
};

struct Missing {
  disk::PageRef ref;
  unsigned level = 0;
};

// What stands for a virtual cluster: its leaf, or a subtree that is absent.
struct LeafView {
  std::optional<Missing> missing;  // load it and look again
  const Node* leaf = nullptr;      // nullptr: absent
  bool shared = false;             // another volume can reach the leaf
  uint64_t end = 0;                // first virtual cluster beyond the leaf or the absent subtree
};

struct FrozenState {
  struct Image {
    Page page;
    std::unique_ptr<std::byte[], void (*)(void*)> content;
  };
  std::vector<Node*> nodes;   // pinned until NodeCache::written()
  std::vector<Image> images;  // table and index pages
  std::vector<Page> retired;  // free once this checkpoint is durable
  std::array<disk::TableRoot, disk::kTables> tables;
  disk::PageRef sums;
  VolumeId next_volume;
};

class State {
 public:
  State(Executor& executor, Device& meta, const disk::Superblock& superblock, uint64_t cache_nodes,
        uint64_t slab_clusters);

  // --- volumes and resources
  // ----------------------------------------------------------------------------------------
  std::shared_ptr<VolumeState> find_volume(VolumeId id) const;
  const std::map<VolumeId, std::shared_ptr<VolumeState>>& volumes() const { return volumes_; }
  const std::map<std::string, std::string>& resources() const { return resources_; }
  VolumeId take_volume_id() { return VolumeId{next_volume_.value++}; }

  // --- mapping
  // ------------------------------------------------------------------------------------------------------
  LeafView leaf_of(const VolumeState& volume, VirtualCluster cluster);
  // The node of a reference when it is in memory.
  Node* node(disk::PageRef ref, unsigned level);
  uint32_t cluster_count(PhysicalCluster cluster) const {
    return tables_[disk::kClusterCounts].u32(cluster.value) & disk::kMaxCount;
  }
  uint32_t page_count(Page page) const {
    return tables_[disk::kPageCounts].u32(page.value) & disk::kMaxCount;
  }
  // The slot's own cluster may not be written: it is reachable from elsewhere, or it has checksums.
  bool is_shared(const LeafView& view, const Slot& slot) const {
    return view.shared || (slot.own && (cluster_count(slot.own) > 1 || is_summed(slot.own)));
  }

  // --- checksums of data (state_sums.cpp; docs/disk-format.md, section 4a)
  // ------------------------------------------------------------------------------------------------------
  // The cluster is not written any more until its last reference is gone.
  bool is_summed(PhysicalCluster cluster) const {
    return tables_[disk::kClusterCounts].u32(cluster.value) & disk::kSummedBit;
  }
  // Every block that is shown below the node has a checksum.
  bool is_summed(Page node) const { return tables_[disk::kPageCounts].u32(node.value) & disk::kSummedBit; }
  // The node that holds the cluster's checksums.
  struct SumView {
    std::optional<Missing> missing;  // load it and look again
    const Node* node = nullptr;      // nullptr: absent, so all are 0
    unsigned first = 0;              // index of block 0's
    uint32_t of(unsigned block) const { return node ? node->sum(first + block) : 0; }
    // Those of the blocks from `first_block` on that do not fit their checksums. Nothing is missing.
    uint16_t bad_blocks(unsigned first_block, ConstBytes bytes) const;
  };
  SumView sums_of(PhysicalCluster cluster);
  disk::PageRef sum_root() const { return sum_root_; }
  unsigned sum_root_level() const { return sum_root_level_; }
  // The cluster is summed from now on. checksums: by block; those that are 0 leave what there is.
  // Precondition: the cluster is in use, sums_of() misses nothing, and kPagesPerSum pages are free.
  void set_sums(PhysicalCluster cluster, std::span<const uint32_t, kBlocksPerCluster> checksums);
  // All below is summed: the node is a leaf, or its children are.
  void set_summed(Page node);
  bool children_summed(const Node& node) const;
  static constexpr unsigned kPagesPerSum = disk::kMaxSumLevel - disk::kSumLevel + 1;
  uint64_t summed_clusters() const { return summed_clusters_; }
  // Blocks that were found not to fit their checksums, by cluster, until the cluster is freed or found whole
  // again; at most kMaxBadClusters.
  struct BadCluster {
    VolumeId volume;    // through which it was found
    VirtualCluster at;  // its place there
    uint16_t blocks = 0;
  };
  const std::map<PhysicalCluster, BadCluster>& bad_clusters() const { return bad_clusters_; }
  bool report_bad(PhysicalCluster cluster, const BadCluster& bad);  // whether the cluster is a new one
  void report_whole(PhysicalCluster cluster) { bad_clusters_.erase(cluster); }

  // --- changes
  // ------------------------------------------------------------------------------------------------------
  // What apply() would have to read first.
  std::optional<Missing> needs(const disk::Record& record);
  // Whether the record fits the state: run time asks before it stages, replay refuses what does not
  // (corruption).
  Status admissible(const disk::Record& record) const;
  // Precondition: admissible, nothing missing, at least kPagesPerRecord pages free. Appends to `drops`.
  void apply(const disk::Record& record, std::vector<Drop>& drops);
  // Lets a dropped reference go.
  void release(const Drop& drop);
  static constexpr unsigned kPagesPerRecord = disk::kMaxLevel + 2;

  // Subtrees whose last reference is gone.
  bool has_dead() const { return !dead_.empty(); }
  std::optional<Missing> reclaim_needs();
  void reclaim_one();
  // Its node is unreadable: it stays in the table of drops, and the next opening tries again.
  void set_dead_aside();
  const std::vector<disk::DropEntry>& dead() const { return dead_; }

  // --- space
  // --------------------------------------------------------------------------------------------------------
  Space& clusters() { return clusters_; }
  Space& pages() { return pages_; }
  const Space& clusters() const { return clusters_; }
  const Space& pages() const { return pages_; }
  void free_pages(const std::vector<Page>& pages);
  // Pages that must be free for the tables as they are now: for the next checkpoint, and then for the one
  // after that, when the table pages that are new today have been taken for good.
  uint64_t checkpoint_reserve() const;
  // The first of these two alone: enough to recover and to begin a run.
  uint64_t next_checkpoint_pages() const;
  // What the record may add to checkpoint_reserve().
  static uint64_t table_growth(const disk::Record& record);
  uint64_t used_clusters() const { return used_clusters_; }
  uint64_t shared_clusters() const { return shared_clusters_; }
  // Set when counts went below what the trees say: the metadata contradicts itself.
  bool inconsistent() const { return inconsistent_; }

  // --- checkpoint
  // ---------------------------------------------------------------------------------------------------
  // `pending`: drops of sealed records not released yet; the frozen counts are without them. Checksums of
  // nodes they name are filled in.
  FrozenState freeze(const std::vector<Drop*>& pending);
  NodeCache& cache() { return cache_; }
  const NodeCache& cache() const { return cache_; }

  // --- opening
  // ------------------------------------------------------------------------------------------------------
  Table& table(unsigned id) { return tables_[id]; }
  const Table& table(unsigned id) const { return tables_[id]; }
  // After all tables are loaded: builds volumes, resources, free space. Corruption when they contradict each
  // other.
  Status adopt_tables();

 private:
  struct ResourcePlace {
    uint64_t cell, cells;
  };
  void apply_one(const disk::MapRecord& r, std::vector<Drop>& drops);
  void apply_one(const disk::DropRangeRecord& r, std::vector<Drop>& drops);
  void apply_one(const CreateVolume& r, std::vector<Drop>& drops);
  void apply_one(const CloneVolume& r, std::vector<Drop>& drops);
  void apply_one(const DeleteVolume& r, std::vector<Drop>& drops);
  void apply_one(const RevertVolume& r, std::vector<Drop>& drops);
  void apply_one(const ResizeVolume& r, std::vector<Drop>& drops);
  void apply_one(const PutResource& r, std::vector<Drop>& drops);
  void apply_one(const RemoveResource& r, std::vector<Drop>& drops);
  // Data is none of its business.
  void apply_one(const disk::BlockRecord&, std::vector<Drop>&) {}
  void apply_one(const disk::LandedRecord&, std::vector<Drop>&) {}

  std::shared_ptr<VolumeState> add_volume(VolumeId id, VolumeKind kind, uint64_t size_bytes);
  void grow_root(VolumeState& volume, uint64_t size_bytes);
  // Makes the node behind `ref` one that only this path reaches and that may change; `ref` then names it.
  Node& make_private(disk::PageRef& ref, unsigned level, std::vector<Drop>& drops);
  // The same for the child of a node that is private already.
  Node& private_child(Node& parent, unsigned index, std::vector<Drop>& drops);
  // Private nodes from the root down to `level`; an absent one is made. Returns the node at `level`.
  Node& private_path(VolumeState& volume, VirtualCluster cluster, unsigned level, std::vector<Drop>& drops);
  Page allocate_page();
  void retire_page(Page page) { retired_.push_back(page); }
  void add_page_reference(Page page);
  bool drop_page_reference(Page page);  // true when it was the last
  void add_cluster_reference(PhysicalCluster cluster);
  void drop_cluster_reference(PhysicalCluster cluster);
  void end_summing(PhysicalCluster cluster);
  Node& private_sums(PhysicalCluster cluster);
  void free_node_page(Page page);
  void erase_cells(const ResourcePlace& place);
  void write_cells(const std::string& key, const std::string& value);
  void patch_checksum(disk::PageRef& ref) const;

  Executor& executor_;
  const Uuid uuid_;
  const uint64_t first_page_, page_count_, cluster_count_;
  NodeCache cache_;
  std::array<Table, disk::kTables> tables_;
  Space clusters_, pages_;
  std::map<VolumeId, std::shared_ptr<VolumeState>> volumes_;
  std::vector<uint32_t> free_entries_;
  std::vector<std::shared_ptr<VolumeState>> changed_volumes_;
  std::map<std::string, std::string> resources_;
  boost::unordered_flat_map<std::string, ResourcePlace> places_;
  FreeRuns free_cells_;  // of the table of resources
  std::vector<disk::DropEntry> dead_, unreadable_dead_;
  std::vector<Page> retired_;
  VolumeId next_volume_{1};
  uint64_t used_clusters_ = 0, shared_clusters_ = 0, summed_clusters_ = 0;
  disk::PageRef sum_root_;
  std::map<PhysicalCluster, BadCluster> bad_clusters_;
  const unsigned sum_root_level_;
  bool inconsistent_ = false;
};

}  // namespace obraz
