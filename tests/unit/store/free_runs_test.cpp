#include "store/free_runs.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace obraz {
namespace {

TEST(FreeRunsTest, TheSmallestThatIsLargeEnoughIsTaken) {
  FreeRuns free;
  EXPECT_EQ(free.take(1), std::nullopt);
  free.add(100, 10);
  free.add(50, 3);
  free.add(20, 4);
  free.add(10, 3);
  EXPECT_EQ(free.take(3), 10u);  // of two the first
  EXPECT_EQ(free.take(3), 50u);
  EXPECT_EQ(free.take(3), 20u);
  EXPECT_EQ(free.take(2), 100u);
  EXPECT_EQ(free.take(9), std::nullopt);
  EXPECT_EQ(free.take(8), 102u);
  EXPECT_EQ(free.take(1), 23u);
  EXPECT_EQ(free.runs(), 0u);
}

TEST(FreeRunsTest, NeighboursBecomeOne) {
  FreeRuns free;
  free.add(10, 2);
  free.add(14, 2);
  free.add(12, 2);
  EXPECT_EQ(free.runs(), 1u);
  free.add(8, 2);
  free.add(16, 1);
  EXPECT_EQ(free.runs(), 1u);
  EXPECT_EQ(free.take(9), 8u);
}

TEST(FreeRunsTest, WhatIsGivenIsFreeAndGivenOnce) {
  std::mt19937 random(1);
  constexpr uint64_t kCells = 500;
  FreeRuns free;
  std::vector<bool> used(kCells, true);
  std::vector<std::pair<uint64_t, uint64_t>> taken = {{0, kCells}};
  const auto longest = [&] {
    uint64_t best = 0, run = 0;
    for (const bool cell : used)
      best = std::max(best, run = cell ? 0 : run + 1);
    return best;
  };
  for (int step = 0; step < 20'000; ++step) {
    if (random() % 2 == 0 && !taken.empty()) {
      const size_t at = random() % taken.size();
      const auto [first, count] = taken[at];
      taken.erase(taken.begin() + long(at));
      free.add(first, count);
      for (uint64_t cell = first; cell < first + count; ++cell)
        used[cell] = false;
    } else {
      const uint64_t count = 1 + random() % 12;
      const auto first = free.take(count);
      ASSERT_EQ(first.has_value(), longest() >= count);
      if (!first)
        continue;
      for (uint64_t cell = *first; cell < *first + count; ++cell) {
        ASSERT_FALSE(used.at(cell));
        used[cell] = true;
      }
      taken.emplace_back(*first, count);
    }
  }
}

}  // namespace
}  // namespace obraz
