#include "image/stop_signal.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include "base/check.h"

namespace obraz {

EventFd::EventFd() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  OBRAZ_CHECK(fd_);
}

void EventFd::signal() {
  const uint64_t one = 1;
  [[maybe_unused]] const auto n =
      ::write(fd_.get(), &one, sizeof one);  // fails only when it is already readable
}

void EventFd::clear() {
  uint64_t count;
  [[maybe_unused]] const auto n = ::read(fd_.get(), &count, sizeof count);
}

StopSignal::StopSignal(std::stop_token token)
    : token_(std::move(token)), callback_(token_, Signal{&event_}) {}

}  // namespace obraz
