#include "store/core.h"

#include <algorithm>

#include "base/log.h"
#include "store/marks.h"

namespace obraz {

using disk::kPageSize;

StoreCore::StoreCore(Executor& e, Device& m, Device& d, const StoreOptions& o, const disk::Superblock& s)
    : executor(e),
      meta(m),
      data(e, d, o.kept_blocks),
      options(o),
      superblock(s),
      state(e, m, s, o.node_cache_bytes / kPageSize, std::max<uint64_t>(1, o.slab_bytes / kClusterSize)),
      journal(m, s),
      unflushed(o.carried_blocks),
      io(e),
      operations(e),
      clone_cache(e, o.clone_cache_bytes),
      commit_event_(e),
      staged_event_(e),
      checkpoint_event_(e),
      room_event_(e),
      space_event_(e),
      reclaim_event_(e),
      give_back_event_(e),
      sum_event_(e),
      commit_done_{Event(e), Event(e)},
      checkpoint_mutex_(e),
      page_growth_(e),
      cluster_growth_(e),
      transaction_order_(e),
      meta_flush_(e),
      commit_timer_(e),
      reclaim_timer_(e),
      give_back_timer_(e),
      sum_timer_(e),
      scrub_timer_(e),
      background_(e),
      committer_(e) {}

Status StoreCore::check_usable() const {
  if (!failure.empty())
    return obraz::fail(ErrorCode::read_only, "the store has failed and is read-only");
  return {};
}

// Never retried: after a failed flush nobody knows what is on the device (the kernel may have dropped the
// error along with the pages), so the only honest states are "as of the last success" and "not acknowledged".
void StoreCore::fail(const char* what, const Error& error) {
  if (!failure.empty())
    return;
  marks::hit(Mark::store_failed);
  failure = std::string(what) + ": " + describe(error);
  log::error("store: read-only from now on: {}", failure);
  for (Event* event : {&commit_event_, &staged_event_, &checkpoint_event_, &room_event_, &space_event_,
                       &reclaim_event_, &sum_event_, &commit_done_[0], &commit_done_[1]})
    event->notify_all();
}

// --- drop rule
// -------------------------------------------------------------------------------------------------------

// Drops are in the order of their records and of their marks, so the first that must wait holds up the rest.
void StoreCore::settle() {
  bool released = false;
  while (!drops_.empty() && drops_.front().record <= durable_records_ &&
         drops_.front().io_mark <= io.oldest()) {
    state.release(drops_.front().drop);
    drops_.pop_front();
    released = true;
  }
  if (!drops_.empty())
    marks::hit(drops_.front().record <= durable_records_ ? Mark::drop_waited_for_request
                                                         : Mark::drop_waited_for_record);
  if (!released)
    return;
  space_freed();
  if (state.has_dead())
    reclaim_event_.notify_all();
}

void StoreCore::space_freed() {
  space_event_.notify_all();
  give_back_event_.notify_all();
}

void StoreCore::stage(std::span<const disk::Record> records) {
  for (const auto& record : records) {
    applied_drops_.clear();
    state.apply(record, applied_drops_);
    ++records_;
    for (const Drop& drop : applied_drops_)
      drops_.push_back({drop, records_, io.mark()});
  }
  counters.records += records.size();
  journal.stage(records);
  if (journal.staged_bytes() > std::min<uint64_t>(limits::MiB, journal.size() / 8))
    want_commit();
  else
    staged_event_.notify_all();
  if (journal.used() > journal.size() / 2 || state.cache().dirty_count() > options.dirty_nodes)
    want_checkpoint();
}

// --- commit
// ----------------------------------------------------------------------------------------------------------

void StoreCore::want_commit() {
  commit_wanted_ = true;
  commit_event_.notify_all();
}

Task<Status> StoreCore::join_commit() {
  const Status usable = check_usable();
  OBRAZ_CO_TRY(usable);
  want_commit();
  if (committing_)
    marks::hit(Mark::commit_joined_while_another_ran);
  co_await commit_done_[(sealed_ + 1) % 2].wait();
  if (!failure.empty())
    co_return obraz::fail(ErrorCode::io, "the commit failed; the store is read-only");
  co_return Status();
}

Task<void> StoreCore::commit_loop() {
  while (failure.empty()) {
    if (commit_wanted_) {
      committing_ = true;
      co_await commit_once();
      committing_ = false;
    } else if (commits_stopping_)
      break;
    else
      co_await commit_event_.wait();
  }
}

// One at a time: of two that overlap, one may fail and with it lose what the other is said to have covered.
// And none after a failure, so that a checkpoint that is under way then ends without its superblock.
Task<Status> StoreCore::flush_meta(const Journal::Sealed* sealed) {
  const auto turn = co_await meta_flush_.lock();
  const Status usable = check_usable();
  OBRAZ_CO_TRY(usable);
  if (sealed)
    co_return co_await journal.write_and_flush(*sealed);
  co_return co_await meta.flush();
}

// Whether the journal takes what was written, so that it need not be flushed. Not while there are stuck
// blocks: so everything else that it has carried has landed once they are carried on.
bool StoreCore::can_carry(bool freezes) const {
  if (freezes || !unflushed.known() || unflushed.blocks().empty() || data.stuck_blocks() > 0)
    return false;
  // With nothing for the journal to write, a flush of `data` is all (P4).
  if (journal.empty() && !journal.carries())
    return false;
  if (journal.can_carry(unflushed.blocks().size()))
    return true;
  marks::hit(Mark::blocks_not_carried);
  return false;
}

// What the journal carried is in its place now and durable, but for the stuck blocks; these it carries on,
// unless they are all that it carries. Nothing has happened since the flush.
Status StoreCore::seal_flushed(Journal::Sealed& sealed) {
  const bool carries_on = data.stuck_version() != carried_stuck_;
  const auto stuck = carries_on ? data.stuck() : std::vector<disk::BlockRecord>();
  const bool landed = !stuck.empty() || (journal.carries() && data.stuck_blocks() == 0);
  if (stuck.size() > limits::kMaxStuckBlocks)
    return obraz::fail(ErrorCode::io, "more than the journal may carry on");
  if (!stuck.empty() && !journal.can_carry_on(stuck.size()))
    return obraz::fail(ErrorCode::no_space, "the journal has no room for them");
  if (landed)
    marks::hit(journal.empty() ? Mark::blocks_landed_alone : Mark::blocks_landed);
  if (!stuck.empty())
    marks::hit(Mark::stuck_carried);
  carried_stuck_ = data.stuck_version();
  sealed = journal.seal(landed, stuck);
  return {};
}

// The numbered steps are those of docs/disk-format.md, section 7.
Task<void> StoreCore::commit_once() {
  commit_wanted_ = false;
  const uint64_t records = records_;
  const bool freezes = std::exchange(freeze_wanted_, false);
  const bool carries = can_carry(freezes);
  const bool flushes = !carries && (unflushed.any() || (freezes && journal.carries()) ||
                                    data.stuck_version() != carried_stuck_);
  Journal::Sealed sealed;
  journal.close_off();  // 1
  if (carries) {
    counters.carried_blocks += unflushed.blocks().size();
    sealed = journal.seal(false, unflushed.blocks());
    marks::hit(Mark::blocks_carried);
  }
  unflushed.clear();
  const uint64_t number = ++sealed_;
  if (freezes)
    frozen_ = freeze();
  Status status;
  if (flushes) {  // 2
    ++counters.data_flushes;
    status = co_await data.flush();
    if (!status)
      co_return fail("flush of the data device", status.error());
    status = seal_flushed(sealed);
    if (!status)
      co_return fail("blocks that cannot be written", status.error());
  } else {
    marks::hit(Mark::data_flush_skipped);
    if (!carries)
      sealed = journal.seal();
  }
  if (freezes) {
    frozen_->superblock.sequence = journal.sequence();
    frozen_->superblock.chain = journal.chain();
    frozen_->superblock.journal_position = journal.position();
  }
  if (sealed.batches > 0) {
    if (journal.used() > journal.size() / 2)
      want_checkpoint();
    status = co_await flush_meta(&sealed);  // 3, 4
    if (!status)
      co_return fail("journal write or flush of the meta device", status.error());
    counters.batches += sealed.batches;
  }
  ++counters.commits;
  durable_records_ = records;  // 5
  settle();
  commit_done_[number % 2].notify_all();
}

// Records nobody asked to be durable are so after the commit interval all the same.
Task<void> StoreCore::ticker() {
  while (!stopping_ && failure.empty()) {
    if (journal.empty()) {
      co_await staged_event_.wait();
      continue;
    }
    co_await commit_timer_.wait_us(options.commit_interval_us);
    if (!journal.empty() && !stopping_) {
      marks::hit(Mark::commit_by_time);
      want_commit();
    }
    if (!stopping_ && failure.empty())
      co_await yield(executor);
  }
}

// --- checkpoint
// ------------------------------------------------------------------------------------------------------

void StoreCore::want_checkpoint() {
  checkpoint_wanted_ = true;
  checkpoint_event_.notify_all();
}

Task<void> StoreCore::checkpoint_loop() {
  while (!stopping_ && failure.empty()) {
    if (!checkpoint_wanted_) {
      co_await checkpoint_event_.wait();
      continue;
    }
    const Status status = co_await run_checkpoint(false);
    if (!status)
      break;
  }
}

std::unique_ptr<StoreCore::Frozen> StoreCore::freeze() {
  auto frozen = std::make_unique<Frozen>();
  std::vector<Drop*> pending;
  for (PendingDrop& drop : drops_)
    pending.push_back(&drop.drop);
  frozen->state = state.freeze(pending);
  disk::Superblock& s = frozen->superblock = superblock;
  s.generation = superblock.generation + 1;  // its place in the journal: when that is sealed
  s.tables = frozen->state.tables;
  s.sums = frozen->state.sums;
  s.next_volume = frozen->state.next_volume;
  return frozen;
}

Task<Status> StoreCore::run_checkpoint(bool clean) {
  const auto lock = co_await checkpoint_mutex_.lock();
  checkpoint_wanted_ = false;
  freeze_wanted_ = true;
  Status status = co_await join_commit();
  OBRAZ_CO_TRY(status);
  OBRAZ_CHECK(frozen_);
  if (data.stuck_blocks() > 0) {  // the journal must carry them after the checkpoint's place, too
    carried_stuck_ = WriteBehind::kNoVersion;
    status = co_await join_commit();
    OBRAZ_CO_TRY(status);
    clean = clean && data.stuck_blocks() == 0;
  }
  frozen_->superblock.flags = clean ? disk::Superblock::kFlagClean : 0;
  if (clean)
    marks::hit(Mark::closed_cleanly);
  status = co_await write_checkpoint(*frozen_);
  if (!status) {
    fail("checkpoint", status.error());
    co_return status;
  }
  superblock = frozen_->superblock;
  journal.free_up_to(superblock.journal_position);
  state.free_pages(frozen_->state.retired);
  frozen_.reset();
  ++counters.checkpoints;
  room_event_.notify_all();
  co_return Status();
}

Task<void> StoreCore::write_run(uint64_t first_page, AlignedBytes* bytes, Status* status) {
  const Status written = co_await meta.write(first_page * kPageSize, bytes->bytes());
  if (!written)
    *status = written;
}

// The numbered steps are those of docs/disk-format.md, section 8.
Task<Status> StoreCore::write_checkpoint(Frozen& frozen) {
  std::vector<std::pair<uint64_t, const std::byte*>> pages;  // 2
  for (const Node* node : frozen.state.nodes)
    pages.emplace_back(node->page.value, node->content);
  for (const auto& image : frozen.state.images)
    pages.emplace_back(image.page.value, image.content.get());
  std::ranges::sort(pages);
  constexpr size_t kRunPages = 64, kRuns = 8;
  Status status;
  for (size_t at = 0; at < pages.size();) {
    std::vector<AlignedBytes> runs;
    runs.reserve(kRuns);
    Gate gate(executor);
    while (at < pages.size() && runs.size() < kRuns) {
      size_t count = 1;
      while (count < kRunPages && at + count < pages.size() &&
             pages[at + count].first == pages[at].first + count)
        ++count;
      runs.emplace_back(count * kPageSize);
      for (size_t i = 0; i < count; ++i)
        std::copy_n(pages[at + i].second, kPageSize, runs.back().bytes().data() + i * kPageSize);
      gate.spawn(write_run(pages[at].first, &runs.back(), &status));
      at += count;
    }
    co_await gate.close();
    if (!status)
      marks::hit(Mark::checkpoint_stopped_writing_pages);
    OBRAZ_CO_TRY(status);
  }
  for (Node* node : frozen.state.nodes)
    state.cache().written(node);
  frozen.state.nodes.clear();
  status = co_await flush_meta();  // 3
  if (!status)
    marks::hit(Mark::checkpoint_stopped_flushing_pages);
  OBRAZ_CO_TRY(status);
  AlignedBytes page(kPageSize);
  const Page first = frozen.superblock.first_place(), second = frozen.superblock.second_place();
  disk::encode(frozen.superblock, first, page.bytes());
  status = co_await meta.write(first.value * kPageSize, page.bytes());  // 4
  if (!status)
    marks::hit(Mark::checkpoint_stopped_at_first_superblock);
  OBRAZ_CO_TRY(status);
  status = co_await flush_meta();  // 5
  if (!status)
    marks::hit(Mark::checkpoint_stopped_flushing_superblock);
  OBRAZ_CO_TRY(status);
  disk::encode(frozen.superblock, second, page.bytes());
  status = co_await meta.write(second.value * kPageSize, page.bytes());  // 6
  if (!status)
    marks::hit(Mark::checkpoint_stopped_at_second_superblock);
  co_return status;
}

// --- reclaimer
// -------------------------------------------------------------------------------------------------------

// Takes the last dead node apart; one that cannot be read is set aside.
Task<void> StoreCore::reclaim_step() {
  while (state.has_dead()) {
    const auto missing = state.reclaim_needs();
    if (!missing)
      co_return state.reclaim_one();
    const Page page = missing->ref.page;
    const Status status = co_await state.cache().load(missing->ref, missing->level);
    if (!status && state.has_dead() && state.dead().back().node.page == page) {
      log::error("store: page {} of meta is unreadable, what it names cannot be reclaimed: {}", page.value,
                 describe(status.error()));
      ++damaged_events;
      state.set_dead_aside();
    }
  }
}

Task<void> StoreCore::reclaim_loop() {
  while (!ending()) {
    if (!state.has_dead()) {
      co_await reclaim_event_.wait();
      continue;
    }
    for (unsigned i = 0; i < options.reclaim_step_nodes && state.has_dead(); ++i) {
      co_await reclaim_step();
      if (ending())
        break;
    }
    space_freed();
    // Slowly while nobody needs the space.
    if (!stopping_ && !space_event_.has_waiters())
      co_await reclaim_timer_.wait_us(options.reclaim_pause_us);
  }
}

uint64_t StoreCore::reclaimable_clusters() const {
  constexpr size_t kDrops = 4096, kNodes = 256;
  uint64_t clusters = 0;
  const auto count = [&](PhysicalCluster cluster) {
    clusters += cluster && state.cluster_count(cluster) == 1;
  };
  for (size_t i = 0; i < std::min(drops_.size(), kDrops); ++i)
    count(drops_[i].drop.cluster);
  const auto& dead = state.dead();
  for (size_t i = dead.size() - std::min(dead.size(), kNodes); i < dead.size(); ++i) {
    const Node* node = dead[i].level == 0 ? state.cache().peek(dead[i].node.page) : nullptr;
    for (unsigned slot = 0; node && slot < disk::kSlotsPerNode; ++slot) {
      count(node->slot(slot).own);
      count(node->slot(slot).base);
    }
  }
  return clusters;
}

// Slabs without a used cluster go back to the file system. Some stay, for the next writes: it costs less to
// use them again than to punch them out and to take new ones. And a part at a time, slowly: a hole that is
// punched into a file holds up everything else that is done to it.
Task<void> StoreCore::give_back_loop() {
  while (!ending()) {
    const uint64_t keep = std::clamp<uint64_t>(state.clusters().grown_slabs() / limits::kKeptSlabShare, 1,
                                               limits::kMaxKeptSlabs);
    const auto slab = state.clusters().shrink(keep);
    if (!slab) {
      co_await give_back_event_.wait();
      continue;
    }
    marks::hit(Mark::slab_given_back);
    giving_back_ = true;
    constexpr uint64_t kPart = limits::kGiveBackPart / kClusterSize;
    for (uint64_t at = 0; at < slab->count && !ending(); at += kPart) {
      const uint64_t count = std::min(kPart, slab->count - at);
      const uint64_t begin = executor.now_us();
      const Status status = co_await data.discard((slab->first + at) * kClusterSize, count * kClusterSize);
      if (!status)
        log::warning("store: freed space could not be given back: {}", describe(status.error()));
      if (!ending() && !space_event_.has_waiters())
        co_await give_back_timer_.wait_us(
            std::max(count * kClusterSize * 1'000'000 / options.give_back_bytes_per_s,
                     (executor.now_us() - begin) * limits::kGiveBackRest));
    }
    giving_back_ = false;
    state.clusters().shrunk(*slab);
    space_event_.notify_all();
  }
}

// --- admission
// -------------------------------------------------------------------------------------------------------

void StoreCore::Admission::release() {
  if (!core_)
    return;
  core_->journal.unreserve(journal_bytes_);
  core_->reserved_pages_ -= pages_;
  core_->room_event_.notify_all();
  core_ = nullptr;
}

Task<Status> StoreCore::grow(Space& space, Device& device, uint64_t unit_bytes, Mutex& mutex) {
  const uint64_t before = space.ungrown_units();
  const auto lock = co_await mutex.lock();
  if (space.ungrown_units() != before)
    co_return Status();  // somebody else did
  const auto slab = space.next_slab();
  if (!slab)
    co_return obraz::fail(ErrorCode::no_space, "the device is full");
  const Status status = co_await device.allocate(slab->first * unit_bytes, slab->count * unit_bytes);
  OBRAZ_CO_TRY(status);
  marks::hit(Mark::slab_grown);
  space.grown(*slab);
  if (&device == &data)  // the file system must have it for good before anything in it counts as durable
    unflushed.add_unknown();
  co_return Status();
}

StoreCore::Lack StoreCore::try_admit(const Cost& cost, Admission& admission) {
  OBRAZ_CHECK(!admission);
  const uint64_t journal_bytes = cost.record_bytes > 0 ? Journal::cost_of(cost.record_bytes) : 0;
  const uint64_t pages = cost.node_pages + cost.table_pages;
  // Deletes, trims and small metadata go on when nothing else does.
  const uint64_t kept = cost.essential ? 0 : limits::kEssentialPages;
  const uint64_t needed = pages + reserved_pages_ + state.checkpoint_reserve() + kept;
  const uint64_t pinned = state.cache().dirty_count() + state.cache().frozen_count() + reserved_pages_;
  if (pages > 0 && state.pages().free_units() < needed)
    return Lack::pages;
  // Too many are pinned: a checkpoint first. With none pinned it would change nothing, however much is asked
  // for.
  if (cost.node_pages > 0 && pinned > 0 && pinned + pages > std::max<uint64_t>(2 * options.dirty_nodes, 64))
    return Lack::clean_nodes;
  if (!journal.try_reserve(journal_bytes))
    return Lack::journal;
  admission.core_ = this;
  admission.journal_bytes_ = journal_bytes;
  admission.pages_ = pages;
  reserved_pages_ += pages;
  return Lack::nothing;
}

bool StoreCore::admit_now(const Cost& cost, Admission& admission) {
  return failure.empty() && !stopping_ && try_admit(cost, admission) == Lack::nothing;
}

Task<Status> StoreCore::admit(const Cost& cost, Admission& admission) {
  unsigned waits = 0;  // for pages: freed ones come back two checkpoints later at most
  for (;;) {
    const Status usable = check_usable();
    OBRAZ_CO_TRY(usable);
    if (stopping_)  // only background work is left, and no checkpoint will come to make room for it
      co_return obraz::fail(ErrorCode::unavailable, "the store is closing");
    switch (try_admit(cost, admission)) {
      case Lack::nothing:
        co_return Status();
      case Lack::pages:
        if (state.pages().ungrown_units() > 0) {
          const Status grown = co_await grow(state.pages(), meta, kPageSize, page_growth_);
          if (grown || grown.error().code != ErrorCode::no_space)
            OBRAZ_CO_TRY(grown);
          if (grown)
            continue;
        }
        marks::hit(Mark::waited_for_pages);
        if (++waits > 3)
          co_return obraz::fail(ErrorCode::no_space, "the metadata device is full");
        break;
      case Lack::clean_nodes:
        marks::hit(Mark::waited_for_dirty_nodes);
        break;
      case Lack::journal:
        marks::hit(Mark::journal_full);
        break;
    }
    want_checkpoint();
    co_await room_event_.wait();
  }
}

bool StoreCore::take_clusters(uint64_t count, uint64_t hint, Clusters& clusters) {
  while (clusters.size() < count) {
    const Space::Run run = state.clusters().allocate(count - clusters.size(), hint);
    if (run.count == 0)
      return false;
    for (uint64_t i = 0; i < run.count; ++i)
      clusters.push_back({run.first + i});
    hint = run.first + run.count;
  }
  return true;
}

Task<Status> StoreCore::allocate_clusters(uint64_t count, uint64_t hint, Clusters& clusters) {
  Status full;
  while (!take_clusters(count, hint, clusters)) {
    const Status usable = check_usable();
    OBRAZ_CO_TRY(usable);
    if (state.clusters().ungrown_units() > 0 && full) {
      full = co_await grow(state.clusters(), data, kClusterSize, cluster_growth_);
      continue;
    }
    // What was deleted before this write still becomes space, and a slab that is being given back can be
    // taken again; ENOSPC only when nothing more is on its way.
    if (drops_.empty() && !state.has_dead() && !giving_back_) {
      marks::hit(Mark::store_full);
      co_return full ? obraz::fail(ErrorCode::no_space, "the store is full") : Failure(full.error());
    }
    if (!drops_.empty())
      want_commit();
    reclaim_timer_.cancel();
    give_back_timer_.cancel();
    marks::hit(Mark::waited_for_clusters);
    co_await space_event_.wait();
    full = {};  // there may be room to grow into again
  }
  co_return Status();
}

void StoreCore::give_back(PhysicalCluster cluster) {
  if (state.cluster_count(cluster) == 0)
    state.clusters().release(cluster.value);
  space_event_.notify_all();
}

// --- transactions
// ----------------------------------------------------------------------------------------------------

Task<Status> StoreCore::commit(Transaction transaction) {
  const Gate::Pass pass(operations);
  if (!pass)
    co_return obraz::fail(ErrorCode::unavailable, "the store is closing");
  std::vector<disk::Record> records;
  Cost cost{.essential = true};
  for (Change& change : transaction) {
    const bool grows = std::holds_alternative<CreateVolume>(change) ||
                       std::holds_alternative<CloneVolume>(change) ||
                       std::holds_alternative<ResizeVolume>(change);
    if (grows) {
      cost.essential = false;
      cost.node_pages += disk::kMaxLevel;  // roots on top of the present one
    }
    std::visit([&](auto& c) { records.emplace_back(std::move(c)); }, change);
    if (const auto* put = std::get_if<PutResource>(&records.back());
        put && (put->key.size() > disk::kMaxKeySize || put->value.size() > limits::kMaxResourceSize))
      co_return obraz::fail(ErrorCode::invalid_argument, "a resource beyond the limits");
    cost.record_bytes += disk::encoded_size(records.back());
    cost.table_pages += State::table_growth(records.back());
  }
  if (records.empty())
    co_return Status();
  if (cost.record_bytes > Journal::kMaxRecordBytes)
    co_return obraz::fail(ErrorCode::resource_exhausted,
                          "the transaction is too large for one journal batch");
  // In the order of the calls, so that a caller who knows what it asked for before knows the state it meets.
  auto turn = co_await transaction_order_.lock();
  Admission admission;
  Status status = co_await admit(cost, admission);
  OBRAZ_CO_TRY(status);
  status = check_transaction(records);
  OBRAZ_CO_TRY(status);
  // The clones' sources are what they are at this instant; writes in flight on them may still land in them.
  std::vector<std::pair<VolumePtr, uint64_t>> sources;
  for (const auto& record : records)
    if (const auto* clone = std::get_if<CloneVolume>(&record))
      if (auto source = state.find_volume(clone->source))
        sources.emplace_back(source, source->writes.mark());
  stage(records);
  admission.release();
  turn.unlock();
  for (const auto& [source, mark] : sources)
    if (source->writes.oldest() < mark)
      marks::hit(Mark::snapshot_waited_for_write);
  // What they write is shared from now on, and not yet still: the cache of clones keeps none of it.
  ++landing;
  for (const auto& [source, mark] : sources)
    co_await source->writes.wait_until_past(mark);
  --landing;
  // Sealed after the landing: its data flush covers what landed.
  status = co_await join_commit();
  OBRAZ_CO_TRY(status);
  for (const auto& record : records)
    if (const auto* clone = std::get_if<CloneVolume>(&record);
        clone && clone->kind == VolumeKind::frozen && options.sum_bytes_per_s > 0)
      if (auto volume = state.find_volume(clone->id))
        to_sum_.push_back(std::move(volume));
  sum_event_.notify_all();
  co_return status;
}

// All or nothing: later changes are judged as if the earlier ones had been made.
Status StoreCore::check_transaction(std::span<const disk::Record> records) const {
  struct Shadow {
    bool exists = false;
    VolumeKind kind = VolumeKind::disk;
    uint64_t size_bytes = 0;
  };
  std::map<VolumeId, Shadow> shadows;
  std::map<std::string, bool> keys;
  const auto look = [&](VolumeId id) -> Shadow& {
    auto [found, fresh] = shadows.try_emplace(id);
    if (fresh)
      if (const auto volume = state.find_volume(id))
        found->second = {true, volume->kind, volume->size_bytes};
    return found->second;
  };
  const auto valid_size = [](uint64_t size) { return size > 0 && size <= limits::kMaxVolumeSize; };
  constexpr auto kNoVolume = "no such volume";
  uint64_t added = 0;
  for (const auto& record : records) {
    if (const auto* r = std::get_if<CreateVolume>(&record)) {
      Shadow& volume = look(r->id);
      if (volume.exists || !r->id)
        return obraz::fail(ErrorCode::already_exists, "the volume exists");
      if (!valid_size(r->size_bytes))
        return obraz::fail(ErrorCode::invalid_argument, "volume size beyond the limits");
      volume = {true, VolumeKind::disk, r->size_bytes};
      ++added;
    } else if (const auto* r = std::get_if<CloneVolume>(&record)) {
      const Shadow source = look(r->source);
      Shadow& volume = look(r->id);
      if (!source.exists)
        return obraz::fail(ErrorCode::not_found, kNoVolume);
      if (volume.exists || !r->id)
        return obraz::fail(ErrorCode::already_exists, "the volume exists");
      if (!valid_size(r->size_bytes) || r->size_bytes < source.size_bytes)
        return obraz::fail(ErrorCode::invalid_argument,
                           "volume size beyond the limits or below the source's");
      volume = {true, r->kind, r->size_bytes};
      ++added;
    } else if (const auto* r = std::get_if<DeleteVolume>(&record)) {
      if (!look(r->id).exists)
        return obraz::fail(ErrorCode::not_found, kNoVolume);
      look(r->id).exists = false;
    } else if (const auto* r = std::get_if<RevertVolume>(&record)) {
      const Shadow source = look(r->source);
      Shadow& volume = look(r->id);
      if (!source.exists || !volume.exists)
        return obraz::fail(ErrorCode::not_found, kNoVolume);
      if (volume.kind != VolumeKind::disk || source.kind != VolumeKind::frozen)
        return obraz::fail(ErrorCode::failed_precondition,
                           "only a disk can be reverted, and only to a frozen volume");
      volume.size_bytes = source.size_bytes;
    } else if (const auto* r = std::get_if<ResizeVolume>(&record)) {
      Shadow& volume = look(r->id);
      if (!volume.exists)
        return obraz::fail(ErrorCode::not_found, kNoVolume);
      if (volume.kind != VolumeKind::disk)
        return obraz::fail(ErrorCode::failed_precondition, "only a disk can be resized");
      if (!valid_size(r->size_bytes) || r->size_bytes < volume.size_bytes)
        return obraz::fail(ErrorCode::invalid_argument, "a disk can only grow, up to the limit");
      volume.size_bytes = r->size_bytes;
    } else if (const auto* r = std::get_if<PutResource>(&record)) {
      if (r->key.empty())
        return obraz::fail(ErrorCode::invalid_argument, "a resource needs a key");
      keys[r->key] = true;
    } else if (const auto* r = std::get_if<RemoveResource>(&record)) {
      const auto found = keys.find(r->key);
      if (found == keys.end() ? !state.resources().contains(r->key) : !found->second)
        return obraz::fail(ErrorCode::not_found, "no such resource");
      keys[r->key] = false;
    }
  }
  if (state.volumes().size() + added > limits::kMaxVolumes)
    return obraz::fail(ErrorCode::resource_exhausted, "too many volumes");
  return {};
}

}  // namespace obraz
