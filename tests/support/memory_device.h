// MemoryDevice: a Device in anonymous memory that answers at once, or after a turn of the loop, on any
// Executor: for tests of what lies above the store and runs on a real reactor. It has no faults; SimDevice
// has them all. Memory is taken as it is written, so a device may be much larger than the machine. Thread:
// the executor's.
#pragma once

#include "io/device.h"
#include "io/executor.h"
#include "io/sync.h"

namespace obraz::test {

class MemoryDevice final : public Device {
 public:
  // yielding: every operation goes once through the ready queue, as real ones do.
  MemoryDevice(Executor& executor, uint64_t size_bytes, bool yielding = true);
  ~MemoryDevice() override;

  uint64_t size_bytes() const override { return memory_.size(); }
  Task<Status> read(uint64_t offset, Bytes into) override;
  Task<Status> write(uint64_t offset, ConstBytes from) override;
  Task<Status> flush() override;
  Task<Status> discard(uint64_t offset, uint64_t length) override;
  Task<Status> allocate(uint64_t offset, uint64_t length) override;

  // From now on every operation fails with this errno; 0: none does.
  void fail_with(int os_error) { os_error_ = os_error; }
  // Flushes that begin from now on take as long as the test wants: until release_flushes().
  void hold_flushes() { holding_ = true; }
  Task<void> wait_until_one_is_held();
  void release_flushes();
  Bytes memory() const { return memory_; }

 private:
  Task<Status> turn(uint64_t offset, uint64_t length);

  Executor& executor_;
  Bytes memory_;
  bool yielding_;
  int os_error_ = 0;
  bool holding_ = false;
  unsigned held_ = 0;  // flushes
  Event held_event_, released_event_;
};

}  // namespace obraz::test
