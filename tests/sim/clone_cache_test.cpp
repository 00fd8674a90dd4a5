// The cache of clones in the store: many disks of one image read the device once, one after the other and at
// the same time; nothing that has changed, failed or rotted is ever served from memory; nobody waits for
// ever.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <vector>

#include "sim/world.h"
#include "store/marks.h"

namespace obraz::test {
namespace {

constexpr uint64_t KiB = limits::KiB, MiB = limits::MiB;
constexpr uint64_t kLong = 10'000'000;  // virtual
constexpr unsigned kClones = 20;

WorldOptions with_cache(uint64_t bytes, uint64_t sum_rate = 0) {
  WorldOptions options;
  options.store.clone_cache_bytes = bytes;
  options.store.sum_bytes_per_s = sum_rate;
  options.store.commit_interval_us = 1000;
  options.store.reclaim_pause_us = 10;
  return options;
}

struct CloneCacheInStore : testing::Test {
  explicit CloneCacheInStore(const WorldOptions& options = with_cache(4 * MiB)) : world(options) {
    EXPECT_TRUE(world.open());
  }
  ~CloneCacheInStore() override {
    EXPECT_EQ(world.problem(), "") << world.trace();
    marks::counts = {};
  }
  template <typename T>
  T run(Task<T> task) {
    return world.loop.run(std::move(task));
  }
  void make(uint64_t length = 512 * KiB) {
    disk = run(world.create(4 * MiB));
    run(world.write(disk, 0, length, true));
    image = run(world.snapshot(disk));
    clones.clear();
    for (unsigned i = 0; i < kClones; ++i)
      clones.push_back(run(world.clone(image, VolumeKind::disk)));
    world.loop.run_until([&] { return world.store->stats().volumes_to_sum == 0; });
    read_before = world.data.counters(IoKind::read);
  }
  uint64_t operations() const {
    return world.data.counters(IoKind::read).operations - read_before.operations;
  }
  uint64_t bytes() const { return world.data.counters(IoKind::read).bytes - read_before.bytes; }

  // Reads that are started beside the test. Judged by the oracle.
  void start(uint64_t volume, uint64_t offset, uint64_t length) {
    struct Reader {
      static Task<void> run(World& world, uint64_t volume, uint64_t offset, uint64_t length, unsigned* done) {
        const bool good = co_await world.read(volume, offset, length);
        *done += good;
      }
    };
    world.loop.spawn(Reader::run(world, volume, offset, length, &done));
  }
  Status read(uint64_t volume, uint64_t offset, uint64_t length) {
    ClientBuffer buffer(length);
    return run(world.store->open_volume({volume})->read(offset, buffer.bytes()));
  }
  ErrorCode error_of(const Status& status) { return status ? ErrorCode::unsupported : status.error().code; }
  static uint64_t count_of(Mark mark) { return marks::counts[size_t(mark)]; }
  // Where the cluster of the volume lies on the data device.
  uint64_t place_of(uint64_t volume, uint64_t offset) {
    ClientBuffer buffer(kBlockSize);
    EXPECT_TRUE(run(world.store->open_volume({volume})->read(offset, buffer.bytes())));
    std::vector<std::byte> block(kBlockSize);
    for (uint64_t page = 0; page < world.data.size_bytes() / kBlockSize; ++page) {
      if (!world.data.contents().has_page(page))
        continue;
      world.data.contents().read(page * kBlockSize, block);
      if (std::ranges::equal(block, buffer.bytes()))
        return page * kBlockSize;
    }
    ADD_FAILURE() << "the block is not on the device";
    return 0;
  }

  World world;
  uint64_t disk = 0, image = 0;
  std::vector<uint64_t> clones;
  SimDevice::Counters read_before;
  unsigned done = 0;
};

TEST_F(CloneCacheInStore, DisksOfOneImageReadTheDeviceOnce) {
  make();
  for (const uint64_t clone : clones)
    for (uint64_t offset = 0; offset < 512 * KiB; offset += 128 * KiB)
      ASSERT_TRUE(run(world.read(clone, offset, 128 * KiB)));
  EXPECT_EQ(bytes(), 512 * KiB);
  EXPECT_EQ(operations(), 4u);
  ASSERT_TRUE(run(world.read(image, 100, 200 * KiB))) << "whatever the alignment";
  ASSERT_TRUE(run(world.read(disk, 0, 256 * KiB)));
  EXPECT_EQ(bytes(), 512 * KiB);
  const StoreStats stats = world.store->stats();
  EXPECT_EQ(stats.clone_cache_misses, 128u);
  EXPECT_GE(stats.clone_cache_hits, (kClones - 1) * 128u);
  EXPECT_EQ(stats.clone_cache_used_bytes, 512 * KiB);
  EXPECT_LE(stats.clone_cache_bytes, 4 * MiB);
}

TEST_F(CloneCacheInStore, DisksOfOneImageReadTheDeviceOnceAtTheSameTime) {
  make();
  auto held = world.data.hold(IoKind::read);
  for (const uint64_t clone : clones)
    start(clone, 64 * KiB, 64 * KiB);
  start(clones[0], 60 * KiB, 136 * KiB);  // what nobody reads yet on both sides
  world.loop.run_for_us(1000);
  EXPECT_EQ(done, 0u);
  held->release();
  world.loop.join();
  EXPECT_EQ(done, kClones + 1);
  EXPECT_EQ(bytes(), 136 * KiB);
  EXPECT_EQ(operations(), 3u);
  EXPECT_EQ(count_of(Mark::cache_waited_in_vain), 0u);
}

TEST_F(CloneCacheInStore, AFailedReadIsNotTheErrorOfThoseWhoWaitForIt) {
  make();
  world.tolerated = [](const Error& error) { return error.code == ErrorCode::io; };
  world.data.fail(IoKind::read, 1, EIO);
  auto held = world.data.hold(IoKind::read);
  for (const uint64_t clone : clones)
    start(clone, 64 * KiB, 64 * KiB);
  world.loop.run_for_us(1000);
  held->release();
  world.loop.join();
  EXPECT_EQ(done, kClones - 1);
  EXPECT_EQ(count_of(Mark::cache_waited_in_vain), kClones - 1);
}

TEST_F(CloneCacheInStore, OnlyWhatIsMissingIsReadButInFewPieces) {
  make();
  ASSERT_TRUE(read(clones[0], 0, 32 * KiB));
  EXPECT_EQ(bytes(), 32 * KiB);
  ASSERT_TRUE(read(clones[1], 0, 64 * KiB));
  EXPECT_EQ(bytes(), 64 * KiB);
  EXPECT_EQ(operations(), 2u);
  // Every other block: the rest is one read.
  for (uint64_t offset = 64 * KiB; offset < 128 * KiB; offset += 8 * KiB)
    ASSERT_TRUE(read(clones[0], offset, 4 * KiB));
  const uint64_t before = operations();
  ASSERT_TRUE(run(world.read(clones[1], 64 * KiB, 64 * KiB)));
  EXPECT_EQ(operations(), before + 1);
  ASSERT_TRUE(run(world.read(clones[2], 64 * KiB, 64 * KiB)));
  EXPECT_EQ(operations(), before + 1);
}

TEST_F(CloneCacheInStore, LargeReadsKeepNothingButUseWhatIsThere) {
  make(512 * KiB);
  ASSERT_TRUE(read(clones[0], 0, 512 * KiB));
  EXPECT_EQ(world.store->stats().clone_cache_used_bytes, 0u);
  for (uint64_t offset = 0; offset < 512 * KiB; offset += 256 * KiB)
    ASSERT_TRUE(read(clones[1], offset, 256 * KiB));
  EXPECT_EQ(bytes(), 1 * MiB);
  ASSERT_TRUE(run(world.read(clones[2], 0, 512 * KiB)));
  EXPECT_EQ(bytes(), 1 * MiB);
}

TEST_F(CloneCacheInStore, WhatADiskHasAloneIsNotKept) {
  disk = run(world.create(4 * MiB));
  run(world.write(disk, 0, 128 * KiB, true));
  for (unsigned i = 0; i < 2; ++i)
    ASSERT_TRUE(read(disk, 0, 128 * KiB));
  EXPECT_EQ(world.store->stats().clone_cache_used_bytes, 0u);
  EXPECT_EQ(world.store->stats().clone_cache_misses, 0u);
  image = run(world.snapshot(disk));
  const uint64_t clone = run(world.clone(image, VolumeKind::disk));
  run(world.write(clone, 0, 64 * KiB));
  ASSERT_TRUE(read(clone, 0, 64 * KiB));
  EXPECT_EQ(world.store->stats().clone_cache_used_bytes, 0u) << "what it has written since, neither";
}

// Scans of small requests, by one disk: what others share stays.
TEST_F(CloneCacheInStore, AScanDoesNotPushOutWhatIsUsed) {
  world.close();
  world.options.store.clone_cache_bytes = 1 * MiB;
  ASSERT_TRUE(world.open());
  make(4 * MiB);
  for (unsigned i = 0; i < 3; ++i)
    for (uint64_t offset = 0; offset < 256 * KiB; offset += 64 * KiB)
      ASSERT_TRUE(read(clones[i], offset, 64 * KiB));
  uint64_t before = bytes(), missed = 0;
  for (uint64_t offset = 1 * MiB; offset < 4 * MiB; offset += 64 * KiB) {
    ASSERT_TRUE(read(clones[5], offset, 64 * KiB));
    before = bytes();
    ASSERT_TRUE(read(clones[6], offset / 4 % (256 * KiB) / (64 * KiB) * (64 * KiB), 64 * KiB));
    missed += bytes() - before;
  }
  EXPECT_EQ(missed, 0u);
  EXPECT_GT(count_of(Mark::cache_evicted), 0u);
}

// A read of two clusters has one of them, and waits for the other. Meanwhile the first one becomes its
// owner's alone, and is overwritten in place. (It was looked up when it was shared: the drop that ends that
// has been waiting for another read.) What the read has of it must not stay behind for the next snapshot.
TEST_F(CloneCacheInStore, WhatWasReadBeforeAWriteIsNotKeptAfterIt) {
  disk = run(world.create(4 * MiB));
  run(world.write(disk, 0, 64 * KiB, true));
  const uint64_t between = run(world.create(4 * MiB));
  run(world.write(between, 0, 64 * KiB, true));  // so that the clusters of the disk are not neighbours
  run(world.write(disk, 64 * KiB, 64 * KiB, true));
  const uint64_t second = place_of(disk, 64 * KiB), other = place_of(between, 0);
  image = run(world.snapshot(disk));
  auto slow = world.data.hold(IoKind::read, other, other + kClusterSize);
  start(between, 0, 4 * KiB);
  ASSERT_TRUE(world.loop.run_until([&] { return slow->caught(); }));
  EXPECT_TRUE(run(world.remove(image)));
  auto held = world.data.hold(IoKind::read, second, second + kClusterSize);
  start(disk, 0, 128 * KiB);
  world.loop.run_for_us(kLong);
  ASSERT_TRUE(held->caught());
  EXPECT_EQ(world.store->stats().clone_cache_misses, 32u) << "it counts as shared";
  slow->release();
  world.loop.run_for_us(kLong);
  const uint64_t in_place = world.store->stats().writes_in_place;
  EXPECT_TRUE(run(world.write(disk, 0, 4 * KiB)));
  EXPECT_EQ(world.store->stats().writes_in_place, in_place + 1);
  EXPECT_EQ(count_of(Mark::cache_fill_voided), 1u);
  held->release();
  world.loop.join();
  EXPECT_EQ(done, 2u);
  run(world.snapshot(disk));
  EXPECT_TRUE(run(world.read(disk, 0, 128 * KiB)));
  EXPECT_TRUE(run(world.read(disk, 0, 128 * KiB)));
}

// What was shared, and so is cached, becomes its disk's alone, changes there, and is shared again.
TEST_F(CloneCacheInStore, WhatIsWrittenIsForgotten) {
  disk = run(world.create(4 * MiB));
  run(world.write(disk, 0, 64 * KiB, true));
  image = run(world.snapshot(disk));
  EXPECT_TRUE(run(world.read(disk, 0, 64 * KiB)));
  EXPECT_EQ(world.store->stats().clone_cache_used_bytes, 64 * KiB);
  EXPECT_TRUE(run(world.remove(image)));
  run(world.flush());
  world.loop.run_for_us(kLong);
  const StoreStats before = world.store->stats();
  EXPECT_TRUE(run(world.discard(disk, 8 * KiB, 4 * KiB)));
  EXPECT_TRUE(run(world.write(disk, 8 * KiB, 4 * KiB)));  // where the cluster has no block now
  EXPECT_EQ(world.store->stats().writes_first, before.writes_first + 1);
  EXPECT_EQ(world.store->stats().clone_cache_used_bytes, 0u);
  run(world.snapshot(disk));
  EXPECT_TRUE(run(world.read(disk, 0, 64 * KiB)));
  EXPECT_TRUE(run(world.read(disk, 0, 64 * KiB)));
}

// A cluster becomes shared while a write in place is on its way into it.
TEST_F(CloneCacheInStore, WhatAWriteInFlightAtASnapshotWillChangeIsNotKept) {
  disk = run(world.create(4 * MiB));
  run(world.write(disk, 0, 64 * KiB, true));
  auto held = world.data.hold(IoKind::write);
  struct Requests {
    static Task<void> write(World& world, uint64_t disk) { co_await world.write(disk, 0, 4 * KiB); }
    static Task<void> snapshot(World& world, uint64_t disk) { co_await world.snapshot(disk); }
  };
  world.loop.spawn(Requests::write(world, disk));
  ASSERT_TRUE(world.loop.run_until([&] { return held->caught(); }));
  world.loop.spawn(Requests::snapshot(world, disk));
  world.loop.run_for_us(1000);
  EXPECT_TRUE(run(world.read(disk, 0, 64 * KiB)));
  EXPECT_GE(count_of(Mark::cache_not_filled_while_landing), 1u);
  held->release();
  world.loop.join();
  EXPECT_TRUE(run(world.read(disk, 0, 64 * KiB)));
  EXPECT_EQ(world.store->stats().clone_cache_used_bytes, 64 * KiB);
  EXPECT_TRUE(run(world.read(disk, 0, 64 * KiB)));
}

TEST_F(CloneCacheInStore, AStoreThatClosesOrFailsWaitsForNobodyForEver) {
  make();
  auto held = world.data.hold(IoKind::read);
  for (const uint64_t clone : clones)
    start(clone, 0, 64 * KiB);
  ASSERT_TRUE(world.loop.run_until([&] { return held->caught(); }));
  struct Closing {
    static Task<void> run(Store& store, bool* closed) {
      const Status status = co_await store.close();
      *closed = status.has_value();
    }
  };
  bool closed = false;
  world.loop.spawn(Closing::run(*world.store, &closed));
  world.loop.run_for_us(kLong);
  EXPECT_FALSE(closed);
  held->release();
  world.loop.join();
  EXPECT_TRUE(closed);
  EXPECT_EQ(done, kClones);
  world.store.reset();

  ASSERT_TRUE(world.open());
  world.tolerated = [](const Error&) { return true; };
  held = world.data.hold(IoKind::read);
  for (const uint64_t clone : clones)
    start(clone, 0, 64 * KiB);
  ASSERT_TRUE(world.loop.run_until([&] { return held->caught(); }));
  world.crash(nullptr);  // joins
  EXPECT_EQ(done, kClones);
  ASSERT_TRUE(world.open());
  world.verify();
}

struct CloneCacheWithChecksums : CloneCacheInStore {
  CloneCacheWithChecksums() : CloneCacheInStore(with_cache(4 * MiB, limits::TiB)) {}
};

TEST_F(CloneCacheWithChecksums, WhatIsRottenIsNotKept) {
  make();
  world.data.corrupt(place_of(disk, 20 * KiB) + 5 * kSectorSize, kSectorSize);
  // It was read whole just now to be found; a new store has nothing of it.
  world.close();
  ASSERT_TRUE(world.open());
  for (const uint64_t clone : clones) {
    EXPECT_EQ(error_of(read(clone, 0, 64 * KiB)), ErrorCode::corruption);
    EXPECT_EQ(error_of(read(clone, 20 * KiB, 4 * KiB)), ErrorCode::corruption);
  }
  EXPECT_TRUE(run(world.read(clones[0], 64 * KiB, 64 * KiB)));
}

// An error is one for everybody, whether the block happens to be in memory or not.
TEST_F(CloneCacheWithChecksums, WhatIsFoundToBeRottenIsForgotten) {
  make();
  ASSERT_TRUE(read(clones[0], 20 * KiB, 4 * KiB));
  world.data.corrupt(place_of(disk, 20 * KiB) + 5 * kSectorSize, kSectorSize);
  ASSERT_TRUE(read(clones[0], 20 * KiB, 4 * KiB)) << "from memory, where it is what it was";
  EXPECT_EQ(error_of(read(clones[1], 0, 64 * KiB)), ErrorCode::corruption)
      << "read along with its neighbours";
  EXPECT_EQ(error_of(read(clones[0], 20 * KiB, 4 * KiB)), ErrorCode::corruption);
  EXPECT_EQ(world.store->data_damage().size(), 1u);
}

// What was read before the cluster had checksums was compared with nothing. Here the device has given one
// reader something else than what the checksums were then made of.
TEST_F(CloneCacheWithChecksums, WhatWasReadBeforeThereWereChecksumsIsReadAgain) {
  disk = run(world.create(4 * MiB));
  run(world.write(disk, 0, 64 * KiB, true));
  const uint64_t place = place_of(disk, 0);
  ClientBuffer whole(kBlockSize);
  world.data.contents().read(place, whole.bytes());
  auto held = world.data.hold(IoKind::read, place, place + kClusterSize);
  image = run(world.snapshot(disk));
  ASSERT_TRUE(world.loop.run_until([&] { return held->caught(); }));
  world.data.corrupt(place, kSectorSize);
  EXPECT_TRUE(read(disk, 0, 64 * KiB));
  EXPECT_EQ(world.store->stats().clone_cache_used_bytes, 64 * KiB);
  run(world.data.write(place, whole.bytes()));
  held->release();
  ASSERT_TRUE(world.loop.run_until([&] { return world.store->volume_info({image})->summed; }));
  EXPECT_TRUE(run(world.read(disk, 0, 64 * KiB)));
}

}  // namespace
}  // namespace obraz::test
