// What the benchmarks of the store share: a reactor that runs one task at a time to its end, files that are
// gone when the program ends, and no going on after an error.
#pragma once

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include "io/file_device.h"
#include "io/reactor.h"
#include "io/sync.h"

namespace obraz::bench {

inline void must(const Status& status) {
  if (status)
    return;
  std::fprintf(stderr, "%s: %s\n", ::program_invocation_short_name, describe(status.error()).c_str());
  std::exit(1);
}

class Harness {
 public:
  Harness() {
    auto made = Reactor::create();
    if (!made)
      must(Failure(made.error()));
    reactor_ = std::move(*made);
  }
  Reactor& reactor() { return *reactor_; }

  void run(Task<Status> task) {
    Status result;
    Gate gate(*reactor_);
    gate.spawn(keep(*reactor_, std::move(task), result));
    reactor_->run();
    must(result);
  }

  // A new file in the folder, without a name as soon as it is open.
  std::unique_ptr<FileDevice> file(const std::string& folder, const char* name, uint64_t size_bytes) {
    const std::string path = folder + "/" + name + "-" + std::to_string(::getpid());
    auto device = FileDevice::open(*reactor_, path, {.create = true, .create_size_bytes = size_bytes});
    if (!device)
      must(Failure(device.error()));
    ::unlink(path.c_str());
    return std::move(*device);
  }

 private:
  static Task<void> keep(Reactor& reactor, Task<Status> task, Status& result) {
    result = co_await std::move(task);
    reactor.stop();
  }
  std::unique_ptr<Reactor> reactor_;
};

}  // namespace obraz::bench
