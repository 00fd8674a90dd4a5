// The checker: does what recovery does, in memory and without writing, then walks every tree and compares all
// counts with what it found (docs/disk-format.md, section 10). Thread: the executor's.
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
  bool read_data = false;        // read every referenced cluster too, to find unreadable ones
  uint64_t max_problems = 1000;  // listed; the rest is only counted
};

struct CheckReport {
  std::vector<std::string> problems;  // one sentence each, with the place
  uint64_t problem_count = 0;
  uint64_t volumes = 0, resources = 0, nodes = 0, clusters = 0, replayed_records = 0, to_reclaim = 0;
  uint64_t generation = 0;
  bool clean() const { return problem_count == 0; }
};

// Errors only when there is nothing to check: not a store, both superblocks damaged, a device that cannot be
// read.
Task<Result<CheckReport>> check_store(Executor& executor, Device& meta, Device& data,
                                      CheckOptions options = {});

}  // namespace obraz
