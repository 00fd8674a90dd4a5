#include "io/executor.h"

#include <utility>

#include "base/check.h"

namespace obraz {

uint64_t Executor::fire_due_timers() {
  const uint64_t now = now_us();
  while (!timers_.empty() && timers_.begin()->first <= now) {
    Timer* timer = timers_.begin()->second;
    timers_.erase(timers_.begin());
    enqueue(std::exchange(timer->waiter_, nullptr));
  }
  return timers_.empty() ? UINT64_MAX : timers_.begin()->first;
}

Timer::~Timer() {
  OBRAZ_CHECK(!waiter_);
}

void Timer::arm(uint64_t deadline_us, std::coroutine_handle<> waiter) {
  OBRAZ_CHECK(!waiter_);
  cancelled_ = false;
  waiter_ = waiter;
  position_ = executor_.timers_.emplace(deadline_us, this);
}

void Timer::cancel() {
  if (!waiter_)
    return;
  cancelled_ = true;
  executor_.timers_.erase(position_);
  executor_.enqueue(std::exchange(waiter_, nullptr));
}

}  // namespace obraz
