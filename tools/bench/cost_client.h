// A client for counting: it sends rounds of requests that were made beforehand and checks every reply, never
// waits, and belongs to the world outside (cost_ring.h); or waits, on a thread of its own, for strace.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "cost_ring.h"
#include "nbd/wire.h"

namespace obraz::bench {

struct Load {
  nbd::Command command = nbd::Command::read;
  uint32_t length = 4096;
  uint64_t depth = 1;        // requests of a round, sent at once
  bool flush_after = false;  // a round is these requests, and when they are answered, a flush
  uint64_t stride = 4096;    // requests begin at multiples of this
  uint64_t places = 1;       // so many of them, visited in an order of leaps until all were
  bool structured = false;
  uint64_t shift = 0;  // added to each place
};

// The eight bytes with which the block at `offset` begins.
uint64_t word_at(uint64_t offset);

class CostClient final : public Outside {
 public:
  // Owns the socket. `begin` is called when the warm-up is over, `end` when all rounds are, before the
  // socket is closed.
  CostClient(int socket, const Load& load, uint64_t warm_up_rounds, uint64_t rounds,
             std::function<void()> begin, std::function<void()> end);
  ~CostClient() override;

  bool step() override;
  void run();  // all of it, waiting

 private:
  bool send(int flags);
  bool receive(int flags);
  bool next();  // begins what comes next; false: it was the last
  void begin_round();
  void begin_flush();
  void append_request(nbd::Command command, uint64_t offset, uint32_t length);
  void check_replies() const;
  uint64_t reply_size() const;
  void close();

  int socket_;
  const Load load_;
  uint64_t warm_up_rounds_, rounds_, round_ = 0, place_ = 0;
  std::function<void()> begin_, end_;
  bool flushing_ = false, flush_warm_up_ = false;

  std::vector<uint64_t> offsets_;  // of the requests of this round; the cookie is the place in here
  std::vector<std::byte> sending_, receiving_;
  size_t sent_ = 0, received_ = 0, expected_ = 0;
};

}  // namespace obraz::bench
