// SendQueue: the replies of one session on their way out. Requests finish in any order and put their replies
// here; one coroutine gathers all that are ready into one sendmsg, so that replies which become ready
// together cost one system call, and sends the next lot when the socket has taken it.
//
// Invariants: replies leave whole and in the order of push(); a reply's coroutine goes on when its last byte
// has been handed to the kernel or can no longer be. Thread: the reactor's.
#pragma once

#include "io/reactor.h"
#include "nbd/reply.h"

namespace obraz::nbd {

class SendQueue {
 public:
  SendQueue(Reactor& reactor, RingFile file) : reactor_(reactor), file_(file), changed_(reactor) {}

  struct Awaiter {
    SendQueue& queue;
    Reply& reply;
    bool await_ready() const { return queue.lost_; }
    void await_suspend(std::coroutine_handle<> waiter) { queue.push(reply, waiter); }
    // Whether all of it was handed over.
    bool await_resume() const { return !queue.lost_; }
  };
  // co_await queue.send(reply)
  Awaiter send(Reply& reply) { return {*this, reply}; }

  // Sends until finish() was called and the queue is empty, or the peer is lost; the latter shuts the socket
  // down, so that the receiving side ends as well.
  Task<void> run();
  void finish() {
    finished_ = true;
    changed_.notify_all();
  }

  bool lost() const { return lost_; }
  // Since when (Executor::now_us) the socket has taken nothing although there is something to send; 0: no
  // such time.
  uint64_t stalled_since_us() const { return sending_since_us_; }

 private:
  static constexpr size_t kMaxParts = 64;
  static constexpr size_t kMaxBytes =
      1 << 20;  // of one sendmsg, so that progress shows and buffers come back soon

  void push(Reply& reply, std::coroutine_handle<> waiter);
  size_t gather(std::span<iovec> into) const;
  void advance(size_t sent);
  void lose();
  void complete_front();

  Reactor& reactor_;
  RingFile file_;
  Event changed_;
  Reply* head_ = nullptr;
  Reply* tail_ = nullptr;
  uint64_t sending_since_us_ = 0;
  bool finished_ = false, lost_ = false;
};

}  // namespace obraz::nbd
