// SimLoop: an Executor without a thread, a kernel or a clock. Time is a number that jumps to the next timer
// when nothing is ready, so an hour of waiting costs nothing and every run with the same seed is the same
// run.
//
// The ready queue is first in, first out, as every Executor's is; with `shuffle` the next coroutine is drawn
// at random instead, which no real loop does but a program whose order is guaranteed by its own locks must
// survive. A coroutine that waits for something that can no longer happen is a deadlock: run() prints so and
// aborts, after calling on_stuck. The same holds for a run that makes no end (kMaxSteps resumptions, kMaxTime
// of virtual time). Thread: the test's.
#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <random>
#include <type_traits>

#include "io/executor.h"
#include "io/sync.h"
#include "io/task.h"

namespace obraz::test {

struct SimLoopOptions {
  uint64_t seed = 1;
  bool shuffle = false;
};

class SimLoop final : public Executor {
 public:
  explicit SimLoop(SimLoopOptions options = {});

  void enqueue(std::coroutine_handle<> ready) override { ready_.push_back(ready); }
  uint64_t now_us() const override { return now_us_; }

  // Resumes one coroutine, letting time jump when none is ready. False when there is nothing to wait for
  // either.
  bool step();
  // Until nothing is ready and no timer is armed.
  void run_until_idle();
  // Until the condition holds; false when the loop became idle first.
  bool run_until(std::function<bool()> condition);
  // Until all that is due within the next `duration` has happened; the clock then stands at its end.
  void run_for_us(uint64_t duration_us);

  // Drives the loop until the task has ended and gives back its result. Other coroutines run meanwhile.
  template <typename T>
  T run(Task<T> task) {
    Gate gate(*this);
    if constexpr (std::is_void_v<T>) {
      gate.spawn(std::move(task));
      drive(gate);
    } else {
      std::optional<T> result;
      gate.spawn(keep(std::move(task), result));
      drive(gate);
      return std::move(*result);
    }
  }

  // Starts a task that runs beside the others; wait for all of them with join().
  void spawn(Task<void> task) { background_.spawn(std::move(task)); }
  void join() { drive(background_); }

  uint64_t steps() const { return steps_; }
  // Called before a stuck run aborts: the place to print a seed and a trace.
  std::function<void()> on_stuck;

  static constexpr uint64_t kMaxSteps = 20'000'000;              // of one run
  static constexpr uint64_t kMaxTime = 24 * 3600ull * 1000'000;  // of one run, microseconds

 private:
  template <typename T>
  static Task<void> keep(Task<T> task, std::optional<T>& result) {
    T value = co_await std::move(task);
    result.emplace(std::move(value));
  }
  void drive(const Gate& gate);
  [[noreturn]] void stuck(const char* why);

  bool shuffle_;
  std::mt19937_64 random_;
  std::deque<std::coroutine_handle<>> ready_;
  uint64_t now_us_ = 1'000'000, steps_ = 0;
  Gate background_{*this};
};

}  // namespace obraz::test
