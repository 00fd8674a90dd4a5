#include "support/sim_loop.h"

#include <cstdio>
#include <cstdlib>

namespace obraz::test {

SimLoop::SimLoop(SimLoopOptions options) : shuffle_(options.shuffle), random_(options.seed) {}

bool SimLoop::step() {
  fire_due_timers();
  if (ready_.empty()) {
    if (timers_.empty())
      return false;
    now_us_ = timers_.begin()->first;
    fire_due_timers();
  }
  if (shuffle_ && ready_.size() > 1)
    std::swap(ready_.front(), ready_[random_() % ready_.size()]);
  const auto next = ready_.front();
  ready_.pop_front();
  ++steps_;
  next.resume();
  return true;
}

void SimLoop::run_until_idle() {
  run_until([] { return false; });
}

bool SimLoop::run_until(std::function<bool()> condition) {
  const uint64_t last_step = steps_ + kMaxSteps, last_time = now_us_ + kMaxTime;
  while (!condition()) {
    if (!step())
      return false;
    if (steps_ > last_step)
      stuck("no end: too many resumptions");
    if (now_us_ > last_time)
      stuck("no end: too much virtual time");
  }
  return true;
}

void SimLoop::run_for_us(uint64_t duration_us) {
  const uint64_t end = now_us_ + duration_us;
  run_until([&] { return ready_.empty() && (timers_.empty() || timers_.begin()->first > end); });
  now_us_ = end;
}

void SimLoop::drive(const Gate& gate) {
  if (!run_until([&] { return gate.count() == 0; }))
    stuck("deadlock: coroutines wait, nothing is ready and no timer is armed");
}

void SimLoop::stuck(const char* why) {
  std::fprintf(stderr, "simulated loop: %s\n", why);
  if (on_stuck)
    on_stuck();
  std::abort();
}

}  // namespace obraz::test
