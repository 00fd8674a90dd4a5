// Which request comes next: place and kind, drawn from a seed. Knows nothing of connections. Thread: one.
#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <vector>

namespace obraz::load {

enum class Kind : uint8_t { read, write, flush };
constexpr size_t kKinds = 3;
constexpr const char* kKindNames[kKinds] = {"read", "write", "flush"};

struct WorkloadOptions {
  uint64_t offset = 0, length = 0;  // the part of the export that is used: bytes, multiples of block_size
  uint64_t block_size = 4096;       // bytes of one read or write
  bool sequential = false;          // otherwise at random
  unsigned read_percent = 100;      // the other requests are writes
  uint64_t once_per = 0;  // not 0: each piece of this size gets one request, at its start, and then the end
  uint64_t flush_every = 0;  // writes; 0: no flushes
  uint64_t seed = 1;
};

struct Request {
  Kind kind = Kind::read;
  uint64_t offset = 0;  // of the export
};

class Workload {
 public:
  // length holds at least one block; with once_per, at least one piece of it.
  explicit Workload(const WorkloadOptions& options);

  // Nothing when each piece has had its request.
  std::optional<Request> next();

 private:
  uint64_t next_block();

  const WorkloadOptions options_;
  const uint64_t places_;  // blocks, or pieces
  std::mt19937_64 random_;
  uint64_t issued_ = 0;                // places taken so far
  uint64_t writes_since_flush_ = 0;    //
  uint64_t walk_ = 0, walk_size_ = 1;  // of a random order without repetition
};

}  // namespace obraz::load
