#include "store/clone_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "base/limits.h"
#include "store/journal.h"
#include "support/sim_loop.h"

namespace obraz {
namespace {

using limits::KiB;
using limits::MiB;

uint16_t mask_of(unsigned first, unsigned count) {
  return uint16_t(((1u << count) - 1) << first);
}

// A device that is only a number for each block: cluster, block and how often the cluster was written.
struct CloneCacheTest : testing::Test {
  void make(uint64_t bytes, uint64_t bytes_for_one = limits::TiB) {
    cache = std::make_unique<CloneCache>(loop, bytes);
    cache->keep_for_one(bytes_for_one);
  }

  BlockRun run_of(uint64_t cluster, unsigned first, unsigned count) {
    return {{cluster}, first, memory.bytes().subspan(first * kBlockSize, count * kBlockSize)};
  }
  uint64_t content(uint64_t cluster, unsigned block) {
    return cluster << 32 | versions[cluster] << 8 | block;
  }
  void fill_memory(const BlockRun& run, uint16_t mask) {
    for (unsigned block = 0; block < kBlocksPerCluster; ++block)
      if (mask >> block & 1) {
        const uint64_t value = content(run.cluster.value, block);
        for (size_t at = 0; at < kBlockSize; at += kBlockSize / 2)
          std::memcpy(run.block(block).data() + at, &value, sizeof value);
      }
  }
  bool right(const BlockRun& run, uint16_t mask) {
    for (unsigned block = 0; block < kBlocksPerCluster; ++block)
      if (mask >> block & 1) {
        uint64_t value = 0;
        std::memcpy(&value, run.block(block).data() + kBlockSize / 2, sizeof value);
        if (value != content(run.cluster.value, block))
          return false;
      }
    return true;
  }
  // What a read does. Returns the blocks that it took from the device.
  unsigned read(uint64_t cluster, unsigned first, unsigned count, bool scan = false) {
    const BlockRun run = run_of(cluster, first, count);
    const CloneCache::Found found = cache->look({cluster});
    const auto hit = uint16_t(found.valid & run.mask()), miss = uint16_t(run.mask() & ~found.valid);
    if (hit) {
      cache->copy(found, hit, run);
      EXPECT_TRUE(right(run, hit)) << "cluster " << cluster;
    }
    if (miss) {
      fill_memory(run, miss);
      if (CloneCache::Fill* fill = cache->begin(run, miss, {volume, scan}))
        cache->end(fill, true);
    }
    return unsigned(std::popcount(miss));
  }
  void write(uint64_t cluster) {
    cache->drop({cluster});
    ++versions[cluster];
  }
  bool has(uint64_t cluster) { return cache->look({cluster}).valid != 0; }

  test::SimLoop loop;
  std::unique_ptr<CloneCache> cache;
  AlignedBytes memory{kClusterSize};
  std::map<uint64_t, uint64_t> versions;
  VolumeId volume{1};  // the reader
};

TEST_F(CloneCacheTest, NoMemoryIsNoCache) {
  for (const uint64_t bytes : {uint64_t(0), 100 * KiB}) {
    make(bytes);
    EXPECT_FALSE(cache->on());
    EXPECT_EQ(cache->size_bytes(), 0u);
  }
}

TEST_F(CloneCacheTest, WhatWasReadIsThere) {
  make(1 * MiB);
  ASSERT_TRUE(cache->on());
  EXPECT_EQ(read(7, 3, 4), 4u);
  EXPECT_EQ(read(7, 3, 4), 0u);
  EXPECT_EQ(read(7, 0, 16), 12u) << "only what is missing";
  EXPECT_EQ(read(7, 0, 16), 0u);
  EXPECT_EQ(cache->used_bytes(), 64 * KiB);
  EXPECT_EQ(cache->hits(), 4u + 4u + 16u);
}

TEST_F(CloneCacheTest, ItTakesNoMoreThanItWasGiven) {
  std::mt19937_64 random(1);
  for (const uint64_t bytes : {256 * KiB, 1 * MiB, 5 * MiB + 12345, 64 * MiB}) {
    make(bytes);
    EXPECT_LE(cache->size_bytes(), bytes);
    EXPECT_GT(cache->size_bytes(), bytes / 10 * 9);
    for (unsigned i = 0; i < 50'000; ++i) {
      const unsigned first = unsigned(random() % 16), count = 1 + unsigned(random() % (16 - first));
      read(1 + random() % 3000, first, count);
      ASSERT_LE(cache->used_bytes(), cache->size_bytes());
    }
    EXPECT_GT(cache->used_bytes(), bytes > 32 * MiB ? bytes / 2 : bytes / 10 * 8) << "and uses it";
  }
}

// Blocks that never come back, thirty times what the cache holds.
TEST_F(CloneCacheTest, AHotSetSurvivesAScan) {
  make(8 * MiB);
  constexpr uint64_t kHot = 64, kScan = 30 * 128;  // clusters; the cache holds less than 128
  for (unsigned round = 0; round < 3; ++round)
    for (uint64_t cluster = 1; cluster <= kHot; ++cluster)
      read(cluster, 0, 16);
  uint64_t missed = 0, reads = 0;
  for (uint64_t cluster = 1; cluster <= kScan; ++cluster) {
    read(1000 + cluster, 0, 16);
    if (cluster % 8 == 0) {  // used now and then: each cluster once in 512 of the scan's
      missed += read(1 + reads % kHot, 0, 16);
      ++reads;
    }
  }
  EXPECT_EQ(missed, 0u);
}

// The same without any use of the hot set meanwhile, and with the size of requests that keep nothing at all.
TEST_F(CloneCacheTest, WhatWasUsedOftenOutlivesAScanThatNeverUsesIt) {
  make(8 * MiB);
  constexpr uint64_t kHot = 64;
  for (unsigned round = 0; round < 4; ++round)
    for (uint64_t cluster = 1; cluster <= kHot; ++cluster)
      read(cluster, 0, 16);
  // Room for what they are not: the hot ones leave the small queue only when something pushes them.
  for (uint64_t cluster = 1; cluster <= 200; ++cluster)
    read(5000 + cluster, 0, 16);
  for (uint64_t cluster = 1; cluster <= 3000; ++cluster)
    read(10'000 + cluster, 0, 16);
  uint64_t kept = 0;
  for (uint64_t cluster = 1; cluster <= kHot; ++cluster)
    kept += has(cluster);
  EXPECT_EQ(kept, kHot);
}

TEST_F(CloneCacheTest, AScanByLargeRequestsKeepsNothing) {
  make(1 * MiB);
  for (uint64_t cluster = 1; cluster <= 1000; ++cluster)
    read(cluster, 0, 16, true);
  EXPECT_EQ(cache->used_bytes(), 0u);
}

TEST_F(CloneCacheTest, WhatComesBackSoonAfterItsEvictionStays) {
  make(4 * MiB);  // 63 clusters
  read(1, 0, 16);
  uint64_t other = 100;
  while (has(1))
    read(++other, 0, 16);
  EXPECT_LT(other, 200u);
  EXPECT_EQ(read(1, 0, 16, true), 16u) << "a large request may bring it back, too";
  ASSERT_TRUE(has(1));
  for (unsigned i = 0; i < 1000; ++i)
    read(++other, 0, 16);
  EXPECT_TRUE(has(1)) << "it is in the main queue, where a scan does not come";
  // But not what left long ago.
  EXPECT_FALSE(has(101));
  read(101, 0, 16, true);
  EXPECT_FALSE(has(101));
}

TEST_F(CloneCacheTest, WhatOneVolumeReadsAloneIsKeptOnlyInTheBeginning) {
  make(4 * MiB, 256 * KiB);
  for (uint64_t cluster = 1; cluster <= 20; ++cluster)
    read(cluster, 0, 16);
  EXPECT_EQ(cache->used_bytes(), 256 * KiB);
  EXPECT_TRUE(has(4));
  EXPECT_FALSE(has(5));
  read(5, 0, 16);
  EXPECT_FALSE(has(5)) << "it reads it again";
  for (uint64_t cluster = 1; cluster <= 4; ++cluster)
    EXPECT_EQ(read(cluster, 0, 16), 0u);
}

TEST_F(CloneCacheTest, WhatOneVolumeHasReadAloneIsKeptWhenAnotherReadsIt) {
  make(4 * MiB, 0);
  for (uint64_t cluster = 1; cluster <= 10; ++cluster)
    read(cluster, 0, 8);
  EXPECT_EQ(cache->used_bytes(), 0u);
  volume = {2};
  for (uint64_t cluster = 1; cluster <= 12; ++cluster)
    read(cluster, 0, 16);
  EXPECT_EQ(cache->used_bytes(), 10 * 64 * KiB) << "two nobody else has read";
  volume = {3};
  for (uint64_t cluster = 1; cluster <= 12; ++cluster)
    read(cluster, 0, 16);
  EXPECT_EQ(cache->used_bytes(), 12 * 64 * KiB);
}

TEST_F(CloneCacheTest, WhileSeveralVolumesReadAllIsKept) {
  make(8 * MiB, 256 * KiB);
  for (uint64_t i = 0; i < 100; ++i) {
    volume = {1 + i / 4 % 3};
    read(1 + i, 0, 16);
  }
  EXPECT_EQ(cache->used_bytes(), 100 * 64 * KiB);
}

TEST_F(CloneCacheTest, DroppedIsGone) {
  make(1 * MiB);
  read(5, 0, 16);
  read(6, 0, 16);
  write(5);
  EXPECT_FALSE(has(5));
  EXPECT_TRUE(has(6));
  EXPECT_EQ(cache->used_bytes(), 64 * KiB);
  EXPECT_EQ(read(5, 0, 16), 16u);
  EXPECT_EQ(read(5, 0, 16), 0u) << "and is what it is now";
}

TEST_F(CloneCacheTest, AFillThatADropOvertookLeavesNothing) {
  make(1 * MiB);
  const BlockRun run = run_of(5, 0, 8);
  fill_memory(run, run.mask());
  CloneCache::Fill* fill = cache->begin(run, run.mask(), {volume});
  ASSERT_TRUE(fill);
  EXPECT_EQ(cache->look({5}).filling, run.mask());
  write(5);
  EXPECT_EQ(cache->look({5}).filling, 0) << "nobody waits for it any more";
  AlignedBytes second(kClusterSize);
  const BlockRun later{{5}, 0, second.bytes().first(4 * kBlockSize)};
  fill_memory(later, later.mask());
  CloneCache::Fill* another = cache->begin(later, later.mask(), {volume});
  ASSERT_TRUE(another);
  cache->end(fill, true);
  EXPECT_FALSE(has(5));
  cache->end(another, true);
  EXPECT_EQ(cache->look({5}).valid, later.mask());
  read(5, 0, 8);
}

TEST_F(CloneCacheTest, AFillThatFailedLeavesNothing) {
  make(1 * MiB);
  const BlockRun run = run_of(5, 0, 8);
  cache->end(cache->begin(run, run.mask(), {volume}), false);
  EXPECT_FALSE(has(5));
  EXPECT_EQ(cache->look({5}).filling, 0);
}

TEST_F(CloneCacheTest, WhoWaitsGoesOnWhenTheFillEndsOrIsVoided) {
  make(1 * MiB);
  struct Waiter {
    static Task<void> wait(CloneCache::Fill& fill, unsigned& woken) {
      co_await CloneCache::ended(fill);
      ++woken;
    }
  };
  for (const bool voided : {false, true}) {
    unsigned woken = 0;
    const BlockRun run = run_of(5, 0, 8);
    fill_memory(run, run.mask());
    CloneCache::Fill* fill = cache->begin(run, run.mask(), {volume});
    EXPECT_EQ(cache->filling({5}, mask_of(7, 1)), fill);
    EXPECT_EQ(cache->filling({5}, mask_of(8, 1)), nullptr);
    for (unsigned i = 0; i < 100; ++i)
      loop.spawn(Waiter::wait(*fill, woken));
    EXPECT_EQ(woken, 0u);
    if (voided)
      cache->drop({5});
    else
      cache->end(fill, true);
    loop.join();
    EXPECT_EQ(woken, 100u);
    EXPECT_EQ(has(5), !voided);
    if (voided)
      cache->end(fill, true);
    cache->drop({5});
  }
}

TEST_F(CloneCacheTest, FillsAreBounded) {
  make(1 * MiB);
  std::vector<CloneCache::Fill*> fills;
  const BlockRun run = run_of(1, 0, 1);
  for (uint64_t cluster = 1; cluster < 10'000; ++cluster) {
    CloneCache::Fill* fill = cache->begin({{cluster}, 0, run.bytes}, 1, {volume});
    if (!fill)
      break;
    fills.push_back(fill);
  }
  EXPECT_LE(fills.size(), limits::kMaxCloneFills);
  EXPECT_EQ(cache->fills_under_way(), fills.size());
  for (CloneCache::Fill* fill : fills)
    cache->end(fill, false);
  EXPECT_TRUE([&] {
    CloneCache::Fill* fill = cache->begin(run, 1, {volume});
    cache->end(fill, false);
    return fill != nullptr;
  }());
}

// Against a device that changes: whatever is there is what the device has.
TEST_F(CloneCacheTest, ItAgreesWithTheDeviceAfterAnyHistory) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    std::mt19937_64 random(seed);
    make((seed % 2 ? 256 : 1024) * KiB);
    const uint64_t clusters = 4 + random() % 100;
    struct Pending {
      CloneCache::Fill* fill;
      std::unique_ptr<AlignedBytes> memory;
    };
    std::vector<Pending> pending;
    for (unsigned i = 0; i < 20'000; ++i) {
      const uint64_t cluster = 1 + random() % clusters;
      const unsigned first = unsigned(random() % 16), count = 1 + unsigned(random() % (16 - first));
      const uint64_t what = random() % 20;
      if (what < 10) {
        read(cluster, first, count, random() % 8 == 0);
      } else if (what < 12) {
        write(cluster);
      } else if (what < 16) {
        auto own = std::make_unique<AlignedBytes>(kClusterSize);
        const BlockRun run{{cluster}, first, own->bytes().subspan(first * kBlockSize, count * kBlockSize)};
        const CloneCache::Found found = cache->look({cluster});
        const auto mask = uint16_t(run.mask() & ~(found.valid | found.filling));
        fill_memory(run, run.mask());
        if (CloneCache::Fill* fill = mask ? cache->begin(run, mask, {volume}) : nullptr)
          pending.push_back({fill, std::move(own)});
      } else if (!pending.empty()) {
        const size_t which = random() % pending.size();
        cache->end(pending[which].fill, random() % 4 != 0);
        pending.erase(pending.begin() + ptrdiff_t(which));
      }
      ASSERT_LE(cache->used_bytes(), cache->size_bytes());
    }
    for (const Pending& one : pending)
      cache->end(one.fill, true);
    for (uint64_t cluster = 1; cluster <= clusters; ++cluster)
      read(cluster, 0, 16);
    for (uint64_t cluster = 1; cluster <= clusters; ++cluster)
      write(cluster);
    EXPECT_EQ(cache->used_bytes(), 0u) << "nothing is lost";
  }
}

}  // namespace
}  // namespace obraz
