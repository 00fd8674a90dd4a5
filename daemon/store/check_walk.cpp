// The checker's walk over all trees, volumes' and checksums': each node is read once, however many name it,
// and all references are counted. Then the way back, from a node or a cluster to the volumes that show it.
#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <tuple>

#include "store/checker.h"

namespace obraz::checking {

using disk::kPageSize;

namespace {

constexpr uint64_t kBatchNodes = 256;  // read together
constexpr size_t kPlaces = 8;          // where one thing is used: named, of how ever many

// The node's content when it is newer than the device's.
const Node* changed_node(const Checker& c, uint64_t page) {
  const Node* node = c.adopted ? c.core->state.cache().peek(Page{page}) : nullptr;
  return node && node->state != Node::State::clean ? node : nullptr;
}

// The reference has been counted by the caller where it counts.
void refer(Checker* c, const disk::PageRef& ref, unsigned level, uint64_t from) {
  const uint64_t page = ref.page.value;
  c->references.push_back({page, from});
  if (c->levels[page] == kUnseen) {
    c->levels[page] = uint8_t(level);
    c->checksums[page] = ref.checksum;
    c->to_read.push_back({ref, level, {}});
  } else if (c->levels[page] != level) {
    c->finding({page, -1, c->levels[page],
                fmt::format("named as a node of level {} and as one of level {}", c->levels[page], level)});
  } else if (c->checksums[page] != ref.checksum && !changed_node(*c, page)) {
    c->finding({page, -1, level,
                fmt::format("named with checksum {:08x} and with {:08x}", c->checksums[page], ref.checksum)});
  }
}

std::string slot_fault(const Slot& slot, uint64_t clusters) {
  if (slot.own.value >= clusters || slot.base.value >= clusters)
    return fmt::format("names cluster {}, clusters below {} expected",
                       std::max(slot.own.value, slot.base.value), clusters);
  if (bool(slot.own) != (slot.own_mask != 0))
    return fmt::format("own cluster {} with own mask {:04x}", slot.own.value, slot.own_mask);
  if (!slot.base && slot.zero_mask != 0)
    return fmt::format("no base, but zero mask {:04x}", slot.zero_mask);
  if ((slot.own_mask & slot.zero_mask) != 0)
    return fmt::format("blocks both own and zero: masks {:04x} and {:04x}", slot.own_mask, slot.zero_mask);
  return fmt::format("own and base are both cluster {}", slot.own.value);
}

void note_sums(Checker* c, uint64_t page, ConstBytes content) {
  // Where the node stands tells which clusters it is about: it has one parent, which was visited before.
  uint64_t first = 0, at = page;
  for (unsigned level = disk::kSumLevel; level < c->core->state.sum_root_level(); ++level) {
    const auto found = c->sum_parents.find(at);
    if (found == c->sum_parents.end())
      return;
    first += found->second.second;
    at = found->second.first;
  }
  for (uint64_t i = 0; i < disk::kClustersPerSumNode && first + i < c->have_sums.size(); ++i)
    for (unsigned block = 0; block < kBlocksPerCluster; ++block)
      if (load_le<uint32_t>(&content[(i * disk::kSumsPerCluster + block) * disk::kSumSize]) != 0)
        c->have_sums[first + i] |= uint16_t(1u << block);
}

void visit_node(Checker* c, const NodeToRead& node, ConstBytes content) {
  const uint64_t page = node.ref.page.value;
  const Node* changed = changed_node(*c, page);
  if (!node.read) {
    c->unread = true;
    c->sums_unread |= node.level >= disk::kSumLevel;
    return c->finding({page, -1, node.level, describe(node.read.error())});
  }
  if (!changed) {
    const uint32_t sum =
        disk::page_checksum(c->superblock().uuid, node.ref.page, disk::type_of_node(node.level), content);
    if (sum != node.ref.checksum) {
      c->unread = true;
      c->sums_unread |= node.level >= disk::kSumLevel;
      return c->finding({page, -1, node.level, sums(node.ref.checksum, sum)});
    }
  } else if (changed->level != node.level) {
    return c->finding(
        {page, -1, node.level, fmt::format("the journal makes it one of level {}", changed->level)});
  }
  ++c->report.nodes;
  if (node.level == disk::kSumLevel)
    return note_sums(c, page, content);
  const bool summed = !c->walking_dead && node.level <= disk::kMaxLevel && c->is_summed(node.ref.page);
  for (unsigned i = 0; i < disk::kSlotsPerNode; ++i) {
    const std::byte* at = &content[i * disk::kSlotSize];
    const auto bad = [&](std::string what) { c->finding({page, int(i), node.level, std::move(what)}); };
    if (node.level == 0) {
      const Slot slot = disk::load_slot(at);
      if (!slot.valid(c->clusters.size()))
        bad(slot_fault(slot, c->clusters.size()));
      const std::pair<PhysicalCluster, uint16_t> shown[] = {{slot.own, slot.own_mask},
                                                            {slot.base, slot.shown_of_base()}};
      for (const auto& [cluster, blocks] : shown)
        if (cluster && cluster.value < c->clusters.size()) {
          ++c->clusters[cluster.value];
          if (!c->walking_dead)
            c->live_clusters[cluster.value] = true;
          if (summed)
            c->need_sums[cluster.value] |= blocks;
        }
      continue;
    }
    const disk::PageRef child = disk::load_page_ref(at);
    if (load_le<uint32_t>(at + 12) != 0)
      bad("reserved bytes are not zero");
    if (!child)
      continue;
    if (!c->is_node_page(child.page.value)) {
      c->unread = true;
      bad(fmt::format("names page {}, which is not one of the node pages", child.page.value));
      continue;
    }
    ++c->pages[child.page.value];
    if (summed && !c->is_summed(child.page))
      bad(fmt::format("all below the node is said to have checksums, but not of page {}", child.page.value));
    if (node.level > disk::kSumLevel)
      c->sum_parents.try_emplace(child.page.value, page, i * disk::clusters_of_slot(node.level));
    refer(c, child, node.level - 1, page * disk::kSlotsPerNode + i);
  }
}

Task<void> read_run(Checker* c, std::span<NodeToRead> run, Bytes into) {
  const Status all = co_await read_at(&c->meta, run.front().ref.page.value * kPageSize, into);
  for (size_t i = 0; i < run.size(); ++i) {
    run[i].read = all;
    if (!all && run.size() > 1)
      run[i].read = co_await read_at(&c->meta, run[i].ref.page.value * kPageSize,
                                     into.subspan(i * kPageSize, kPageSize));
  }
}

// Nodes by page, ascending; one after the other into the buffer.
Task<void> read_nodes(Checker* c, std::span<NodeToRead> nodes, Bytes buffer) {
  Gate gate(c->executor);
  for (size_t at = 0; at < nodes.size();) {
    if (const Node* node = changed_node(*c, nodes[at].ref.page.value)) {
      std::ranges::copy(node->bytes(), buffer.subspan(at * kPageSize).begin());
      ++at;
      continue;
    }
    const uint64_t first = nodes[at].ref.page.value;
    size_t run = 1;
    while (at + run < nodes.size() && nodes[at + run].ref.page.value == first + run &&
           !changed_node(*c, first + run))
      ++run;
    gate.spawn(read_run(c, nodes.subspan(at, run), buffer.subspan(at * kPageSize, run * kPageSize)));
    at += run;
  }
  co_await gate.close();
}

}  // namespace

Task<void> walk(Checker* c, bool dead) {
  AlignedBytes buffer(kBatchNodes * kPageSize);
  c->walking_dead = dead;
  for (size_t i = 0; i < c->roots.size(); ++i) {
    const Root& root = c->roots[i];
    if (root.is_dead() != dead)
      continue;
    if (!dead)
      ++c->pages[root.ref.page.value];
    refer(c, root.ref, root.level, Reference::kFromRoot + i);
  }
  std::vector<NodeToRead> batch;
  while (!c->to_read.empty()) {  // the last first, so that the stack stays small
    const size_t count = std::min<size_t>(kBatchNodes, c->to_read.size());
    batch.assign(c->to_read.end() - ptrdiff_t(count), c->to_read.end());
    c->to_read.resize(c->to_read.size() - count);
    std::ranges::sort(batch, {}, [](const NodeToRead& node) { return node.ref.page; });
    co_await read_nodes(c, batch, buffer.bytes());
    for (size_t i = 0; i < count; ++i)
      visit_node(c, batch[i], buffer.bytes().subspan(i * kPageSize, kPageSize));
  }
}

// --- where a node or a cluster is used
// ----------------------------------------------------------------------------

namespace {

struct Places {
  std::vector<std::string> list;
  bool more = false;
};

// `offset` and `length` are in clusters, from the start of what the node spans. Upwards only, from above the
// level `below`: references may form a ring.
void climb(const Checker& c, uint64_t page, uint64_t offset, uint64_t length, Places& places,
           int below = -1) {
  const auto [first, last] = std::ranges::equal_range(c.references, page, {}, &Reference::child);
  for (auto at = first; at != last; ++at) {
    if (places.list.size() >= kPlaces) {
      places.more = true;
      return;
    }
    if (at->from < Reference::kFromRoot) {
      const uint64_t parent = at->from / disk::kSlotsPerNode, slot = at->from % disk::kSlotsPerNode;
      const int level = int(c.levels[parent]);
      if (level > below)
        climb(c, parent, offset + slot * disk::clusters_of_slot(unsigned(level)), length, places, level);
      continue;
    }
    const Root& root = c.roots[at->from - Reference::kFromRoot];
    if (root.is_sums()) {
      places.list.push_back(fmt::format("the checksums of {} clusters of data from {}", length, offset));
      continue;
    }
    const std::string range =
        fmt::format("{} bytes at offset {}", length * kClusterSize, offset * kClusterSize);
    places.list.push_back(root.volume
                              ? fmt::format("volume {}, {}", root.volume.value, range)
                              : fmt::format("a deleted tree (page {}), {}", root.ref.page.value, range));
  }
}

std::string join(const Places& places) {
  return fmt::format("{}{}", fmt::join(places.list, "; "), places.more ? "; and others" : "");
}

}  // namespace

void report_findings(Checker* c) {
  std::ranges::sort(c->findings, {}, [](const NodeFinding& f) { return std::tie(f.page, f.slot, f.text); });
  for (const NodeFinding& finding : c->findings) {
    Places places;
    if (finding.slot < 0)
      climb(*c, finding.page, 0, disk::clusters_of_node(finding.level), places);
    else
      climb(*c, finding.page, uint64_t(finding.slot) * disk::clusters_of_slot(finding.level),
            disk::clusters_of_slot(finding.level), places);
    const std::string slot = finding.slot < 0 ? "" : fmt::format(", slot {}", finding.slot);
    c->problem(fmt::format("page {} of meta (node of level {}{}): {}; {}", finding.page, finding.level, slot,
                           finding.text, join(places)));
  }
  c->report.problem_count += c->unlisted_findings;
}

Task<void> report_clusters(Checker* c) {
  if (c->cluster_findings.empty())
    co_return;
  std::unordered_map<uint64_t, Places> places;
  AlignedBytes buffer(kBatchNodes * kPageSize);
  std::vector<NodeToRead> batch;
  for (uint64_t page = 0; page <= c->levels.size(); ++page) {
    if (page < c->levels.size() && c->levels[page] == 0)
      batch.push_back({{Page{page}, c->checksums[page]}, 0, {}});
    if (batch.empty() || (batch.size() < kBatchNodes && page < c->levels.size()))
      continue;
    co_await read_nodes(c, batch, buffer.bytes());
    for (size_t i = 0; i < batch.size(); ++i) {
      const ConstBytes content = buffer.bytes().subspan(i * kPageSize, kPageSize);
      const uint64_t leaf = batch[i].ref.page.value;
      if (!batch[i].read || (!changed_node(*c, leaf) &&
                             disk::page_checksum(c->superblock().uuid, Page{leaf}, disk::type_of_node(0),
                                                 content) != batch[i].ref.checksum))
        continue;
      for (unsigned slot = 0; slot < disk::kSlotsPerNode; ++slot) {
        const Slot value = disk::load_slot(&content[slot * disk::kSlotSize]);
        for (const PhysicalCluster cluster : {value.own, value.base})
          if (cluster && c->cluster_findings.contains(cluster.value))
            climb(*c, leaf, slot, 1, places[cluster.value]);
      }
    }
    batch.clear();
  }
  for (const auto& [cluster, text] : c->cluster_findings) {
    const auto found = places.find(cluster);
    c->problem(fmt::format("cluster {} of data: {}{}", cluster, text,
                           found == places.end() ? "" : "; " + join(found->second)));
  }
  c->report.problem_count += c->unlisted_clusters;
}

}  // namespace obraz::checking
