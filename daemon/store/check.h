// The checker: does what recovery does, in memory and without writing, then walks every tree and compares all
// counts with what it found (docs/disk-format.md, section 10). It goes on after damage: what can be read is
// checked, and what an unreadable page may explain is not called a problem of its own. Where the tables are
// damaged the journal cannot be replayed, and the last checkpoint is what is walked.
//
// Invariant: only reads. Memory: 9 bytes for each page of `meta`, 8 for each cluster, and 16 for each
// reference between nodes, besides what the store itself keeps. Thread: the executor's.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "io/device.h"
#include "io/executor.h"
#include "io/task.h"

namespace obraz {

struct CheckOptions {
  bool read_data = false;        // read every referenced cluster too, and compare it with its checksums
  uint64_t max_problems = 1000;  // listed; the rest is only counted
  // One superblock may be what a write left that a power cut tore: only noted. On real devices no cut does
  // that, for all that counts in a superblock lies in its first sector; so for those it is a problem.
  bool superblock_may_be_torn = true;
};

struct CheckReport {
  std::vector<std::string> problems;  // one sentence each: the place, a colon, what is wrong with it
  std::vector<std::string> notes;     // what could not be judged, and why
  uint64_t problem_count = 0;
  uint64_t volumes = 0, volume_bytes = 0, resources = 0, nodes = 0, clusters = 0, cluster_bytes = 0;
  uint64_t summed_clusters = 0;    // with checksums
  uint64_t verified_clusters = 0;  // that were compared with theirs

  uint64_t replayed_records = 0, to_reclaim = 0, generation = 0;
  bool clean() const { return problem_count == 0; }
};

// Errors only when there is nothing to check: not_found (no store), unsupported (made by another version).
Task<Result<CheckReport>> check_store(Executor& executor, Device& meta, Device& data,
                                      CheckOptions options = {});

}  // namespace obraz
