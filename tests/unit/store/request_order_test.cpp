#include "store/request_order.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "support/sim_loop.h"

namespace obraz {
namespace {

using test::SimLoop;
using Log = std::vector<int>;

Task<void> hold(RangeLock& lock, RangeLock::Range range, Event& until, Log& log, int name) {
  RangeLock::Holder holder;
  co_await lock.acquire(range, holder);
  log.push_back(name);
  co_await until.wait();
}

struct RangeLockTest : testing::Test {
  void hold(RangeLock::Range range, int name) {
    loop.spawn(obraz::hold(lock, range, *until[size_t(name)], log, name));
  }
  void end(int name) {
    until[size_t(name)]->notify_all();
    loop.run_until_idle();
  }
  RangeLockTest() {
    for (int i = 0; i < 10; ++i)
      until.push_back(std::make_unique<Event>(loop));
  }
  SimLoop loop;
  RangeLock lock{loop};
  std::vector<std::unique_ptr<Event>> until;
  Log log;
};

TEST_F(RangeLockTest, InPlaceWritesExcludeEachOtherWhereTheirBlocksOverlap) {
  hold({0, 4, false}, 0);
  hold({4, 8, false}, 1);  // beside it, in the same cluster
  hold({3, 5, false}, 2);  // overlaps both
  EXPECT_EQ(log, (Log{0, 1}));
  end(0);
  EXPECT_EQ(log, (Log{0, 1}));
  end(1);
  EXPECT_EQ(log, (Log{0, 1, 2}));
  end(2);
  loop.join();
}

TEST_F(RangeLockTest, AnExclusiveOneHoldsItsClustersAlone) {
  hold({0, 1, true}, 0);
  hold({15, 16, false}, 1);  // the same cluster
  hold({16, 17, true}, 2);   // the next one
  EXPECT_EQ(log, (Log{0, 2}));
  end(0);
  EXPECT_EQ(log, (Log{0, 2, 1}));
  end(1);
  end(2);
  loop.join();
}

TEST_F(RangeLockTest, AWaitingOneIsNotOvertakenByALaterItConflictsWith) {
  hold({0, 16, false}, 0);
  hold({0, 16, true}, 1);  // waits for 0
  hold({5, 6, false}, 2);  // would go beside nothing of 0? it overlaps 0 and 1
  hold({40, 41, false}, 3);
  EXPECT_EQ(log, (Log{0, 3}));
  end(0);
  EXPECT_EQ(log, (Log{0, 3, 1}));
  end(1);
  EXPECT_EQ(log, (Log{0, 3, 1, 2}));
  end(2);
  end(3);
  loop.join();
}

TEST_F(RangeLockTest, OneReleaseWakesAllThatAreFreeThen) {
  hold({0, 64, true}, 0);
  for (int i = 1; i < 5; ++i)
    hold({uint64_t(i - 1) * 16, uint64_t(i) * 16, true}, i);
  EXPECT_EQ(log, (Log{0}));
  end(0);
  EXPECT_EQ(log, (Log{0, 1, 2, 3, 4}));
  for (int i = 1; i < 5; ++i)
    end(i);
  loop.join();
}

// Random ranges, any order of resumption: no two that conflict hold together, and everyone gets his turn.
struct Shared {
  explicit Shared(SimLoop& loop) : lock(loop) {}
  RangeLock lock;
  std::vector<int> in_place = std::vector<int>(128), exclusive = std::vector<int>(8),
                   users = std::vector<int>(8);
  int turns = 0;
};

Task<void> worker(SimLoop& loop, Shared& shared, uint64_t seed) {
  std::mt19937_64 random(seed);
  for (int i = 0; i < 50; ++i) {
    const uint64_t first = random() % 127, end = first + 1 + random() % std::min<uint64_t>(40, 127 - first);
    const bool exclusive = random() % 3 == 0;
    RangeLock::Holder holder;
    co_await shared.lock.acquire({first, end, exclusive}, holder);
    for (uint64_t cluster = first / 16; cluster <= (end - 1) / 16; ++cluster) {
      EXPECT_EQ(shared.exclusive[cluster], 0);
      if (exclusive) {
        EXPECT_EQ(shared.users[cluster], 0);
      }
      ++shared.users[cluster];
      shared.exclusive[cluster] += exclusive;
    }
    for (uint64_t block = first; block < end; ++block)
      EXPECT_EQ(shared.in_place[block]++, 0);
    for (uint64_t turn = random() % 4; turn > 0; --turn)
      co_await yield(loop);
    for (uint64_t block = first; block < end; ++block)
      --shared.in_place[block];
    for (uint64_t cluster = first / 16; cluster <= (end - 1) / 16; ++cluster) {
      --shared.users[cluster];
      shared.exclusive[cluster] -= exclusive;
    }
    ++shared.turns;
  }
}

TEST(RangeLock, RandomHoldersNeverConflict) {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    SimLoop loop({.seed = seed, .shuffle = true});
    Shared shared(loop);
    for (uint64_t i = 0; i < 12; ++i)
      loop.spawn(worker(loop, shared, seed * 100 + i));
    loop.join();
    ASSERT_EQ(shared.turns, 12 * 50);
  }
}

Task<void> wait_past(IoTracker& tracker, uint64_t mark, Log& log, int name) {
  co_await tracker.wait_until_past(mark);
  log.push_back(name);
}

TEST(IoTracker, AMarkIsPassedWhenAllBeforeItHaveEnded) {
  SimLoop loop;
  IoTracker tracker(loop);
  Log log;
  IoTracker::Entry a, b, c;
  a.begin(tracker);
  b.begin(tracker);
  const uint64_t mark = tracker.mark();
  c.begin(tracker);
  loop.spawn(wait_past(tracker, mark, log, 1));
  b.end();
  loop.run_until_idle();
  EXPECT_TRUE(log.empty()) << "a is older and still in flight";
  a.end();
  loop.join();
  EXPECT_EQ(log, (Log{1}));
  EXPECT_FALSE(tracker.idle());
  c.end();
  c.end();
  EXPECT_TRUE(tracker.idle());
  EXPECT_EQ(tracker.oldest(), tracker.mark());
}

TEST(IoTracker, AnIdleOneIsPastEveryMark) {
  SimLoop loop;
  IoTracker tracker(loop);
  Log log;
  loop.run(wait_past(tracker, tracker.mark(), log, 1));
  EXPECT_EQ(log, (Log{1}));
}

}  // namespace
}  // namespace obraz
