// The rules that random histories break too rarely to prove: a dropped reference counts until the reads
// and writes in flight at the drop have ended; a snapshot is acknowledged by a commit sealed after the
// writes in flight at its instant have landed; what the device does not take gives way to what it takes, and
// only then. One operation of the device is held for as long as the test wants.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "sim/world.h"
#include "support/stamp.h"

namespace obraz::test {
namespace {

constexpr uint64_t KiB = limits::KiB, MiB = limits::MiB;
constexpr uint64_t kDisk = 4 * MiB;
constexpr uint64_t kLong = 10'000'000;  // virtual: far beyond any commit interval or pause of the reclaimer

struct DirectedTest : testing::Test {
  static WorldOptions with_seed(uint64_t seed) {
    WorldOptions made;
    made.seed = seed;
    made.store.commit_interval_us = 1000;
    made.store.reclaim_pause_us = 10;
    return made;
  }
  explicit DirectedTest(const WorldOptions& options = with_seed(1)) : world(options) {
    EXPECT_TRUE(world.open());
    world.may_be_full = true;
  }
  ~DirectedTest() override { EXPECT_EQ(world.problem(), "") << world.trace(); }

  template <typename T>
  T run(Task<T> task) {
    return world.loop.run(std::move(task));
  }
  // The same, started beside the test.
  void start(Task<bool> task) {
    struct Drop {
      static Task<void> result(Task<bool> task) { co_await std::move(task); }
    };
    world.loop.spawn(Drop::result(std::move(task)));
  }
  // Fills another disk until a write is refused, or waits because space is still on its way: whatever is free
  // is written over.
  void fill_the_store() {
    const uint64_t disk = run(world.create(64 * MiB)), refused = world.refused;
    struct Fill {
      static Task<void> until_full(World& world, uint64_t disk, uint64_t refused) {
        for (uint64_t offset = 0; offset < 64 * MiB && world.refused == refused; offset += 64 * KiB)
          co_await world.write(disk, offset, 64 * KiB);
      }
    };
    world.loop.spawn(Fill::until_full(world, disk, refused));
    world.loop.run_for_us(kLong);
    EXPECT_EQ(world.store->space().used_bytes, world.store->space().total_bytes) << "the store is not full";
  }
  void finish() {
    world.check();
    world.verify();
    world.close();
  }
  World world;
};

// Reads `length` bytes and remembers them.
struct SlowRead {
  SlowRead(World& world, uint64_t volume, uint64_t length) : buffer(length) {
    auto opened = world.store->open_volume({volume});
    OBRAZ_CHECK(opened.has_value());
    handle = *opened;
    world.loop.spawn(run(*this));
  }
  static Task<void> run(SlowRead& read) {
    read.status = co_await read.handle.read(0, read.buffer.bytes());
    read.done = true;
  }
  Volume handle;
  ClientBuffer buffer;
  Status status;
  bool done = false;
};

std::vector<std::byte> bytes_now(World& world, uint64_t volume, uint64_t length) {
  SlowRead read(world, volume, length);
  world.loop.join();
  EXPECT_TRUE(read.status);
  return {read.buffer.bytes().begin(), read.buffer.bytes().end()};
}

bool same(const std::vector<std::byte>& a, Bytes b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

struct DropRule : DirectedTest {};

TEST_F(DropRule, AClusterIsNotReusedWhileAReadOfItIsInFlightAfterADiscard) {
  const uint64_t disk = run(world.create(kDisk));
  run(world.write(disk, 0, 64 * KiB, true));
  const auto before = bytes_now(world, disk, 64 * KiB);
  auto held = world.data.hold(IoKind::read);
  SlowRead read(world, disk, 64 * KiB);
  world.loop.run_until([&] { return held->caught(); });
  run(world.discard(disk, 0, 64 * KiB, true));
  world.loop.run_for_us(kLong);
  fill_the_store();
  ASSERT_FALSE(read.done);
  held->release();
  world.loop.join();
  ASSERT_TRUE(read.status);
  EXPECT_TRUE(same(before, read.buffer.bytes())) << "holds " << describe_stamp(read.buffer.bytes(), 0);
  // Now it is free, and is the only one: given back, it went to the writer that waited for it.
  EXPECT_EQ(world.refused, 1u);
  finish();
}

TEST_F(DropRule, AClusterIsNotReusedWhileAReadOfItIsInFlightAfterADelete) {
  const uint64_t disk = run(world.create(kDisk));
  run(world.write(disk, 0, 1 * MiB, true));
  const auto before = bytes_now(world, disk, 64 * KiB);
  auto held = world.data.hold(IoKind::read);
  SlowRead read(world, disk, 64 * KiB);
  world.loop.run_until([&] { return held->caught(); });
  EXPECT_TRUE(run(world.remove(disk)));
  world.loop.run_for_us(kLong);
  fill_the_store();
  ASSERT_FALSE(read.done);
  held->release();
  world.loop.join();
  EXPECT_TRUE(read.status ? same(before, read.buffer.bytes())
                          : read.status.error().code == ErrorCode::not_found)
      << "holds " << describe_stamp(read.buffer.bytes(), 0);
  read.handle = Volume();
  world.loop.run_for_us(kLong);
  finish();
}

// The count goes from two to one, not to zero: the other volume must not take the cluster for its own yet.
TEST_F(DropRule, TheLastSharerDoesNotWriteInPlaceUnderAReadInFlight) {
  const uint64_t disk = run(world.create(kDisk));
  run(world.write(disk, 0, 64 * KiB, true));
  const uint64_t snapshot = run(world.snapshot(disk));
  const uint64_t other = run(world.clone(snapshot, VolumeKind::disk));
  run(world.remove(snapshot));
  world.loop.run_for_us(kLong);
  run(world.write(other, 1 * MiB, 4 * KiB, true));  // both have leaves of their own now
  run(world.write(disk, 1 * MiB, 4 * KiB, true));
  world.loop.run_for_us(kLong);
  const auto before = bytes_now(world, disk, 64 * KiB);
  auto held = world.data.hold(IoKind::read);
  SlowRead read(world, disk, 64 * KiB);
  world.loop.run_until([&] { return held->caught(); });
  run(world.discard(disk, 0, 64 * KiB, true));
  world.loop.run_for_us(kLong);
  run(world.write(other, 0, 64 * KiB, true));
  ASSERT_FALSE(read.done);
  held->release();
  world.loop.join();
  ASSERT_TRUE(read.status);
  EXPECT_TRUE(same(before, read.buffer.bytes())) << "holds " << describe_stamp(read.buffer.bytes(), 0);
  finish();
}

// A write in flight when its cluster is dropped (by a revert) must not land in the cluster's next life.
TEST_F(DropRule, AClusterIsNotReusedWhileAWriteToItIsInFlight) {
  const uint64_t disk = run(world.create(kDisk));
  const uint64_t empty = run(world.snapshot(disk));
  run(world.write(disk, 0, 64 * KiB, true));
  auto held = world.data.hold(IoKind::write);
  start(world.write(disk, 0, 64 * KiB));  // in place
  world.loop.run_until([&] { return held->caught(); });
  EXPECT_TRUE(run(world.revert(disk, empty)));
  world.loop.run_for_us(kLong);
  fill_the_store();  // judged by the oracle at the end
  held->release();
  world.loop.join();
  const auto now = bytes_now(world, disk, 64 * KiB);
  EXPECT_TRUE(is_zero(now)) << describe_stamp(now, 0);
  finish();
}

TEST_F(DropRule, AFirstWriteOvertakenByARevertGivesItsClusterBack) {
  const uint64_t disk = run(world.create(kDisk));
  const uint64_t empty = run(world.snapshot(disk));
  run(world.write(disk, 1 * MiB, 64 * KiB, true));
  auto held = world.data.hold(IoKind::write);
  start(world.write(disk, 0, 64 * KiB));
  world.loop.run_until([&] { return held->caught(); });
  EXPECT_TRUE(run(world.revert(disk, empty)));
  held->release();
  world.loop.join();
  run(world.flush());
  world.loop.run_for_us(kLong);
  EXPECT_EQ(world.store->space().used_bytes, 0u);
  EXPECT_TRUE(is_zero(bytes_now(world, disk, 2 * MiB)));
  finish();
}

TEST_F(DropRule, AWriteInFlightOnADeletedDiskLeavesNothingBehind) {
  const uint64_t disk = run(world.create(kDisk));
  run(world.write(disk, 0, 64 * KiB, true));
  auto held = world.data.hold(IoKind::write);
  start(world.write(disk, 64 * KiB, 64 * KiB));
  world.loop.run_until([&] { return held->caught(); });
  EXPECT_TRUE(run(world.remove(disk)));
  world.loop.run_for_us(kLong);
  held->release();
  world.loop.join();
  world.loop.run_for_us(kLong);
  EXPECT_EQ(world.store->space().used_bytes, 0u);
  finish();
}

struct SnapshotWait : DirectedTest {
  // A disk whose first cluster is its own, and a write in flight to it.
  void SetUp() override {
    disk = run(world.create(kDisk));
    run(world.write(disk, 0, 64 * KiB, true));
    held = world.data.hold(IoKind::write);
    start(world.write(disk, 8 * KiB, 4 * KiB));
    ASSERT_TRUE(world.loop.run_until([&] { return held->caught(); }));
  }
  static Task<void> take(SnapshotWait& test) {
    test.snapshot = co_await test.world.snapshot(test.disk);
    test.taken = true;
  }
  uint64_t disk = 0, snapshot = 0;
  bool taken = false;
  std::shared_ptr<SimDevice::Hold> held;
};

TEST_F(SnapshotWait, IsAcknowledgedWhenTheWritesInFlightHaveLandedAndAreDurable) {
  const uint64_t batches = world.store->stats().batches;
  world.loop.spawn(take(*this));
  world.loop.run_for_us(kLong);
  EXPECT_GT(world.store->stats().batches, batches) << "its record did not become durable meanwhile";
  EXPECT_FALSE(taken) << "acknowledged while a write of before was in flight";
  held->release();
  world.loop.run_until([&] { return taken; });
  ASSERT_NE(snapshot, 0u);
  run(world.read(snapshot, 0, 64 * KiB));  // from now on it is exactly this
  const Survival nothing{.keep = 0, .torn = 0};
  world.crash(&nothing);
  ASSERT_TRUE(world.open());
  world.verify();
  finish();
}

TEST_F(SnapshotWait, LaterRequestsDoNotWait) {
  world.loop.spawn(take(*this));
  world.loop.run_for_us(kLong);
  EXPECT_TRUE(run(world.write(disk, 128 * KiB, 64 * KiB)));
  EXPECT_TRUE(run(world.write(disk, 128 * KiB, 4 * KiB)));
  EXPECT_TRUE(run(world.read(disk, 0, 256 * KiB)));
  EXPECT_TRUE(run(world.flush()));
  EXPECT_TRUE(run(world.put("other", "transactions go on")));
  EXPECT_FALSE(taken);
  held->release();
  world.loop.join();
  EXPECT_TRUE(taken);
  finish();
}

// Every write in flight counts, those that will stage a record, too.
TEST_F(SnapshotWait, CountsWritesThatAreNotInPlace) {
  held->release();
  world.loop.join();
  held = world.data.hold(IoKind::write);
  start(world.write(disk, 256 * KiB, 64 * KiB));
  ASSERT_TRUE(world.loop.run_until([&] { return held->caught(); }));
  world.loop.spawn(take(*this));
  world.loop.run_for_us(kLong);
  EXPECT_FALSE(taken);
  held->release();
  world.loop.join();
  EXPECT_TRUE(taken);
  finish();
}

TEST_F(SnapshotWait, APowerCutMeanwhileLeavesItWholeOrAbsent) {
  world.loop.spawn(take(*this));
  world.loop.run_for_us(kLong);
  const Survival everything{.keep = 1, .torn = 0};
  world.crash(&everything);
  ASSERT_TRUE(world.open());
  world.verify();
  finish();
}

// The pages of a checkpoint are being flushed when the flush of a commit fails: what the device then says of
// the first one is worth nothing if the two overlapped.
TEST(FailedFlush, DoesNotLeaveASuperblockThatNamesLostPages) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {  // each loses other writes
    World world(DirectedTest::with_seed(seed));
    world.tolerated = [](const Error& error) {
      return error.code == ErrorCode::io || error.code == ErrorCode::read_only;
    };
    ASSERT_TRUE(world.open());
    const uint64_t disk = world.loop.run(world.create(kDisk));
    world.loop.run(world.write(disk, 0, 64 * KiB, true));
    struct Later {
      static Task<void> checkpoint(World& w) { co_await w.checkpoint(); }
      static Task<void> write(World& w, uint64_t disk) { co_await w.write(disk, 1 * MiB, 4 * KiB, true); }
    };
    auto held = world.meta.hold(IoKind::flush);
    world.loop.spawn(Later::checkpoint(world));
    world.loop.run_until([&] { return held->caught(); });
    world.meta.fail(IoKind::flush, 1, EIO);
    world.loop.spawn(Later::write(world, disk));
    world.loop.run_for_us(kLong);
    held->release();
    world.loop.join();
    EXPECT_EQ(world.store->health(), StoreHealth::failed);
    world.meta.heal();
    const Survival some{.keep = 0.5, .torn = 0};
    world.crash(&some);
    ASSERT_TRUE(world.open()) << world.problem();
    world.verify();
    world.check();
    ASSERT_EQ(world.problem(), "") << world.trace();
  }
}

// By seed, for what a refused write leaves on the device is the simulator's choice: all of it, some, nothing.
struct StuckBlock : DirectedTest, testing::WithParamInterface<uint64_t> {
  StuckBlock() : DirectedTest(aligned(GetParam())) {}
  static WorldOptions aligned(uint64_t seed) {
    WorldOptions made = with_seed(seed);
    made.aligned = true;  // what is not is written at once
    return made;
  }
  // An answered write that the device then refused.
  void make() {
    disk = run(world.create(kDisk));
    run(world.write(disk, kAlone, 64 * KiB));  // too long to be carried: so the commit flushes
    run(world.write(disk, 0, 4 * KiB));
  }
  // And refuses whenever it is tried again.
  void make_for_ever() {
    make();
    world.data.fail(IoKind::write, 1, EIO);
    const auto hold = world.data.hold(IoKind::write);
    start(world.flush());
    ASSERT_TRUE(world.loop.run_until([&] { return hold->caught(); }));
    world.data.break_writes(hold->offset(), hold->offset() + kBlockSize);
    hold->release();
    world.loop.join();
    ASSERT_EQ(world.store->stats().stuck_blocks, 1u);
  }
  static constexpr uint64_t kAlone = 1 * MiB;
  uint64_t disk = 0;
};

TEST_P(StuckBlock, GivesWayToAWriteThatTheDeviceTakes) {
  make();
  world.data.fail(IoKind::write, 1, EIO);
  run(world.flush());
  ASSERT_EQ(world.store->stats().stuck_blocks, 1u);
  run(world.write(disk, 0, 64 * KiB));
  EXPECT_EQ(world.store->stats().stuck_blocks, 0u);
  run(world.read(disk, 0, 64 * KiB));
  run(world.flush());
  const Survival nothing{.keep = 0, .torn = 0};
  world.crash(&nothing);
  ASSERT_TRUE(world.open());
  finish();
}

TEST_P(StuckBlock, IsPromisedByTheCommitThatFoundItSo) {
  make();
  world.data.fail(IoKind::write, 1, EIO);
  const auto hold = world.data.hold(IoKind::flush);
  struct Flush {
    static Task<void> run(World& world, bool& done) {
      co_await world.flush();
      done = true;
    }
  };
  bool flushed = false;
  world.loop.spawn(Flush::run(world, flushed));
  ASSERT_TRUE(world.loop.run_until([&] { return hold->caught(); }));
  start(world.write(disk, 0, 64 * KiB));  // not covered by that flush
  world.loop.run_for_us(kLong);
  hold->release();
  ASSERT_TRUE(world.loop.run_until([&] { return flushed; }));
  const Survival nothing{.keep = 0, .torn = 0};
  world.crash(&nothing);
  ASSERT_TRUE(world.open());
  finish();
}

// A recovery reads the journal from the place that the checkpoint names.
TEST_P(StuckBlock, IsCarriedOnBehindACheckpoint) {
  make_for_ever();
  const uint64_t checkpoints = world.store->stats().checkpoints;
  start(world.checkpoint());
  world.loop.join();
  EXPECT_EQ(world.store->stats().checkpoints, checkpoints + 1);
  const Survival nothing{.keep = 0, .torn = 0};
  world.crash(&nothing);
  ASSERT_TRUE(world.open());
  EXPECT_EQ(world.store->stats().stuck_blocks, 1u);
  finish();
}

// While it stays so, everything else that the journal has carried must have landed: of that nothing says so.
TEST_P(StuckBlock, IsAllThatTheJournalCarriesOn) {
  make_for_ever();
  run(world.write(disk, 128 * KiB, 4 * KiB));
  run(world.flush());
  run(world.write(disk, 128 * KiB, 4 * KiB));  // in place
  run(world.write(disk, kAlone, 64 * KiB));
  run(world.flush());
  EXPECT_EQ(world.store->stats().stuck_blocks, 1u);
  const Survival nothing{.keep = 0, .torn = 0};
  world.crash(&nothing);
  ASSERT_TRUE(world.open());
  finish();
}

INSTANTIATE_TEST_SUITE_P(Seeds, StuckBlock, testing::Range<uint64_t>(1, 21));

struct LargeRequests : DirectedTest {};

// Longer than the buffer that unaligned reads go through, with holes, zeros and data in it.
TEST_F(LargeRequests, UnalignedReadsGoThroughInPieces) {
  const uint64_t disk = run(world.create(8 * MiB));
  run(world.write(disk, 5, 1 * MiB));
  run(world.write(disk, 2 * MiB + 100, 1 * MiB + 77));
  run(world.zero(disk, 2 * MiB + 300 * KiB, 5 * KiB));
  run(world.write(disk, 5 * MiB, 2 * MiB));
  for (const uint64_t offset : {uint64_t(1), uint64_t(4095), 1 * MiB - 3, 1 * MiB})
    for (const uint64_t length : {1 * MiB, 1 * MiB + 1, 3 * MiB - 5, 6 * MiB + 1234})
      for (unsigned again = 0; again < 4; ++again)  // with extents and without, as the world draws it
        EXPECT_TRUE(run(world.read(disk, offset, length)));
  finish();
}

// A run that deletes as much as it makes needs few pages of metadata; the recovery from its journal needs no
// more, for it takes apart what the records before have killed, as the run did.
TEST(Recovery, NeedsNoMoreMetadataThanTheRunHad) {
  WorldOptions options;
  options.journal_bytes = 4 * MiB;
  options.meta_bytes = options.journal_bytes + (256 + 300) * 4 * KiB;
  options.store.commit_interval_us = 1000;
  options.store.reclaim_pause_us = 0;
  options.store.dirty_nodes = 4096;  // no checkpoint by itself
  World world(options);
  ASSERT_TRUE(world.open());
  constexpr uint64_t kLeaf = 16 * MiB, kLeaves = 40;
  const uint64_t checkpoints = world.store->stats().checkpoints;
  struct Round {
    static Task<void> go(World& world) {
      const uint64_t disk = co_await world.create(kLeaves * kLeaf);
      for (uint64_t i = 0; i < kLeaves; ++i)
        co_await world.write(disk, i * kLeaf, 4 * KiB);
      co_await world.remove(disk);
    }
  };
  for (unsigned round = 0; round < 10; ++round) {
    world.loop.run(Round::go(world));
    world.loop.run_until([&] { return world.store->space().used_bytes == 0; });
  }
  EXPECT_EQ(world.store->stats().checkpoints, checkpoints);
  world.crash(nullptr);
  ASSERT_TRUE(world.open()) << world.problem();
  world.verify();
  world.check();
  world.close();
  EXPECT_EQ(world.problem(), "") << world.trace();
}

// Whatever fills it: the next checkpoint still fits, and what is deleted comes back.
TEST(Recovery, AFullMetadataDeviceIsOpenedAndEmptied) {
  WorldOptions options;
  options.data_bytes = 32 * MiB;
  options.meta_bytes = options.journal_bytes + (256 + 300) * 4 * KiB;
  options.store.dirty_nodes = 16;
  World world(options);
  world.may_be_full = true;
  ASSERT_TRUE(world.open());
  constexpr uint64_t kLeaf = 16 * MiB, kResources = 200;
  struct Fill {
    static Task<void> resources(World& world) {
      for (uint64_t i = 0; i < kResources && world.refused == 0; ++i)
        co_await world.put(fmt::format("large/{}", i), std::string(limits::kMaxResourceSize, 'v'));
    }
    static Task<void> leaves(World& world, uint64_t disk) {
      for (uint64_t i = 0, before = world.refused; i < 400 && world.refused == before; ++i)
        co_await world.write(disk, i * kLeaf, 4 * KiB);
    }
  };
  const uint64_t disk = world.loop.run(world.create(400 * kLeaf));
  world.loop.run(Fill::leaves(world, disk));
  EXPECT_EQ(world.refused, 1u) << "the leaves fit";
  world.refused = 0;
  world.loop.run(Fill::resources(world));
  EXPECT_EQ(world.refused, 1u) << "the resources fit";
  for (unsigned i = 0; i < 3; ++i) {
    world.crash(nullptr);
    ASSERT_TRUE(world.open()) << world.problem();
    world.verify();
  }
  EXPECT_EQ(world.loop.run(world.store->checkpoint()).has_value(), true);
  EXPECT_TRUE(world.loop.run(world.remove(disk)));
  world.loop.run_until([&] { return world.store->space().used_bytes == 0; });
  world.loop.run(world.checkpoint());
  world.loop.run(world.checkpoint());
  const uint64_t other = world.loop.run(world.create(400 * kLeaf));
  EXPECT_TRUE(world.loop.run(world.write(other, 0, 4 * KiB)));
  world.check();
  world.verify();
  world.close();
  EXPECT_EQ(world.problem(), "") << world.trace();
}

}  // namespace
}  // namespace obraz::test
