// FileView: an open file (or block device) of known size, read at places a foreign header names. Also
// OwnedFd.
//
// Invariants: nothing is read beyond size_bytes; a read gives all bytes or a refusal. Thread: any, one at a
// time.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "image/answer.h"

namespace obraz {

// A descriptor that is closed with its owner.
class OwnedFd {
 public:
  OwnedFd() = default;
  explicit OwnedFd(int fd) : fd_(fd) {}
  OwnedFd(OwnedFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  OwnedFd& operator=(OwnedFd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~OwnedFd() { reset(); }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }
  void reset();
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

struct FileView {
  int fd = -1;
  uint64_t size_bytes = 0;

  bool holds(uint64_t offset, uint64_t length) const {
    return offset <= size_bytes && length <= size_bytes - offset;
  }
  // Reads [offset, offset + into.size()); `what` names it in the refusal ("the L1 table").
  Answer<void> read(uint64_t offset, Bytes into, const char* what) const;
};

// pread / pwrite of everything; an errno, or 0. A read that meets the end of the file answers EPIPE.
int read_fully(int fd, Bytes into, uint64_t offset);
int write_fully(int fd, ConstBytes from, uint64_t offset);

}  // namespace obraz
