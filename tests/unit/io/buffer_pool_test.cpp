#include "io/buffer_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <vector>

#include "support/sim_loop.h"

namespace obraz {
namespace {

using test::SimLoop;
constexpr size_t kArena = BufferPool::kMaxBuffer;

size_t block_size(size_t size) {
  return std::bit_ceil(std::max(size, BufferPool::kMinBuffer));
}

TEST(BufferPool, SizesAreAsAskedAddressesArePageAligned) {
  SimLoop loop;
  BufferPool pool(loop, 1);
  EXPECT_EQ(pool.arena().size(), kArena);  // rounded up
  for (size_t size : {size_t(1), size_t(4095), size_t(4096), size_t(4097), size_t(65536), kArena / 2 + 1}) {
    const Buffer buffer = pool.try_acquire(size);
    ASSERT_TRUE(buffer) << size;
    EXPECT_EQ(buffer.size(), size);
    EXPECT_EQ(uintptr_t(buffer.data()) % 4096, 0u);
    EXPECT_GE(buffer.data(), pool.arena().data());
    EXPECT_LE(buffer.data() + size, pool.arena().data() + pool.arena().size());
    EXPECT_EQ(pool.free_bytes(), kArena - block_size(size));
  }
  EXPECT_EQ(pool.free_bytes(), kArena);
}

// Random acquiring and freeing against a map of what is taken: no two overlap, and nothing is refused while a
// block of its size is certainly free; at the end all has merged into the whole arena again.
TEST(BufferPool, AgainstAModel) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SimLoop loop;
    BufferPool pool(loop, 2 * kArena);
    std::mt19937_64 random(seed);
    std::vector<Buffer> held;
    std::map<std::byte*, size_t> taken;
    for (int i = 0; i < 5000; ++i) {
      if (held.empty() || random() % 5 < 3) {
        const size_t size = 1 + random() % (size_t(1) << (8 + random() % 17));
        Buffer buffer = pool.try_acquire(size);
        if (!buffer) {
          EXPECT_LT(pool.free_bytes(), 2 * kArena);
          continue;
        }
        const auto next = taken.lower_bound(buffer.data());
        ASSERT_TRUE(next == taken.end() || buffer.data() + block_size(size) <= next->first) << seed;
        ASSERT_TRUE(next == taken.begin() ||
                    std::prev(next)->first + std::prev(next)->second <= buffer.data())
            << seed;
        taken[buffer.data()] = block_size(size);
        held.push_back(std::move(buffer));
      } else {
        std::swap(held[random() % held.size()], held.back());
        taken.erase(held.back().data());
        held.pop_back();
      }
      size_t used = 0;
      for (const auto& [at, size] : taken)
        used += size;
      ASSERT_EQ(pool.free_bytes(), 2 * kArena - used) << seed;
    }
    held.clear();
    ASSERT_EQ(pool.free_bytes(), 2 * kArena);
    const Buffer first = pool.try_acquire(kArena), second = pool.try_acquire(kArena);
    ASSERT_TRUE(first && second) << "seed " << seed << ": did not merge";
  }
}

Task<void> take(BufferPool& pool, size_t size, std::vector<Buffer>& into, std::vector<size_t>& order) {
  Buffer buffer = co_await pool.acquire(size);
  order.push_back(size);
  into.push_back(std::move(buffer));
}

TEST(BufferPool, AskersWaitInOrderAndSmallOnesDoNotOvertake) {
  SimLoop loop;
  BufferPool pool(loop, kArena);
  std::vector<Buffer> held;
  std::vector<size_t> order;
  Buffer most = pool.try_acquire(kArena / 2), rest = pool.try_acquire(kArena / 4);
  loop.spawn(take(pool, kArena, held, order));
  loop.spawn(take(pool, 4096, held, order));
  loop.spawn(take(pool, 8192, held, order));
  EXPECT_FALSE(pool.try_acquire(4096)) << "others wait";
  loop.run_until_idle();
  EXPECT_TRUE(order.empty());
  most.reset();
  loop.run_until_idle();
  EXPECT_TRUE(order.empty()) << "the first asker needs the whole arena";
  rest.reset();
  loop.run_until_idle();
  EXPECT_EQ(order, (std::vector<size_t>{kArena}));
  held.clear();
  loop.join();
  EXPECT_EQ(order, (std::vector<size_t>{kArena, 4096, 8192}));
  EXPECT_EQ(held.size(), 2u);
  EXPECT_EQ(held[1].size(), 8192u);
  EXPECT_NE(held[0].data(), held[1].data());
}

TEST(BufferPool, OneFreedBlockServesSeveralAskers) {
  SimLoop loop;
  BufferPool pool(loop, kArena);
  std::vector<Buffer> held;
  std::vector<size_t> order;
  Buffer all = pool.try_acquire(kArena);
  for (int i = 0; i < 10; ++i)
    loop.spawn(take(pool, 4096, held, order));
  loop.run_until_idle();
  EXPECT_TRUE(held.empty());
  all.reset();
  loop.join();
  EXPECT_EQ(held.size(), 10u);
}

TEST(BufferPool, BuffersMoveAndAreGivenBackOnce) {
  SimLoop loop;
  BufferPool pool(loop, kArena);
  Buffer a = pool.try_acquire(4096), b = pool.try_acquire(8192);
  std::byte* at = b.data();
  a = std::move(b);  // gives its own back
  EXPECT_EQ(pool.free_bytes(), kArena - 8192);
  EXPECT_EQ(a.data(), at);
  EXPECT_FALSE(b);
  Buffer& self = a;
  a = std::move(self);
  EXPECT_EQ(a.data(), at);
  a.reset();
  a.reset();
  EXPECT_EQ(pool.free_bytes(), kArena);
}

Task<void> churn(SimLoop& loop, BufferPool& pool, uint64_t seed, int turns) {
  std::mt19937_64 random(seed);
  for (int i = 0; i < turns; ++i) {
    const size_t size = 1 + random() % (kArena / 3);
    Buffer buffer = co_await pool.acquire(size);
    buffer.data()[0] = std::byte(seed);
    buffer.data()[size - 1] = std::byte(seed);
    for (uint64_t turn = random() % 4; turn > 0; --turn)
      co_await yield(loop);
    EXPECT_EQ(buffer.data()[0], std::byte(seed));
    EXPECT_EQ(buffer.data()[size - 1], std::byte(seed));
  }
}

TEST(BufferPool, ManyAskersUnderPressureAllEnd) {
  SimLoop loop({.seed = 1, .shuffle = true});
  BufferPool pool(loop, kArena);
  for (uint64_t i = 1; i <= 20; ++i)
    loop.spawn(churn(loop, pool, i, 50));
  loop.join();
  EXPECT_EQ(pool.free_bytes(), kArena);
}

}  // namespace
}  // namespace obraz
