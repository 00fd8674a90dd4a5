// Random histories: a seed draws a configuration, a number of clients that work on all volumes at once, and
// several lives of the store, each of which ends with a power cut, the death of the process, or a clean
// close; the oracle judges every read and every recovery. Some seeds add errors of the devices; some end with
// damage of the metadata: pages that rot, writes that are lost or go to another page. Run by simulate.cpp.
#pragma once

#include <cstdint>
#include <string>

namespace obraz::test {

struct HistoryTally {
  uint64_t histories = 0, requests = 0, power_cuts = 0, kills = 0, recoveries = 0, checks = 0, errors = 0,
           damages = 0, rotten = 0;
};

// What was wrong, with the trace of what was done; empty when nothing was.
std::string run_history(uint64_t seed, HistoryTally& tally);

}  // namespace obraz::test
