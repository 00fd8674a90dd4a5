#include "io/sync.h"

namespace obraz {
namespace {

// The one coroutine nobody awaits: it starts at once and frees itself at its end. Only Gate makes one.
struct Detached {
  struct promise_type {
    static void* operator new(size_t size) { return allocate_frame(size); }
    static void operator delete(void* frame, size_t size) { free_frame(frame, size); }
    Detached get_return_object() { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() noexcept { check_failed("no exception escapes a task", __FILE__, __LINE__); }
  };
};

Detached run(Gate* gate, Task<void> task) {
  {
    Task<void> owned = std::move(task);
    co_await std::move(owned);
  }  // the frame of the task is gone before the gate may let its owner destroy what the frame refers to
  gate->leave();
}

}  // namespace

bool Gate::spawn(Task<void> task) {
  if (!enter())
    return false;
  run(this, std::move(task));
  return true;
}

}  // namespace obraz
