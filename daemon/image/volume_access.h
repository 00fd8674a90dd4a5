// VolumeAccess: a volume used from a worker thread, several operations at a time. The crossing to the reactor
// is start(); the way back is a descriptor that becomes readable, and collect().
//
// Invariants: the volume's handle lives and dies on the reactor's thread; an operation that was started ends
// exactly once, also when the reactor is destroyed before it began (it then fails as unavailable); operations
// and the bytes they use stay in place until they are done, which drain() waits for. The reactor runs until
// then. Thread: the worker's.
#pragma once

#include <functional>
#include <memory>

#include "image/stop_signal.h"
#include "io/reactor.h"
#include "store/volume.h"

namespace obraz {

class VolumeAccess {
 public:
  struct Operation {
    // Makes the task, on the reactor's thread. A capturing lambda must return the task of a named coroutine.
    std::function<Task<Status>(Volume&)> start;
    bool done = false;  // set by collect()
    Status status;      // once done
  };

  VolumeAccess(Reactor& reactor, Volume volume);
  ~VolumeAccess();  // nothing is under way then

  void start(Operation& operation);
  // Marks what has ended.
  void collect();
  int fd() const;  // readable when there is something to collect
  // Waits until there is.
  Answer<void> wait(const StopSignal& stop);
  // Waits until every operation is done.
  void drain();
  // start, and wait for this one's end; the others go on.
  Status run(std::function<Task<Status>(Volume&)> start);

 private:
  struct Core;
  static Task<void> perform(Core& core, Operation& operation);
  void wait_for_any();

  Reactor& reactor_;
  std::shared_ptr<Core> core_;
  size_t under_way_ = 0;
};

}  // namespace obraz
