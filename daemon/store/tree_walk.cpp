// Walks over the whole trees of volumes: difference, usage, what deleting would free. All go by a position,
// not by nodes: each step descends from the root anew, so that what was replaced or dropped meanwhile is
// never followed, and each step yields now and then, so that a large volume does not hold up the requests of
// others.
#include <boost/unordered/unordered_flat_map.hpp>

#include "store/core.h"

namespace obraz {
namespace {

constexpr unsigned kLeavesPerTurn = 64;

// One of the two trees of a difference, on the way down to a position.
struct Side {
  VolumeState* volume;
  disk::PageRef ref;   // of the node at the present level; none: absent
  bool above = false;  // the present level lies above the root, and the root below the position

  void descend_to(unsigned level, VirtualCluster at) {
    const bool covered = at.value < disk::clusters_per_node(volume->level);
    above = level > volume->level && covered;
    if (level == volume->level)
      ref = covered ? volume->root : disk::PageRef{};
  }
};

// The runs found so far, merged, on their way to the visitor.
class Runs {
 public:
  Runs(std::move_only_function<bool(Extent)> visit, uint64_t end) : visit_(std::move(visit)), end_(end) {}

  void add(uint64_t offset, uint64_t length) {
    if (stopped_ || offset >= end_)
      return;
    length = std::min(length, end_ - offset);
    if (run_.length > 0 && run_.offset + run_.length == offset) {
      run_.length += length;
      return;
    }
    finish();
    run_ = {offset, length, false, false};
  }
  void finish() {
    if (run_.length > 0 && !stopped_)
      stopped_ = !visit_(run_);
    run_ = {};
  }
  bool stopped() const { return stopped_; }

 private:
  std::move_only_function<bool(Extent)> visit_;
  const uint64_t end_;  // bytes; nothing is reported beyond
  Extent run_;
  bool stopped_ = false;
};

void compare_leaves(const Node* a, const Node* b, VirtualCluster from, Runs& runs) {
  const uint64_t first = round_down(from.value, disk::kSlotsPerNode);
  for (unsigned i = disk::slot_index(from, 0); i < disk::kSlotsPerNode; ++i) {
    const Slot left = a ? a->slot(i) : Slot{}, right = b ? b->slot(i) : Slot{};
    if (left == right)
      continue;
    for (unsigned block = 0; block < kBlocksPerCluster; ++block)
      if (left.place(block) != right.place(block))
        runs.add((first + i) * kClusterSize + block * kBlockSize, kBlockSize);
  }
}

}  // namespace

Task<Status> StoreCore::diff(VolumePtr a, VolumePtr b, std::move_only_function<bool(Extent)> visit) {
  Runs runs(std::move(visit), std::max(a->size_bytes, b->size_bytes));
  unsigned leaves = 0;
  VirtualCluster at;
  while (!runs.stopped() && at.value < std::max(a->clusters(), b->clusters())) {
    if (a->deleted || b->deleted)
      co_return obraz::fail(ErrorCode::not_found, "the volume was deleted");
    Side sides[] = {{a.get(), {}}, {b.get(), {}}};
    std::optional<Missing> missing;
    VolumeState* missing_of = nullptr;
    for (unsigned level = std::max(a->level, b->level);; --level) {
      const uint64_t span = disk::clusters_per_node(level);
      const VirtualCluster end{(at.value / span + 1) * span};
      for (Side& side : sides)
        side.descend_to(level, at);
      // One node, or none, stands for both: all below it is equal.
      if (!sides[0].above && !sides[1].above && sides[0].ref.page == sides[1].ref.page) {
        at = end;
        break;
      }
      const Node* nodes[2] = {};
      for (unsigned i = 0; i < 2 && !missing; ++i)
        if (!sides[i].above && sides[i].ref) {
          nodes[i] = state.node(sides[i].ref, level);
          if (!nodes[i]) {
            missing = Missing{sides[i].ref, level};
            missing_of = sides[i].volume;
          }
        }
      if (missing)
        break;
      if (level == 0) {
        compare_leaves(nodes[0], nodes[1], at, runs);
        at = end;
        ++leaves;
        break;
      }
      for (unsigned i = 0; i < 2; ++i)
        if (nodes[i])
          sides[i].ref = nodes[i]->child(disk::slot_index(at, level));
    }
    if (missing) {
      const Status status = co_await load_missing(*missing, *missing_of);
      OBRAZ_CO_TRY(status);
    } else if (leaves >= kLeavesPerTurn) {
      leaves = 0;
      co_await yield(executor);
    }
  }
  runs.finish();
  co_return Status();
}

Task<Result<Store::Usage>> StoreCore::usage(VolumePtr volume) {
  Store::Usage usage;
  unsigned leaves = 0;
  for (VirtualCluster at; at.value < volume->clusters();) {
    const auto view = co_await leaf(volume, at);
    OBRAZ_CO_TRY(view);
    at = {view->end};
    for (unsigned i = 0; view->leaf && i < disk::kSlotsPerNode; ++i) {
      const Slot slot = view->leaf->slot(i);
      for (PhysicalCluster cluster : {slot.own, slot.base})
        if (cluster) {
          usage.mapped_bytes += kClusterSize;
          if (!view->shared && state.cluster_count(cluster) == 1)
            usage.exclusive_bytes += kClusterSize;
        }
    }
    if (view->leaf && ++leaves >= kLeavesPerTurn) {
      leaves = 0;
      co_await yield(executor);
    }
  }
  co_return usage;
}

// At each position deletion is played through from the roots down, as the reclaimer would do it: a node goes
// when all who name it go, and a cluster when all leaves that name it do. Who names a node or a cluster names
// it at the same position, so no memory is needed from one position to the next. One position is one instant.
Task<Result<uint64_t>> StoreCore::freed_by_deleting(std::vector<VolumePtr> volumes) {
  // What is to be deleted twice is deleted once.
  std::ranges::sort(volumes);
  volumes.erase(std::ranges::unique(volumes).begin(), volumes.end());
  uint64_t freed = 0, end = 0;
  unsigned top = 0, leaves = 0;
  for (const VolumePtr& volume : volumes)
    end = std::max(end, volume->clusters());
  struct Dying {
    disk::PageRef ref;
    VolumeState* volume;  // one that shows it
    uint32_t references = 0;
  };
  struct Dead {
    const Node* node;
    VolumeState* volume;
  };
  std::vector<Dying> dying;
  std::vector<Dead> above, level_nodes;
  boost::unordered_flat_map<uint64_t, uint32_t> references;  // of clusters
  for (VirtualCluster at; at.value < end;) {
    top = 0;
    for (const VolumePtr& volume : volumes) {
      if (volume->deleted)
        co_return obraz::fail(ErrorCode::not_found, "the volume was deleted");
      top = std::max(top, volume->level);
    }
    above.clear();
    std::optional<Missing> missing;
    VolumeState* missing_of = nullptr;
    for (unsigned level = top;; --level) {
      dying.clear();
      const auto name = [&](disk::PageRef ref, VolumeState* volume) {
        if (!ref)
          return;
        auto found = std::ranges::find(dying, ref.page, [](const Dying& d) { return d.ref.page; });
        if (found == dying.end())
          found = dying.insert(dying.end(), {ref, volume, 0});
        ++found->references;
      };
      for (const Dead& dead : above)
        name(dead.node->child(disk::slot_index(at, level + 1)), dead.volume);
      bool more_below = false;
      for (const VolumePtr& volume : volumes) {
        const bool covered = at.value < disk::clusters_per_node(volume->level);
        if (volume->level == level && covered)
          name(volume->root, volume.get());
        more_below = more_below || (volume->level < level && covered);
      }
      level_nodes.clear();
      for (const Dying& node : dying) {
        if (state.page_count(node.ref.page) != node.references)
          continue;  // somebody else names it, too
        const Node* content = state.node(node.ref, level);
        if (!content) {
          missing = Missing{node.ref, level};
          missing_of = node.volume;
          break;
        }
        level_nodes.push_back({content, node.volume});
      }
      if (missing)
        break;
      const uint64_t span = disk::clusters_per_node(level);
      if (level_nodes.empty() && !more_below) {
        at.value = (at.value / span + 1) * span;
        break;
      }
      if (level == 0) {
        references.clear();
        for (const Dead& leaf : level_nodes)
          for (unsigned i = 0; i < disk::kSlotsPerNode; ++i) {
            const Slot slot = leaf.node->slot(i);
            for (const PhysicalCluster cluster : {slot.own, slot.base})
              if (cluster && ++references[cluster.value] == state.cluster_count(cluster))
                freed += kClusterSize;
          }
        at.value = (at.value / span + 1) * span;
        ++leaves;
        break;
      }
      std::swap(above, level_nodes);
    }
    if (missing) {
      const Status status = co_await load_missing(*missing, *missing_of);
      OBRAZ_CO_TRY(status);
    } else if (leaves >= kLeavesPerTurn) {
      leaves = 0;
      co_await yield(executor);
    }
  }
  co_return freed;
}

}  // namespace obraz
