// The simulated device does what its fault model says; otherwise the crash tests prove nothing.
#include "support/sim_device.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <set>

namespace obraz::test {
namespace {

constexpr uint64_t kSize = 1 << 20;

struct Block {
  explicit Block(uint64_t length = kBlockSize, int fill = 0)
      : bytes(static_cast<std::byte*>(std::aligned_alloc(kBlockSize, length)), length) {
    std::memset(bytes.data(), fill, length);
  }
  Block(const Block&) = delete;
  ~Block() { std::free(bytes.data()); }
  Bytes bytes;
};

int first_byte(const SimImage& image, uint64_t offset) {
  std::byte byte;
  image.read(offset, Bytes(&byte, 1));
  return int(byte);
}

Status write(SimLoop& loop, SimDevice& device, uint64_t offset, int fill) {
  Block block(kBlockSize, fill);
  return loop.run(device.write(offset, block.bytes));
}

TEST(SimDevice, ACompletedWriteIsVisibleAndDurableAfterAFlushOnly) {
  SimLoop loop;
  SimDevice device(loop, {.size_bytes = kSize});
  ASSERT_TRUE(write(loop, device, 4096, 7));
  Block in;
  ASSERT_TRUE(loop.run(device.read(4096, in.bytes)));
  EXPECT_EQ(in.bytes[0], std::byte{7});
  EXPECT_EQ(first_byte(device.durable(), 4096), 0);
  ASSERT_TRUE(loop.run(device.flush()));
  EXPECT_EQ(first_byte(device.durable(), 4096), 7);
  EXPECT_EQ(device.counters(IoKind::write).operations, 1u);
  EXPECT_EQ(device.power().operations(), 3u);
}

TEST(SimDevice, PowerCutKeepsLosesOrTears) {
  SimLoop loop;
  std::set<std::string> seen;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    SimDevice device(loop, {.size_bytes = kSize, .seed = seed});
    ASSERT_TRUE(write(loop, device, 0, 1));
    ASSERT_TRUE(loop.run(device.flush()));
    ASSERT_TRUE(write(loop, device, 0, 2));
    device.power().cut({.keep = 0.3, .torn = 0.3});
    const Status dead = write(loop, device, 0, 3);
    ASSERT_FALSE(dead);
    EXPECT_EQ(dead.error().code, ErrorCode::io);
    device.power().restart();
    Block in;
    ASSERT_TRUE(loop.run(device.read(0, in.bytes)));
    int twos = 0;
    for (uint64_t sector = 0; sector < 8; ++sector) {
      const auto begin = in.bytes.begin() + long(sector * kSectorSize);
      ASSERT_EQ(std::count(begin, begin + kSectorSize, *begin), long(kSectorSize)) << "sectors are whole";
      ASSERT_TRUE(*begin == std::byte{1} || *begin == std::byte{2});
      twos += *begin == std::byte{2};
    }
    seen.insert(twos == 0 ? "lost" : twos == 8 ? "kept" : "torn");
  }
  EXPECT_EQ(seen, (std::set<std::string>{"lost", "kept", "torn"}));
}

Task<void> write_later(SimDevice& device, Bytes bytes, Status& status) {
  status = co_await device.write(0, bytes);
}

TEST(SimDevice, AFlushCoversOnlyWhatHadCompletedWhenItBegan) {
  SimLoop loop;
  SimDevice device(loop, {.size_bytes = kSize});
  Block block(kBlockSize, 9);
  Status status;
  auto held = device.hold(IoKind::write);
  loop.spawn(write_later(device, block.bytes, status));
  loop.run_for_us(1000);
  ASSERT_TRUE(held->caught());
  auto flush = device.hold(IoKind::flush);
  Status flushed;
  struct Flush {
    static Task<void> run(SimDevice& device, Status& status) { status = co_await device.flush(); }
  };
  loop.spawn(Flush::run(device, flushed));  // begins while the write is in flight
  loop.run_for_us(1000);
  held->release();
  loop.run_for_us(1000);
  flush->release();
  loop.join();
  EXPECT_TRUE(status && flushed);
  EXPECT_EQ(first_byte(device.contents(), 0), 9);
  EXPECT_EQ(first_byte(device.durable(), 0), 0);
}

TEST(SimDevice, CutPointsOfOneOperation) {
  SimLoop loop;
  for (auto when : {CutPoint::When::before, CutPoint::When::after}) {
    SimDevice device(loop, {.size_bytes = kSize});
    ASSERT_TRUE(write(loop, device, 0, 5));
    device.power().arm({2, when}, {.keep = 0, .torn = 0});
    EXPECT_FALSE(loop.run(device.flush())) << "never told";
    EXPECT_FALSE(device.power().is_on());
    EXPECT_EQ(first_byte(device.durable(), 0), when == CutPoint::When::after ? 5 : 0);
  }
  SimDevice device(loop, {.size_bytes = kSize});
  device.power().arm({1, CutPoint::When::during}, {.keep = 1, .torn = 0});
  EXPECT_FALSE(write(loop, device, 0, 5));
  EXPECT_EQ(first_byte(device.durable(), 0), 5) << "in flight, and kept";
}

TEST(SimDevice, OnePowerForTwoDevices) {
  SimLoop loop;
  PowerSupply power;
  SimDevice a(loop, {.size_bytes = kSize, .power = &power}), b(loop, {.size_bytes = kSize, .power = &power});
  ASSERT_TRUE(write(loop, a, 0, 1));
  ASSERT_TRUE(write(loop, b, 0, 2));
  EXPECT_EQ(power.operations(), 2u);
  power.arm({3, CutPoint::When::before}, {.keep = 0, .torn = 0});
  EXPECT_FALSE(write(loop, a, 0, 3));
  EXPECT_FALSE(write(loop, b, 0, 3));
  power.restart();
  EXPECT_EQ(first_byte(a.contents(), 0), 0);
  EXPECT_EQ(first_byte(b.contents(), 0), 0);
}

TEST(SimDevice, AKilledProcessLeavesItsCompletedWritesVolatile) {
  SimLoop loop;
  std::set<int> landed;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    SimDevice device(loop, {.size_bytes = kSize, .seed = seed});
    ASSERT_TRUE(write(loop, device, 4096, 1));
    Block block(kBlockSize, 2);
    Status status;
    auto held = device.hold(IoKind::write);
    loop.spawn(write_later(device, block.bytes, status));
    loop.run_for_us(1000);
    device.power().kill();
    loop.join();
    EXPECT_FALSE(status);
    device.power().restart();
    EXPECT_EQ(first_byte(device.contents(), 4096), 1);
    landed.insert(first_byte(device.contents(), 0));
    device.power().cut({.keep = 0, .torn = 0});
    EXPECT_EQ(first_byte(device.durable(), 4096), 0) << "was never flushed";
    EXPECT_EQ(first_byte(device.durable(), 0), 0);
  }
  EXPECT_EQ(landed, (std::set{0, 2}));
}

TEST(SimDevice, AFailedFlushMakesNothingDurableForEver) {
  SimLoop loop;
  SimDevice device(loop, {.size_bytes = kSize});
  ASSERT_TRUE(write(loop, device, 0, 1));
  device.fail(IoKind::flush, 1, EIO);
  const Status failed = loop.run(device.flush());
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().os_error, EIO);
  EXPECT_TRUE(loop.run(device.flush()));          // retrying it "works" …
  EXPECT_EQ(first_byte(device.durable(), 0), 0);  // … and proves nothing
  ASSERT_TRUE(write(loop, device, 4096, 2));
  EXPECT_TRUE(loop.run(device.flush()));
  EXPECT_EQ(first_byte(device.durable(), 4096), 2);
}

TEST(SimDevice, InjectedErrorsHitTheNthOfTheirKind) {
  SimLoop loop;
  SimDevice device(loop, {.size_bytes = kSize});
  device.fail(IoKind::write, 2, ENOSPC);
  EXPECT_TRUE(write(loop, device, 0, 1));
  const Status full = write(loop, device, 4096, 1);
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code, ErrorCode::no_space);
  EXPECT_TRUE(write(loop, device, 8192, 1));
  device.fail(IoKind::read, 1, EIO, true);
  Block in;
  EXPECT_FALSE(loop.run(device.read(0, in.bytes)));
  EXPECT_FALSE(loop.run(device.read(0, in.bytes)));
  device.heal();
  EXPECT_TRUE(loop.run(device.read(0, in.bytes)));
  EXPECT_EQ(device.counters(IoKind::read).failures, 2u);
}

TEST(SimDevice, OperationsInFlightTogetherEndInAnyOrder) {
  std::set<std::vector<int>> orders;
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    SimLoop loop;
    SimDevice device(loop, {.size_bytes = kSize, .seed = seed});
    std::vector<int> order;
    struct One {
      static Task<void> run(SimDevice& device, Bytes bytes, int i, std::vector<int>& order) {
        const Status status = co_await device.write(uint64_t(i) * kBlockSize, bytes);
        EXPECT_TRUE(status);
        order.push_back(i);
      }
    };
    Block block;
    for (int i = 0; i < 3; ++i)
      loop.spawn(One::run(device, block.bytes, i, order));
    loop.join();
    orders.insert(order);
  }
  EXPECT_EQ(orders.size(), 6u);
}

TEST(SimDevice, LargeDevicesCostWhatIsWritten) {
  SimLoop loop;
  SimDevice device(loop, {.size_bytes = uint64_t(64) << 40});
  ASSERT_TRUE(write(loop, device, uint64_t(63) << 40, 1));
  ASSERT_TRUE(loop.run(device.discard(0, uint64_t(1) << 30)));
  ASSERT_TRUE(loop.run(device.flush()));
  EXPECT_EQ(device.durable().stored_bytes(), kBlockSize);
}

TEST(SimDeviceDeath, ABufferThatChangesWhileItIsWrittenIsABug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        SimLoop loop;
        SimDevice device(loop, {.size_bytes = kSize});
        Block block;
        Status status;
        loop.spawn(write_later(device, block.bytes, status));
        block.bytes[100] = std::byte{1};
        loop.join();
      },
      "bug:");
}

TEST(SimImage, CopiesShareUntilWritten) {
  SimImage a;
  const std::byte one{1};
  a.write(5000, ConstBytes(&one, 1));
  SimImage b = a;
  EXPECT_EQ(a, b);
  b.write(5001, ConstBytes(&one, 1));
  EXPECT_EQ(first_byte(a, 5001), 0);
  EXPECT_FALSE(a == b);
  b.clear(5001, 1);
  EXPECT_EQ(a, b);
  b.clear(4096, 4096);
  EXPECT_EQ(b.stored_bytes(), 0u);
}

}  // namespace
}  // namespace obraz::test
