#include "store/check.h"

#include <fmt/format.h>

#include <algorithm>

#include "store/core.h"

namespace obraz {
namespace {

struct Checker {
  StoreCore* core;
  CheckOptions options;
  CheckReport report;
  std::vector<uint32_t> pages, clusters;  // references found

  void problem(std::string line) {
    if (++report.problem_count <= options.max_problems)
      report.problems.push_back(std::move(line));
  }
};

// Counts what the subtree names; its own page has been counted by the caller. A node is walked once however
// many name it.
Task<void> walk(Checker* c, disk::PageRef ref, unsigned level, VolumeId volume) {
  State& state = c->core->state;
  AlignedBytes slots(disk::kPageSize);
  for (;;) {
    if (const Node* node = state.node(ref, level)) {
      std::ranges::copy(node->bytes(), slots.bytes().begin());
      break;
    }
    const Status status = co_await state.cache().load(ref, level);
    if (!status) {
      c->problem(fmt::format("volume {}: node at page {} (level {}): {}", volume.value, ref.page.value, level,
                             describe(status.error())));
      co_return;
    }
  }
  ++c->report.nodes;
  for (unsigned i = 0; i < disk::kSlotsPerNode; ++i) {
    const std::byte* at = &slots.bytes()[i * disk::kSlotSize];
    if (level == 0) {
      const Slot slot = disk::load_slot(at);
      for (PhysicalCluster cluster : {slot.own, slot.base})
        if (cluster)
          ++c->clusters[cluster.value];
    } else if (const disk::PageRef child = disk::load_page_ref(at)) {
      if (c->pages[child.page.value]++ == 0)
        co_await walk(c, child, level - 1, volume);
    }
  }
}

Task<void> check_counts(Checker* c) {
  State& state = c->core->state;
  for (const auto& [id, volume] : state.volumes()) {
    ++c->report.volumes;
    if (volume->level != disk::root_level(volume->size_bytes))
      c->problem(fmt::format("volume {}: its root has the wrong level for its size", id.value));
    if (volume->root && c->pages[volume->root.page.value]++ == 0)
      co_await walk(c, volume->root, volume->level, id);
  }
  for (const auto& entry : state.dead()) {
    ++c->report.to_reclaim;
    if (c->pages[entry.node.page.value] != 0 || state.page_count(entry.node.page) != 0)
      c->problem(fmt::format("page {}: is to be dropped and still named", entry.node.page.value));
    co_await walk(c, entry.node, entry.level, VolumeId{});
  }
  for (uint64_t page = 0; page < c->pages.size(); ++page) {
    const uint32_t counted = state.page_count(Page{page});
    if (counted != c->pages[page])
      c->problem(fmt::format("page {}: count {}, but {} references", page, counted, c->pages[page]));
    if (counted > 0 && state.pages().is_free(page))
      c->problem(fmt::format("page {}: both free and named", page));
  }
  for (uint64_t cluster = 1; cluster < c->clusters.size(); ++cluster) {
    const uint32_t counted = state.cluster_count({cluster});
    if (counted != c->clusters[cluster])
      c->problem(
          fmt::format("cluster {}: count {}, but {} references", cluster, counted, c->clusters[cluster]));
    if (c->clusters[cluster] > 0) {
      ++c->report.clusters;
      if (state.clusters().is_free(cluster))
        c->problem(fmt::format("cluster {}: both free and named", cluster));
    }
  }
}

// Table and index pages: named once, and by nothing else.
void check_table_pages(Checker* c) {
  const State& state = c->core->state;
  std::vector<bool> seen(c->pages.size());
  for (const auto& entry : state.dead())
    seen[entry.node.page.value] = true;
  for (unsigned id = 0; id < disk::kTables; ++id)
    for (unsigned level = 0; level < state.table(id).levels(); ++level)
      for (const disk::PageRef& ref : state.table(id).refs(level)) {
        if (!ref)
          continue;
        if (seen[ref.page.value])
          c->problem(fmt::format("page {}: named twice by the tables", ref.page.value));
        seen[ref.page.value] = true;
      }
}

Task<void> read_clusters(Checker* c) {
  AlignedBytes buffer(kClusterSize);
  for (uint64_t cluster = 1; cluster < c->clusters.size(); ++cluster) {
    if (c->clusters[cluster] == 0)
      continue;
    const Status status = co_await c->core->data.read(cluster * kClusterSize, buffer.bytes());
    if (!status)
      c->problem(fmt::format("cluster {}: {}", cluster, describe(status.error())));
  }
}

}  // namespace

Task<Result<CheckReport>> check_store(Executor& executor, Device& meta, Device& data, CheckOptions options) {
  auto core = co_await StoreCore::load(executor, meta, data, StoreOptions{});
  OBRAZ_CO_TRY(core);
  Checker checker{core->get(), options, {}, {}, {}};
  checker.pages.assign((*core)->superblock.pages, 0);
  checker.clusters.assign((*core)->superblock.clusters, 0);
  co_await check_counts(&checker);
  check_table_pages(&checker);
  if (options.read_data)
    co_await read_clusters(&checker);
  checker.report.resources = (*core)->state.resources().size();
  checker.report.replayed_records = (*core)->counters.replayed_records;
  checker.report.generation = (*core)->superblock.generation;
  for (const auto& [id, volume] : (*core)->state.volumes())
    if (volume->damaged)
      checker.problem(fmt::format("volume {}: damaged: the journal could not be replayed into it", id.value));
  co_return std::move(checker.report);
}

}  // namespace obraz
