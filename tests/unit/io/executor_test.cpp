#include "io/executor.h"

#include <gtest/gtest.h>

#include <vector>

#include "support/sim_loop.h"

namespace obraz {
namespace {

using test::SimLoop;
using Log = std::vector<std::pair<int, bool>>;  // what, and whether its time passed

Task<void> wait_then_log(Timer& timer, uint64_t delay_us, Log& log, int what) {
  const bool passed = co_await timer.wait_us(delay_us);
  log.emplace_back(what, passed);
}

TEST(Timer, FiresInTheOrderOfDeadlinesAtTheirTimes) {
  SimLoop loop;
  Timer a(loop), b(loop), c(loop);
  Log log;
  const uint64_t start = loop.now_us();
  loop.spawn(wait_then_log(a, 300, log, 1));
  loop.spawn(wait_then_log(b, 100, log, 2));
  loop.spawn(wait_then_log(c, 200, log, 3));
  loop.run_for_us(99);
  EXPECT_TRUE(log.empty());
  loop.run_for_us(1);
  EXPECT_EQ(log.size(), 1u);
  loop.join();
  EXPECT_EQ(log, (Log{{2, true}, {3, true}, {1, true}}));
  EXPECT_EQ(loop.now_us(), start + 300);
}

TEST(Timer, EqualDeadlinesFireInTheOrderOfArming) {
  SimLoop loop;
  Timer a(loop), b(loop), c(loop);
  Log log;
  loop.spawn(wait_then_log(b, 50, log, 1));
  loop.spawn(wait_then_log(a, 50, log, 2));
  loop.spawn(wait_then_log(c, 50, log, 3));
  loop.join();
  EXPECT_EQ(log, (Log{{1, true}, {2, true}, {3, true}}));
}

TEST(Timer, CancelEndsTheWaitAtOnceAndSaysSo) {
  SimLoop loop;
  Timer timer(loop);
  Log log;
  const uint64_t start = loop.now_us();
  loop.spawn(wait_then_log(timer, 1'000'000, log, 1));
  timer.cancel();
  EXPECT_TRUE(log.empty());  // only enqueued
  loop.join();
  EXPECT_EQ(log, (Log{{1, false}}));
  EXPECT_EQ(loop.now_us(), start);
  timer.cancel();  // nobody waits: nothing
  loop.spawn(wait_then_log(timer, 5, log, 2));
  loop.join();
  EXPECT_EQ(log.back(), std::make_pair(2, true));
}

TEST(Timer, CancelAfterItFiredChangesNothing) {
  SimLoop loop;
  Timer timer(loop);
  Log log;
  loop.spawn(wait_then_log(timer, 0, log, 1));
  loop.run_until_idle();
  timer.cancel();
  loop.join();
  EXPECT_EQ(log, (Log{{1, true}}));
}

TEST(TimerDeath, DestroyingOneThatIsWaitedForIsABug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        SimLoop loop;
        Log log;
        Timer timer(loop);
        loop.spawn(wait_then_log(timer, 10, log, 1));
      },
      "bug:");
}

Task<void> log_turns(SimLoop& loop, std::vector<int>& log, int what, int turns) {
  for (int i = 0; i < turns; ++i) {
    log.push_back(what);
    co_await yield(loop);
  }
}

TEST(Executor, YieldLetsTheOthersRunFirst) {
  SimLoop loop;
  std::vector<int> log;
  loop.spawn(log_turns(loop, log, 1, 3));
  loop.spawn(log_turns(loop, log, 2, 3));
  loop.join();
  EXPECT_EQ(log, (std::vector{1, 2, 1, 2, 1, 2}));
}

TEST(SimLoop, ShuffledOrderComesFromTheSeed) {
  const auto run = [](uint64_t seed) {
    SimLoop loop({.seed = seed, .shuffle = true});
    std::vector<int> log;
    for (int i = 0; i < 8; ++i)
      loop.spawn(log_turns(loop, log, i, 4));
    loop.join();
    return log;
  };
  EXPECT_EQ(run(1), run(1));
  EXPECT_NE(run(1), run(2));
}

TEST(SimLoopDeath, ADeadlockIsToldAndAborts) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        SimLoop loop;
        Event never(loop);
        struct Wait {
          static Task<void> on(Event& event) { co_await event.wait(); }
        };
        loop.run(Wait::on(never));
      },
      "deadlock");
}

}  // namespace
}  // namespace obraz
