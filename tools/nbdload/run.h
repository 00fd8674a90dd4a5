// One run: connections to one or more exports, each with so many requests in flight, until the time, the
// number of requests or the workload is at its end. Each export has the workload to itself, with a seed of
// its own. One thread; libnbd's asynchronous calls, so a request costs no thread and no wait of its own.
#pragma once

#include <array>
#include <cstdint>
#include <expected>
#include <string>
#include <vector>

#include "tools/nbdload/histogram.h"
#include "tools/nbdload/workload.h"

namespace obraz::load {

struct RunOptions {
  std::vector<std::string> uris;  // one for each export
  unsigned connections = 1;       // to each
  unsigned depth = 1;             // requests in flight on each connection
  unsigned busy = 0;              // exports that have requests at a time, in turns of kTurnNs; 0: all, always
  double seconds = 0;             // measured; 0: no limit
  double warmup_seconds = 0;      // before that, not measured
  uint64_t requests = 0;          // that are begun, warm-up included; 0: no limit
  bool fua = false;               // on every write
  bool verify = false;            // reads are compared, and what was written is read once more at the end
  uint64_t interval_ms = 0;       // not 0: RunResult::intervals
  bool announce = false;     // "begin" on standard output when all are connected, before the first request
  WorkloadOptions workload;  // length 0: to the end of the export
};

constexpr uint64_t kTurnNs = 100'000'000;

// What ended in a stretch of the run.
struct Interval {
  uint64_t requests = 0, max_latency_ns = 0;
};

struct RunResult {
  uint64_t export_bytes = 0;                 // of all exports together
  double seconds = 0;                        // measured
  uint64_t begin_ns = 0;                     // CLOCK_MONOTONIC when that began
  double client_cpu_seconds = 0;             // of this process, in that time
  std::array<uint64_t, kKinds> requests{};   // that ended in that time
  std::array<uint64_t, kKinds> bytes{};      //
  std::array<Histogram, kKinds> latency_ns;  // from handing the request to libnbd to its answer
  std::vector<Interval> intervals;           // of interval_ms each, from begin_ns on
  uint64_t verified_blocks = 0;              // compared, of those that this run had written
};

// The other way: a sentence. What a server answers with an error, and what does not verify, ends the run.
std::expected<RunResult, std::string> run_load(const RunOptions& options);

}  // namespace obraz::load
