#include "io/reactor.h"

#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>

#include "base/log.h"
#include "io/ring.h"

namespace obraz {

void RingOperation::await_suspend(std::coroutine_handle<> h) {
  waiter = h;
  ring->submit(*this);
}

void RingChain::await_suspend(std::coroutine_handle<> h) {
  first.waiter = second.waiter = h;
  first.other = &second;
  second.other = &first;
  first.ring->submit(first, second);
}

Result<std::unique_ptr<Reactor>> Reactor::create(const ReactorOptions& options) {
  auto ring = Ring::create(options);
  if (!ring)
    return Failure(ring.error());
  std::unique_ptr<Reactor> reactor(new Reactor(std::move(*ring)));
  reactor->post_fd_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (reactor->post_fd_ < 0)
    return fail_os(errno, "cannot make an event descriptor");
  return reactor;
}

Reactor::Reactor(std::unique_ptr<Ring> ring) : ring_(std::move(ring)), internal_(*this) {}

Reactor::~Reactor() {
  if (post_fd_ >= 0)
    ::close(post_fd_);
}

uint64_t Reactor::now_us() const {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return uint64_t(now.tv_sec) * 1'000'000 + uint64_t(now.tv_nsec) / 1000;
}

void Reactor::post(std::move_only_function<void()> work) {
  bool wake;
  {
    std::lock_guard lock(post_mutex_);
    wake = posted_.empty();
    posted_.push_back(std::move(work));
  }
  if (wake) {
    const uint64_t one = 1;
    [[maybe_unused]] const auto n =
        ::write(post_fd_, &one, sizeof one);  // fails only when it is already readable
  }
}

void Reactor::stop() {
  post([this] { stopping_ = true; });
}

void Reactor::run_posted() {
  std::vector<std::move_only_function<void()>> work;
  {
    std::lock_guard lock(post_mutex_);
    work.swap(posted_);
  }
  for (auto& item : work)
    item();
}

// Waits for the event descriptor through the ring, so that a post wakes the loop like any completion.
Task<void> Reactor::watch_posts() {
  while (!stopping_) {
    co_await poll(RingFile{post_fd_, -1}, 1 /* POLLIN */);
    uint64_t count;
    [[maybe_unused]] const auto n = ::read(post_fd_, &count, sizeof count);
    run_posted();
  }
}

void Reactor::run() {
  stopping_ = false;
  internal_.spawn(watch_posts());
  while (internal_.count() > 0) {  // watch_posts ends last
    // What is ready, and what that makes ready, before the kernel is asked again: each visit is a system
    // call. Not without end, so that completions and timers have their turn when somebody is always ready.
    for (unsigned round = 0; round < kRounds && !ready_.empty(); ++round) {
      running_.swap(ready_);
      for (auto handle : running_)
        handle.resume();
      running_.clear();
    }
    if (internal_.count() == 0)
      break;
    // Waiting is for when nobody is ready.
    const uint64_t deadline = fire_due_timers();
    uint64_t timeout = UINT64_MAX;
    if (deadline != UINT64_MAX) {
      const uint64_t now = now_us();
      timeout = deadline > now ? deadline - now : 0;
    }
    ring_->submit_and_wait(ready_.empty(), timeout);
    ring_->collect(*this);
  }
}

void Reactor::register_arena(Bytes arena) {
  ring_->register_arena(arena);
}
RingFile Reactor::register_file(int fd) {
  return ring_->register_file(fd);
}
void Reactor::unregister_file(RingFile& file) {
  ring_->unregister_file(file);
}
std::string Reactor::features() const {
  return ring_->features();
}

namespace {

RingOperation make(Ring* ring, RingOperation::Kind kind, RingFile file, void* address, uint64_t length,
                   uint64_t offset, int flags = 0) {
  RingOperation operation{};
  operation.kind = kind;
  operation.file = file;
  operation.address = address;
  operation.length = length;
  operation.offset = offset;
  operation.flags = flags;
  operation.ring = ring;
  return operation;
}

}  // namespace

RingOperation Reactor::read(RingFile file, Bytes into, uint64_t offset) {
  return make(ring_.get(), RingOperation::Kind::read, file, into.data(), into.size(), offset);
}
RingOperation Reactor::write(RingFile file, ConstBytes from, uint64_t offset) {
  return make(ring_.get(), RingOperation::Kind::write, file, const_cast<std::byte*>(from.data()), from.size(),
              offset);
}
RingOperation Reactor::data_sync(RingFile file) {
  return make(ring_.get(), RingOperation::Kind::data_sync, file, nullptr, 0, 0);
}
RingChain Reactor::write_and_sync(RingFile file, ConstBytes from, uint64_t offset) {
  return {write(file, from, offset), data_sync(file)};
}
RingOperation Reactor::allocate(RingFile file, uint64_t offset, uint64_t length) {
  return make(ring_.get(), RingOperation::Kind::allocate, file, nullptr, length, offset);
}
RingOperation Reactor::punch(RingFile file, uint64_t offset, uint64_t length) {
  return make(ring_.get(), RingOperation::Kind::punch, file, nullptr, length, offset);
}
RingOperation Reactor::receive(RingFile file, Bytes into, int flags) {
  return make(ring_.get(), RingOperation::Kind::receive, file, into.data(), into.size(), 0, flags);
}
RingOperation Reactor::send_message(RingFile file, const msghdr& message) {
  return make(ring_.get(), RingOperation::Kind::send_message, file, const_cast<msghdr*>(&message), 0, 0,
              MSG_NOSIGNAL | MSG_WAITALL);
}
RingOperation Reactor::poll(RingFile file, int events) {
  return make(ring_.get(), RingOperation::Kind::poll, file, nullptr, 0, 0, events);
}

}  // namespace obraz
