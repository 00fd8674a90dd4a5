// Who goes first: RangeLock orders the overlapping requests of one volume, IoTracker knows the oldest request
// in flight. Both are FIFO, allocate nothing (their nodes live in the requests' frames) and belong to the
// store's thread.
#pragma once

#include <coroutine>
#include <cstdint>

#include "io/executor.h"
#include "io/sync.h"
#include "store/types.h"

namespace obraz {

// Requests take rising numbers; done when destroyed. `mark` = the number the next request will get: once
// oldest() >= mark, everything in flight when the mark was taken has ended.
class IoTracker {
 public:
  explicit IoTracker(Executor& executor) : changed_(executor) {}
  IoTracker(const IoTracker&) = delete;
  ~IoTracker() { OBRAZ_CHECK(!first_); }

  class Entry {
   public:
    Entry() = default;
    Entry(const Entry&) = delete;
    ~Entry() { end(); }
    void begin(IoTracker& tracker) {
      OBRAZ_CHECK(!tracker_);
      tracker_ = &tracker;
      number_ = tracker.next_++;
      previous_ = tracker.last_;
      next_ = nullptr;
      (tracker.last_ ? tracker.last_->next_ : tracker.first_) = this;
      tracker.last_ = this;
    }
    void end() {
      if (!tracker_)
        return;
      IoTracker& tracker = *tracker_;
      tracker_ = nullptr;
      const bool oldest = tracker.first_ == this;
      (previous_ ? previous_->next_ : tracker.first_) = next_;
      (next_ ? next_->previous_ : tracker.last_) = previous_;
      if (oldest)
        tracker.changed_.notify_all();
    }

   private:
    friend class IoTracker;
    IoTracker* tracker_ = nullptr;
    uint64_t number_ = 0;
    Entry *previous_ = nullptr, *next_ = nullptr;
  };

  uint64_t mark() const { return next_; }
  uint64_t oldest() const { return first_ ? first_->number_ : next_; }
  bool idle() const { return !first_; }
  Task<void> wait_until_past(uint64_t mark) {
    while (oldest() < mark)
      co_await changed_.wait();
  }

 private:
  Event changed_;
  uint64_t next_ = 1;
  Entry *first_ = nullptr, *last_ = nullptr;
};

// The order of changes of one volume. In-place writes exclude each other only where their blocks overlap; a
// request that changes slots holds its clusters alone. Reads take no lock. A waiting request is not overtaken
// by a later one it conflicts with.
class RangeLock {
 public:
  explicit RangeLock(Executor& executor) : executor_(executor) {}
  RangeLock(const RangeLock&) = delete;
  ~RangeLock() { OBRAZ_CHECK(!first_); }

  struct Range {
    uint64_t first_block = 0, end_block = 0;
    bool exclusive = false;  // slots may change; otherwise whole blocks are written in place
  };

  // Holds the range from the end of `co_await lock.acquire(range, holder)` until release() or destruction.
  class Holder {
   public:
    Holder() = default;
    Holder(const Holder&) = delete;
    ~Holder() { release(); }
    void release() {
      if (lock_)
        lock_->remove(*this);
    }

   private:
    friend class RangeLock;
    RangeLock* lock_ = nullptr;
    Range range_;
    bool granted_ = false;
    std::coroutine_handle<> waiter_;
    Holder *previous_ = nullptr, *next_ = nullptr;
  };

  struct Awaiter {
    RangeLock& lock;
    Holder& holder;
    bool await_ready() const { return holder.granted_; }
    void await_suspend(std::coroutine_handle<> waiter) { holder.waiter_ = waiter; }
    void await_resume() const {}
  };
  Awaiter acquire(const Range& range, Holder& holder) {
    holder.range_ = range;
    append(holder);
    holder.granted_ = !blocked(holder);
    return {*this, holder};
  }

 private:
  static bool conflict(const Range& a, const Range& b) {
    if (!a.exclusive && !b.exclusive)
      return a.first_block < b.end_block && b.first_block < a.end_block;
    const auto first = [](const Range& r) { return r.first_block / kBlocksPerCluster; };
    const auto last = [](const Range& r) { return (r.end_block - 1) / kBlocksPerCluster; };
    return first(a) <= last(b) && first(b) <= last(a);
  }
  bool blocked(const Holder& holder) const {
    for (const Holder* earlier = first_; earlier != &holder; earlier = earlier->next_)
      if (conflict(earlier->range_, holder.range_))
        return true;
    return false;
  }
  void append(Holder& holder) {
    OBRAZ_CHECK(!holder.lock_ && holder.range_.first_block < holder.range_.end_block);
    holder.lock_ = this;
    holder.granted_ = false;
    holder.waiter_ = nullptr;
    holder.previous_ = last_;
    holder.next_ = nullptr;
    (last_ ? last_->next_ : first_) = &holder;
    last_ = &holder;
  }
  void remove(Holder& holder) {
    holder.lock_ = nullptr;
    (holder.previous_ ? holder.previous_->next_ : first_) = holder.next_;
    (holder.next_ ? holder.next_->previous_ : last_) = holder.previous_;
    for (Holder* waiting = holder.next_; waiting; waiting = waiting->next_)
      if (!waiting->granted_ && conflict(holder.range_, waiting->range_) && !blocked(*waiting)) {
        waiting->granted_ = true;
        executor_.enqueue(waiting->waiter_);
      }
  }

  Executor& executor_;
  Holder *first_ = nullptr, *last_ = nullptr;  // in order of arrival, granted or not
};

}  // namespace obraz
