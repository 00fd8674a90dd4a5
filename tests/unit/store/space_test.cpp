#include "store/space.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <vector>

namespace obraz {
namespace {

TEST(Space, NothingIsFreeUntilASlabIsGrown) {
  Space space(1, 1000, 64);
  EXPECT_EQ(space.free_units(), 0u);
  EXPECT_EQ(space.ungrown_units(), 999u);
  EXPECT_EQ(space.allocate(5).count, 0u);
  const auto slab = space.next_slab();
  ASSERT_TRUE(slab);
  EXPECT_EQ(slab->first, 1u);
  EXPECT_EQ(slab->count, 63u);  // the first slab lacks unit 0
  space.grown(*slab);
  EXPECT_EQ(space.free_units(), 63u);
  EXPECT_EQ(space.next_slab()->first, 64u);
}

TEST(Space, RunsAreContiguousFromTheHint) {
  Space space(1, 1000, 1000);
  space.grown(*space.next_slab());
  const auto run = space.allocate(10, 500);
  EXPECT_EQ(run.first, 500u);
  EXPECT_EQ(run.count, 10u);
  const auto next = space.allocate(10, 510);
  EXPECT_EQ(next.first, 510u);
  space.release(505);
  const auto one = space.allocate(10, 505);
  EXPECT_EQ(one.first, 505u);
  EXPECT_EQ(one.count, 1u) << "its neighbours are taken";
}

TEST(Space, TheLastSlabMayBeShort) {
  Space space(0, 70, 64);
  space.grown(*space.next_slab());
  const auto last = space.next_slab();
  ASSERT_TRUE(last);
  EXPECT_EQ(last->count, 6u);
  space.grown(*last);
  EXPECT_FALSE(space.next_slab());
  EXPECT_EQ(space.free_units(), 70u);
  EXPECT_EQ(space.ungrown_units(), 0u);
}

TEST(Space, ShrinkTakesWhollyFreeSlabsBeyondThoseKept) {
  Space space(0, 256, 64);
  for (int i = 0; i < 3; ++i)
    space.grown(*space.next_slab());
  EXPECT_FALSE(space.shrink(3));
  const auto taken = space.allocate(1, 130);
  EXPECT_EQ(taken.first, 130u);
  const auto gone = space.shrink(1);
  ASSERT_TRUE(gone);
  EXPECT_EQ(gone->first, 64u) << "the highest that is free; the one at 128 is in use";
  EXPECT_EQ(space.free_units(), 127u);
  EXPECT_FALSE(space.shrink(1));
  space.release(130);
  EXPECT_EQ(space.shrink(1)->first, 128u);
  EXPECT_EQ(space.grown_slabs(), 1u);
  EXPECT_EQ(space.next_slab()->first, 192u) << "the others are still being given back";
  EXPECT_EQ(space.ungrown_units(), 64u);
  space.shrunk(*gone);
  EXPECT_EQ(space.ungrown_units(), 128u);
  EXPECT_EQ(space.next_slab()->first, 64u) << "lowest first";
}

TEST(Space, ClaimGrowsTheSlabAndIsIdempotent) {
  Space space(1, 256, 64);
  space.claim(100);
  space.claim(100);
  EXPECT_EQ(space.free_units(), 63u);
  EXPECT_FALSE(space.is_free(100));
  EXPECT_EQ(space.next_slab()->first, 1u);
}

// Against a set, with slabs whose size is no multiple of a machine word.
TEST(Space, AgainstAModel) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    std::mt19937_64 random(seed);
    const uint64_t first = random() % 3, end = 100 + random() % 400, per_slab = 1 + random() % 150;
    Space space(first, end, per_slab);
    std::set<uint64_t> taken, free, ungrown;
    for (uint64_t unit = first; unit < end; ++unit)
      ungrown.insert(unit);
    for (int i = 0; i < 2000; ++i) {
      const uint64_t what = random() % 10;
      if (what == 0) {
        if (const auto slab = space.next_slab()) {
          ASSERT_GT(slab->count, 0u);
          for (uint64_t unit = slab->first; unit < slab->first + slab->count; ++unit) {
            ASSERT_EQ(ungrown.erase(unit), 1u) << seed;
            free.insert(unit);
          }
          space.grown(*slab);
        } else {
          ASSERT_TRUE(ungrown.empty()) << seed;
        }
      } else if (what == 1) {
        if (const auto slab = space.shrink(random() % 3)) {
          for (uint64_t unit = slab->first; unit < slab->first + slab->count; ++unit) {
            ASSERT_EQ(free.erase(unit), 1u) << seed;
            ungrown.insert(unit);
          }
          space.shrunk(*slab);
        }
      } else if (what < 6) {
        const uint64_t want = 1 + random() % 20;
        const auto run = space.allocate(want, random() % (end + 10));
        ASSERT_EQ(run.count == 0, free.empty()) << seed;
        ASSERT_LE(run.count, want);
        for (uint64_t unit = run.first; unit < run.first + run.count; ++unit) {
          ASSERT_EQ(free.erase(unit), 1u) << seed;
          taken.insert(unit);
        }
      } else if (!taken.empty()) {
        auto it = taken.lower_bound(random() % end);
        if (it == taken.end())
          it = taken.begin();
        space.release(*it);
        free.insert(*it);
        taken.erase(it);
      }
      ASSERT_EQ(space.free_units(), free.size()) << seed;
      ASSERT_EQ(space.ungrown_units(), ungrown.size()) << seed;
    }
    for (uint64_t unit = first; unit < end; ++unit)
      ASSERT_EQ(space.is_free(unit), free.contains(unit)) << seed;
  }
}

TEST(SpaceDeath, GivingBackTwiceIsABug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        Space space(0, 64, 64);
        space.grown(*space.next_slab());
        space.allocate(1, 5);
        space.release(5);
        space.release(5);
      },
      "bug:");
}

}  // namespace
}  // namespace obraz
