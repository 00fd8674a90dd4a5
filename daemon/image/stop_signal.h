// StopSignal: a std::stop_token as a descriptor, so that a wait in poll(2) ends when a stop is asked for.
// Also EventFd, the descriptor behind it.
//
// Thread: a worker's; request_stop() and EventFd::signal() come from any.
#pragma once

#include <stop_token>

#include "image/file_view.h"

namespace obraz {

class EventFd {
 public:
  EventFd();  // aborts when the process has no descriptor left to give, as for memory
  void signal();
  void clear();  // forgets all signals so far
  int fd() const { return fd_.get(); }

 private:
  OwnedFd fd_;
};

class StopSignal {
 public:
  explicit StopSignal(std::stop_token token);
  StopSignal(const StopSignal&) = delete;
  bool requested() const { return token_.stop_requested(); }
  int fd() const { return event_.fd(); }  // readable from the request on
  const std::stop_token& token() const { return token_; }

 private:
  struct Signal {
    EventFd* event;
    void operator()() const { event->signal(); }
  };
  std::stop_token token_;
  EventFd event_;
  std::stop_callback<Signal> callback_;
};

}  // namespace obraz
