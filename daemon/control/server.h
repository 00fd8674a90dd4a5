// ControlServer: the Unix socket on which requests come in and responses go out (docs/control-api.md).
//
// Invariants: what one connection can make us hold is kMaxControlInFlight requests of kMaxControlRequest
// bytes and as many responses; while that many are under way, or the client does not take its responses,
// nothing more is read from it. A broken frame ends its connection and no other. Only root and the daemon's
// own user are answered. Thread: the control thread.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <set>
#include <string>

#include "base/refusal.h"
#include "catalog/async_event.h"
#include "control/methods.h"
#include "control/subject.h"

namespace obraz {

class ControlServer {
 public:
  // Binds and listens; a socket that a dead daemon left behind is replaced. Refuses a path that is too long,
  // that is something else than a socket, or on which somebody listens.
  static Answer<std::unique_ptr<ControlServer>> listen(boost::asio::any_io_executor executor,
                                                       const std::string& path, const MethodTable& methods);
  ~ControlServer();

  // Accepts until stop().
  boost::asio::awaitable<void> run();
  // No new connections; new requests are refused as `unavailable`.
  void close();
  // After close(): lets the requests under way end and clients take their responses, at most
  // kControlCloseSeconds, then closes every connection. The server is destroyed when its context has run out
  // of work.
  boost::asio::awaitable<void> drain();

  size_t connections() const { return connections_.size(); }

 private:
  class Connection;
  using Protocol = boost::asio::local::stream_protocol;

  ControlServer(boost::asio::any_io_executor executor, std::string path, const MethodTable& methods);
  void admit(Protocol::socket socket);

  boost::asio::any_io_executor executor_;
  const std::string path_;
  const MethodTable& methods_;
  Protocol::acceptor acceptor_;
  Subjects subjects_;
  std::set<std::shared_ptr<Connection>> connections_;
  boost::asio::steady_timer deadline_;
  AsyncEvent changed_;  // a connection or a request ended, or the deadline passed
  bool closing_ = false, late_ = false;
};

}  // namespace obraz
