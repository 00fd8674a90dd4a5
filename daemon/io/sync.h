// Waiting among coroutines of one executor: WaitQueue, Event, Semaphore, Mutex, Gate.
//
// Invariants: waiters are served in the order in which they came; a wake-up enqueues and never resumes in
// place; a primitive is destroyed only when nobody waits on it. Thread: the executor's. Nodes live in the
// waiters' frames, so nothing here allocates.
#pragma once

#include <coroutine>
#include <cstdint>
#include <utility>

#include "io/executor.h"
#include "io/task.h"

namespace obraz {

// A FIFO of suspended coroutines.
class WaitQueue {
 public:
  struct Node {
    std::coroutine_handle<> waiter;
    uint64_t units = 0;
    Node* next = nullptr;
  };
  WaitQueue() = default;
  WaitQueue(const WaitQueue&) = delete;
  ~WaitQueue() { OBRAZ_CHECK(empty()); }
  bool empty() const { return head_ == nullptr; }
  Node* front() const { return head_; }
  void push(Node& node) {
    node.next = nullptr;
    *tail_ = &node;
    tail_ = &node.next;
  }
  Node* pop() {
    Node* node = head_;
    head_ = node->next;
    if (!head_)
      tail_ = &head_;
    return node;
  }

 private:
  Node* head_ = nullptr;
  Node** tail_ = &head_;
};

// "Something changed": wait() always suspends until the next notify_all(). The waiter looks again by itself.
class Event {
 public:
  explicit Event(Executor& executor) : executor_(executor) {}
  struct Awaiter {
    Event& event;
    WaitQueue::Node node;
    bool await_ready() const { return false; }
    void await_suspend(std::coroutine_handle<> waiter) {
      node.waiter = waiter;
      event.waiters_.push(node);
    }
    void await_resume() const {}
  };
  Awaiter wait() { return {*this, {}}; }
  void notify_all() {
    while (!waiters_.empty())
      executor_.enqueue(waiters_.pop()->waiter);
  }
  bool has_waiters() const { return !waiters_.empty(); }

 private:
  Executor& executor_;
  WaitQueue waiters_;
};

// Counted units. A large request at the head is not overtaken by small ones behind it.
class Semaphore {
 public:
  Semaphore(Executor& executor, uint64_t units) : executor_(executor), units_(units) {}
  struct Awaiter {
    Semaphore& semaphore;
    WaitQueue::Node node;
    bool await_ready() { return semaphore.try_acquire(node.units); }
    void await_suspend(std::coroutine_handle<> waiter) {
      node.waiter = waiter;
      semaphore.waiters_.push(node);
    }
    void await_resume() const {}
  };
  Awaiter acquire(uint64_t units = 1) { return {*this, {nullptr, units, nullptr}}; }
  bool try_acquire(uint64_t units = 1) {
    if (!waiters_.empty() || units_ < units)
      return false;
    units_ -= units;
    return true;
  }
  void release(uint64_t units = 1) {
    units_ += units;
    while (!waiters_.empty() && waiters_.front()->units <= units_) {
      units_ -= waiters_.front()->units;
      executor_.enqueue(waiters_.pop()->waiter);
    }
  }
  uint64_t available() const { return units_; }

 private:
  Executor& executor_;
  uint64_t units_;
  WaitQueue waiters_;
};

// auto lock = co_await mutex.lock(); held until `lock` is destroyed.
class Mutex {
 public:
  explicit Mutex(Executor& executor) : semaphore_(executor, 1) {}
  class [[nodiscard]] Lock {
   public:
    explicit Lock(Semaphore& semaphore) : semaphore_(&semaphore) {}
    Lock(Lock&& other) noexcept : semaphore_(std::exchange(other.semaphore_, nullptr)) {}
    Lock& operator=(Lock&&) = delete;
    ~Lock() { unlock(); }
    void unlock() {  // before the end of its scope
      if (Semaphore* semaphore = std::exchange(semaphore_, nullptr))
        semaphore->release();
    }

   private:
    Semaphore* semaphore_;
  };
  struct Awaiter : Semaphore::Awaiter {
    Lock await_resume() { return Lock(semaphore); }
  };
  Awaiter lock() { return {{semaphore_, {nullptr, 1, nullptr}}}; }

 private:
  Semaphore semaphore_;
};

// Counts what is running; close() refuses newcomers and waits until the last has left. Nothing is ever
// detached: background work is spawned into somebody's gate.
class Gate {
 public:
  explicit Gate(Executor& executor) : changed_(executor) {}
  ~Gate() { OBRAZ_CHECK(count_ == 0); }

  // Starts the task now, up to its first suspension. False, and the task never starts, when the gate is
  // closed.
  bool spawn(Task<void> task);
  // For work that is not a task of its own: enter() false means closed; leave() for each successful enter().
  bool enter() {
    if (closed_)
      return false;
    ++count_;
    return true;
  }
  void leave() {
    OBRAZ_CHECK(count_ > 0);
    if (--count_ == 0)
      changed_.notify_all();
  }
  // enter() and leave() by scope; false when the gate was closed.
  class Pass {
   public:
    explicit Pass(Gate& gate) : gate_(gate.enter() ? &gate : nullptr) {}
    Pass(const Pass&) = delete;
    ~Pass() {
      if (gate_)
        gate_->leave();
    }
    explicit operator bool() const { return gate_ != nullptr; }

   private:
    Gate* gate_;
  };
  // Refuses newcomers from the call on (not from the await); returns when all have left.
  Task<void> close() {
    closed_ = true;
    return drain();
  }
  bool closed() const { return closed_; }
  uint64_t count() const { return count_; }

 private:
  Task<void> drain() {
    while (count_ > 0)
      co_await changed_.wait();
  }
  Event changed_;
  uint64_t count_ = 0;
  bool closed_ = false;
};

}  // namespace obraz
