// A slot against the plainest model there is: for each of the 16 blocks, which cluster holds it.
#include "store/slot.h"

#include <gtest/gtest.h>

#include <array>
#include <random>
#include <set>

namespace obraz {
namespace {

constexpr uint64_t kClusters = 1000;
using Model = std::array<uint64_t, kBlocksPerCluster>;  // 0: zeros

void expect_same(const Slot& slot, const Model& model) {
  ASSERT_TRUE(slot.valid(kClusters));
  for (unsigned block = 0; block < kBlocksPerCluster; ++block) {
    ASSERT_EQ(slot.place(block).value, model[block]) << block;
    ASSERT_EQ((slot.zeros() >> block & 1) != 0, model[block] == 0) << block;
  }
}

TEST(Slot, AnEmptyOneReadsAsZeros) {
  const Slot slot;
  EXPECT_TRUE(slot.empty());
  EXPECT_EQ(slot.zeros(), kAllBlocks);
  expect_same(slot, Model{});
}

TEST(Slot, TheFiveWays) {
  const PhysicalCluster a{1}, b{2};
  EXPECT_EQ(write_kind({}, 1, false), WriteKind::allocate);
  EXPECT_EQ(write_kind({{}, a, 0, 0}, 1, true), WriteKind::allocate);
  EXPECT_EQ(write_kind({a, {}, 3, 0}, 1, false), WriteKind::in_place);
  EXPECT_EQ(write_kind({a, {}, 3, 0}, 5, false), WriteKind::first);
  EXPECT_EQ(write_kind({a, {}, 3, 0}, 1, true), WriteKind::to_base) << "nothing under it";
  EXPECT_EQ(write_kind({a, {}, kAllBlocks, 0}, 1, true), WriteKind::to_base) << "full";
  EXPECT_EQ(write_kind({a, b, 3, 0}, 1, true), WriteKind::copy);
}

TEST(Slot, TheCopyIsBounded) {  // at most 14 blocks: one is written, and one is in neither
  std::mt19937 random(3);
  for (int i = 0; i < 100'000; ++i) {
    Slot slot{{1}, {2}, uint16_t(random()), 0};
    const uint16_t mask = uint16_t(random());
    if (slot.own_mask == 0 || mask == 0)
      continue;
    if ((slot.own_mask | mask) == kAllBlocks) {
      ASSERT_EQ(write_kind(slot, mask, true), WriteKind::to_base) << "nothing is left to copy for";
      continue;
    }
    ASSERT_EQ(write_kind(slot, mask, true), WriteKind::copy);
    ASSERT_LE(std::popcount(blocks_to_copy(slot, mask)), 14);
    ASSERT_EQ(blocks_to_copy(slot, mask) & mask, 0);
  }
}

TEST(Slot, RandomWritesAndZeroesAgainstTheModel) {
  for (uint64_t seed = 1; seed <= 2000; ++seed) {
    std::mt19937 random{uint32_t(seed)};
    Slot slot;
    Model model{};
    uint64_t next = 1;
    for (int step = 0; step < 30; ++step) {
      uint16_t mask = uint16_t(random());
      if (random() % 3 == 0)
        mask = uint16_t(1u << random() % 16);
      if (random() % 10 == 0)
        mask = kAllBlocks;
      if (mask == 0)
        continue;
      const Slot before = slot;
      if (random() % 3 == 0) {
        slot = after_zero(slot, mask);
        for (unsigned block = 0; block < kBlocksPerCluster; ++block)
          if (mask >> block & 1)
            model[block] = 0;
      } else {
        const WriteKind kind = write_kind(slot, mask, random() % 2 == 0);
        const bool in_own = kind == WriteKind::in_place || kind == WriteKind::first;
        const PhysicalCluster target = in_own ? slot.own : PhysicalCluster{next++};
        const uint16_t copied = kind == WriteKind::copy ? blocks_to_copy(slot, mask) : uint16_t(0);
        slot = after_write(slot, kind, mask, target);
        for (unsigned block = 0; block < kBlocksPerCluster; ++block)
          if ((mask | copied) >> block & 1)
            model[block] = target.value;
        if (kind == WriteKind::in_place) {
          ASSERT_EQ(slot, before) << "in place changes no slot";
        }
      }
      expect_same(slot, model);
      if (HasFatalFailure())
        FAIL() << "seed " << seed << " step " << step;
      // What shows nowhere is not kept: own never, base when own is full or the last of it was given up.
      const std::set<uint64_t> shown(model.begin(), model.end());
      ASSERT_TRUE(!slot.own || shown.contains(slot.own.value)) << seed;
      ASSERT_TRUE(slot.own_mask != kAllBlocks || !slot.base) << seed;
      if (model == Model{}) {
        ASSERT_TRUE(slot.empty()) << seed;
      }
    }
  }
}

TEST(Slot, BadOnesAreRecognised) {
  EXPECT_TRUE(Slot{}.valid(kClusters));
  EXPECT_FALSE((Slot{{1}, {}, 0, 0}).valid(kClusters)) << "own without blocks";
  EXPECT_FALSE((Slot{{}, {}, 1, 0}).valid(kClusters)) << "blocks without own";
  EXPECT_FALSE((Slot{{1}, {}, 1, 2}).valid(kClusters)) << "zeros over no base";
  EXPECT_FALSE((Slot{{1}, {2}, 1, 1}).valid(kClusters)) << "own and zero";
  EXPECT_FALSE((Slot{{1}, {1}, 1, 0}).valid(kClusters)) << "the same twice";
  EXPECT_FALSE((Slot{{kClusters}, {}, 1, 0}).valid(kClusters)) << "beyond the device";
}

}  // namespace
}  // namespace obraz
