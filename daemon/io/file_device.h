// FileDevice: a Device on a regular file or a block device, through a reactor's ring, with O_DIRECT where the
// file system takes it (the reason is logged where it does not).
//
// Invariants: the descriptor used for I/O itself holds an exclusive lock (flock; O_EXCL on block devices
// too), so a second daemon is refused until the last I/O of a dead one has drained with its descriptor.
// Thread: the reactor's.
#pragma once

#include <memory>
#include <string>

#include "io/device.h"
#include "io/reactor.h"

namespace obraz {

class FileDevice final : public Device {
 public:
  struct Options {
    bool create = false;             // make the file (refused when it exists) …
    uint64_t create_size_bytes = 0;  // … with this size, sparse
    bool read_only = false;          // shares the lock with other readers
    bool direct = true;
    // How long to wait for a lock that another process holds. The kernel lets go of a killed process's lock
    // only when the last I/O of its ring has ended, which may be after the process is gone. Blocks the
    // thread.
    uint64_t lock_patience_ms = 0;
  };
  // Errors: not_found, already_exists, failed_precondition ("in use by another process"), invalid_argument
  // (neither a regular file nor a block device), io.
  static Result<std::unique_ptr<FileDevice>> open(Reactor& reactor, const std::string& path,
                                                  const Options& options);
  ~FileDevice() override;

  uint64_t size_bytes() const override { return size_bytes_; }
  Task<Status> read(uint64_t offset, Bytes into) override;
  Task<Status> write(uint64_t offset, ConstBytes from) override;
  Task<Status> write_and_flush(uint64_t offset, ConstBytes from) override;
  Task<Status> flush() override;
  Task<Status> discard(uint64_t offset, uint64_t length) override;
  Task<Status> allocate(uint64_t offset, uint64_t length) override;
  bool can_allocate() const override { return can_allocate_; }

  bool is_direct() const { return direct_; }

 private:
  FileDevice(Reactor& reactor, int fd, bool direct, bool block_device, uint64_t size_bytes);
  Reactor& reactor_;
  RingFile file_;
  bool direct_, block_device_;
  bool can_allocate_ = true, can_discard_ = true;  // until the file system says no
  uint64_t size_bytes_;
};

}  // namespace obraz
