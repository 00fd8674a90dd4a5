#include "sim/scenarios.h"

namespace obraz::test {
namespace {

constexpr uint64_t KiB = limits::KiB, MiB = limits::MiB;
constexpr uint64_t kDisk = 4 * MiB;

// Several requests of one client at once.
void write_many(World& w, Gate& gate, uint64_t disk, uint64_t first, uint64_t step, uint64_t length,
                int count) {
  struct One {
    static Task<void> run(World& w, uint64_t disk, uint64_t offset, uint64_t length) {
      co_await w.write(disk, offset, length);
    }
  };
  for (int i = 0; i < count; ++i)
    gate.spawn(One::run(w, disk, first + uint64_t(i) * step, length));
}

Task<void> writes(World& w) {
  const uint64_t disk = co_await w.create(kDisk);
  co_await w.write(disk, 0, 4 * KiB);
  co_await w.write(disk, 64 * KiB, 64 * KiB);
  co_await w.write(disk, 5000, 100);                   // inside a block
  co_await w.write(disk, 15 * 4 * KiB + 123, 70'000);  // across clusters, unaligned at both ends
  co_await w.flush();
  co_await w.write(disk, 0, 4 * KiB);              // in place
  co_await w.write(disk, 64 * KiB + 512, 1024);    // in place, partial
  co_await w.write(disk, 8 * KiB, 4 * KiB, true);  // a first write, FUA
  co_await w.write(disk, 8 * KiB, 4 * KiB, true);  // in place, FUA
  co_await w.write(disk, 1 * MiB, 1 * MiB);
  co_await w.flush();
  co_await w.write(disk, kDisk - 100, 100);
  co_await w.read(disk, 0, kDisk);
}

Task<void> zero_and_discard(World& w) {
  const uint64_t disk = co_await w.create(kDisk);
  co_await w.write(disk, 0, 512 * KiB);
  co_await w.flush();
  co_await w.zero(disk, 1000, 10'000);
  co_await w.discard(disk, 64 * KiB, 8 * KiB);             // part of a cluster
  co_await w.discard(disk, 128 * KiB - 1, 128 * KiB + 2);  // whole clusters and ragged ends
  co_await w.write(disk, 68 * KiB, 4 * KiB);               // where something was discarded
  co_await w.flush();
  co_await w.zero(disk, 256 * KiB, 64 * KiB, {.fua = true});
  co_await w.zero(disk, 320 * KiB, 64 * KiB, {.keep_allocated = true});
  co_await w.zero(disk, 1 * MiB, 128 * KiB, {.keep_allocated = true});
  co_await w.write(disk, 256 * KiB, 32 * KiB);
  co_await w.discard(disk, 0, kDisk, true);  // everything, in one step
  co_await w.write(disk, 12 * KiB, 4 * KiB);
  co_await w.flush();
  co_await w.read(disk, 0, kDisk);
}

Task<void> clones(World& w) {
  const uint64_t disk = co_await w.create(kDisk);
  co_await w.write(disk, 0, 192 * KiB);
  const uint64_t snapshot = co_await w.snapshot(disk);
  co_await w.write(disk, 4 * KiB, 4 * KiB);  // no copy on the first write
  co_await w.write(disk, 64 * KiB, 64 * KiB);
  const uint64_t copy = co_await w.clone(snapshot, VolumeKind::disk, 2 * kDisk);
  co_await w.write(copy, 8 * KiB, 10'000);
  co_await w.write(copy, kDisk + 4 * KiB, 8 * KiB);  // beyond the source
  const uint64_t image = co_await w.clone(copy, VolumeKind::frozen);
  co_await w.write(copy, 12 * KiB, 4 * KiB);  // shared own, with a base below: the bounded copy
  co_await w.discard(copy, 16 * KiB, 4 * KiB);
  const uint64_t second = co_await w.clone(image, VolumeKind::disk);
  co_await w.write(second, 0, 100 * KiB);
  co_await w.flush();
  co_await w.remove(snapshot);  // any order
  co_await w.write(disk, 0, 8 * KiB);
  co_await w.remove(disk);
  co_await w.read(copy, 0, 2 * kDisk);
  co_await w.remove(image);
  co_await w.read(second, 0, kDisk);
}

Task<void> snapshots_under_writes(World& w) {
  const uint64_t a = co_await w.create(kDisk);
  const uint64_t b = co_await w.create(kDisk);
  co_await w.write(a, 0, 256 * KiB);
  co_await w.write(b, 0, 64 * KiB);
  co_await w.flush();
  for (int round = 0; round < 3; ++round) {
    Gate gate(w.loop);
    write_many(w, gate, a, 0, 20 * KiB, 12 * KiB, 8);  // in place and beside
    write_many(w, gate, b, 32 * KiB, 16 * KiB, 5000, 5);
    std::vector<uint64_t> disks;
    disks.push_back(a);
    disks.push_back(b);
    const auto made = co_await w.snapshot_all(disks);
    write_many(w, gate, a, 4 * KiB, 40 * KiB, 4 * KiB, 5);
    if (round == 1 && !made.empty())
      co_await w.remove(made.front());
    co_await gate.close();
  }
  co_await w.flush();
}

Task<void> reverts(World& w) {
  const uint64_t disk = co_await w.create(kDisk);
  co_await w.write(disk, 0, 128 * KiB);
  const uint64_t first = co_await w.snapshot(disk);
  co_await w.resize(disk, 2 * kDisk);
  co_await w.write(disk, 0, 64 * KiB);
  co_await w.write(disk, kDisk, 64 * KiB);
  const uint64_t second = co_await w.snapshot(disk);
  {
    Gate gate(w.loop);
    write_many(w, gate, disk, 0, 16 * KiB, 8 * KiB, 6);
    co_await w.revert(disk, first);  // with writes in flight; smaller again
    co_await gate.close();
  }
  co_await w.read(disk, 0, kDisk);
  co_await w.resize(disk, 2 * kDisk);  // what was beyond the end is zeros
  co_await w.read(disk, kDisk, kDisk);
  co_await w.write(disk, kDisk + 8 * KiB, 4 * KiB);
  co_await w.revert(disk, second);
  co_await w.write(disk, 4 * KiB, 4 * KiB);
  co_await w.remove(second);
  co_await w.flush();
  co_await w.read(disk, 0, 2 * kDisk);
}

Task<void> reclaiming(World& w) {
  constexpr uint64_t kLarge = 64 * MiB;  // four leaves
  const uint64_t disk = co_await w.create(kLarge);
  for (uint64_t i = 0; i < 16; ++i)
    co_await w.write(disk, i * 4 * MiB, 64 * KiB);
  const uint64_t snapshot = co_await w.snapshot(disk);
  for (uint64_t i = 0; i < 16; i += 3)
    co_await w.write(disk, i * 4 * MiB + 4 * KiB, 4 * KiB);
  co_await w.flush();
  co_await w.remove(disk);
  co_await w.sleep_us(20'000);  // the reclaimer works
  const uint64_t next = co_await w.create(kLarge);
  for (uint64_t i = 0; i < 8; ++i)
    co_await w.write(next, i * 64 * KiB, 64 * KiB);  // into what was freed
  co_await w.remove(snapshot);
  co_await w.sleep_us(3'000);
  co_await w.write(next, 1 * MiB, 256 * KiB);
  co_await w.flush();
  co_await w.discard(next, 0, kLarge);
  co_await w.write(next, 3 * MiB, 64 * KiB);
  co_await w.sleep_us(20'000);
  co_await w.read(next, 0, 4 * MiB);
}

Task<void> checkpoints(World& w) {
  const uint64_t disk = co_await w.create(kDisk);
  co_await w.write(disk, 0, 128 * KiB);
  co_await w.checkpoint();
  co_await w.write(disk, 4 * KiB, 4 * KiB);
  const uint64_t snapshot = co_await w.snapshot(disk);
  {
    Gate gate(w.loop);
    write_many(w, gate, disk, 0, 12 * KiB, 8 * KiB, 10);
    co_await w.checkpoint();  // while writes go on
    co_await gate.close();
  }
  co_await w.discard(disk, 64 * KiB, 64 * KiB);
  co_await w.checkpoint();
  co_await w.remove(snapshot);
  co_await w.put("note", "one");
  co_await w.checkpoint();
  co_await w.put("note", "two");
  co_await w.write(disk, 64 * KiB, 8 * KiB, true);
  co_await w.checkpoint();
  co_await w.read(disk, 0, kDisk);
}

// More batches than the journal holds, several times.
Task<void> journal_wrap(World& w) {
  const uint64_t disk = co_await w.create(kDisk);
  for (uint64_t i = 0; i < 100; ++i) {
    co_await w.write(disk, i % 32 * 64 * KiB + i / 32 * 4 * KiB, 4 * KiB, true);
    if (i % 10 == 9)
      co_await w.discard(disk, i % 32 * 64 * KiB, 64 * KiB, true);
  }
  co_await w.put("large", std::string(20'000, 'x'));  // a batch of several blocks
  co_await w.put("large", std::string(30'000, 'y'));
  co_await w.read(disk, 0, kDisk);
}

Task<void> full_store(World& w) {
  const uint64_t disk = co_await w.create(64 * MiB);
  co_await w.write(disk, 0, 256 * KiB);
  co_await w.flush();
  const uint64_t snapshot = co_await w.snapshot(disk);
  for (uint64_t i = 1; i < 40; ++i) {
    const bool fits = co_await w.write(disk, i * 512 * KiB, 512 * KiB);
    if (!fits)
      break;
  }
  co_await w.write(disk, 512 * KiB, 64 * KiB);  // overwrites go on
  co_await w.write(disk, 60 * MiB, 64 * KiB);   // refused
  co_await w.discard(disk, 1 * MiB, 1 * MiB);
  co_await w.flush();
  co_await w.sleep_us(5'000);
  co_await w.write(disk, 61 * MiB, 128 * KiB);  // room again
  co_await w.remove(snapshot);
  co_await w.snapshot(disk);
  co_await w.flush();
  co_await w.remove(disk);
  co_await w.sleep_us(50'000);
  const uint64_t next = co_await w.create(kDisk);
  co_await w.write(next, 0, 64 * KiB);
  co_await w.flush();
}

WorldOptions many_checkpoints() {
  WorldOptions options;
  options.store.dirty_nodes = 4;
  options.store.node_cache_bytes = 16 * 4 * KiB;
  options.store.reclaim_step_nodes = 1;
  return options;
}

}  // namespace

const std::vector<Scenario>& scenarios() {
  static const std::vector<Scenario> all = {
      {"Writes", writes, {}},
      {"ZeroAndDiscard", zero_and_discard, {}},
      {"Clones", clones, {}},
      {"ClonesWithManyCheckpoints", clones, many_checkpoints()},
      {"SnapshotsUnderWrites", snapshots_under_writes, {.slow = 0.2}},
      {"Reverts", reverts, {}},
      {"Reclaiming", reclaiming, {}},
      {"ReclaimingWithManyCheckpoints", reclaiming, many_checkpoints()},
      {"Checkpoints", checkpoints, {}},
      {"JournalWrap", journal_wrap, {}},
      {"FullStore", full_store, {}},
  };
  return all;
}

}  // namespace obraz::test
