#include "store/store.h"

#include <algorithm>

#include "store/core.h"

namespace obraz {

using disk::kPageSize;

// --- volume
// ----------------------------------------------------------------------------------------------------------

VolumeId Volume::id() const {
  return state_->id;
}
VolumeKind Volume::kind() const {
  return state_->kind;
}
uint64_t Volume::size_bytes() const {
  return state_->size_bytes;
}

namespace {

Failure closing() {
  return fail(ErrorCode::unavailable, "the store is closing");
}

}  // namespace

// These two count themselves among the store's operations, so that each has a coroutine less.
Task<Status> Volume::read(uint64_t offset, Bytes into, std::vector<Extent>* extents) {
  return store_->core_->read(state_, offset, into, extents, ReadFrom::anywhere);
}
Task<Status> Volume::read_stored(uint64_t offset, Bytes into) {
  return store_->core_->read(state_, offset, into, nullptr, ReadFrom::device);
}
Task<Status> Volume::write(uint64_t offset, ConstBytes from, bool fua) {
  return store_->core_->write(state_, offset, from, fua);
}

Task<Status> Volume::zero(uint64_t offset, uint64_t length, ZeroOptions options) {
  const Gate::Pass operation(store_->core_->operations);
  if (!operation)
    co_return closing();
  co_return co_await store_->core_->zero(state_, offset, length, options.keep_allocated, options.fua);
}

Task<Status> Volume::discard(uint64_t offset, uint64_t length, bool fua) {
  const Gate::Pass operation(store_->core_->operations);
  if (!operation)
    co_return closing();
  co_return co_await store_->core_->discard(state_, offset, length, fua);
}

Task<Status> Volume::flush() {
  return store_->flush();
}

Task<Status> Volume::cache(uint64_t offset, uint64_t length) {
  const Gate::Pass operation(store_->core_->operations);
  if (!operation)
    co_return closing();
  co_return co_await store_->core_->cache(state_, offset, length);
}

Task<Status> Volume::block_status(uint64_t offset, uint64_t length, size_t max_extents,
                                  std::vector<Extent>& out) {
  const Gate::Pass operation(store_->core_->operations);
  if (!operation)
    co_return closing();
  co_return co_await store_->core_->block_status(state_, offset, length, max_extents, out);
}

// --- format and open
// -------------------------------------------------------------------------------------------------

uint64_t Store::meta_bytes_for(uint64_t data_bytes, uint64_t journal_bytes) {
  // A sixty-fourth of the data: sixteen times what mapping it all once takes, for the nodes that clones copy.
  // Taken from the file system only as it fills.
  return disk::kJournalFirstPage * kPageSize + journal_bytes +
         round_up(std::max<uint64_t>(data_bytes / 64, 8 * limits::MiB), kPageSize);
}

Task<Status> Store::format(Device& meta, Device& data, FormatOptions options) {
  disk::Superblock s;
  s.uuid = options.uuid;
  s.journal_bytes = options.journal_bytes;
  s.pages = meta.size_bytes() / kPageSize;
  s.clusters = data.size_bytes() / kClusterSize;
  if (options.journal_bytes < limits::kMinJournalSize || options.journal_bytes > limits::kMaxJournalSize ||
      options.journal_bytes % kPageSize != 0)
    co_return fail(ErrorCode::invalid_argument, "journal size beyond the limits");
  if (data.size_bytes() < limits::kMinDataSize || data.size_bytes() > limits::kMaxDataSize)
    co_return fail(ErrorCode::invalid_argument, "data size beyond the limits");
  const uint64_t tables = (s.clusters * 4 + s.pages * 4) / kPageSize;
  if (s.pages < s.first_node_page().value + 256 + 3 * tables)
    co_return fail(ErrorCode::invalid_argument, "the metadata device is too small for this data device");
  s.tables[disk::kClusterCounts].length_bytes = s.clusters * 4;
  s.tables[disk::kPageCounts].length_bytes = s.pages * 4;
  for (unsigned id : {disk::kClusterCounts, disk::kPageCounts}) {
    const Table shape(s.tables[id].length_bytes);
    s.tables[id].levels = uint8_t(shape.levels() - 1);
  }
  // Old superblocks first: a format that is interrupted leaves no store rather than half of one.
  AlignedBytes zeros(std::min<uint64_t>(options.journal_bytes, limits::MiB));
  Status status =
      co_await meta.write(0, zeros.bytes().first(disk::kSuperblockPages[1] * kPageSize + kPageSize));
  OBRAZ_CO_TRY(status);
  status = co_await meta.flush();
  OBRAZ_CO_TRY(status);
  // The journal is written through once, so that later writes to it change no metadata of the file system.
  const uint64_t journal_start = disk::kJournalFirstPage * kPageSize;
  status = co_await meta.allocate(0, journal_start + options.journal_bytes);
  OBRAZ_CO_TRY(status);
  for (uint64_t at = 0; at < options.journal_bytes; at += zeros.size()) {
    const uint64_t length = std::min<uint64_t>(zeros.size(), options.journal_bytes - at);
    status = co_await meta.write(journal_start + at, zeros.bytes().first(length));
    OBRAZ_CO_TRY(status);
  }
  AlignedBytes page(kPageSize);
  disk::encode(disk::Label{s.uuid, s.clusters}, page.bytes());
  status = co_await data.write(0, page.bytes());
  OBRAZ_CO_TRY(status);
  status = co_await data.flush();
  OBRAZ_CO_TRY(status);
  for (const Page place : {s.first_place(), s.second_place()}) {
    disk::encode(s, place, page.bytes());
    status = co_await meta.write(place.value * kPageSize, page.bytes());
    OBRAZ_CO_TRY(status);
    status = co_await meta.flush();
    OBRAZ_CO_TRY(status);
  }
  co_return status;
}

Task<Result<std::unique_ptr<Store>>> Store::open(Executor& executor, Device& meta, Device& data,
                                                 StoreOptions options) {
  auto core = co_await StoreCore::load(executor, meta, data, options);
  OBRAZ_CO_TRY(core);
  (*core)->clone_cache.keep_for_one(options.clones_kept_for_one);
  const Status status = co_await (*core)->start();
  OBRAZ_CO_TRY(status);
  co_return std::unique_ptr<Store>(new Store(std::move(*core)));
}

Store::Store(std::unique_ptr<StoreCore> core) : core_(std::move(core)) {}
Store::~Store() = default;

Task<Status> Store::close() {
  return core_->close();
}
Task<void> Store::abandon() {
  return core_->abandon();
}

// --- transactions and looking
// ----------------------------------------------------------------------------------------

VolumeId Store::new_volume_id() {
  return core_->state.take_volume_id();
}
Task<Status> Store::commit(Transaction transaction) {
  return core_->commit(std::move(transaction));
}

Result<Volume> Store::open_volume(VolumeId id) {
  auto state = core_->state.find_volume(id);
  if (!state)
    return fail(ErrorCode::not_found, "no such volume");
  return Volume(this, std::move(state));
}

namespace {

VolumeInfo info_of(const State& state, const VolumeState& volume) {
  const bool summed =
      volume.kind == VolumeKind::frozen && (!volume.root || state.is_summed(volume.root.page));
  return {volume.id, volume.kind, volume.size_bytes, volume.damaged, summed};
}

}  // namespace

std::vector<VolumeInfo> Store::volumes() const {
  std::vector<VolumeInfo> out;
  for (const auto& [id, volume] : core_->state.volumes())
    out.push_back(info_of(core_->state, *volume));
  return out;
}

Result<VolumeInfo> Store::volume_info(VolumeId id) const {
  const auto volume = core_->state.find_volume(id);
  if (!volume)
    return fail(ErrorCode::not_found, "no such volume");
  return info_of(core_->state, *volume);
}

const std::vector<std::pair<std::string, std::string>> Store::resources() const {
  return {core_->state.resources().begin(), core_->state.resources().end()};
}

Task<Status> Store::flush() {
  const Gate::Pass operation(core_->operations);
  if (!operation)
    co_return closing();
  if (!core_->failure.empty())
    co_return fail(ErrorCode::io, "the store has failed and is read-only");
  co_return co_await core_->join_commit();
}

Task<Status> Store::checkpoint() {
  const Gate::Pass operation(core_->operations);
  if (!operation)
    co_return closing();
  co_return co_await core_->run_checkpoint(false);
}

// --- difference and usage
// --------------------------------------------------------------------------------------------

Task<Status> Store::diff(Volume a, Volume b, std::move_only_function<bool(Extent)> visit) {
  const Gate::Pass operation(core_->operations);
  if (!operation)
    co_return closing();
  co_return co_await core_->diff(a.state_, b.state_, std::move(visit));
}

Task<Result<Store::Usage>> Store::usage(Volume volume) {
  const Gate::Pass operation(core_->operations);
  if (!operation)
    co_return closing();
  co_return co_await core_->usage(volume.state_);
}

Task<Result<uint64_t>> Store::freed_by_deleting(std::vector<Volume> volumes) {
  const Gate::Pass operation(core_->operations);
  if (!operation)
    co_return closing();
  std::vector<StoreCore::VolumePtr> states;
  for (const Volume& volume : volumes)
    states.push_back(volume.state_);
  co_return co_await core_->freed_by_deleting(std::move(states));
}

std::vector<DataDamage> Store::data_damage() const {
  std::vector<DataDamage> out;
  for (const auto& [cluster, bad] : core_->state.bad_clusters())
    for (unsigned block = 0; block < kBlocksPerCluster; ++block) {
      if (!(bad.blocks >> block & 1))
        continue;
      if (block > 0 && bad.blocks >> (block - 1) & 1)
        out.back().length_bytes += kBlockSize;
      else
        out.push_back({bad.volume, bad.at.value * kClusterSize + block * kBlockSize, kBlockSize, cluster});
    }
  return out;
}

// --- status
// ----------------------------------------------------------------------------------------------------------

SpaceInfo Store::space() const {
  const State& state = core_->state;
  SpaceInfo space;
  space.total_bytes = (core_->superblock.clusters - 1) * kClusterSize;
  space.used_bytes = state.used_clusters() * kClusterSize;
  space.shared_bytes = state.shared_clusters() * kClusterSize;
  space.reclaimable_bytes = core_->reclaimable_clusters() * kClusterSize;
  const uint64_t first = core_->superblock.first_node_page().value;
  space.meta_total_bytes = (core_->superblock.pages - first) * kPageSize;
  space.meta_used_bytes =
      space.meta_total_bytes - (state.pages().free_units() + state.pages().ungrown_units()) * kPageSize;
  space.reclaim_queue = state.dead().size();
  return space;
}

StoreHealth Store::health() const {
  if (!core_->failure.empty())
    return StoreHealth::failed;
  return core_->damaged_events > 0 || core_->state.inconsistent() || !core_->state.bad_clusters().empty()
             ? StoreHealth::damaged
             : StoreHealth::ok;
}

std::string Store::health_reason() const {
  if (!core_->failure.empty())
    return core_->failure;
  std::string damaged;
  for (const auto& [id, volume] : core_->state.volumes())
    if (volume->damaged)
      damaged += (damaged.empty() ? "damaged volumes: " : ", ") + std::to_string(id.value);
  if (const auto bad = data_damage(); !bad.empty())
    damaged += (damaged.empty() ? "" : "; ") + std::string("data that does not fit its checksums: volume ") +
               std::to_string(bad.front().volume.value) + ", " + std::to_string(bad.front().length_bytes) +
               " bytes at offset " + std::to_string(bad.front().offset) +
               (bad.size() > 1 ? ", and " + std::to_string(bad.size() - 1) + " other places" : "");
  if (core_->state.inconsistent())
    damaged += (damaged.empty() ? "" : "; ") + std::string("counts contradict the trees");
  if (damaged.empty() && core_->damaged_events > 0)
    damaged = "space of a deleted volume could not be reclaimed";
  return damaged;
}

StoreStats Store::stats() const {
  StoreStats stats = core_->counters;
  const NodeCache& cache = core_->state.cache();
  stats.summed_bytes = core_->state.summed_clusters() * kClusterSize;
  stats.volumes_to_sum = core_->volumes_to_sum();
  stats.stuck_blocks = core_->data.stuck_blocks();
  stats.nodes_cached = cache.size();
  stats.nodes_dirty = cache.dirty_count() + cache.frozen_count();
  stats.node_loads = cache.loads();
  stats.node_evictions = cache.evictions();
  stats.clone_cache_bytes = core_->clone_cache.size_bytes();
  stats.clone_cache_used_bytes = core_->clone_cache.used_bytes();
  stats.clone_cache_hits = core_->clone_cache.hits();
  stats.clone_cache_misses = core_->clone_cache.misses();
  stats.journal_bytes_used = core_->journal.used();
  stats.journal_bytes_total = core_->journal.size();
  return stats;
}

Uuid Store::uuid() const {
  return core_->superblock.uuid;
}

}  // namespace obraz
