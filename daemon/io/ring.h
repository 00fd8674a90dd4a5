// Ring: the io_uring of one thread. ring.cpp is the only file that includes liburing; every kernel feature it
// asks for beyond Linux 6.1's has a fallback, and features() says what was granted.
//
// Invariant: an operation stays in place from submit() until collect() has handed it back. Thread: the one
// that made the ring (single issuer).
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "io/reactor.h"

namespace obraz {

class Ring {
 public:
  static Result<std::unique_ptr<Ring>> create(const ReactorOptions& options);
  ~Ring();

  // Queues the operation; the kernel sees it at the next submit_and_wait(), or earlier when the queue is
  // full.
  void submit(RingOperation& operation);
  // The second begins when the first has succeeded.
  void submit(RingOperation& first, RingOperation& second);
  // Submits what is queued; waits for at least one completion when `wait` is set, at most `timeout_us`
  // (UINT64_MAX: without end). Failed or interrupted waits just return. May look for completions for some
  // microseconds before it sleeps (ReactorOptions::spin_us).
  void submit_and_wait(bool wait, uint64_t timeout_us);
  // Hands completed operations to the executor's ready queue, with their results. Returns how many.
  unsigned collect(Executor& executor);

  void register_arena(Bytes arena);
  RingFile register_file(int fd);
  void unregister_file(RingFile& file);
  std::string features() const;

 private:
  bool spin();
  void make_room(unsigned entries);
  struct Implementation;
  explicit Ring(std::unique_ptr<Implementation> implementation);
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace obraz
