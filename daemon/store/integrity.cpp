// Checksums of frozen data: computing them in the background, verifying what is read, and the scrub
// (docs/disk-format.md, section 4a, and docs/architecture.md, "Integrity of frozen data").
//
// What a frozen volume shows does not change while the volume is there: when it was acknowledged, every write
// that was in flight at its instant had landed, and later ones go elsewhere. So its clusters are read without
// any lock, and their checksums are stored if, at that instant, the volume is still there.
#include <algorithm>
#include <array>
#include <bit>

#include "base/log.h"
#include "store/core.h"
#include "store/marks.h"

namespace obraz {
namespace {

// Read at a time by the background work: little, since a client's request may come to wait behind it, on the
// device and for the checksums to be computed.
constexpr uint64_t kReadClusters = 2;
constexpr uint64_t kBusyShare = 4;  // of its rate it takes one part while clients read or write

// Microseconds that reading the bytes may take.
uint64_t duration_us(uint64_t bytes, uint64_t bytes_per_s) {
  return uint64_t(double(bytes) * 1e6 / double(bytes_per_s));
}

}  // namespace

// --- verifying
// -------------------------------------------------------------------------------------------------------

void StoreCore::report_bad(VolumeState& volume, VirtualCluster at, PhysicalCluster cluster, uint16_t blocks,
                           const char* what) {
  counters.checksum_errors += unsigned(std::popcount(blocks));
  volume.damaged = true;
  if (clone_cache.on())
    clone_cache.drop(cluster);  // an error is one for everybody, now and later
  if (state.report_bad(cluster, {volume.id, at, blocks}))
    log::error("store: volume {} at offset {}: cluster {} {} (blocks {:04x})", volume.id.value,
               at.value * kClusterSize, cluster.value, what, blocks);
}

// The caller has looked the cluster up, and what keeps it there keeps its bit.
Task<Status> StoreCore::load_sums(PhysicalCluster cluster, VolumeState& volume) {
  for (;;) {
    const auto view = state.sums_of(cluster);
    if (!view.missing)
      co_return Status();
    const Status status = co_await load_missing(*view.missing, volume);
    OBRAZ_CO_TRY(status);
  }
}

Status StoreCore::verify_now(VolumeState& volume, std::span<const ToVerify>& parts) {
  Status verified;
  for (; !parts.empty(); parts = parts.subspan(1)) {
    const ToVerify& part = parts.front();
    const auto sums = state.sums_of(part.cluster);
    if (sums.missing)
      break;
    marks::hit(Mark::read_verified);
    const uint16_t bad = sums.bad_blocks(unsigned(part.offset / kBlockSize % kBlocksPerCluster), part.bytes);
    if (bad == 0)
      continue;
    report_bad(volume, {part.offset / kClusterSize}, part.cluster, bad, "does not fit its checksums");
    verified = obraz::fail(ErrorCode::corruption, "data: a block does not fit its checksum");
  }
  return verified;
}

Task<Status> StoreCore::verify(VolumeState& volume, std::span<const ToVerify> parts) {
  Status verified;
  for (;;) {
    const Status here = verify_now(volume, parts);
    if (!here)
      verified = here;
    if (parts.empty())
      co_return verified;
    const Status loaded = co_await load_sums(parts.front().cluster, volume);
    OBRAZ_CO_TRY(loaded);
  }
}

// --- computing
// -------------------------------------------------------------------------------------------------------

// The clusters that one leaf of a frozen volume names, in the order of their checksums.
struct StoreCore::LeafClusters {
  struct One {
    PhysicalCluster cluster;
    uint16_t missing = 0;  // blocks that are shown and have no checksum
    bool unreadable = false;
    std::array<uint32_t, kBlocksPerCluster> sums{};
  };
  std::vector<One> list;
  explicit LeafClusters(const Node& leaf) {
    for (unsigned i = 0; i < disk::kSlotsPerNode; ++i) {
      const Slot slot = leaf.slot(i);
      for (const auto& [cluster, shown] :
           {std::pair(slot.own, slot.own_mask), std::pair(slot.base, slot.shown_of_base())})
        if (cluster && shown != 0)
          list.push_back({cluster, shown});
    }
    std::ranges::sort(list, {}, &One::cluster);
  }
};

Task<void> StoreCore::sum_loop() {
  while (!ending()) {
    if (to_sum_.empty() || options.sum_bytes_per_s == 0) {
      co_await sum_event_.wait();
      continue;
    }
    const VolumePtr volume = to_sum_.front();
    const Status status = co_await sum_volume(volume);
    to_sum_.pop_front();
    if (ending())
      break;
    if (!status) {
      log::warning("store: volume {} has no checksums until the store is opened again: {}", volume->id.value,
                   describe(status.error()));
    } else if (!volume->deleted) {
      marks::hit(Mark::volume_summed);
      log::debug("store: volume {} has checksums", volume->id.value);
    }
    if (to_sum_.empty() && state.cache().dirty_count() > 0)
      want_checkpoint();  // with which they become durable
  }
}

// Depth first, and by position: every step descends anew from the root, so nodes may come and go.
Task<Status> StoreCore::sum_volume(VolumePtr volume) {
  Status first_failure;
  for (VirtualCluster at; at.value < volume->clusters();) {
    if (volume->deleted || ending())
      co_return Status();
    std::optional<Missing> missing;
    disk::PageRef ref = volume->root;
    for (unsigned level = volume->level;; --level) {
      const uint64_t span = disk::clusters_per_node(level);
      if (!ref || state.is_summed(ref.page)) {
        at = {(at.value / span + 1) * span};
        break;
      }
      const Node* node = state.node(ref, level);
      if (!node) {
        missing = Missing{ref, level};
        break;
      }
      if (level == 0) {
        const Status status = co_await sum_leaf(volume, at, ref.page);
        if (!status) {
          if (first_failure)
            first_failure = status;
          if (ending() || status.error().code == ErrorCode::no_space)
            co_return status;
        }
        if (!state.is_summed(
                ref.page))  // otherwise look again: it may have been the last one below its parent
          at = {(at.value / span + 1) * span};
        break;
      }
      if (state.page_count(ref.page) > 0 && state.children_summed(*node)) {
        state.set_summed(ref.page);
        break;  // and its parent may be next
      }
      ref = node->child(disk::slot_index(at, level));
    }
    if (missing) {
      const Status status = co_await load_missing(*missing, *volume);
      if (!status) {
        if (first_failure)
          first_failure = status;
        if (status.error().code != ErrorCode::corruption)
          co_return status;
        at = {(at.value / disk::clusters_per_node(missing->level) + 1) *
              disk::clusters_per_node(missing->level)};
      }
    }
  }
  co_return first_failure;
}

Task<Status> StoreCore::sum_leaf(VolumePtr volume, VirtualCluster at, Page page) {
  LeafClusters clusters(*state.leaf_of(*volume, at).leaf);
  for (auto& one : clusters.list) {  // others may show the cluster, and have seen to it
    if (!state.is_summed(one.cluster))
      continue;
    const Status status = co_await load_sums(one.cluster, *volume);
    OBRAZ_CO_TRY(status);
    const auto sums = state.sums_of(one.cluster);
    for (unsigned block = 0; block < kBlocksPerCluster; ++block)
      if (sums.of(block) != 0)
        one.missing &= uint16_t(~(1u << block));
  }
  std::erase_if(clusters.list, [](const auto& one) { return one.missing == 0; });
  Status status = co_await read_to_sum(clusters);
  OBRAZ_CO_TRY(status);
  status = co_await store_sums(volume, clusters);
  OBRAZ_CO_TRY(status);
  if (volume->deleted) {
    marks::hit(Mark::summing_outlived);
    co_return status;
  }
  if (std::ranges::any_of(clusters.list, &LeafClusters::One::unreadable))
    co_return obraz::fail(ErrorCode::io, "data: a cluster of it cannot be read");
  if (state.page_count(page) > 0)
    state.set_summed(page);
  co_await yield(executor);
  co_return status;
}

// To read a cluster into the i-th place of the buffer.
StoreCore::Segment StoreCore::whole_cluster(PhysicalCluster cluster, Bytes buffer, size_t i) {
  return {cluster.value * kClusterSize, buffer.subspan(i * kClusterSize, kClusterSize), false};
}

Task<Status> StoreCore::read_to_sum(LeafClusters& clusters) {
  AlignedBytes buffer(kReadClusters * kClusterSize);
  for (size_t first = 0; first < clusters.list.size() && !ending();) {
    const uint64_t requests = io.mark();
    const size_t count = std::min<size_t>(kReadClusters, clusters.list.size() - first);
    Segments segments;
    for (size_t i = 0; i < count; ++i)
      append(segments, whole_cluster(clusters.list[first + i].cluster, buffer.bytes(), i));
    const Status all = co_await transfer(segments);
    for (size_t i = 0; i < count; ++i) {
      auto& one = clusters.list[first + i];
      const Segment segment = whole_cluster(one.cluster, buffer.bytes(), i);
      if (!all) {
        const Status alone = co_await transfer_one(segment);
        one.unreadable = !alone;
      }
      for (unsigned block = 0; block < kBlocksPerCluster && !one.unreadable; ++block)
        if (one.missing >> block & 1)
          one.sums[block] = disk::block_checksum(segment.bytes.subspan(block * kBlockSize, kBlockSize));
    }
    first += count;
    const uint64_t rest_us = duration_us(count * kClusterSize, options.sum_bytes_per_s);
    if (!ending())
      co_await sum_timer_.wait_us(rest_us);
    if (!ending() && io.mark() != requests && rest_us > 0)
      co_await sum_timer_.wait_us(rest_us * (kBusyShare - 1));
  }
  if (ending())
    co_return obraz::fail(ErrorCode::unavailable, "the store is closing");
  co_return Status();
}

// A deleted volume ends it, for its clusters may be anything then.
Task<Status> StoreCore::store_sums(VolumePtr volume, LeafClusters& clusters) {
  for (const auto& one : clusters.list) {
    if (one.unreadable)
      continue;
    Admission admission;
    Status status = co_await admit({.node_pages = State::kPagesPerSum}, admission);
    if (status)
      status = co_await load_sums(one.cluster, *volume);
    OBRAZ_CO_TRY(status);
    if (volume->deleted)
      co_return status;
    if (state.cluster_count(one.cluster) == 0)
      co_return obraz::fail(ErrorCode::corruption, "counts: a cluster that a volume shows is free");
    state.set_sums(one.cluster, one.sums);
    if (clone_cache.on())
      clone_cache.drop(one.cluster);  // what is there was not compared with anything
  }
  if (state.cache().dirty_count() > options.dirty_nodes)
    want_checkpoint();
  co_return Status();
}

// --- scrub
// -----------------------------------------------------------------------------------------------------------

Task<void> StoreCore::scrub_loop() {
  if (options.scrub_bytes_per_s == 0)
    co_return;
  while (!ending()) {
    const uint64_t start = executor.now_us();
    co_await scrub_pass();
    if (ending())
      break;
    ++counters.scrub_passes;
    marks::hit(Mark::scrub_passed);
    const uint64_t took = executor.now_us() - start;
    co_await scrub_timer_.wait_us(options.scrub_interval_us - std::min(options.scrub_interval_us, took));
    if (!ending())
      co_await yield(executor);
  }
}

// Every cluster that a frozen volume shows, once, whoever else shows it.
Task<void> StoreCore::scrub_pass() {
  std::vector<bool> clusters(superblock.clusters), leaves(superblock.pages);
  std::vector<VolumeId> frozen;
  for (const auto& [id, volume] : state.volumes())
    if (volume->kind == VolumeKind::frozen)
      frozen.push_back(id);
  for (const VolumeId id : frozen) {
    const VolumePtr volume = state.find_volume(id);
    if (!volume)
      continue;
    for (VirtualCluster at; at.value < volume->clusters();) {
      if (volume->deleted || ending())
        break;
      LeafView view = state.leaf_of(*volume, at);
      if (view.missing) {
        // A leaf that has been looked at need not be loaded again to be passed over.
        const uint64_t page = view.missing->ref.page.value;
        const bool seen = view.missing->level == 0 && page < leaves.size() && leaves[page];
        const Status status = seen ? Status() : co_await load_missing(*view.missing, *volume);
        if (!seen && status)
          continue;
        at = {view.end};
        continue;
      }
      if (view.leaf && !leaves[view.leaf->page.value]) {
        leaves[view.leaf->page.value] = true;
        const Status status = co_await scrub_leaf(volume, at, clusters);
        if (!status)
          log::warning("store: volume {} cannot be scrubbed: {}", volume->id.value, describe(status.error()));
      }
      at = {view.end};
      co_await yield(executor);
    }
    if (ending())
      co_return;
  }
}

Task<Status> StoreCore::scrub_leaf(VolumePtr volume, VirtualCluster at, std::vector<bool>& visited) {
  const uint64_t first = round_down(at.value, disk::kSlotsPerNode);
  AlignedBytes buffer(kClusterSize);
  for (unsigned i = 0; i < disk::kSlotsPerNode; ++i) {
    for (const bool own : {true, false}) {
      // While it is in flight, what the volume names now stays what it is.
      IoTracker::Entry entry;
      entry.begin(io);
      const VirtualCluster place{first + i};
      const auto view = co_await leaf(volume, place);
      if (!view) {
        end_io(entry);
        co_return volume->deleted ? Status() : Status(Failure(view.error()));
      }
      const Slot slot = view->leaf ? view->leaf->slot(i) : Slot{};
      const PhysicalCluster cluster = own ? slot.own : slot.base;
      if (!cluster || !state.is_summed(cluster) || visited[cluster.value]) {
        end_io(entry);
        continue;
      }
      visited[cluster.value] = true;
      const Status read = co_await data.read(cluster.value * kClusterSize, buffer.bytes());
      Status status;
      if (!read) {
        report_bad(*volume, place, cluster, kAllBlocks, "cannot be read");
      } else {
        // Blocks that only others show are compared, too: all that have a checksum have it for ever.
        const ToVerify part{cluster, place.value * kClusterSize, buffer.bytes()};
        status = co_await verify(*volume, {&part, 1});
        if (status)
          state.report_whole(cluster);
      }
      end_io(entry);
      if (!status && !state.bad_clusters().contains(cluster))
        co_return status;  // the checksums cannot be read
      counters.scrubbed_bytes += kClusterSize;
      if (ending())
        co_return Status();
      co_await scrub_timer_.wait_us(duration_us(kClusterSize, options.scrub_bytes_per_s));
      if (ending())
        co_return Status();
    }
  }
  co_return Status();
}

}  // namespace obraz
