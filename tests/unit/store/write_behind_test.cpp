#include "store/write_behind.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <random>

#include "base/limits.h"
#include "support/sim_device.h"
#include "support/sim_loop.h"

namespace obraz {
namespace {

using test::IoKind;
using test::SimDevice;
using test::SimLoop;

constexpr uint64_t kBlocks = 64;

struct WriteBehindTest : testing::Test {
  ~WriteBehindTest() override { loop.run(behind.stop()); }

  ConstBytes block(uint8_t value) {
    std::ranges::fill(source.bytes(), std::byte{value});
    return source.bytes();
  }
  bool later(uint64_t at, uint8_t value) { return behind.write_later(at * kBlockSize, block(value)); }
  // The first byte of each block, as a reader sees it.
  std::vector<uint8_t> read(uint64_t first, uint64_t count) {
    AlignedBytes bytes(count * kBlockSize);
    const Status status = loop.run(behind.read(first * kBlockSize, bytes.bytes()));
    EXPECT_TRUE(status);
    std::vector<uint8_t> values;
    for (uint64_t i = 0; i < count; ++i)
      values.push_back(uint8_t(bytes.bytes()[i * kBlockSize]));
    return values;
  }
  uint8_t on_device(uint64_t at) {
    std::byte value{};
    device.contents().read(at * kBlockSize, {&value, 1});
    return uint8_t(value);
  }
  uint64_t writes() { return device.counters(IoKind::write).operations; }

  SimLoop loop;
  SimDevice device{loop, {.size_bytes = kBlocks * kBlockSize}};
  WriteBehind behind{loop, device, 8};
  AlignedBytes source{kBlockSize};
};

TEST_F(WriteBehindTest, WhatIsKeptIsReadAndNotOnTheDevice) {
  ASSERT_TRUE(later(3, 7));
  EXPECT_EQ(read(2, 3), (std::vector<uint8_t>{0, 7, 0}));
  EXPECT_EQ(on_device(3), 0);
  EXPECT_EQ(writes(), 0u);
  ASSERT_TRUE(loop.run(behind.flush()));
  EXPECT_EQ(on_device(3), 7);
  EXPECT_EQ(behind.kept_blocks(), 0u);
  EXPECT_EQ(device.counters(IoKind::flush).operations, 1u);
}

TEST_F(WriteBehindTest, NewerContentTakesThePlaceOfWhatIsKept) {
  ASSERT_TRUE(later(3, 7));
  EXPECT_TRUE(behind.keeps(3 * kBlockSize, kBlockSize));
  EXPECT_FALSE(behind.keeps(3 * kBlockSize, 2 * kBlockSize));
  ASSERT_TRUE(later(3, 8));
  EXPECT_EQ(read(3, 1), std::vector<uint8_t>{8});
  ASSERT_TRUE(loop.run(behind.flush()));
  EXPECT_EQ(on_device(3), 8);
  EXPECT_EQ(writes(), 1u);
}

TEST_F(WriteBehindTest, ItsMemoryIsBoundedAndThinnedOut) {
  const auto hold = device.hold(IoKind::write);
  uint64_t taken = 0;
  while (later(taken, uint8_t(taken + 1)))
    ++taken;
  EXPECT_EQ(taken, 8u);
  EXPECT_FALSE(later(20, 1));
  hold->release();
  loop.run_until_idle();
  EXPECT_LE(behind.kept_blocks(), 1u);
  for (uint64_t at = 0; at < taken; ++at)
    EXPECT_EQ(read(at, 1), std::vector<uint8_t>{uint8_t(at + 1)});
}

TEST_F(WriteBehindTest, ABlockThatIsBeingWrittenIsNotChanged) {
  ASSERT_TRUE(later(3, 7));
  const auto hold = device.hold(IoKind::write);
  bool flushed = false;
  const auto flush = [](WriteBehind* behind, bool* done) -> Task<void> {
    const Status status = co_await behind->flush();
    *done = status.has_value();
  };
  loop.spawn(flush(&behind, &flushed));
  ASSERT_TRUE(loop.run_until([&] { return hold->caught(); }));
  EXPECT_FALSE(later(3, 8));
  EXPECT_FALSE(behind.keeps(3 * kBlockSize, kBlockSize));
  EXPECT_EQ(read(3, 1), std::vector<uint8_t>{7}) << "it is still the newest";
  ASSERT_TRUE(later(4, 9)) << "others are";
  hold->release();
  loop.join();
  EXPECT_TRUE(flushed);
  EXPECT_EQ(behind.kept_blocks(), 1u) << "what came after the flush had begun";
}

TEST_F(WriteBehindTest, AWriteGoesAfterWhatIsKept) {
  ASSERT_TRUE(later(3, 7));
  AlignedBytes two(2 * kBlockSize);
  std::ranges::fill(two.bytes(), std::byte{9});
  ASSERT_TRUE(loop.run(behind.write(3 * kBlockSize, two.bytes())));
  EXPECT_EQ(read(3, 2), (std::vector<uint8_t>{9, 9}));
  ASSERT_TRUE(loop.run(behind.flush()));
  EXPECT_EQ(on_device(3), 9);
  EXPECT_EQ(writes(), 2u);
}

TEST_F(WriteBehindTest, ADiscardForgetsWhatIsKept) {
  ASSERT_TRUE(later(3, 7));
  ASSERT_TRUE(later(5, 8));
  ASSERT_TRUE(loop.run(behind.discard(0, 4 * kBlockSize)));
  EXPECT_EQ(behind.kept_blocks(), 1u);
  ASSERT_TRUE(loop.run(behind.flush()));
  EXPECT_EQ(writes(), 1u);
}

TEST_F(WriteBehindTest, WhatCannotBeWrittenIsStuckReadableAndTriedAgain) {
  ASSERT_TRUE(later(3, 7));
  const uint64_t version = behind.stuck_version();
  device.fail(IoKind::write, 1, EIO);
  EXPECT_TRUE(loop.run(behind.flush()));
  EXPECT_EQ(device.counters(IoKind::flush).operations, 1u);
  EXPECT_NE(behind.stuck_version(), version);
  ASSERT_EQ(behind.stuck_blocks(), 1u);
  const auto stuck = behind.stuck();
  ASSERT_EQ(stuck.size(), 1u);
  EXPECT_EQ(stuck[0].cluster.value * kBlocksPerCluster + stuck[0].block, 3u);
  EXPECT_EQ(uint8_t(stuck[0].content[0]), 7);
  EXPECT_EQ(read(3, 1), std::vector<uint8_t>{7});
  EXPECT_FALSE(later(4, 1)) << "its error would be nobody's";
  EXPECT_TRUE(loop.run(behind.flush()));
  EXPECT_EQ(behind.stuck_blocks(), 0u);
  EXPECT_EQ(on_device(3), 7);
  EXPECT_TRUE(later(4, 1));
}

TEST_F(WriteBehindTest, WhatIsStuckGivesWayToAWriteThatSucceeds) {
  ASSERT_TRUE(later(3, 7));
  device.break_writes(3 * kBlockSize, 4 * kBlockSize);
  ASSERT_TRUE(loop.run(behind.flush()));
  EXPECT_FALSE(loop.run(behind.write(3 * kBlockSize, block(8)))) << "its own error";
  EXPECT_EQ(read(3, 1), std::vector<uint8_t>{7});
  EXPECT_EQ(behind.stuck_blocks(), 1u);
  device.break_writes(0, 0);
  EXPECT_TRUE(loop.run(behind.write(3 * kBlockSize, block(9))));
  EXPECT_EQ(behind.stuck_blocks(), 0u);
  EXPECT_EQ(read(3, 1), std::vector<uint8_t>{9});
}

TEST_F(WriteBehindTest, WhatIsStuckGivesWayToADiscard) {
  ASSERT_TRUE(later(3, 7));
  device.break_writes(3 * kBlockSize, 4 * kBlockSize);
  ASSERT_TRUE(loop.run(behind.flush()));
  const uint64_t version = behind.stuck_version();
  ASSERT_TRUE(loop.run(behind.discard(0, 4 * kBlockSize)));
  EXPECT_EQ(behind.stuck_blocks(), 0u);
  EXPECT_NE(behind.stuck_version(), version);
}

// The commit that follows the flush promises what is stuck as it was then.
TEST_F(WriteBehindTest, WhatIsStuckDoesNotChangeDuringAFlush) {
  ASSERT_TRUE(later(3, 7));
  device.fail(IoKind::write, 1, EIO);
  const auto hold = device.hold(IoKind::flush);
  struct Ended {
    Status status;
    std::vector<disk::BlockRecord> stuck;
    uint8_t content = 0;
    bool flushed = false, written = false;
  } ended;
  const auto flush = [](WriteBehind* behind, Ended* ended) -> Task<void> {
    ended->status = co_await behind->flush();
    ended->stuck = behind->stuck();
    if (!ended->stuck.empty())
      ended->content = uint8_t(ended->stuck[0].content[0]);
    ended->flushed = true;
  };
  const auto write = [](WriteBehind* behind, ConstBytes from, Ended* ended) -> Task<void> {
    const Status status = co_await behind->write(3 * kBlockSize, from);
    ended->written = status.has_value();
  };
  loop.spawn(flush(&behind, &ended));
  ASSERT_TRUE(loop.run_until([&] { return hold->caught(); }));
  loop.spawn(write(&behind, block(9), &ended));
  loop.run_until_idle();
  EXPECT_FALSE(ended.written);
  hold->release();
  loop.join();
  EXPECT_TRUE(ended.flushed && ended.status);
  EXPECT_EQ(ended.content, 7);
  EXPECT_TRUE(ended.written);
  EXPECT_EQ(behind.stuck_blocks(), 0u);
  EXPECT_EQ(on_device(3), 9);
}

TEST_F(WriteBehindTest, RecoveryKeepsAsMuchAsTheJournalMayCarryOn) {
  for (uint64_t at = 0; at < limits::kMaxStuckBlocks; ++at)
    ASSERT_TRUE(behind.keep_stuck(at * kBlockSize, block(uint8_t(at + 1))));
  EXPECT_FALSE(behind.keep_stuck(20 * kBlockSize, block(1)));
  EXPECT_EQ(read(0, 2), (std::vector<uint8_t>{1, 2}));
  EXPECT_EQ(on_device(0), 0);
  ASSERT_TRUE(loop.run(behind.flush()));
  EXPECT_EQ(behind.stuck_blocks(), 0u);
  EXPECT_EQ(on_device(0), 1);
}

// A device on which a write into what was allocated may find no space.
class Thin final : public Device {
 public:
  explicit Thin(Device& device) : device_(device) {}
  uint64_t size_bytes() const override { return device_.size_bytes(); }
  Task<Status> read(uint64_t offset, Bytes into) override { return device_.read(offset, into); }
  Task<Status> write(uint64_t offset, ConstBytes from) override { return device_.write(offset, from); }
  Task<Status> flush() override { return device_.flush(); }
  Task<Status> discard(uint64_t offset, uint64_t length) override { return device_.discard(offset, length); }
  Task<Status> allocate(uint64_t offset, uint64_t length) override {
    return device_.allocate(offset, length);
  }
  bool can_allocate() const override { return false; }

 private:
  Device& device_;
};

TEST_F(WriteBehindTest, WhereSpaceIsNotSureNothingIsKept) {
  Thin thin(device);
  WriteBehind over_thin(loop, thin, 8);
  EXPECT_FALSE(over_thin.write_later(0, block(1)));
  loop.run(over_thin.stop());
}

TEST_F(WriteBehindTest, WithoutMemoryItIsTheDevice) {
  WriteBehind none(loop, device, 0);
  EXPECT_FALSE(none.write_later(0, block(1)));
  ASSERT_TRUE(loop.run(none.write(0, block(1))));
  ASSERT_TRUE(loop.run(none.flush()));
  EXPECT_EQ(on_device(0), 1);
  loop.run(none.stop());
}

// Many at once, each with blocks of its own, as the store orders them; against what each wrote last.
struct Worker {
  uint64_t first = 0;
  std::map<uint64_t, uint8_t> newest;
};

Task<void> work(WriteBehind* behind, Worker* worker, uint64_t seed, bool* right) {
  std::mt19937_64 random(seed);
  AlignedBytes bytes(4 * kBlockSize);
  for (int i = 0; i < 300; ++i) {
    const uint64_t at = worker->first + random() % 5, count = 1 + random() % 4;
    const auto value = uint8_t(random());
    const Bytes part = bytes.bytes().first(count * kBlockSize);
    const uint64_t what = random() % 10;
    Status status;
    if (what < 6) {
      std::ranges::fill(part, std::byte{value});
      if (what >= 4 || !behind->write_later(at * kBlockSize, part))
        status = co_await behind->write(at * kBlockSize, part);
      for (uint64_t block = at; block < at + count; ++block)
        worker->newest[block] = value;
    } else if (what < 9) {
      status = co_await behind->read(at * kBlockSize, part);
      for (uint64_t block = at; block < at + count; ++block)
        *right = *right && uint8_t(part[(block - at) * kBlockSize]) == worker->newest[block];
    } else {
      status = co_await behind->flush();
    }
    *right = *right && status;
  }
}

TEST(WriteBehind, AgainstAModel) {
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    SimLoop loop({.seed = seed, .shuffle = seed % 2 == 0});
    SimDevice device(loop, {.size_bytes = kBlocks * kBlockSize, .seed = seed});
    WriteBehind behind(loop, device, 1 + seed % 20);
    std::array<Worker, 8> workers;
    bool right = true;
    for (uint64_t i = 0; i < workers.size(); ++i) {
      workers[i].first = i * 8;
      loop.spawn(work(&behind, &workers[i], seed * 8 + i, &right));
    }
    loop.join();
    ASSERT_TRUE(right) << seed;
    ASSERT_TRUE(loop.run(behind.flush()));
    for (const Worker& worker : workers)
      for (const auto& [block, value] : worker.newest) {
        std::byte found{};
        device.durable().read(block * kBlockSize, {&found, 1});
        ASSERT_EQ(uint8_t(found), value) << "seed " << seed << ", block " << block;
      }
    loop.run(behind.stop());
  }
}

}  // namespace
}  // namespace obraz
