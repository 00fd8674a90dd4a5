// AsyncEvent: "something changed" among Asio coroutines of one thread. wait() always suspends until the next
// notify_all(); the waiter looks again by itself. Between looking and waiting nothing else runs, so no
// wake-up is lost.
//
// Thread: the one that runs the executor's context.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <tuple>

namespace obraz {

class AsyncEvent {
 public:
  explicit AsyncEvent(boost::asio::any_io_executor executor)
      : timer_(std::move(executor), boost::asio::steady_timer::time_point::max()) {}

  boost::asio::awaitable<void> wait() {
    [[maybe_unused]] auto woken =
        co_await timer_.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
  }
  void notify_all() { timer_.cancel(); }

 private:
  boost::asio::steady_timer
      timer_;  // never expires: a timer is Asio's only thing to wait for that costs no descriptor
};

}  // namespace obraz
