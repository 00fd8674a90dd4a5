// Server: the NBD server's front, on the control thread. It listens, accepts, negotiates, and hands each
// socket whose client has reached transmission to Sessions on the reactor; from then on it only counts it.
//
// Invariants: at most max_sessions clients at once, handshakes included, whoever comes then is disconnected
// at once; a handshake ends by its deadline; no error of accept() makes a busy loop. Whatever its clients do,
// stop() returns soon: it waits for nobody's input. Thread: the control thread; the reactor is reached by
// post() alone.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/limits.h"
#include "base/refusal.h"
#include "io/reactor.h"
#include "nbd/export.h"
#include "nbd/listen.h"
#include "nbd/sessions.h"

namespace obraz::nbd {

struct ServerOptions {
  std::optional<UnixOptions> unix_socket;
  std::vector<HostPort> tcp;
  unsigned max_sessions = limits::kMaxSessions;
  unsigned handshake_ms = limits::kHandshakeSeconds * 1000;
};

class Server {
 public:
  // All three outlive the server; `sessions` is touched only on the reactor's thread.
  Server(boost::asio::any_io_executor executor, Reactor& reactor, Sessions& sessions, ExportSource& source,
         ServerOptions options);
  Server(const Server&) = delete;
  ~Server();

  // Opens every socket asked for, or none. Clients are served as soon as the executor runs.
  Answer<void> listen();
  // Accepts nobody any more, breaks off handshakes and returns when the last has ended. Sessions already
  // handed over go on: Sessions::stop() is for them, and comes after this.
  boost::asio::awaitable<void> stop();

  // What was opened, the Unix socket first.
  const std::vector<Listening>& listening() const;
  // For users to paste, over the Unix socket when there is one; empty when nothing listens.
  std::string uri_of(std::string_view export_name) const;

  struct Stats {
    uint64_t accepted = 0, turned_away = 0, accept_errors = 0, handshakes_failed = 0;
    unsigned clients = 0, handshakes = 0;  // now; clients include handshakes
  };
  Stats stats() const;

 private:
  struct State;
  // Shared with what is under way on the executor.
  std::shared_ptr<State> state_;
};

}  // namespace obraz::nbd
