// Device: an open `meta` or `data`. The store knows no other I/O; tests own it by implementing it.
//
// Contract: offsets, lengths and addresses of buffers are multiples of kBlockSize. A write that completed is
// visible to later reads and durable only after a flush that began after it completed. Writes in flight
// together have no order. A call transfers everything or fails; after a failure the range holds old, new or a
// mix of bytes. Buffers belong to the caller and stay in place until the call ends. Thread: the executor's.
#pragma once

#include <cstdint>

#include "base/bytes.h"
#include "base/result.h"
#include "io/task.h"

namespace obraz {

constexpr uint64_t kBlockSize = 4096;

class Device {
 public:
  virtual ~Device() = default;

  virtual uint64_t size_bytes() const = 0;
  virtual Task<Status> read(uint64_t offset, Bytes into) = 0;
  virtual Task<Status> write(uint64_t offset, ConstBytes from) = 0;
  // write() and then flush(); a failure of either is one of the flush.
  virtual Task<Status> write_and_flush(uint64_t offset, ConstBytes from) {
    const Status written = co_await write(offset, from);
    OBRAZ_CO_TRY(written);
    co_return co_await flush();
  }
  // Makes every write that has completed durable. A failed flush says nothing about any of them, for ever.
  virtual Task<Status> flush() = 0;
  // The range is no longer needed; it reads as anything afterwards. Devices that cannot do so succeed.
  virtual Task<Status> discard(uint64_t offset, uint64_t length) = 0;
  // Takes space for the range, so that writes into it cannot fail for want of it; bytes written there stay.
  virtual Task<Status> allocate(uint64_t offset, uint64_t length) = 0;
  // Whether that is so; a device that cannot do it says no, and allocate() succeeds all the same.
  virtual bool can_allocate() const { return true; }
};

}  // namespace obraz
