// Checksums of data in the state: which clusters have some, and where (docs/disk-format.md, section 4a).
// Nothing here is journaled: the bits and the nodes become durable together, with the next checkpoint.
#include "base/check.h"
#include "base/limits.h"
#include "store/marks.h"
#include "store/state.h"

namespace obraz {
namespace {

unsigned sum_index(PhysicalCluster cluster, unsigned level) {
  return unsigned(cluster.value / disk::clusters_per_sum_node(level - 1)) % disk::kSlotsPerNode;
}

}  // namespace

State::SumView State::sums_of(PhysicalCluster cluster) {
  SumView view;
  view.first = unsigned(cluster.value % disk::kClustersPerSumNode) * disk::kSumsPerCluster;
  disk::PageRef ref = sum_root_;
  for (unsigned level = sum_root_level_; ref; --level) {
    const Node* found = node(ref, level);
    if (!found) {
      view.missing = Missing{ref, level};
      return view;
    }
    if (level == disk::kSumLevel) {
      view.node = found;
      return view;
    }
    ref = found->child(sum_index(cluster, level));
  }
  return view;
}

uint16_t State::SumView::bad_blocks(unsigned first_block, ConstBytes bytes) const {
  uint16_t bad = 0;
  for (unsigned i = 0; i < bytes.size() / kBlockSize; ++i) {
    const uint32_t expected = of(first_block + i);
    if (expected != 0 && expected != disk::block_checksum(bytes.subspan(i * kBlockSize, kBlockSize)))
      bad |= uint16_t(1u << (first_block + i));
  }
  return bad;
}

// The path to the cluster's checksums, all of it private to the next checkpoint. These nodes have one parent
// each, so nothing is ever dropped.
Node& State::private_sums(PhysicalCluster cluster) {
  std::vector<Drop> drops;
  Node* current = &make_private(sum_root_, sum_root_level_, drops);
  for (unsigned level = sum_root_level_; level > disk::kSumLevel; --level)
    current = &private_child(*current, sum_index(cluster, level), drops);
  return *current;
}

void State::set_sums(PhysicalCluster cluster, std::span<const uint32_t, kBlocksPerCluster> checksums) {
  OBRAZ_CHECK(cluster_count(cluster) > 0);
  Node& node = private_sums(cluster);
  const bool fresh = !is_summed(cluster);  // what is there is of the cluster's last life
  const unsigned first = unsigned(cluster.value % disk::kClustersPerSumNode) * disk::kSumsPerCluster;
  for (unsigned block = 0; block < kBlocksPerCluster; ++block)
    if (checksums[block] != 0 || fresh) {
      if (checksums[block] == 0 && node.sum(first + block) != 0)
        marks::hit(Mark::old_checksum_erased);
      node.set_sum(first + block, checksums[block]);
    }
  if (!fresh)
    return;
  auto& counts = tables_[disk::kClusterCounts];
  counts.set_u32(cluster.value, counts.u32(cluster.value) | disk::kSummedBit);
  ++summed_clusters_;
}

void State::end_summing(PhysicalCluster cluster) {
  if (!is_summed(cluster))
    return;
  if (cluster_count(cluster) > 0)
    marks::hit(Mark::summed_cluster_used_again_in_replay);
  tables_[disk::kClusterCounts].set_u32(cluster.value, cluster_count(cluster));
  --summed_clusters_;
  bad_clusters_.erase(cluster);
}

bool State::report_bad(PhysicalCluster cluster, const BadCluster& bad) {
  const auto found = bad_clusters_.find(cluster);
  if (found != bad_clusters_.end()) {
    found->second.blocks |= bad.blocks;
    return false;
  }
  if (bad_clusters_.size() < limits::kMaxBadClusters)
    bad_clusters_.emplace(cluster, bad);
  return true;
}

void State::set_summed(Page node) {
  OBRAZ_CHECK(page_count(node) > 0);
  auto& counts = tables_[disk::kPageCounts];
  counts.set_u32(node.value, counts.u32(node.value) | disk::kSummedBit);
}

bool State::children_summed(const Node& node) const {
  for (unsigned i = 0; i < disk::kSlotsPerNode; ++i)
    if (const disk::PageRef child = node.child(i); child && !is_summed(child.page))
      return false;
  return true;
}

}  // namespace obraz
