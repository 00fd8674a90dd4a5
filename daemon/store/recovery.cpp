// Opening and closing a store: docs/disk-format.md, section 9.
#include <algorithm>

#include "base/log.h"
#include "store/core.h"
#include "store/marks.h"

namespace obraz {

using disk::kPageSize;

namespace {

// The valid superblock with the higher generation. A damaged one is passed over for the other.
Task<Result<disk::Superblock>> read_superblock(Device& meta) {
  std::optional<disk::Superblock> best;
  Error reason{ErrorCode::not_found, 0, "no superblock: this is not a store"};
  AlignedBytes page(kPageSize);
  for (uint64_t at : disk::kSuperblockPages) {
    if (meta.size_bytes() < (at + 1) * kPageSize)
      continue;
    const Status status = co_await meta.read(at * kPageSize, page.bytes());
    OBRAZ_CO_TRY(status);
    auto decoded = disk::decode_superblock(page.bytes(), Page{at});
    if (!decoded) {
      marks::hit(Mark::superblock_damaged);
      // The first superblock place of a store that has had one checkpoint only is empty: not a complaint.
      if (decoded.error().code != ErrorCode::not_found)
        log::warning("store: superblock at page {}: {}", at, describe(decoded.error()));
      if (reason.code == ErrorCode::not_found && decoded.error().code != ErrorCode::not_found)
        reason = decoded.error();
      continue;
    }
    if (best && decoded->generation != best->generation)
      marks::hit(Mark::superblocks_differ);
    if (!best || decoded->generation > best->generation)
      best = *decoded;
  }
  if (!best)
    co_return Failure(reason);
  co_return *best;
}

}  // namespace

Task<Result<std::unique_ptr<StoreCore>>> StoreCore::load(Executor& executor, Device& meta, Device& data,
                                                         StoreOptions options) {
  Status status = co_await meta.flush();  // 1
  OBRAZ_CO_TRY(status);
  status = co_await data.flush();
  OBRAZ_CO_TRY(status);
  const auto superblock = co_await read_superblock(meta);  // 2
  OBRAZ_CO_TRY(superblock);
  if (superblock->pages * kPageSize > meta.size_bytes() ||
      superblock->clusters * kClusterSize > data.size_bytes())
    co_return obraz::fail(ErrorCode::corruption, "a device is smaller than the superblock says");
  AlignedBytes page(kPageSize);
  status = co_await data.read(0, page.bytes());
  OBRAZ_CO_TRY(status);
  const auto label = disk::decode_label(page.bytes());
  if (!label)
    co_return obraz::fail(ErrorCode::corruption, "the data device has no valid label");
  if (label->uuid != superblock->uuid || label->clusters != superblock->clusters)
    co_return obraz::fail(ErrorCode::corruption, "the data device belongs to another store");
  auto core = std::make_unique<StoreCore>(executor, meta, data, options, *superblock);
  for (unsigned id = 0; id < disk::kTables && status; ++id)  // 3
    status = co_await core->load_table(id);
  if (status)
    status = core->state.adopt_tables();
  if (status)
    status = co_await core->replay();  // 4
  OBRAZ_CO_TRY(status);
  co_return std::move(core);
}

Task<Status> StoreCore::load_table(unsigned id) {
  Table& table = state.table(id);
  // Nothing is allocated on the word of a length alone: each table has a largest size that follows from the
  // geometry.
  const uint64_t node_bytes = superblock.pages * kPageSize;
  const uint64_t largest[disk::kTables] = {
      superblock.clusters * 4, superblock.pages * 4,
      std::min(limits::kMaxVolumes * disk::kVolumeEntrySize * 2, node_bytes), node_bytes, node_bytes};
  constexpr auto kBad = "tables: impossible shape";
  if (!table.prepare(superblock.tables[id], largest[id]))
    co_return obraz::fail(ErrorCode::corruption, kBad);
  constexpr uint64_t kRun = 64;
  AlignedBytes buffer(kRun * kPageSize);
  for (unsigned level = table.levels(); level-- > 0;) {
    const uint64_t count = table.refs(level).size();
    for (uint64_t at = 0; at < count;) {
      const disk::PageRef first = table.refs(level)[at];
      if (!first) {
        ++at;
        continue;
      }
      uint64_t run = 1;
      while (run < kRun && at + run < count &&
             table.refs(level)[at + run].page.value == first.page.value + run)
        ++run;
      if (first.page < superblock.first_node_page() || first.page.value + run > superblock.pages)
        co_return obraz::fail(ErrorCode::corruption, kBad);
      const Bytes bytes = buffer.bytes().first(run * kPageSize);
      const Status status = co_await meta.read(first.page.value * kPageSize, bytes);
      OBRAZ_CO_TRY(status);
      for (uint64_t i = 0; i < run; ++i) {
        const ConstBytes content = bytes.subspan(i * kPageSize, kPageSize);
        const disk::PageRef ref = table.refs(level)[at + i];
        const uint32_t type = level == 0 ? disk::kTypeTablePage : disk::type_of_index(level - 1);
        if (disk::page_checksum(superblock.uuid, ref.page, type, content) != ref.checksum)
          co_return obraz::fail(ErrorCode::corruption, "tables: a page's checksum does not fit");
        if (!table.set_page(level, at + i, content))
          co_return obraz::fail(ErrorCode::corruption, "tables: reserved bytes are not zero");
      }
      at += run;
    }
  }
  co_return Status();
}

Task<Status> StoreCore::replay() {
  std::vector<Drop> drops;
  for (;;) {
    const auto batch = co_await journal.read_next();
    OBRAZ_CO_TRY(batch);
    if (batch->records.empty())
      break;
    for (const disk::Record& record : batch->records) {
      const Status fits = state.admissible(record);
      if (!fits)
        co_return obraz::fail(ErrorCode::corruption, "journal: a record does not fit the state");
      bool readable = true;
      for (auto missing = state.needs(record); missing && readable; missing = state.needs(record)) {
        const Status loaded = co_await state.cache().load(missing->ref, missing->level);
        if (!loaded && loaded.error().code != ErrorCode::corruption)
          co_return loaded;
        readable = bool(loaded);
      }
      ++counters.replayed_records;
      marks::hit(Mark::replayed_records);
      if (!readable) {
        const auto* map = std::get_if<disk::MapRecord>(&record);
        const auto* range = std::get_if<disk::DropRangeRecord>(&record);
        const VolumeId id = map ? map->volume : range->volume;
        if (const auto volume = state.find_volume(id); volume && !std::exchange(volume->damaged, true))
          log::error("store: volume {} is damaged: a mapping node is unreadable", id.value);
        ++damaged_events;
        continue;
      }
      const Status room = co_await make_room_in_recovery(State::kPagesPerRecord, false);
      OBRAZ_CO_TRY(room);
      if (const auto* block = std::get_if<disk::BlockRecord>(&record)) {
        AlignedBytes& content = carried_[block->cluster.value * kClusterSize + block->block * kBlockSize];
        content = AlignedBytes(kBlockSize);
        std::ranges::copy(block->content, content.bytes().begin());
      } else if (std::holds_alternative<disk::LandedRecord>(record)) {
        carried_.clear();
      }
      drops.clear();
      state.apply(record, drops);
      for (const Drop& drop : drops)
        state.release(drop);
    }
  }
  if (state.inconsistent())
    co_return obraz::fail(ErrorCode::corruption, "counts contradict the journal");
  if (!(superblock.flags & disk::Superblock::kFlagClean)) {
    const Status end = co_await journal.check_end();
    OBRAZ_CO_TRY(end);
  }
  co_return Status();
}

// Free pages for what recovery is about to do. When all are in use, what the records before have killed is
// taken apart, as it was in the run that wrote them: so recovery never needs more than that run had. The
// checker recovers, too, and allocates nothing.
Task<Status> StoreCore::make_room_in_recovery(uint64_t pages, bool allocate) {
  while (state.pages().free_units() < pages) {
    if (const auto slab = state.pages().next_slab()) {
      if (allocate) {
        const Status status = co_await meta.allocate(slab->first * kPageSize, slab->count * kPageSize);
        OBRAZ_CO_TRY(status);
      }
      state.pages().grown(*slab);
    } else if (state.has_dead()) {
      co_await reclaim_step();
    } else {
      co_return obraz::fail(ErrorCode::no_space, "no room in the metadata device to recover");
    }
  }
  co_return Status();
}

void StoreCore::lay_carried(PhysicalCluster cluster, Bytes bytes) const {
  const uint64_t begin = cluster.value * kClusterSize;
  for (auto it = carried_.lower_bound(begin); it != carried_.end() && it->first < begin + kClusterSize; ++it)
    std::ranges::copy(it->second.bytes(), bytes.begin() + ptrdiff_t(it->first - begin));
}

// A second power cut changes nothing: the journal has them until the checkpoint.
Task<Status> StoreCore::land_carried() {
  for (const auto& [offset, content] : carried_) {
    if (state.cluster_count({offset / kClusterSize}) == 0) {
      marks::hit(Mark::carried_for_nobody);
      continue;
    }
    marks::hit(Mark::carried_replayed);
    const Status status = co_await data.write(offset, content.bytes());
    if (status)
      unflushed.add_unknown();
    else if (!data.keep_stuck(offset, content.bytes()))
      co_return status;
  }
  carried_.clear();
  co_return Status();
}

Task<Status> StoreCore::start() {
  Status status = co_await land_carried();  // 5
  OBRAZ_CO_TRY(status);
  // The pages that the first checkpoint needs are taken now.
  status = co_await make_room_in_recovery(state.next_checkpoint_pages(), true);
  OBRAZ_CO_TRY(status);
  superblock.run = superblock.generation + 1;  // 6
  journal.start_run(superblock.run);
  committer_.spawn(commit_loop());
  status = co_await run_checkpoint(false);
  if (!status) {
    co_await abandon();
    co_return status;
  }
  background_.spawn(ticker());
  background_.spawn(checkpoint_loop());
  background_.spawn(reclaim_loop());
  background_.spawn(give_back_loop());
  for (const auto& [id, volume] : state.volumes())
    if (volume->kind == VolumeKind::frozen && options.sum_bytes_per_s > 0)
      to_sum_.push_back(volume);
  background_.spawn(sum_loop());
  background_.spawn(scrub_loop());
  co_return Status();
}

Task<void> StoreCore::stop_background() {
  stopping_ = true;
  commit_timer_.cancel();
  reclaim_timer_.cancel();
  give_back_timer_.cancel();
  sum_timer_.cancel();
  scrub_timer_.cancel();
  for (Event* event : {&staged_event_, &checkpoint_event_, &reclaim_event_, &give_back_event_, &space_event_,
                       &room_event_, &sum_event_})
    event->notify_all();
  co_await background_.close();
}

Task<void> StoreCore::stop_commits() {
  commits_stopping_ = true;
  commit_event_.notify_all();
  co_await committer_.close();
}

Task<Status> StoreCore::close() {
  co_await operations.close();
  co_await stop_background();
  Status status = check_usable();
  if (status)
    status = co_await run_checkpoint(true);
  co_await stop_commits();
  co_await data.stop();
  co_return status;
}

Task<void> StoreCore::abandon() {
  if (failure.empty())
    fail("abandoned", Error{ErrorCode::unavailable, 0, "stopped without a checkpoint"});
  co_await operations.close();
  co_await stop_background();
  co_await stop_commits();
  co_await data.stop();
}

}  // namespace obraz
