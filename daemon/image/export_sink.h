// ExportSink: where the bytes of an export go: a raw file, or a qcow2 file behind a confined qemu-nbd.
//
// Invariants: what is not written reads as zeros; a write that was started lives, with its bytes, until it is
// done or the sink is destroyed. Thread: one, the worker's.
#pragma once

#include <memory>

#include "image/format.h"
#include "image/nbd_client.h"

namespace obraz {

class ExportSink {
 public:
  // An empty file, which outlives the sink.
  static Answer<std::unique_ptr<ExportSink>> open(int fd, ImageFormat format, uint64_t size_bytes,
                                                  const StopSignal& stop);
  virtual ~ExportSink() = default;

  // The write may be done on return.
  virtual Answer<void> start_write(Transfer& transfer) = 0;
  // Waits until something may have been done, or wake_fd is readable; only while a write is under way.
  virtual Answer<void> wait(const StopSignal& stop, int wake_fd) = 0;
  // All writes are done and went well: makes the file whole (not yet durable).
  virtual Answer<void> finish(const StopSignal& stop) = 0;
};

}  // namespace obraz
