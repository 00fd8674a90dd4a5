// What a request costs in device operations, counted: the properties of the data path that a clock cannot
// prove.
#include <gtest/gtest.h>

#include <random>

#include "sim/seeds.h"
#include "sim/world.h"

namespace obraz::test {
namespace {

constexpr uint64_t KiB = limits::KiB, MiB = limits::MiB;
constexpr uint64_t kDisk = 4 * MiB;

struct Cost {
  explicit Cost(const World& world) : world(world) { reset(); }
  void reset() {
    for (size_t i = 0; i < kIoKinds; ++i) {
      data[i] = world.data.counters(IoKind(i));
      meta[i] = world.meta.counters(IoKind(i));
    }
  }
  uint64_t data_operations(IoKind kind) const {
    return world.data.counters(kind).operations - data[size_t(kind)].operations;
  }
  uint64_t data_bytes(IoKind kind) const {
    return world.data.counters(kind).bytes - data[size_t(kind)].bytes;
  }
  uint64_t meta_operations(IoKind kind) const {
    return world.meta.counters(kind).operations - meta[size_t(kind)].operations;
  }
  const World& world;
  SimDevice::Counters data[kIoKinds], meta[kIoKinds];
};

struct Properties : testing::Test {
  Properties() { EXPECT_TRUE(world.open()); }
  ~Properties() override { EXPECT_EQ(world.problem(), "") << world.trace(); }
  template <typename T>
  T run(Task<T> task) {
    return world.loop.run(std::move(task));
  }
  static WorldOptions options() {
    WorldOptions made;
    made.store.sum_bytes_per_s = 0;  // it costs what it costs, but not the requests that are counted here
    return made;
  }
  World world{options()};
};

TEST_F(Properties, AnOverwriteIsOneWriteAndItsFlushOneFlush) {
  const uint64_t disk = run(world.create(kDisk));
  run(world.write(disk, 0, 64 * KiB));
  run(world.flush());
  world.loop.run_until_idle();
  Cost cost(world);
  run(world.write(disk, 4 * KiB, 8 * KiB));
  EXPECT_EQ(cost.data_operations(IoKind::write), 1u);
  EXPECT_EQ(cost.data_bytes(IoKind::write), 8 * KiB);
  EXPECT_EQ(cost.data_operations(IoKind::read), 0u);
  run(world.flush());
  EXPECT_EQ(cost.data_operations(IoKind::flush), 1u);
  EXPECT_EQ(cost.meta_operations(IoKind::write), 0u);
  EXPECT_EQ(cost.meta_operations(IoKind::flush), 0u);
}

TEST_F(Properties, AFirstWriteIntoASharedClusterWritesWhatItWasGiven) {
  const uint64_t disk = run(world.create(kDisk));
  run(world.write(disk, 0, 1 * MiB, true));
  run(world.snapshot(disk));
  Cost cost(world);
  run(world.write(disk, 128 * KiB + 4 * KiB, 4 * KiB));
  world.close();  // what was written is in its place
  EXPECT_EQ(cost.data_operations(IoKind::write), 1u);
  EXPECT_EQ(cost.data_bytes(IoKind::write), 4 * KiB);
  EXPECT_EQ(cost.data_operations(IoKind::read), 0u);
}

TEST_F(Properties, HolesAreNotRead) {
  const uint64_t disk = run(world.create(kDisk));
  run(world.write(disk, 0, 64 * KiB));
  Cost cost(world);
  run(world.read(disk, 1 * MiB, 1 * MiB));
  EXPECT_EQ(cost.data_operations(IoKind::read), 0u);
  run(world.read(disk, 0, 2 * MiB));
  EXPECT_EQ(cost.data_bytes(IoKind::read), 64 * KiB);
}

TEST_F(Properties, FlushesThatArriveTogetherShareOne) {
  std::vector<uint64_t> disks;
  for (int i = 0; i < 8; ++i) {
    disks.push_back(run(world.create(kDisk)));
    run(world.write(disks.back(), 0, 4 * KiB));
  }
  run(world.flush());
  struct Client {
    static Task<void> run(World& world, uint64_t disk) {
      co_await world.write(disk, 64 * KiB, 4 * KiB);
      co_await world.flush();
    }
    static Task<void> flush(World& world) { co_await world.flush(); }
  };
  Cost cost(world);
  for (int i = 0; i < 50; ++i)
    world.loop.spawn(Client::flush(world));
  world.loop.join();
  // The first one runs alone, all others share the next.
  EXPECT_LE(cost.data_operations(IoKind::flush), 2u);
  EXPECT_EQ(cost.meta_operations(IoKind::write), 0u);
  cost.reset();
  for (const uint64_t disk : disks)
    world.loop.spawn(Client::run(world, disk));
  world.loop.join();
  EXPECT_LE(cost.meta_operations(IoKind::flush), 8u);
  EXPECT_EQ(cost.meta_operations(IoKind::flush), cost.meta_operations(IoKind::write));
}

// Cloning and deleting cost the same for a large disk as for a small one.
TEST_F(Properties, LineageIsConstantTime) {
  const auto cost_of = [&](uint64_t mapped) {
    const uint64_t disk = run(world.create(64 * MiB));
    for (uint64_t offset = 0; offset < mapped; offset += 1 * MiB)
      run(world.write(disk, offset * 6, 64 * KiB));
    run(world.flush());
    world.loop.run_until_idle();
    Cost cost(world);
    const uint64_t snapshot = run(world.snapshot(disk));
    run(world.clone(snapshot, VolumeKind::disk));
    EXPECT_EQ(cost.data_operations(IoKind::write) + cost.data_operations(IoKind::read), 0u);
    return cost.meta_operations(IoKind::write) * 1000 + cost.meta_operations(IoKind::read);
  };
  EXPECT_EQ(cost_of(1 * MiB), cost_of(10 * MiB));
}

// What changed is found without looking at what did not.
TEST_F(Properties, TheDifferenceIsExactAndCostsWhatItIs) {
  const uint64_t disk = run(world.create(512 * MiB));
  for (uint64_t leaf = 0; leaf < 32; ++leaf)
    run(world.write(disk, leaf * 16 * MiB, 64 * KiB));
  const uint64_t before = run(world.snapshot(disk));
  const uint64_t same = run(world.snapshot(disk));
  run(world.write(disk, 5 * 16 * MiB + 4 * KiB, 8 * KiB));
  run(world.write(disk, 300 * MiB, 100));
  run(world.discard(disk, 7 * 16 * MiB, 16 * KiB));
  run(world.discard(disk, 10 * 16 * MiB, 16 * MiB));  // a leaf as a whole
  const uint64_t after = run(world.snapshot(disk));
  world.close();
  ASSERT_TRUE(world.open());
  Cost cost(world);
  run(world.diff(before, same, true));
  EXPECT_EQ(cost.meta_operations(IoKind::read), 0u);
  run(world.diff(before, after, true));
  EXPECT_LE(cost.meta_operations(IoKind::read), 2u * (1 + 4)) << "two roots and the leaves that differ";
  run(world.diff(after, before, true));
  EXPECT_EQ(cost.data_operations(IoKind::read), 0u);
  // Against a larger one, and against nothing.
  const uint64_t grown = run(world.clone(after, VolumeKind::frozen, 6ull * limits::GiB));
  run(world.diff(grown, before, true));
  run(world.diff(before, grown, true));
  const uint64_t empty = run(world.snapshot(run(world.create(4 * MiB))));
  run(world.diff(empty, after, true));
}

TEST_F(Properties, AStoreClosedCleanlyReplaysNothing) {
  const uint64_t disk = run(world.create(kDisk));
  run(world.write(disk, 0, 256 * KiB, true));
  world.close();
  ASSERT_TRUE(world.open());
  EXPECT_EQ(world.store->stats().replayed_records, 0u);
  world.verify();
  run(world.write(disk, 512 * KiB, 64 * KiB, true));
  world.crash(nullptr);
  ASSERT_TRUE(world.open());
  EXPECT_GT(world.store->stats().replayed_records, 0u);
  world.verify();
}

TEST_F(Properties, RecordsAreCommittedWithoutBeingAskedFor) {
  const uint64_t disk = run(world.create(kDisk));
  run(world.write(disk, 0, 64 * KiB));
  const uint64_t batches = world.store->stats().batches;
  world.loop.run_for_us(2 * world.options.store.commit_interval_us);
  EXPECT_GT(world.store->stats().batches, batches);
}

TEST_F(Properties, AnIdleStoreDoesNothing) {
  const uint64_t disk = run(world.create(kDisk));
  run(world.write(disk, 0, 64 * KiB));
  world.loop.run_for_us(10 * world.options.store.commit_interval_us);
  Cost cost(world);
  const uint64_t steps = world.loop.steps();
  world.loop.run_for_us(3600ull * 1'000'000);
  EXPECT_EQ(world.loop.steps(), steps);
  for (size_t i = 0; i < kIoKinds; ++i)
    EXPECT_EQ(cost.data_operations(IoKind(i)) + cost.meta_operations(IoKind(i)), 0u) << name_of(IoKind(i));
}

TEST_F(Properties, DeletedVolumesGiveTheirSpaceBack) {
  const uint64_t disk = run(world.create(64 * MiB));
  for (uint64_t i = 0; i < 8; ++i)
    run(world.write(disk, i * 8 * MiB, 128 * KiB));
  const uint64_t snapshot = run(world.snapshot(disk));
  run(world.write(disk, 4 * KiB, 4 * KiB, true));
  EXPECT_EQ(world.store->space().used_bytes, 8 * 128 * KiB + 64 * KiB);
  run(world.remove(disk));
  world.loop.run_for_us(10'000'000);
  EXPECT_EQ(world.store->space().used_bytes, 8 * 128 * KiB);
  run(world.remove(snapshot));
  world.loop.run_for_us(10'000'000);
  EXPECT_EQ(world.store->space().used_bytes, 0u);
  EXPECT_EQ(world.store->space().reclaim_queue, 0u);
  world.check();
  world.verify();
}

// Until everything that was given up has been freed.
void settle(World& world) {
  EXPECT_TRUE(world.loop.run(world.flush()));
  world.loop.run_for_us(20'000'000);
  EXPECT_EQ(world.store->space().reclaim_queue, 0u);
}

// What is said to be freed by deleting some volumes is what deleting them frees.
TEST_F(Properties, WhatDeletingFreesIsKnownBefore) {
  std::mt19937_64 random(7);
  for (int round = 0; round < int(scaled(40)); ++round) {
    World fresh(WorldOptions{.seed = 100 + uint64_t(round)});
    ASSERT_TRUE(fresh.open());
    const auto play = [&](auto task) { return fresh.loop.run(std::move(task)); };
    std::vector<uint64_t> volumes = {play(fresh.create(32 * MiB)), play(fresh.create(4 * MiB))};
    for (int step = 0; step < 40; ++step) {
      const uint64_t volume = volumes[random() % volumes.size()];
      const auto& disks = fresh.usable(VolumeKind::disk);
      const uint64_t disk = disks[random() % disks.size()];
      switch (random() % 5) {
        case 0:
          volumes.push_back(play(fresh.clone(volume, VolumeKind::disk)));
          break;
        case 1:
          volumes.push_back(play(fresh.snapshot(disk)));
          break;
        default:
          play(
              fresh.write(disk, random() % 60 * 64 * KiB + random() % 16 * 4 * KiB, 4 * KiB << random() % 3));
      }
    }
    play(fresh.flush());
    std::vector<Volume> chosen;
    Transaction deletions;
    std::vector<uint64_t> gone;
    for (const uint64_t id : volumes)
      if (random() % 3 == 0) {
        chosen.push_back(*fresh.store->open_volume({id}));
        gone.push_back(id);
      }
    if (chosen.empty())
      continue;
    settle(fresh);
    const auto freed = play(fresh.store->freed_by_deleting(chosen));
    ASSERT_TRUE(freed);
    chosen.clear();
    const uint64_t before = fresh.store->space().used_bytes;
    for (const uint64_t id : gone)
      ASSERT_TRUE(play(fresh.remove(id)));
    settle(fresh);
    EXPECT_EQ(before - fresh.store->space().used_bytes, *freed) << "round " << round;
    fresh.close();
    ASSERT_EQ(fresh.problem(), "");
  }
}

}  // namespace
}  // namespace obraz::test
