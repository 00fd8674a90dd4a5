// The last comparisons of the checker, when the walk has been everywhere: counts with the references found,
// and data with its checksums.
#include <fmt/format.h>

#include <algorithm>

#include "store/checker.h"

namespace obraz::checking {

using disk::kPageSize;

namespace {

std::string count_fault(uint32_t counted, uint32_t found) {
  if (counted == 0)
    return fmt::format("free by its count, but {} reference{} found", found, found == 1 ? "" : "s");
  return fmt::format("count {}, but {} reference{} found", counted, found, found == 1 ? "" : "s");
}

}  // namespace

void check_counts(Checker* c) {
  const State& state = c->core->state;
  uint64_t excused_pages = 0, excused_clusters = 0;
  const auto known = [&](unsigned id, uint64_t index) {
    return index < state.table(id).length_bytes() / 4 && !c->unknown[id][index * 4 / kPageSize];
  };
  size_t next = 0;  // of table_pages
  for (uint64_t page = c->superblock().first_node_page().value; page < c->pages.size(); ++page) {
    for (; next < c->table_pages.size() && c->table_pages[next].page <= page; ++next)
      if (c->table_pages[next].page == page && c->levels[page] != kUnseen)
        c->finding({page, -1, c->levels[page], "also " + describe(c->table_pages[next])});
    if (!known(disk::kPageCounts, page))
      continue;
    const uint32_t counted = state.page_count(Page{page}), found = c->pages[page];
    if (found < counted && c->unread)
      ++excused_pages;
    else if (found != counted && c->levels[page] != kUnseen)
      c->finding({page, -1, c->levels[page], count_fault(counted, found)});
    else if (found != counted)
      c->problem(fmt::format("page {} of meta: {}", page, count_fault(counted, found)));
    else if (c->adopted && found > 0 && state.pages().is_free(page))
      c->problem(fmt::format("page {} of meta: both free and named", page));
  }
  for (const Root& root : c->roots)
    if (root.is_dead() && c->pages[root.ref.page.value] > 0)
      c->finding({root.ref.page.value, -1, root.level, "to be dropped, and still named"});
  for (uint64_t cluster = 1; cluster < c->clusters.size(); ++cluster) {
    const uint32_t found = c->clusters[cluster];
    c->report.clusters += found > 0;
    if (!known(disk::kClusterCounts, cluster))
      continue;
    const uint32_t counted = state.cluster_count({cluster});
    c->report.summed_clusters += found > 0 && state.is_summed(PhysicalCluster{cluster});
    const uint16_t need = c->need_sums[cluster];
    if (need != 0 && found == counted && !c->sums_unread) {
      if (!state.is_summed(PhysicalCluster{cluster}))
        c->cluster_finding(cluster, "not summed, though a node above says so");
      else if (need & ~c->have_sums[cluster])
        c->cluster_finding(cluster, fmt::format("blocks {:04x} have no checksum, though a node above says so",
                                                need & ~c->have_sums[cluster]));
    }
    if (found < counted && c->unread)
      ++excused_clusters;
    else if (found != counted)
      c->cluster_finding(cluster, count_fault(counted, found));
    else if (c->adopted && found > 0 && state.clusters().is_free(cluster))
      c->cluster_finding(cluster, "both free and named");
  }
  c->report.cluster_bytes = c->report.clusters * kClusterSize;
  if (excused_pages + excused_clusters > 0)
    c->report.notes.push_back(
        fmt::format("counts: {} pages and {} clusters have more references than were found; what is "
                    "unreadable may hold the "
                    "others",
                    excused_pages, excused_clusters));
}

// --- data
// ---------------------------------------------------------------------------------------------------------

namespace {

// Checksums are held against what volumes show. What only deleted ones did may have been written anew before
// a power cut that lost the record of that.
Task<void> verify_cluster(Checker* c, PhysicalCluster cluster, Bytes bytes) {
  State& state = c->core->state;
  if (!c->adopted || !c->live_clusters[cluster.value] || !state.is_summed(cluster))
    co_return;
  auto sums = state.sums_of(cluster);
  for (; sums.missing; sums = state.sums_of(cluster)) {
    const Status loaded = co_await load_node(c, *sums.missing);
    if (!loaded)
      co_return;  // the walk names the node
  }
  c->core->lay_carried(cluster, bytes);
  const uint16_t bad = sums.bad_blocks(0, bytes);
  ++c->report.verified_clusters;
  if (bad != 0)
    c->cluster_finding(cluster.value, fmt::format("blocks {:04x} do not fit their checksums", bad));
}

Task<void> read_data_run(Checker* c, uint64_t first, uint64_t count, Bytes buffer) {
  const Status all = co_await read_at(&c->data, first * kClusterSize, buffer.first(count * kClusterSize));
  for (uint64_t i = 0; !all && i < count; ++i) {
    const Status one = co_await read_at(&c->data, (first + i) * kClusterSize, buffer.first(kClusterSize));
    if (!one)
      c->cluster_finding(first + i, describe(one.error()));
    else
      co_await verify_cluster(c, {first + i}, buffer.first(kClusterSize));
  }
  for (uint64_t i = 0; all && i < count; ++i)
    co_await verify_cluster(c, {first + i}, buffer.subspan(i * kClusterSize, kClusterSize));
}

}  // namespace

Task<void> read_data(Checker* c) {
  constexpr uint64_t kRun = 16, kRuns = 8;  // clusters read at once, and reads in flight
  AlignedBytes buffer(kRuns * kRun * kClusterSize);
  const auto used = [&](uint64_t cluster) {
    return cluster < c->clusters.size() && c->clusters[cluster] > 0;
  };
  for (uint64_t cluster = 1; cluster < c->clusters.size();) {
    Gate gate(c->executor);
    for (uint64_t runs = 0; runs < kRuns && cluster < c->clusters.size();) {
      uint64_t count = 0;
      while (count < kRun && used(cluster + count))
        ++count;
      if (count > 0) {
        gate.spawn(read_data_run(c, cluster, count,
                                 buffer.bytes().subspan(runs * kRun * kClusterSize, kRun * kClusterSize)));
        ++runs;
      }
      cluster += std::max<uint64_t>(count, 1);
    }
    co_await gate.close();
  }
}

}  // namespace obraz::checking
