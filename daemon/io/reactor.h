// Reactor: one thread, one ring, one ready queue. Loop: run what is ready, until nothing is → submit and wait
// → collect → repeat. Operations are awaitables that live in the awaiting coroutine's frame and give back
// what the system call would have: a count, or a negative errno. Completions only enqueue.
//
// Thread: everything but post() and stop() belongs to the thread that calls run().
#pragma once

#include <sys/socket.h>

#include <atomic>
#include <coroutine>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "io/executor.h"
#include "io/sync.h"

namespace obraz {

class Ring;

// A descriptor and, where the kernel took it, its place in the ring's table of registered files.
struct RingFile {
  int fd = -1;
  int slot = -1;
};

struct RingOperation {
  enum class Kind : uint8_t { read, write, data_sync, allocate, punch, receive, send_message, poll };
  Kind kind;
  RingFile file;
  void* address = nullptr;  // bytes, or a msghdr
  uint64_t length = 0;      //
  uint64_t offset = 0;      //
  int flags = 0;            // of recv / sendmsg / poll
  Ring* ring = nullptr;
  std::coroutine_handle<> waiter = nullptr;
  RingOperation* other = nullptr;  // of a chain
  int32_t result = 0;
  bool ended = false;

  bool await_ready() const { return false; }
  void await_suspend(std::coroutine_handle<> h);
  int32_t await_resume() const { return result; }
};

// Two operations of which the second begins when the first has succeeded whole, without a visit in between;
// it is -ECANCELED otherwise. Resumes when both have ended.
struct RingChain {
  RingOperation first, second;

  struct Results {
    int32_t first, second;
  };
  bool await_ready() const { return false; }
  void await_suspend(std::coroutine_handle<> h);
  Results await_resume() const { return {first.result, second.result}; }
};

struct ReactorOptions {
  unsigned entries = 1024;
  bool register_files = true, register_buffers = true;  // tests turn them off to walk the fallbacks
  bool deferred_task_run = true;
  // How long to look for completions before sleeping, while little is under way; 0: not at all.
  uint64_t spin_us = 0;
};

class Reactor final : public Executor {
 public:
  static Result<std::unique_ptr<Reactor>> create(const ReactorOptions& options = {});
  ~Reactor() override;

  // --- any thread
  // --------------------------------------------------------------------------------------------------- Runs
  // `work` on the reactor's thread, soon, in the order of posting. Work posted after run() returned never
  // runs and is destroyed with the reactor.
  void post(std::move_only_function<void()> work);
  // Makes run() return when its current turn is over. What is unfinished stays unfinished: stop the users
  // first.
  void stop();

  // --- the reactor's thread
  // -----------------------------------------------------------------------------------------
  void run();
  void enqueue(std::coroutine_handle<> ready) override { ready_.push_back(ready); }
  uint64_t now_us() const override;

  // Registers memory for fixed reads and writes; operations inside it then use it by themselves. Once.
  void register_arena(Bytes arena);
  // Registers a descriptor (still owned by the caller); falls back to the bare descriptor.
  RingFile register_file(int fd);
  void unregister_file(RingFile& file);

  RingOperation read(RingFile file, Bytes into, uint64_t offset);
  RingOperation write(RingFile file, ConstBytes from, uint64_t offset);
  RingOperation data_sync(RingFile file);
  RingChain write_and_sync(RingFile file, ConstBytes from, uint64_t offset);
  RingOperation allocate(RingFile file, uint64_t offset, uint64_t length);  // fallocate, KEEP_SIZE
  RingOperation punch(RingFile file, uint64_t offset, uint64_t length);     // fallocate, PUNCH_HOLE
  RingOperation receive(RingFile file, Bytes into, int flags = 0);
  RingOperation send_message(RingFile file, const msghdr& message);  // MSG_NOSIGNAL | MSG_WAITALL
  RingOperation poll(RingFile file, int events);

  // What the kernel granted, for the log and for status.
  std::string features() const;

 private:
  static constexpr unsigned kRounds = 16;

  explicit Reactor(std::unique_ptr<Ring> ring);
  Task<void> watch_posts();
  void run_posted();

  std::unique_ptr<Ring> ring_;
  std::vector<std::coroutine_handle<>> ready_, running_;
  int post_fd_ = -1;
  std::mutex post_mutex_;
  std::vector<std::move_only_function<void()>> posted_;
  std::atomic<bool> stopping_{false};
  Gate internal_;
};

}  // namespace obraz
