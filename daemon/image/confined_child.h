// ConfinedChild: a program that is run on bytes it need not be trusted with (qemu-nbd, qemu-img,
// obraz-layout).
//
// It starts with the descriptors it is given and no others: nothing on standard input and output, an 8 KiB
// memory file as standard error; as the user nobody when the daemon is root, without privileges and without a
// way to gain any; with limits on memory, CPU time, descriptors and core files; in an empty network, where a
// new one may be made; with no way to connect, to fork, to run another program or to signal anybody
// (syscall_filter.h); where the kernel has Landlock, no file but its own program, libraries and what `files`
// names (landlock.h). docs/import.md tells what each of these is for.
//
// It dies with the *thread* that started it (PR_SET_PDEATHSIG), which therefore has to live as long as the
// child is needed.
//
// Thread: the worker's that started it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/limits.h"
#include "image/file_view.h"
#include "image/stop_signal.h"

namespace obraz {

class ConfinedChild {
 public:
  // The child's descriptors 3, 4, …; their numbers stand in its arguments as /proc/self/fd/N.
  static constexpr int kFirstFd = 3;

  struct Options {
    std::string program;                 // a name to be looked up in $PATH, or a path from / on
    std::vector<std::string> arguments;  // without the program's own name
    std::vector<int> descriptors;        // become kFirstFd + 0, 1, …; stay open here
    std::vector<size_t> files;           // which of those the child may open again by /proc/self/fd/N
    bool may_write = false;              // the files; without it the child can make no file grow either
    bool listens = false;  // descriptor kFirstFd is a listening socket (LISTEN_FDS, sd_listen_fds(3))
    uint64_t memory_bytes = limits::kImportChildMemory;
    unsigned cpu_seconds = limits::kImportChildCpuSeconds;
  };
  static Answer<std::unique_ptr<ConfinedChild>> start(const Options& options);
  ~ConfinedChild();  // kills it and waits for its end
  ConfinedChild(const ConfinedChild&) = delete;

  // Waits until the child has ended; its exit status, or 128 + the signal that ended it.
  Answer<int> wait(const StopSignal& stop, unsigned timeout_seconds);
  // What it wrote to standard error so far: printable characters, in one line, without its own name.
  std::string complaint() const;

 private:
  ConfinedChild(std::string program, pid_t pid, OwnedFd process, OwnedFd standard_error);

  std::string program_;
  pid_t pid_;
  OwnedFd process_, standard_error_;
  int status_ = -1;  // once it has been waited for
};

}  // namespace obraz
