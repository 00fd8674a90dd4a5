#include "cost_meter.h"

#if __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h>
#else
#define CALLGRIND_START_INSTRUMENTATION
#define CALLGRIND_STOP_INSTRUMENTATION
#define CALLGRIND_TOGGLE_COLLECT
#define CALLGRIND_ZERO_STATS
#define CALLGRIND_DUMP_STATS_AT(name) static_cast<void>(name)
#endif

namespace obraz::bench::meter {

Counts counts;
bool counting = false;

namespace {

bool started = false;
unsigned pauses = 0;

// Callgrind collects from the first toggle on (--collect-atstart=no).
void update() {
  const bool now = started && pauses == 0;
  if (now != counting)
    CALLGRIND_TOGGLE_COLLECT;
  counting = now;
}

}  // namespace

void instrument() {
  CALLGRIND_START_INSTRUMENTATION;
}

void start() {
  CALLGRIND_ZERO_STATS;
  started = true;
  update();
}

void stop(const std::string& name) {
  started = false;
  update();
  CALLGRIND_DUMP_STATS_AT(name.c_str());
  CALLGRIND_STOP_INSTRUMENTATION;
}

Pause::Pause() {
  ++pauses;
  update();
}

Pause::~Pause() {
  --pauses;
  update();
}

}  // namespace obraz::bench::meter
