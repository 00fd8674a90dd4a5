// Executor: what a coroutine needs of its loop — a ready queue, a clock, timers. The reactor is one; the
// simulated loop of the tests is another, which is why the store sees nothing but this.
//
// Invariant: enqueue() never resumes; the loop does, later, from its own stack. Thread: one, the executor's
// own.
#pragma once

#include <coroutine>
#include <cstdint>
#include <map>

namespace obraz {

class Timer;

class Executor {
 public:
  virtual ~Executor() = default;

  // Puts a suspended coroutine at the end of the ready queue.
  virtual void enqueue(std::coroutine_handle<> ready) = 0;
  // Monotonic time in microseconds; its zero means nothing.
  virtual uint64_t now_us() const = 0;

 protected:
  friend class Timer;
  // The loop fires (enqueues) every timer whose deadline has passed, in the order of deadlines.
  std::multimap<uint64_t, Timer*> timers_;

  // Enqueues what is due; returns the next deadline, or UINT64_MAX when there is none.
  uint64_t fire_due_timers();
};

// One wait at a time. Destroying a Timer that somebody waits for is a bug.
class Timer {
 public:
  explicit Timer(Executor& executor) : executor_(executor) {}
  Timer(const Timer&) = delete;
  ~Timer();

  struct Awaiter {
    Timer& timer;
    uint64_t deadline_us;
    bool await_ready() const { return false; }
    void await_suspend(std::coroutine_handle<> waiter) { timer.arm(deadline_us, waiter); }
    // Whether the time passed; false when cancel() came first.
    bool await_resume() const { return !timer.cancelled_; }
  };
  // co_await timer.wait_us(d): resumes d microseconds from now, or as soon as cancel() is called.
  Awaiter wait_us(uint64_t delay_us) { return {*this, executor_.now_us() + delay_us}; }
  // Ends a wait early; nothing when nobody waits.
  void cancel();

 private:
  friend class Executor;
  void arm(uint64_t deadline_us, std::coroutine_handle<> waiter);

  Executor& executor_;
  std::coroutine_handle<> waiter_;
  std::multimap<uint64_t, Timer*>::iterator position_;
  bool cancelled_ = false;
};

// co_await yield(executor): to the end of the ready queue, so that others run first.
inline auto yield(Executor& executor) {
  struct Awaiter {
    Executor& executor;
    bool await_ready() const { return false; }
    void await_suspend(std::coroutine_handle<> self) { executor.enqueue(self); }
    void await_resume() const {}
  };
  return Awaiter{executor};
}

}  // namespace obraz
