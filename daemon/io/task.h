// Task<T>: a coroutine that starts when it is awaited, is owned by whoever holds the Task, and is awaited
// once.
//
// Invariants: a Task that was never awaited destroys its unstarted frame; awaiting a Task resumes the
// awaiting coroutine exactly once, when the task's frame has reached its end. A task that finishes without
// suspending does not suspend its caller, so a loop of such awaits uses no stack, with or without tail calls
// (sanitizers and -O0 have none). Exceptions do not cross a task: ours throw none, and one that escapes is a
// bug. Thread: a task runs on the thread that resumes it, which is its executor's. Frames come from a free
// list of that thread, so a request allocates nothing in steady state.
#pragma once

#include <coroutine>
#include <cstddef>
#include <optional>
#include <type_traits>
#include <utility>

#include "base/check.h"

namespace obraz {

// Coroutine frames by size class, per thread; a frame may be freed on another thread than it was made on.
void* allocate_frame(size_t size_bytes);
void free_frame(void* frame, size_t size_bytes);

namespace detail {

struct PromiseBase {
  std::coroutine_handle<> continuation;  // set when the task has suspended its caller

  static void* operator new(size_t size) { return allocate_frame(size); }
  static void operator delete(void* frame, size_t size) { free_frame(frame, size); }

  struct FinalAwaiter {
    bool await_ready() noexcept { return false; }
    template <typename Promise>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> self) noexcept {
      auto next = self.promise().continuation;
      return next ? next : std::noop_coroutine();
    }
    void await_resume() noexcept {}
  };
  std::suspend_always initial_suspend() noexcept { return {}; }
  FinalAwaiter final_suspend() noexcept { return {}; }
  void unhandled_exception() noexcept { check_failed("no exception escapes a task", __FILE__, __LINE__); }
};

template <typename T>
struct Promise : PromiseBase {
  std::optional<T> value;
  std::coroutine_handle<Promise> get_return_object() {
    return std::coroutine_handle<Promise>::from_promise(*this);
  }
  template <typename U>
  void return_value(U&& result) {
    value.emplace(std::forward<U>(result));
  }
  T take() { return std::move(*value); }
};

template <>
struct Promise<void> : PromiseBase {
  std::coroutine_handle<Promise> get_return_object() {
    return std::coroutine_handle<Promise>::from_promise(*this);
  }
  void return_void() {}
  void take() {}
};

}  // namespace detail

template <typename T = void>
class [[nodiscard]] Task {
 public:
  using promise_type = detail::Promise<T>;

  Task(std::coroutine_handle<promise_type> handle) : handle_(handle) {}
  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Task& operator=(Task&&) = delete;
  ~Task() {
    if (handle_)
      handle_.destroy();
  }

  struct Awaiter {
    std::coroutine_handle<promise_type> handle;
    bool await_ready() noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> caller) {
      // The continuation is set only after the first suspension: until then the end of the task just returns
      // here.
      handle.resume();
      if (handle.done())
        return false;
      handle.promise().continuation = caller;
      return true;
    }
    T await_resume() { return handle.promise().take(); }
  };
  Awaiter operator co_await() && {
    OBRAZ_CHECK(handle_ && !handle_.done());
    return Awaiter{handle_};
  }

 private:
  std::coroutine_handle<promise_type> handle_;
};

}  // namespace obraz
