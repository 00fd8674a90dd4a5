// SyscallFilter: what a confined child can no longer ask of the kernel (seccomp(2)): sockets, other
// processes, other programs, privileges, changes of anything but the bytes of a file it was given, and memory
// that its limits do not count.
//
// It names what is refused, not what is needed: a list of what is needed would break with the next version of
// the C library. What the kernel got after this list was written does not exist for the child. Built before
// the child starts; finish() and install() run between vfork and exec and make system calls only.
#pragma once

#include <linux/filter.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace obraz {

class SyscallFilter {
 public:
  struct Options {
    const char* program = nullptr;  // the very pointer given to execve, which is allowed with no other
    bool may_write = false;
  };
  // Empty where this processor's calls are not known.
  static SyscallFilter build(const Options& options);
  // For a program of ours that has all it needs open and is about to look at foreign bytes, on top of the
  // other filter: it reads, computes and answers. This one does name what is needed, which is little.
  static SyscallFilter build_for_parsing();

  // The child's own number: the only process it may send a signal to.
  void finish(pid_t own) {
    for (const size_t place : own_places_)
      program_[place].k = uint32_t(own);
  }
  // For the calling process, for ever. 0, or an errno; 0, too, on a kernel without filters.
  int install() const;

 private:
  void begin();
  void load(size_t offset);
  void refuse(long number, int os_error);
  void allow_when(long number, unsigned argument, uint32_t value, int os_error);
  void allow_own(long number);
  void add(uint16_t code, uint32_t value, uint8_t when_true = 0, uint8_t when_false = 0);

  std::vector<sock_filter> program_;
  std::vector<size_t> own_places_;
};

}  // namespace obraz
