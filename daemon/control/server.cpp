#include "control/server.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <system_error>

#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"
#include "catalog/codes.h"
#include "control/connection.h"
#include "proto/framing.h"

namespace obraz {
namespace {

constexpr auto kUse = boost::asio::as_tuple(boost::asio::use_awaitable);
constexpr auto kAcceptPause = std::chrono::milliseconds(100);  // after an error that only time can cure

std::unexpected<Refusal> cannot_listen(const std::string& path, const std::string& why) {
  return refuse(ErrorCode::failed_precondition, "control", "cannot listen on " + path + ": " + why);
}

// Makes room for our socket where a daemon that is gone has left its own.
Answer<void> remove_stale_socket(const std::string& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) {
    if (errno == ENOENT)
      return {};
    return cannot_listen(path, std::generic_category().message(errno));
  }
  if (!S_ISSOCK(status.st_mode))
    return cannot_listen(path, "there is something else than a socket");
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0)
    return cannot_listen(path, std::generic_category().message(errno));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  const bool alive =
      ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 || errno == EAGAIN;
  ::close(fd);
  if (alive)
    return cannot_listen(path, "another process listens there");
  ::unlink(path.c_str());
  return {};
}

// Tells a client that is not served why, if its socket takes that at once.
void turn_away(int fd, const Refusal& refusal) {
  v1::Response response;
  *response.mutable_error() = to_message(refusal);
  const auto frame = encode_frame(response, limits::kMaxControlFrame);
  OBRAZ_CHECK(frame);
  [[maybe_unused]] const auto n = ::send(fd, frame->data(), frame->size(), MSG_DONTWAIT | MSG_NOSIGNAL);
}

}  // namespace

ControlServer::ControlServer(boost::asio::any_io_executor executor, std::string path,
                             const MethodTable& methods)
    : executor_(executor),
      path_(std::move(path)),
      methods_(methods),
      acceptor_(executor),
      deadline_(executor),
      changed_(executor) {}

ControlServer::~ControlServer() {
  OBRAZ_CHECK(connections_.empty());
}

Answer<std::unique_ptr<ControlServer>> ControlServer::listen(boost::asio::any_io_executor executor,
                                                             const std::string& path,
                                                             const MethodTable& methods) {
  if (path.empty() || path.size() >= sizeof(sockaddr_un::sun_path))
    return cannot_listen(path, "the path of a socket has 1 to " +
                                   std::to_string(sizeof(sockaddr_un::sun_path) - 1) +
                                   " bytes; name a shorter one with --control");
  if (const auto free = remove_stale_socket(path); !free)
    return std::unexpected(free.error());
  std::unique_ptr<ControlServer> server(new ControlServer(executor, path, methods));
  boost::system::error_code error;
  server->acceptor_.open(Protocol(), error);
  if (!error)
    server->acceptor_.bind(Protocol::endpoint(path), error);
  if (!error)
    server->acceptor_.listen(boost::asio::socket_base::max_listen_connections, error);
  if (error)
    return cannot_listen(path, error.message());
  // Whoever may reach the folder may connect; who is answered is decided by who it is.
  if (::chmod(path.c_str(), 0666) != 0)
    return cannot_listen(path, std::generic_category().message(errno));
  return server;
}

boost::asio::awaitable<void> ControlServer::run() {
  boost::asio::steady_timer pause(executor_);
  while (!closing_) {
    std::tuple<boost::system::error_code, Protocol::socket> accepted = co_await acceptor_.async_accept(kUse);
    if (closing_)
      break;
    if (!std::get<0>(accepted)) {
      admit(std::move(std::get<1>(accepted)));
      continue;
    }
    log::warning("control: accepting a client: {}", std::get<0>(accepted).message());
    pause.expires_after(kAcceptPause);
    co_await pause.async_wait(kUse);
  }
}

void ControlServer::admit(Protocol::socket socket) {
  const Result<PeerIds> ids = peer_ids(socket.native_handle());
  if (!ids)
    return;
  const SubjectRef subject = subjects_.subject_of(*ids);
  const auto theirs = std::ranges::count_if(
      connections_, [&](const auto& connection) { return connection->subject().name == subject->name; });
  if (!subject->superuser && theirs >= limits::kMaxUserConnections) {
    turn_away(socket.native_handle(),
              {ErrorCode::resource_exhausted, "", subject->name + " has too many connections"});
    return;
  }
  if (connections_.size() >= limits::kMaxControlConnections) {
    turn_away(socket.native_handle(), {ErrorCode::resource_exhausted, "", "too many clients are connected"});
    return;
  }
  auto connection = std::make_shared<Connection>(*this, std::move(socket), subject);
  connections_.insert(connection);
  boost::asio::co_spawn(executor_, connection->run(), boost::asio::detached);
}

void ControlServer::close() {
  if (closing_)
    return;
  closing_ = true;
  boost::system::error_code ignored;
  acceptor_.close(ignored);
  ::unlink(path_.c_str());
}

boost::asio::awaitable<void> ControlServer::drain() {
  // The deadline wakes the same event as a request that ends.
  bool waits = true;
  deadline_.expires_after(std::chrono::seconds(limits::kControlCloseSeconds));
  deadline_.async_wait([this, &waits](boost::system::error_code error) {
    waits = false;
    late_ = late_ || !error;
    changed_.notify_all();
  });
  const auto busy = [this] {
    for (const auto& connection : connections_) {
      if (connection->in_flight() > 0)
        return true;
    }
    return false;
  };
  while (!late_ && busy())
    co_await changed_.wait();
  const auto connections = connections_;
  for (const auto& connection : connections)
    connection->close();
  while (!connections_.empty())
    co_await changed_.wait();
  // Nothing may come after the server is gone.
  deadline_.cancel();
  while (waits)
    co_await changed_.wait();
}

}  // namespace obraz
