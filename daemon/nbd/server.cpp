#include "nbd/server.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <chrono>
#include <list>
#include <system_error>

#include "base/log.h"
#include "nbd/handshake.h"

namespace obraz::nbd {
namespace {

namespace asio = boost::asio;
using asio::awaitable;
constexpr auto kUse = asio::as_tuple(asio::use_awaitable);

constexpr auto kAcceptPause =
    std::chrono::milliseconds(200);    // after an accept that failed for want of something
constexpr unsigned kAcceptBatch = 64;  // clients taken in one turn

// Errors that speak of the client that was about to be accepted, not of us (accept(2)).
bool concerns_client(int error) {
  switch (error) {
    case ECONNABORTED:
    case EINTR:
    case EPROTO:
    case EPERM:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
      return true;
    default:
      return false;
  }
}

}  // namespace

struct Server::State : std::enable_shared_from_this<Server::State> {
  // A client on its way to transmission.
  struct Client {
    explicit Client(const asio::any_io_executor& executor) : stream(executor), deadline(executor) {}
    Stream stream;
    asio::steady_timer deadline;
    Peer peer;
    bool late = false;
  };
  struct Door {
    Door(const asio::any_io_executor& executor, int socket) : ready(executor, socket), pause(executor) {}
    asio::posix::stream_descriptor ready;  // a duplicate: `listening` keeps the socket itself
    asio::steady_timer pause;
  };

  State(asio::any_io_executor executor, Reactor& reactor, Sessions& sessions, ExportSource& source,
        ServerOptions options)
      : executor(std::move(executor)),
        reactor(reactor),
        sessions(sessions),
        source(source),
        options(std::move(options)),
        idle(this->executor) {}

  static awaitable<void> accept_clients(std::shared_ptr<State> self, Door& door);
  static awaitable<void> serve(std::shared_ptr<State> self, std::shared_ptr<Client> client);
  int accept_one(int listener);
  void hand_over(Client& client, Negotiated negotiated);
  void left() { --stats.clients; }

  // Lives in the frame of a coroutine that stop() waits for.
  struct Running {
    explicit Running(State& state) : state(state) { ++state.coroutines; }
    Running(const Running&) = delete;
    ~Running() {
      if (--state.coroutines == 0)
        state.idle.cancel();
    }
    State& state;
  };

  asio::any_io_executor executor;
  Reactor& reactor;
  Sessions& sessions;
  ExportSource& source;
  ServerOptions options;

  std::vector<Listening> listening;
  std::list<Door> doors;
  std::list<std::shared_ptr<Client>> clients;  // in their handshakes
  asio::steady_timer idle;                     // cancelled when the last coroutine has ended
  unsigned coroutines = 0;
  bool stopping = false, full = false;
  Stats stats;
};

Server::Server(asio::any_io_executor executor, Reactor& reactor, Sessions& sessions, ExportSource& source,
               ServerOptions options)
    : state_(std::make_shared<State>(std::move(executor), reactor, sessions, source, std::move(options))) {}

Server::~Server() {
  for (const Listening& listening : state_->listening)
    remove_socket_file(listening);
}

const std::vector<Listening>& Server::listening() const {
  return state_->listening;
}

std::string Server::uri_of(std::string_view export_name) const {
  return state_->listening.empty() ? std::string() : nbd::uri_of(state_->listening.front(), export_name);
}

Server::Stats Server::stats() const {
  Stats stats = state_->stats;
  stats.handshakes = unsigned(state_->clients.size());
  return stats;
}

Answer<void> Server::listen() {
  std::vector<Listening> opened;
  const auto undo = [&opened](Refusal refusal) {
    for (const Listening& listening : opened)
      remove_socket_file(listening);
    return std::unexpected(std::move(refusal));
  };
  if (state_->options.unix_socket) {
    Answer<Listening> made = listen_unix(*state_->options.unix_socket);
    if (!made)
      return undo(std::move(made.error()));
    opened.push_back(std::move(*made));
  }
  for (const HostPort& where : state_->options.tcp) {
    Answer<std::vector<Listening>> made = listen_tcp(where);
    if (!made)
      return undo(std::move(made.error()));
    for (Listening& listening : *made)
      opened.push_back(std::move(listening));
  }
  for (const Listening& listening : opened) {
    const int duplicate = ::fcntl(listening.socket.get(), F_DUPFD_CLOEXEC, 0);
    if (duplicate < 0) {
      const int error = errno;
      state_->doors.clear();
      return undo(Refusal{ErrorCode::io, "", "cannot listen: " + std::generic_category().message(error)});
    }
    state_->doors.emplace_back(state_->executor, duplicate);
  }
  state_->listening = std::move(opened);
  for (State::Door& door : state_->doors)
    asio::co_spawn(state_->executor, State::accept_clients(state_, door), asio::detached);
  for (const Listening& listening : state_->listening)
    log::info("nbd: serving on {}", listening.address);
  return {};
}

awaitable<void> Server::stop() {
  const std::shared_ptr<State> state = state_;
  state->stopping = true;
  boost::system::error_code ignored;
  for (State::Door& door : state->doors) {
    door.ready.close(ignored);
    door.pause.cancel();
  }
  // Closing ends whatever they are waiting for.
  for (const auto& client : state->clients)
    client->stream.close(ignored);
  for (Listening& listening : state->listening) {
    remove_socket_file(listening);
    listening.socket.reset();
  }
  // Whoever was spawned but has not begun finds everything closed and soon ends, too.
  while (state->coroutines > 0) {
    state->idle.expires_at(asio::steady_timer::time_point::max());
    co_await state->idle.async_wait(kUse);
  }
}

// --- accepting ------------------------------------------------------------------------------------------

// Takes one client: 0, or the errno of accept.
int Server::State::accept_one(int listener) {
  Descriptor socket(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!socket)
    return errno;
  ++stats.accepted;
  if (stats.clients >= options.max_sessions) {
    ++stats.turned_away;
    if (!full)
      log::warning("nbd: {} clients are connected, the limit; turning others away", stats.clients);
    full = true;
    return 0;
  }
  full = false;
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  ::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &length);
  if (address.ss_family != AF_UNIX) {
    const int on = 1;
    ::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    ::setsockopt(socket.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  } else {
    // The kernel gives what net.core.wmem_max allows. TCP finds its size by itself.
    const int size = limits::kUnixSendBuffer;
    ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  }
  const auto client = std::make_shared<Client>(executor);
  client->peer = peer_of(socket.get());
  boost::system::error_code error;
  client->stream.assign(asio::generic::stream_protocol(address.ss_family, 0), socket.get(), error);
  if (error) {
    log::warning("nbd: {}: {}", client->peer.description, error.message());
    return 0;
  }
  static_cast<void>(socket.release());
  ++stats.clients;
  clients.push_back(client);
  asio::co_spawn(executor, serve(shared_from_this(), client), asio::detached);
  return 0;
}

awaitable<void> Server::State::accept_clients(std::shared_ptr<State> self, Door& door) {
  const Running running(*self);
  while (!self->stopping) {
    const auto waited = co_await door.ready.async_wait(asio::posix::descriptor_base::wait_read, kUse);
    if (self->stopping || std::get<0>(waited))
      break;
    int error = 0;
    for (unsigned i = 0; i < kAcceptBatch && (error == 0 || concerns_client(error)); ++i)
      error = self->accept_one(door.ready.native_handle());
    if (error == 0 || error == EAGAIN || concerns_client(error))
      continue;
    // Out of descriptors or memory: the socket stays readable, so without a pause this would spin.
    ++self->stats.accept_errors;
    log::warning("nbd: cannot accept clients: {}", std::generic_category().message(error));
    door.pause.expires_after(kAcceptPause);
    co_await door.pause.async_wait(kUse);
  }
}

// --- one client -----------------------------------------------------------------------------------------

awaitable<void> Server::State::serve(std::shared_ptr<State> self, std::shared_ptr<Client> client) {
  const Running running(*self);
  client->deadline.expires_after(std::chrono::milliseconds(self->options.handshake_ms));
  client->deadline.async_wait([client](const boost::system::error_code& error) {
    if (error)
      return;
    client->late = true;
    boost::system::error_code ignored;
    client->stream.close(ignored);  // ends what the handshake waits for; nothing when it is over
  });
  Result<Negotiated> negotiated = co_await negotiate(client->stream, self->source, client->peer);
  client->deadline.cancel();
  self->clients.remove(client);
  if (negotiated && (self->stopping || client->late)) {
    self->source.detach(negotiated->exported);
    negotiated = fail(ErrorCode::disconnected, "the handshake ended too late");
  }
  if (negotiated) {
    self->hand_over(*client, std::move(*negotiated));
    co_return;
  }
  ++self->stats.handshakes_failed;
  self->left();
  if (client->late)
    log::info("nbd: {}: the handshake took too long", client->peer.description);
  else if (negotiated.error().code == ErrorCode::disconnected)
    log::debug("nbd: {}: {}", client->peer.description, negotiated.error().text);
  else
    log::info("nbd: {}: {}", client->peer.description, negotiated.error().text);
}

void Server::State::hand_over(Client& client, Negotiated negotiated) {
  boost::system::error_code error;
  Adoption adoption;
  adoption.socket = Descriptor(client.stream.release(error));
  adoption.peer = client.peer;
  // Runs on the reactor, and only passes the news on.
  adoption.ended = [self = shared_from_this(), exported = negotiated.exported]() mutable {
    const asio::any_io_executor executor = self->executor;
    asio::post(executor, [self = std::move(self), exported = std::move(exported)] {
      self->source.detach(exported);
      self->left();
    });
  };
  adoption.terms = std::move(negotiated);
  if (error) {
    log::warning("nbd: {}: {}", client.peer.description, error.message());
    return adoption.ended();
  }
  // Asio works with non-blocking sockets; the ring waits by itself, but only on blocking ones.
  const int fd = adoption.socket.get();
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) & ~O_NONBLOCK);
  reactor.post([&sessions = sessions, adoption = std::move(adoption)]() mutable {
    sessions.adopt(std::move(adoption));
  });
}

}  // namespace obraz::nbd
