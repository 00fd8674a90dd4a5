// Connection: one client of the control socket, from accept to close. Internal to server.cpp.
//
// Invariants: frames are written one at a time; every request that was read gets its last response or the
// client is gone; it lives until its last request has ended. Thread: the control thread.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <memory>
#include <optional>
#include <string>

#include "base/refusal.h"
#include "catalog/async_event.h"
#include "control/methods.h"
#include "control/server.h"
#include "obraz/v1/envelope.pb.h"

namespace obraz {

class ControlServer::Connection : public std::enable_shared_from_this<ControlServer::Connection> {
 public:
  Connection(ControlServer& server, Protocol::socket socket, SubjectRef subject);

  // Serves until the client leaves, breaks the framing, or close(); and until what is under way has ended.
  boost::asio::awaitable<void> run();
  unsigned in_flight() const { return in_flight_; }
  const Subject& subject() const { return *subject_; }
  // Ends what waits for the client.
  void close();

 private:
  class Exchange;  // one request and its responses

  boost::asio::awaitable<Answer<v1::Request>> read_request();
  boost::asio::awaitable<void> handle(v1::Request request);
  boost::asio::awaitable<bool> write(v1::Response response);

  ControlServer& server_;
  Protocol::socket socket_;
  const SubjectRef subject_;
  unsigned in_flight_ = 0;
  bool writing_ = false, broken_ = false;
  AsyncEvent changed_;  // a request ended, or a frame has been written
};

}  // namespace obraz
