// The checker's replay of the journal, in memory: the same calls of State in the same order as recovery's, so
// that what is walked afterwards is what a start of the daemon would serve.
#include <fmt/format.h>

#include <utility>
#include <variant>

#include "store/checker.h"

namespace obraz::checking {

using disk::kPageSize;

namespace {

struct VolumeOf {
  VolumeId operator()(const disk::MapRecord& r) const { return r.volume; }
  VolumeId operator()(const disk::DropRangeRecord& r) const { return r.volume; }
  VolumeId operator()(const CreateVolume& r) const { return r.id; }
  VolumeId operator()(const CloneVolume& r) const { return r.id; }
  VolumeId operator()(const DeleteVolume& r) const { return r.id; }
  VolumeId operator()(const RevertVolume& r) const { return r.id; }
  VolumeId operator()(const ResizeVolume& r) const { return r.id; }
  VolumeId operator()(const PutResource&) const { return {}; }
  VolumeId operator()(const RemoveResource&) const { return {}; }
  VolumeId operator()(const disk::BlockRecord&) const { return {}; }
  VolumeId operator()(const disk::LandedRecord&) const { return {}; }
};

// As StoreCore::make_room_in_recovery(), and nothing is allocated.
Task<bool> make_room(Checker* c) {
  State& state = c->core->state;
  while (state.pages().free_units() < State::kPagesPerRecord) {
    if (const auto slab = state.pages().next_slab()) {
      state.pages().grown(*slab);
      continue;
    }
    if (!state.has_dead())
      co_return false;
    const auto missing = state.reclaim_needs();
    if (!missing) {
      state.reclaim_one();
      continue;
    }
    const Status loaded = co_await load_node(c, *missing);
    if (!loaded) {
      c->finding({missing->ref.page.value, -1, missing->level, describe(loaded.error())});
      c->unread = true;
      state.set_dead_aside();
    }
  }
  co_return true;
}

// Whether the journal goes on.
Task<bool> replay_record(Checker* c, const disk::Record* record, std::string place) {
  State& state = c->core->state;
  const Status fits = state.admissible(*record);
  if (!fits) {
    if (const VolumeId id = std::visit(VolumeOf{}, *record))
      place += fmt::format(", of volume {}", id.value);
    c->problem(fmt::format("{}: it does not fit the state: {}", place, describe(fits.error())));
    co_return false;
  }
  for (auto missing = state.needs(*record); missing; missing = state.needs(*record)) {
    const Status loaded = co_await load_node(c, *missing);
    if (!loaded) {  // the walk names the node; recovery passes the record over
      const auto volume = state.find_volume(std::visit(VolumeOf{}, *record));
      if (volume && !std::exchange(volume->damaged, true))
        c->problem(
            fmt::format("{}: volume {} is damaged, so the record cannot be replayed: page {} of meta: {}",
                        place, volume->id.value, missing->ref.page.value, describe(loaded.error())));
      co_return true;
    }
  }
  const bool room = co_await make_room(c);
  if (!room) {
    c->problem(place + ": no room in the metadata device to recover");
    co_return false;
  }
  std::vector<Drop> drops;
  state.apply(*record, drops);
  for (const Drop& drop : drops)
    state.release(drop);
  ++c->report.replayed_records;
  co_return true;
}

}  // namespace

Task<void> replay_journal(Checker* c) {
  Journal& journal = c->core->journal;
  const auto place = [&] {
    return fmt::format("journal, batch {} at page {} of meta", journal.sequence().value + 1,
                       disk::kJournalFirstPage + journal.position() % journal.size() / kPageSize);
  };
  if (c->meta.size_bytes() < c->superblock().first_node_page().value * kPageSize) {
    c->problem("journal: not read, for it lies beyond the end of meta");
    co_return;
  }
  bool apply = c->adopted;
  for (;;) {
    const std::string at = place();
    const auto batch = co_await journal.read_next();
    if (!batch) {
      c->problem(fmt::format("{}: {}", at, describe(batch.error())));
      co_return;
    }
    if (batch->records.empty())
      break;
    for (size_t i = 0; apply && i < batch->records.size(); ++i)
      apply = co_await replay_record(c, &batch->records[i], fmt::format("{}, record {}", at, i));
  }
  if (c->core->state.inconsistent())
    c->problem("journal: it drops references that no count has");
  if (!(c->superblock().flags & disk::Superblock::kFlagClean)) {
    const Status end = co_await journal.check_end();
    if (!end)
      c->problem(fmt::format("{}: damaged or missing, though a batch behind it says that it was durable ({})",
                             place(), describe(end.error())));
  }
}

}  // namespace obraz::checking
