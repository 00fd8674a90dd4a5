// Meter: what the server did between start() and stop(), counted where it leaves the program: heap
// allocations (the functions of malloc are replaced in cost_heap.cpp), turns through the kernel and ring
// operations (those of liburing are wrapped in cost_ring.cpp), and, when valgrind runs the program,
// instructions.
//
// Nothing is counted within a Pause: the client lives on the server's thread, so that each run does the same
// things in the same order. Thread: that one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace obraz::bench::meter {

struct Counts {
  uint64_t allocations = 0, allocated_bytes = 0;
  uint64_t enters = 0;  // calls of io_uring_enter
  uint64_t enters_waiting =
      0;  // of them with leave to sleep; the others come from a ready queue that is not empty
  uint64_t operations = 0;  // submitted to the ring, those of devices included
  uint64_t device_reads = 0, device_writes = 0, device_flushes = 0, device_others = 0;
};
extern Counts counts;
extern bool counting;  // between start() and stop(), and not in a pause

// Before start(), and before what runs between is run for the first time: valgrind translates it anew.
void instrument();
void start();
// The instructions since start() go to a profile of this name.
void stop(const std::string& name);

class Pause {
 public:
  Pause();
  Pause(const Pause&) = delete;
  ~Pause();
};

// From now on the stack of each allocation that is counted is kept.
void trace_allocations();
// A JSON array, of one object for each different stack, the most frequent first: how often, how many bytes,
// and the return addresses as [file, offset in it], innermost first.
std::string traces_json();

}  // namespace obraz::bench::meter
