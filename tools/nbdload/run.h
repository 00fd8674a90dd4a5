// One run: connections to an NBD server, each with so many requests in flight, until the time, the number of
// requests or the workload is at its end. One thread; libnbd's asynchronous calls, so a request costs no
// thread and no wait of its own.
#pragma once

#include <array>
#include <cstdint>
#include <expected>
#include <string>

#include "tools/nbdload/histogram.h"
#include "tools/nbdload/workload.h"

namespace obraz::load {

struct RunOptions {
  std::string uri;
  unsigned connections = 1;
  unsigned depth = 1;         // requests in flight on each
  double seconds = 0;         // measured; 0: no limit
  double warmup_seconds = 0;  // before that, not measured
  uint64_t requests = 0;      // that are begun, warm-up included; 0: no limit
  bool fua = false;           // on every write
  bool verify = false;        // reads are compared, and what was written is read once more at the end
  WorkloadOptions workload;   // length 0: to the end of the export
};

struct RunResult {
  uint64_t export_bytes = 0;
  double seconds = 0;                        // measured
  double client_cpu_seconds = 0;             // of this process, in that time
  std::array<uint64_t, kKinds> requests{};   // that ended in that time
  std::array<uint64_t, kKinds> bytes{};      //
  std::array<Histogram, kKinds> latency_ns;  // from handing the request to libnbd to its answer
  uint64_t verified_blocks = 0;              // compared, of those that this run had written
};

// The other way: a sentence. What a server answers with an error, and what does not verify, ends the run.
std::expected<RunResult, std::string> run_load(const RunOptions& options);

}  // namespace obraz::load
