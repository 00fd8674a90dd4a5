// Scripts of clients' requests, each about one part of the store's protocol, for sweeps over every device
// operation. A script that finds the world down does nothing more. Thread: the test's.
#pragma once

#include <ostream>
#include <vector>

#include "sim/world.h"

namespace obraz::test {

struct Scenario {
  const char* name;
  Task<void> (*script)(World&);
  WorldOptions options;
};

inline void PrintTo(const Scenario& scenario, std::ostream* out) {
  *out << scenario.name;
}

const std::vector<Scenario>& scenarios();

}  // namespace obraz::test
