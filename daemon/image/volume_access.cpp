#include "image/volume_access.h"

#include <poll.h>

#include <cerrno>
#include <mutex>
#include <utility>
#include <vector>

#include "base/check.h"
#include "io/sync.h"

namespace obraz {

struct VolumeAccess::Core {
  Core(Reactor& reactor, Volume handle) : volume(std::move(handle)), gate(reactor) {}

  void finish(Operation& operation, Status status) {
    std::lock_guard lock(mutex);
    finished.push_back({&operation, status});
    event.signal();
  }

  // --- the reactor's thread
  // -----------------------------------------------------------------------------------------
  Volume volume;
  Gate gate;
  // --- any thread
  // ---------------------------------------------------------------------------------------------------
  std::mutex mutex;
  std::vector<std::pair<Operation*, Status>> finished;
  EventFd event;
};

VolumeAccess::VolumeAccess(Reactor& reactor, Volume volume)
    : reactor_(reactor), core_(std::make_shared<Core>(reactor, std::move(volume))) {}

VolumeAccess::~VolumeAccess() {
  OBRAZ_CHECK(under_way_ == 0);
  // The last reference goes over to the reactor, behind the frames of the operations, which leave the gate
  // there.
  reactor_.post([core = std::move(core_)]() mutable { core.reset(); });
}

Task<void> VolumeAccess::perform(Core& core, Operation& operation) {
  Status status = co_await operation.start(core.volume);
  core.finish(operation, status);
}

void VolumeAccess::start(Operation& operation) {
  operation.done = false;
  ++under_way_;
  reactor_.post([core = core_.get(), &operation] { core->gate.spawn(perform(*core, operation)); });
}

void VolumeAccess::collect() {
  std::vector<std::pair<Operation*, Status>> finished;
  {
    std::lock_guard lock(core_->mutex);
    core_->event.clear();
    finished.swap(core_->finished);
  }
  for (auto& [operation, status] : finished) {
    operation->status = status;
    operation->done = true;
    --under_way_;
  }
}

int VolumeAccess::fd() const {
  return core_->event.fd();
}

Answer<void> VolumeAccess::wait(const StopSignal& stop) {
  pollfd wanted[] = {{fd(), POLLIN, 0}, {stop.fd(), POLLIN, 0}};
  if (::poll(wanted, 2, -1) < 0 && errno != EINTR)
    return refuse_os(errno, "", "wait");
  if (stop.requested())
    return refuse_cancelled();
  return {};
}

void VolumeAccess::wait_for_any() {
  pollfd wanted = {fd(), POLLIN, 0};
  while (::poll(&wanted, 1, -1) < 0 && errno == EINTR) {
  }
  collect();
}

void VolumeAccess::drain() {
  while (under_way_ > 0)
    wait_for_any();
}

Status VolumeAccess::run(std::function<Task<Status>(Volume&)> start_task) {
  Operation operation{.start = std::move(start_task), .done = false, .status = {}};
  start(operation);
  while (!operation.done)
    wait_for_any();
  return operation.status;
}

}  // namespace obraz
