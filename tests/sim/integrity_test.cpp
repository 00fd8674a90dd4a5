// Checksums of frozen data: what rots is never served as if it were whole, it is named, and nothing gives it
// a new look; what is whole never answers an error.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "sim/world.h"
#include "store/check.h"
#include "store/marks.h"

namespace obraz::test {
namespace {

constexpr uint64_t KiB = limits::KiB, MiB = limits::MiB;

class Integrity : public testing::Test {
 protected:
  explicit Integrity(const WorldOptions& options = {}) : world(options) { EXPECT_TRUE(world.open()); }
  ~Integrity() override { EXPECT_EQ(world.problem(), "") << world.trace(); }

  template <typename T>
  T run(Task<T> task) {
    return world.loop.run(std::move(task));
  }
  // A disk of 256 KiB of data, and its snapshot, which has checksums.
  void make() {
    disk = run(world.create(4 * MiB));
    run(world.write(disk, 0, 256 * KiB));
    snapshot = run(world.snapshot(disk));
    wait_until_summed(snapshot);
  }
  void wait_until_summed(uint64_t volume) {
    ASSERT_TRUE(world.loop.run_until([&] { return world.store->volume_info({volume})->summed; }));
  }
  Status read(uint64_t volume, uint64_t offset, uint64_t length) {
    buffer = std::make_unique<ClientBuffer>(length);
    return run(world.store->open_volume({volume})->read(offset, buffer->bytes()));
  }
  Status write(uint64_t volume, uint64_t offset, uint64_t length) {
    ClientBuffer from(length);
    std::ranges::fill(from.bytes(), std::byte{0x77});
    return run(world.store->open_volume({volume})->write(offset, from.bytes()));
  }
  ErrorCode error_of(const Status& status) { return status ? ErrorCode::unsupported : status.error().code; }
  // Where the block of the volume lies on the data device.
  uint64_t place_of(uint64_t volume, uint64_t offset) {
    EXPECT_TRUE(read(volume, offset, kBlockSize));
    std::vector<std::byte> block(kBlockSize);
    for (uint64_t page = 0; page < world.data.size_bytes() / kBlockSize; ++page) {
      if (!world.data.contents().has_page(page))
        continue;
      world.data.contents().read(page * kBlockSize, block);
      if (std::ranges::equal(block, buffer->bytes()))
        return page * kBlockSize;
    }
    ADD_FAILURE() << "the block is not on the device";
    return 0;
  }
  void rot(uint64_t volume, uint64_t offset) {
    world.data.corrupt(place_of(volume, offset) + 5 * kSectorSize, kSectorSize);
  }
  uint64_t problems_of_check() {
    world.close();
    const auto report = run(check_store(world.loop, world.meta, world.data, {.read_data = true}));
    EXPECT_TRUE(report);
    checked = *report;
    EXPECT_TRUE(world.open());
    return report->problem_count;
  }

  World world;
  uint64_t disk = 0, snapshot = 0;
  std::unique_ptr<ClientBuffer> buffer;
  CheckReport checked;
};

TEST_F(Integrity, ARottenBlockIsAnErrorForAllWhoShowItAndIsNamed) {
  make();
  const uint64_t clone = run(world.clone(snapshot, VolumeKind::disk));
  rot(snapshot, 20 * KiB);
  for (const uint64_t volume : {snapshot, clone, disk}) {
    EXPECT_EQ(error_of(read(volume, 20 * KiB, 4 * KiB)), ErrorCode::corruption);
    EXPECT_EQ(error_of(read(volume, 0, 256 * KiB)), ErrorCode::corruption);
    EXPECT_TRUE(run(world.read(volume, 0, 20 * KiB)));
    EXPECT_TRUE(run(world.read(volume, 24 * KiB, 232 * KiB)));
    ClientBuffer unaligned(100);
    EXPECT_EQ(error_of(run(world.store->open_volume({volume})->read(20 * KiB + 7, unaligned.bytes()))),
              ErrorCode::corruption);
  }
  EXPECT_EQ(world.store->health(), StoreHealth::damaged);
  const auto damage = world.store->data_damage();
  ASSERT_EQ(damage.size(), 1u);
  EXPECT_EQ(damage[0].volume.value, snapshot);
  EXPECT_EQ(damage[0].offset, 20 * KiB);
  EXPECT_EQ(damage[0].length_bytes, 4 * KiB);
  EXPECT_NE(world.store->health_reason().find("4096 bytes at offset 20480"), std::string::npos)
      << world.store->health_reason();
  EXPECT_EQ(problems_of_check(), 1u);
  EXPECT_NE(checked.problems[0].find("blocks 0020 do not fit"), std::string::npos) << checked.problems[0];
  EXPECT_EQ(error_of(read(snapshot, 20 * KiB, 4 * KiB)), ErrorCode::corruption) << "the checksums are kept";
}

// Neither a checkpoint nor a restart nor its checksum asks where it is.
TEST_F(Integrity, ABlockThatCannotBeWrittenIsAsGoodAsAnyOther) {
  make();
  world.data.break_writes(0, UINT64_MAX);
  EXPECT_TRUE(run(world.write(disk, 256 * KiB, 4 * KiB)));
  EXPECT_EQ(problems_of_check(), 0u);
  EXPECT_EQ(world.store->stats().stuck_blocks, 1u);
  const uint64_t second = run(world.snapshot(disk));
  wait_until_summed(second);
  EXPECT_EQ(problems_of_check(), 0u);
  EXPECT_EQ(checked.verified_clusters, 5u);
  EXPECT_EQ(world.store->stats().stuck_blocks, 1u);
  const Survival nothing{.keep = 0, .torn = 0};
  world.crash(&nothing);
  EXPECT_EQ(world.open(), true);
  EXPECT_TRUE(run(world.read(second, 0, 512 * KiB)));
  EXPECT_EQ(error_of(write(disk, 1 * MiB, 64 * KiB)), ErrorCode::io) << "a long write is its own affair";
  EXPECT_EQ(world.store->health(), StoreHealth::ok);

  world.data.break_writes(0, 0);
  EXPECT_TRUE(run(world.write(disk, 1 * MiB, 64 * KiB)));
  run(world.flush());
  EXPECT_EQ(world.store->stats().stuck_blocks, 0u);
  world.crash(&nothing);
  EXPECT_EQ(world.open(), true);
  EXPECT_TRUE(run(world.read(second, 0, 512 * KiB)));
  EXPECT_EQ(problems_of_check(), 0u);
}

TEST_F(Integrity, WhatReplacesARottenBlockIsWhole) {
  make();
  rot(snapshot, 0);
  const uint64_t clone = run(world.clone(snapshot, VolumeKind::disk));
  EXPECT_EQ(error_of(write(clone, 100, 10)), ErrorCode::corruption)
      << "the rest of the block would be rotten";
  EXPECT_TRUE(run(world.write(clone, 0, 4 * KiB)));
  EXPECT_TRUE(run(world.read(clone, 0, 64 * KiB)));
  EXPECT_TRUE(run(world.remove(snapshot)));
  EXPECT_TRUE(run(world.remove(disk)));
  run(world.flush());
  EXPECT_TRUE(run(world.discard(clone, 16 * KiB, 48 * KiB)));
  EXPECT_TRUE(run(world.write(clone, 0, 64 * KiB)));
  run(world.flush());
  world.loop.run_for_us(10'000'000);
  EXPECT_TRUE(world.store->data_damage().empty()) << "nothing shows the cluster any more";
}

// A cluster is copied when its own blocks lie over a base. Rotten ones are not copied as if they were whole.
TEST_F(Integrity, TheBoundedCopyVerifiesWhatItCopies) {
  disk = run(world.create(4 * MiB));
  run(world.write(disk, 0, 64 * KiB));
  run(world.snapshot(disk));
  run(world.write(disk, 0, 8 * KiB));  // own blocks over the snapshot's as base
  snapshot = run(world.snapshot(disk));
  wait_until_summed(snapshot);
  rot(snapshot, 4 * KiB);
  EXPECT_EQ(error_of(write(disk, 0, 4 * KiB)), ErrorCode::corruption);
  EXPECT_TRUE(run(world.write(disk, 0, 8 * KiB))) << "nothing rotten is copied";
  EXPECT_TRUE(run(world.read(disk, 0, 64 * KiB)));
}

TEST_F(Integrity, ASummedClusterIsNeverWrittenAgainThoughItHaveOneOwner) {
  make();
  EXPECT_TRUE(run(world.remove(snapshot)));
  run(world.flush());
  world.loop.run_for_us(10'000'000);  // the snapshot's tree is taken apart
  const uint64_t before = world.store->stats().writes_in_place;
  EXPECT_TRUE(run(world.write(disk, 8 * KiB, 4 * KiB)));
  EXPECT_EQ(world.store->stats().writes_in_place, before) << "it went elsewhere";
  EXPECT_TRUE(run(world.write(disk, 8 * KiB, 4 * KiB)));
  EXPECT_EQ(world.store->stats().writes_in_place, before + 1);
  EXPECT_TRUE(run(world.read(disk, 0, 256 * KiB)));
  EXPECT_EQ(problems_of_check(), 0u);
  EXPECT_EQ(checked.verified_clusters, 4u);
}

TEST_F(Integrity, ANewSnapshotCostsOnlyWhatIsNew) {
  make();
  const uint64_t summed = world.store->stats().summed_bytes;
  EXPECT_EQ(summed, 256 * KiB);
  run(world.write(disk, 64 * KiB, 4 * KiB));
  const uint64_t read_before = world.data.counters(IoKind::read).bytes;
  const uint64_t second = run(world.snapshot(disk));
  wait_until_summed(second);
  EXPECT_EQ(world.store->stats().summed_bytes, summed + 64 * KiB);
  // The block itself may still be in memory.
  EXPECT_EQ(world.data.counters(IoKind::read).bytes - read_before, 60 * KiB);
}

// The disk has its nodes for itself again, unwritten since they were found to be summed: what it changes in
// them is not.
TEST_F(Integrity, ANodeThatChangesIsNoLongerSummed) {
  disk = run(world.create(4 * MiB));
  run(world.write(disk, 0, 64 * KiB));
  const uint64_t other = run(world.create(4 * MiB));
  run(world.write(other, 0, 64 * KiB));
  run(world.flush());
  // Two volumes wait for their checksums; when the first has them, there is no checkpoint before the second
  // has.
  const auto hold_read_of = [&](uint64_t volume) {
    const uint64_t place = place_of(volume, 0) / kClusterSize * kClusterSize;
    return world.data.hold(IoKind::read, place, place + kClusterSize);
  };
  auto first_held = hold_read_of(disk), held = hold_read_of(other);
  snapshot = run(world.snapshot(disk));
  run(world.snapshot(other));
  first_held->release();
  wait_until_summed(snapshot);
  ASSERT_TRUE(world.loop.run_until([&] { return held->caught(); }));
  EXPECT_TRUE(run(world.remove(snapshot)));
  const uint64_t before = marks::counts[size_t(Mark::node_no_longer_summed)];
  EXPECT_TRUE(run(world.write(disk, 64 * KiB, 64 * KiB, true)));
  EXPECT_EQ(marks::counts[size_t(Mark::node_no_longer_summed)], before + 1);
  const uint64_t second = run(world.snapshot(disk));
  EXPECT_FALSE(world.store->volume_info({second})->summed);
  held->release();
  wait_until_summed(second);
  rot(second, 64 * KiB);
  EXPECT_EQ(error_of(read(second, 64 * KiB, 4 * KiB)), ErrorCode::corruption);
}

TEST_F(Integrity, ADeletedSnapshotIsNotSummedToTheEnd) {
  disk = run(world.create(4 * MiB));
  run(world.write(disk, 0, 64 * KiB));
  run(world.flush());
  auto held = world.data.hold(IoKind::read);
  snapshot = run(world.snapshot(disk));
  ASSERT_TRUE(world.loop.run_until([&] { return held->caught(); }));
  EXPECT_TRUE(run(world.remove(snapshot)));
  world.loop.run_for_us(10'000'000);
  EXPECT_TRUE(run(world.write(disk, 0, 4 * KiB)));  // in place: the disk has it for itself again
  held->release();
  ASSERT_TRUE(world.loop.run_until([&] { return world.store->stats().volumes_to_sum == 0; }));
  EXPECT_EQ(world.store->stats().summed_bytes, 0u);
  EXPECT_TRUE(run(world.read(disk, 0, 64 * KiB)));
}

TEST_F(Integrity, WhatCannotBeReadHasNoChecksumsUntilTheStoreIsOpenedAgain) {
  disk = run(world.create(4 * MiB));
  run(world.write(disk, 0, 64 * KiB));
  run(world.flush());
  world.data.fail(IoKind::read, 1, EIO, true);
  snapshot = run(world.snapshot(disk));
  ASSERT_TRUE(world.loop.run_until([&] { return world.store->stats().volumes_to_sum == 0; }));
  EXPECT_FALSE(world.store->volume_info({snapshot})->summed);
  world.data.heal();
  EXPECT_TRUE(run(world.read(snapshot, 0, 64 * KiB)));
  EXPECT_EQ(problems_of_check(), 0u);
  wait_until_summed(snapshot);
}

TEST_F(Integrity, ChecksumsThatCannotBeReadAreAnErrorToo) {
  make();
  world.close();
  const auto checksums = run(check_store(world.loop, world.meta, world.data, {.read_data = true}));
  ASSERT_TRUE(checksums && checksums->clean());
  // The only page of metadata that the walk of the mapping does not name: found by breaking one after the
  // other.
  bool found = false;
  const uint64_t first = 256 + world.options.journal_bytes / kBlockSize;
  for (uint64_t page = first; page < world.meta.size_bytes() / kBlockSize && !found; ++page) {
    if (!world.meta.contents().has_page(page))
      continue;
    const SimImage whole = world.meta.contents();
    ClientBuffer bytes(kBlockSize);
    whole.read(page * kBlockSize, bytes.bytes());
    world.meta.corrupt(page * kBlockSize, kSectorSize);
    const auto report = run(check_store(world.loop, world.meta, world.data, {}));
    ASSERT_TRUE(report);
    found = std::ranges::any_of(report->problems, [](const std::string& problem) {
      return problem.find("the checksums of 64 clusters of data from 0") != std::string::npos;
    });
    if (!found) {
      run(world.meta.write(page * kBlockSize, bytes.bytes()));
      run(world.meta.flush());
    }
  }
  ASSERT_TRUE(found);
  ASSERT_TRUE(world.open());
  EXPECT_EQ(error_of(read(snapshot, 0, 4 * KiB)), ErrorCode::corruption);
  EXPECT_TRUE(world.store->volume_info({snapshot})->damaged);
  EXPECT_TRUE(run(world.write(disk, 0, 4 * KiB)));
  EXPECT_TRUE(run(world.read(disk, 0, 4 * KiB)));
}

class Scrub : public Integrity {
 protected:
  Scrub() : Integrity(options()) {}
  static WorldOptions options() {
    WorldOptions made;
    made.store.scrub_bytes_per_s = limits::GiB;
    made.store.scrub_interval_us = 1'000'000;
    return made;
  }
  void wait_for_passes(uint64_t more) {
    const uint64_t passes = world.store->stats().scrub_passes + more;
    ASSERT_TRUE(world.loop.run_until([&] { return world.store->stats().scrub_passes >= passes; }));
  }
};

TEST_F(Scrub, FindsWhatNobodyReads) {
  make();
  run(world.clone(snapshot, VolumeKind::frozen));
  wait_for_passes(2);
  EXPECT_EQ(world.store->health(), StoreHealth::ok);
  const uint64_t scrubbed = world.store->stats().scrubbed_bytes;
  wait_for_passes(1);
  EXPECT_EQ(world.store->stats().scrubbed_bytes - scrubbed, 256 * KiB) << "each cluster once";
  rot(snapshot, 200 * KiB);
  wait_for_passes(2);
  const auto damage = world.store->data_damage();
  ASSERT_EQ(damage.size(), 1u);
  EXPECT_EQ(damage[0].offset, 200 * KiB);
  EXPECT_EQ(damage[0].length_bytes, 4 * KiB);
}

TEST_F(Scrub, ForgetsWhatIsWholeAgain) {
  make();
  world.data.fail(IoKind::read, 1, EIO, true);
  wait_for_passes(2);
  EXPECT_EQ(world.store->data_damage().size(), 4u) << "unreadable";
  world.data.heal();
  wait_for_passes(2);
  EXPECT_TRUE(world.store->data_damage().empty());
  EXPECT_EQ(world.store->health(), StoreHealth::ok);
}

TEST_F(Scrub, KeepsToItsRate) {
  world.close();
  world.options.store.scrub_bytes_per_s = 1 * MiB;
  ASSERT_TRUE(world.open());
  make();
  wait_for_passes(1);
  const uint64_t before = world.loop.now_us(), scrubbed = world.store->stats().scrubbed_bytes;
  wait_for_passes(4);
  const uint64_t bytes = world.store->stats().scrubbed_bytes - scrubbed;
  EXPECT_EQ(bytes, 4 * 256 * KiB);
  EXPECT_GE(world.loop.now_us() - before, bytes * 1'000'000 / MiB) << "virtual time";
}

TEST_F(Scrub, EndsWithTheStore) {
  make();
  wait_for_passes(1);
  auto held = world.data.hold(IoKind::read);
  ASSERT_TRUE(world.loop.run_until([&] { return held->caught(); }));
  world.loop.spawn([](World* w, std::shared_ptr<SimDevice::Hold> hold) -> Task<void> {
    co_await w->sleep_us(1000);
    hold->release();
  }(&world, held));
  world.close();  // waits for the read in flight, and not for the rest of the pass
  world.loop.join();
  EXPECT_TRUE(world.open());
}

}  // namespace
}  // namespace obraz::test
