#include "io/sync.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "support/sim_loop.h"

namespace obraz {
namespace {

using test::SimLoop;
using Log = std::vector<std::string>;

Task<void> wait_for(Event& event, Log& log, std::string name) {
  co_await event.wait();
  log.push_back(name);
}

TEST(Event, WakesAllInTheOrderTheyCame) {
  SimLoop loop;
  Event event(loop);
  Log log;
  for (const char* name : {"a", "b", "c"})
    loop.spawn(wait_for(event, log, name));
  loop.run_until_idle();
  EXPECT_TRUE(log.empty());
  EXPECT_TRUE(event.has_waiters());
  event.notify_all();
  EXPECT_TRUE(log.empty());  // enqueued, not resumed in place
  EXPECT_FALSE(event.has_waiters());
  loop.join();
  EXPECT_EQ(log, (Log{"a", "b", "c"}));
}

Task<void> wait_twice(Event& event, Log& log) {
  co_await event.wait();
  log.push_back("first");
  co_await event.wait();
  log.push_back("second");
}

TEST(Event, IsNotRemembered) {
  SimLoop loop;
  Event event(loop);
  Log log;
  event.notify_all();  // before anyone waits
  loop.spawn(wait_twice(event, log));
  loop.run_until_idle();
  EXPECT_TRUE(log.empty());
  event.notify_all();
  loop.run_until_idle();
  EXPECT_EQ(log, (Log{"first"}));  // the second wait began after the notification
  event.notify_all();
  loop.join();
  EXPECT_EQ(log, (Log{"first", "second"}));
}

Task<void> take(Semaphore& semaphore, uint64_t units, Log& log, std::string name) {
  co_await semaphore.acquire(units);
  log.push_back(name);
}

TEST(Semaphore, ALargeRequestIsNotOvertakenBySmallOnes) {
  SimLoop loop;
  Semaphore semaphore(loop, 3);
  Log log;
  EXPECT_TRUE(semaphore.try_acquire(2));
  loop.spawn(take(semaphore, 3, log, "large"));
  loop.spawn(take(semaphore, 1, log, "small"));
  EXPECT_FALSE(semaphore.try_acquire(1)) << "there is a unit, but others wait for it";
  loop.run_until_idle();
  EXPECT_TRUE(log.empty());
  semaphore.release(2);
  loop.run_until_idle();
  EXPECT_EQ(log, (Log{"large"}));
  semaphore.release(3);
  loop.join();
  EXPECT_EQ(log, (Log{"large", "small"}));
  EXPECT_EQ(semaphore.available(), 2u);
}

TEST(Semaphore, OneReleaseMayServeSeveral) {
  SimLoop loop;
  Semaphore semaphore(loop, 0);
  Log log;
  for (const char* name : {"a", "b", "c", "d"})
    loop.spawn(take(semaphore, 2, log, name));
  semaphore.release(7);
  loop.run_until_idle();
  EXPECT_EQ(log, (Log{"a", "b", "c"}));
  EXPECT_EQ(semaphore.available(), 1u);
  semaphore.release(1);
  loop.join();
  EXPECT_EQ(log.back(), "d");
}

TEST(Semaphore, UnitsAreTheReleasedOnesEvenBeforeTheWaiterRuns) {
  SimLoop loop;
  Semaphore semaphore(loop, 0);
  Log log;
  loop.spawn(take(semaphore, 1, log, "waiter"));
  semaphore.release();
  EXPECT_FALSE(semaphore.try_acquire()) << "handed to the waiter, who has not run yet";
  loop.join();
  EXPECT_EQ(log, (Log{"waiter"}));
}

Task<void> critical(SimLoop& loop, Mutex& mutex, int& inside, int& most, Log& log, std::string name) {
  auto lock = co_await mutex.lock();
  most = std::max(most, ++inside);
  co_await yield(loop);
  co_await yield(loop);
  --inside;
  log.push_back(name);
}

TEST(Mutex, OneAtATimeInTheOrderTheyCame) {
  SimLoop loop;
  Mutex mutex(loop);
  Log log;
  int inside = 0, most = 0;
  for (const char* name : {"a", "b", "c", "d"})
    loop.spawn(critical(loop, mutex, inside, most, log, name));
  loop.join();
  EXPECT_EQ(most, 1);
  EXPECT_EQ(log, (Log{"a", "b", "c", "d"}));
}

TEST(Mutex, ExcludesUnderAnyOrderOfResumption) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    SimLoop loop({.seed = seed, .shuffle = true});
    Mutex mutex(loop);
    Log log;
    int inside = 0, most = 0;
    for (int i = 0; i < 10; ++i)
      loop.spawn(critical(loop, mutex, inside, most, log, "x"));
    loop.join();
    ASSERT_EQ(most, 1) << seed;
    ASSERT_EQ(log.size(), 10u) << seed;
  }
}

Task<void> move_lock(Mutex& mutex, Log& log) {
  auto lock = co_await mutex.lock();
  {
    auto moved = std::move(lock);
    log.push_back("moved");
  }
  auto again = co_await mutex.lock();  // free again: the moved one gave it back, once
  log.push_back("again");
}

TEST(Mutex, AMovedLockIsGivenBackOnce) {
  SimLoop loop;
  Mutex mutex(loop);
  Log log;
  loop.run(move_lock(mutex, log));
  EXPECT_EQ(log, (Log{"moved", "again"}));
}

Task<void> set(bool& flag) {
  flag = true;
  co_return;
}

TEST(Gate, SpawnStartsAtOnceUpToTheFirstSuspension) {
  SimLoop loop;
  Gate gate(loop);
  bool ran = false;
  EXPECT_TRUE(gate.spawn(set(ran)));
  EXPECT_TRUE(ran);
  EXPECT_EQ(gate.count(), 0u);
  loop.run(gate.close());
}

TEST(Gate, CloseWaitsForTheLastAndRefusesNewcomersFromTheCall) {
  SimLoop loop;
  Gate gate(loop);
  Event event(loop);
  Log log;
  EXPECT_TRUE(gate.spawn(wait_for(event, log, "inside")));
  EXPECT_TRUE(gate.enter());
  auto closing = gate.close();
  EXPECT_TRUE(gate.closed());
  bool ran = false;
  EXPECT_FALSE(gate.spawn(set(ran)));
  EXPECT_FALSE(ran) << "a refused task never starts";
  EXPECT_FALSE(gate.enter());
  bool closed = false;
  struct Wait {
    static Task<void> for_close(Task<void> closing, bool& closed) {
      co_await std::move(closing);
      closed = true;
    }
  };
  loop.spawn(Wait::for_close(std::move(closing), closed));
  loop.run_until_idle();
  EXPECT_FALSE(closed);
  event.notify_all();
  loop.run_until_idle();
  EXPECT_EQ(log, (Log{"inside"}));
  EXPECT_FALSE(closed) << "one who entered is still inside";
  gate.leave();
  loop.join();
  EXPECT_TRUE(closed);
}

TEST(Gate, CloseOfAnEmptyOneReturnsAtOnceAndMayBeRepeated) {
  SimLoop loop;
  Gate gate(loop);
  loop.run(gate.close());
  loop.run(gate.close());
  EXPECT_TRUE(gate.closed());
}

// The frame of a spawned task is gone before the gate is empty, so its owner may destroy what the frame
// refers to.
struct Witness {
  bool* gone;
  ~Witness() { *gone = true; }
};
Task<void> with_witness(SimLoop& loop, bool& gone) {
  Witness witness{&gone};
  co_await yield(loop);
}

TEST(Gate, FramesAreFreedBeforeItIsEmpty) {
  SimLoop loop;
  bool gone = false;
  Gate gate(loop);
  gate.spawn(with_witness(loop, gone));
  EXPECT_FALSE(gone);
  loop.run(gate.close());
  EXPECT_TRUE(gone);
}

}  // namespace
}  // namespace obraz
