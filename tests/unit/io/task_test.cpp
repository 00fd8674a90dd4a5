// What GCC 12 makes of Task<T>, in every kind of build: frames freed once, stacks that do not grow, results
// moved.
#include "io/task.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "support/sim_loop.h"

namespace obraz {
namespace {

using test::SimLoop;

// Counts its copies in existence; lives in frames to tell when they are freed.
struct Alive {
  explicit Alive(int& count) : count(&count) { ++count; }
  Alive(const Alive& other) : count(other.count) { ++*count; }
  Alive& operator=(const Alive&) = delete;
  ~Alive() { --*count; }
  int* count;
};

Task<int> immediately(int value) {
  co_return value;
}

Task<int> after_a_turn(SimLoop& loop, int value) {
  co_await yield(loop);
  co_return value;
}

uintptr_t stack_here() {
  volatile char here = 0;
  return reinterpret_cast<uintptr_t>(&here);
}

Task<uint64_t> sum_many(uint64_t n, uintptr_t& lowest) {
  uint64_t sum = 0;
  for (uint64_t i = 0; i < n; ++i) {
    const int value = co_await immediately(int(i & 0xff));
    sum += uint64_t(value);
    lowest = std::min(lowest, stack_here());
  }
  co_return sum;
}

TEST(Task, AMillionAwaitsThatDoNotSuspendUseNoStack) {
  SimLoop loop;
  const uintptr_t top = stack_here();
  uintptr_t lowest = top;
  const uint64_t sum = loop.run(sum_many(1'000'000, lowest));
  uint64_t expected = 0;
  for (uint64_t i = 0; i < 1'000'000; ++i)
    expected += i & 0xff;
  EXPECT_EQ(sum, expected);
  EXPECT_LT(top - lowest, 64u * 1024);
}

Task<uint64_t> sum_turns(SimLoop& loop, uint64_t n, uintptr_t& lowest) {
  uint64_t sum = 0;
  for (uint64_t i = 0; i < n; ++i) {
    const int value = i % 3 == 0 ? 1 : 2;
    int got;
    if (i % 2 == 0)
      got = co_await after_a_turn(loop, value);
    else
      got = co_await immediately(value);
    sum += uint64_t(got);
    lowest = std::min(lowest, stack_here());
  }
  co_return sum;
}

TEST(Task, SuspendingAndNotSuspendingMixedUseNoStackEither) {
  SimLoop loop;
  const uintptr_t top = stack_here();
  uintptr_t lowest = top;
  EXPECT_EQ(loop.run(sum_turns(loop, 300'000, lowest)), 100'000u * 5);
  EXPECT_LT(top - lowest, 64u * 1024);
}

Task<int> nested(SimLoop& loop, int depth) {
  if (depth == 0) {
    co_await yield(loop);
    co_return 0;
  }
  const int below = co_await nested(loop, depth - 1);
  co_return below + 1;
}

TEST(Task, AChainOfSuspendedTasksEndsInOrder) {
  SimLoop loop;
  EXPECT_EQ(loop.run(nested(loop, 500)), 500);
}

Task<std::unique_ptr<int>> made(SimLoop& loop, bool suspend) {
  auto value = std::make_unique<int>(7);
  if (suspend)
    co_await yield(loop);
  co_return value;
}

TEST(Task, ResultsMayBeMoveOnly) {
  SimLoop loop;
  EXPECT_EQ(*loop.run(made(loop, false)), 7);
  EXPECT_EQ(*loop.run(made(loop, true)), 7);
}

Task<Result<std::string>> checked(SimLoop& loop, int value) {
  co_await yield(loop);
  if (value < 0)
    co_return fail(ErrorCode::invalid_argument, "negative");
  co_return std::string(size_t(value), 'x');
}

Task<Result<size_t>> length_of(SimLoop& loop, int value) {
  const auto text = co_await checked(loop, value);
  OBRAZ_CO_TRY(text);
  co_return text->size();
}

TEST(Task, ErrorsAreValuesAndPassThrough) {
  SimLoop loop;
  EXPECT_EQ(loop.run(length_of(loop, 5)).value(), 5u);
  const auto failed = loop.run(length_of(loop, -1));
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, ErrorCode::invalid_argument);
}

Task<void> hold(Alive alive, SimLoop& loop, int& at_run) {
  at_run = *alive.count;
  co_await yield(loop);
}

TEST(Task, OneThatIsNeverAwaitedNeverStartsAndIsFreed) {
  SimLoop loop;
  int count = 0, at_run = 0;
  {
    auto task = hold(Alive(count), loop, at_run);
    EXPECT_EQ(count, 1);  // the frame's own
    auto moved = std::move(task);
    EXPECT_EQ(count, 1);
  }
  EXPECT_EQ(count, 0);
  EXPECT_EQ(at_run, 0);
}

TEST(Task, FramesAreFreedOnceWhenDone) {
  SimLoop loop;
  int count = 0, at_run = 0;
  auto task = hold(Alive(count), loop, at_run);
  loop.run(std::move(task));
  EXPECT_EQ(at_run, 1);
  EXPECT_EQ(count, 0);
}

Task<void> record(std::vector<int>& log, int what) {
  log.push_back(what);
  co_return;
}

Task<void> lazily(std::vector<int>& log) {
  auto task = record(log, 2);
  log.push_back(1);
  co_await std::move(task);
  log.push_back(3);
}

TEST(Task, StartsWhenAwaited) {
  SimLoop loop;
  std::vector<int> log;
  loop.run(lazily(log));
  EXPECT_EQ(log, (std::vector{1, 2, 3}));
}

// Frames above the size classes come from the heap; both kinds hold what they are given.
Task<uint64_t> large_frame(SimLoop& loop) {
  std::array<uint64_t, 2048> numbers;
  for (size_t i = 0; i < numbers.size(); ++i)
    numbers[i] = i;
  co_await yield(loop);
  uint64_t sum = 0;
  for (const uint64_t number : numbers)
    sum += number;
  co_return sum;
}

TEST(Task, LargeFramesKeepTheirContents) {
  SimLoop loop;
  for (int i = 0; i < 10; ++i)
    EXPECT_EQ(loop.run(large_frame(loop)), 2047u * 2048 / 2);
}

Task<void> twice(Task<void>& task) {
  co_await std::move(task);
  co_await std::move(task);
}

TEST(TaskDeath, AwaitingTwiceIsABug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        SimLoop loop;
        std::vector<int> log;
        auto task = record(log, 1);
        loop.run(twice(task));
      },
      "bug:");
}

Task<void> throws() {
  throw 1;
  co_return;
}

TEST(TaskDeath, AnExceptionThatEscapesIsABug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        SimLoop loop;
        loop.run(throws());
      },
      "no exception escapes a task");
}

}  // namespace
}  // namespace obraz
