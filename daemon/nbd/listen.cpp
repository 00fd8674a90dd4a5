#include "nbd/listen.h"

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>
#include <system_error>

#include "base/limits.h"
#include "base/log.h"

namespace obraz::nbd {
namespace {

constexpr int kBacklog = 256;  // connections the kernel keeps for us between two turns
constexpr const char* kUnixField = "nbd_unix";
constexpr const char* kTcpField = "nbd_tcp";

std::string words(int os_error) {
  return std::generic_category().message(os_error);
}

ErrorCode code_of(int os_error) {
  switch (os_error) {
    case EACCES:
    case EPERM:
      return ErrorCode::permission_denied;
    case EADDRINUSE:
      return ErrorCode::already_exists;
    case ENOENT:
    case ENOTDIR:
      return ErrorCode::not_found;
    default:
      return ErrorCode::io;
  }
}

std::unexpected<Refusal> refuse_os(const char* field, std::string what, int os_error) {
  return refuse(code_of(os_error), field, fmt::format("{}: {}", what, words(os_error)));
}

// Whether somebody accepts connections at the path. Only "connection refused" proves that nobody does.
bool nobody_answers(const sockaddr_un& address) {
  const Descriptor probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  return probe && ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 &&
         errno == ECONNREFUSED;
}

std::string numeric(const sockaddr_storage& address, socklen_t length) {
  char host[NI_MAXHOST], port[NI_MAXSERV];
  if (::getnameinfo(reinterpret_cast<const sockaddr*>(&address), length, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
    return "unknown address";
  return address.ss_family == AF_INET6 ? fmt::format("[{}]:{}", host, port)
                                       : fmt::format("{}:{}", host, port);
}

// Unreserved characters of RFC 3986, and what may stand in a path.
std::string percent_encode(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (letter || std::strchr("-._~/", c))
      out += c;
    else
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

}  // namespace

Answer<HostPort> parse_host_port(std::string_view text) {
  const auto bad = [text](const char* why) {
    return refuse(ErrorCode::invalid_argument, kTcpField,
                  fmt::format("\"{}\" is not HOST:PORT: {}", text, why));
  };
  std::string_view host, port;
  if (text.starts_with('[')) {
    const size_t close = text.find(']');
    if (close == std::string_view::npos || close + 1 >= text.size() || text[close + 1] != ':')
      return bad("an address in brackets must be followed by a colon and a port");
    host = text.substr(1, close - 1);
    port = text.substr(close + 2);
    if (host.empty())
      return bad("the brackets are empty");
  } else {
    const size_t colon = text.find(':');
    if (colon != text.rfind(':'))
      return bad("an IPv6 address needs brackets, as in [::1]:10809");
    port = colon == std::string_view::npos ? text : text.substr(colon + 1);
    host = colon == std::string_view::npos ? std::string_view() : text.substr(0, colon);
  }
  HostPort result{host.empty() ? "127.0.0.1" : std::string(host), 0};
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), result.port);
  if (port.empty() || error != std::errc() || end != port.data() + port.size())
    return bad("the port is not a number from 0 to 65535");
  return result;
}

Answer<Listening> listen_unix(const UnixOptions& options) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (options.path.empty() || options.path.size() >= sizeof address.sun_path)
    return refuse(ErrorCode::invalid_argument, kUnixField,
                  fmt::format("a socket path has 1 to {} bytes, this one has {}", sizeof address.sun_path - 1,
                              options.path.size()));
  std::memcpy(address.sun_path, options.path.data(), options.path.size());

  Listening made;
  made.address = options.path;
  made.socket = Descriptor(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!made.socket)
    return refuse_os(kUnixField, "cannot make a Unix socket", errno);
  const auto bind = [&] {
    return ::bind(made.socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  };
  bool bound = bind();
  if (!bound && errno == EADDRINUSE) {
    struct stat status {};
    if (::lstat(options.path.c_str(), &status) == 0 && !S_ISSOCK(status.st_mode))
      return refuse(ErrorCode::already_exists, kUnixField,
                    fmt::format("{} exists and is not a socket; it is left alone", options.path));
    if (!nobody_answers(address))
      return refuse(ErrorCode::already_exists, kUnixField,
                    fmt::format("another process is serving on {}", options.path));
    log::info("nbd: replacing the socket {}, which nobody serves", options.path);
    ::unlink(options.path.c_str());
    bound = bind();
  }
  if (!bound)
    return refuse_os(kUnixField, fmt::format("cannot bind to {}", options.path), errno);

  // Until listen() nobody can connect, whatever the mode is by then.
  struct stat status {};
  const bool owned = ::chmod(options.path.c_str(), options.mode) == 0 &&
                     (!options.group || ::chown(options.path.c_str(), uid_t(-1), *options.group) == 0) &&
                     ::lstat(options.path.c_str(), &status) == 0;
  if (!owned || ::listen(made.socket.get(), kBacklog) != 0) {
    const int error = errno;
    ::unlink(options.path.c_str());
    return refuse_os(kUnixField, fmt::format("cannot serve on {}", options.path), error);
  }
  made.device = status.st_dev;
  made.inode = status.st_ino;
  return made;
}

void remove_socket_file(const Listening& listening) {
  struct stat status {};
  if (listening.tcp || ::lstat(listening.address.c_str(), &status) != 0)
    return;
  if (S_ISSOCK(status.st_mode) && status.st_dev == listening.device && status.st_ino == listening.inode)
    ::unlink(listening.address.c_str());
}

Answer<std::vector<Listening>> listen_tcp(const HostPort& where) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(where.host.c_str(), std::to_string(where.port).c_str(), &hints, &found);
  if (error != 0)
    return refuse(ErrorCode::not_found, kTcpField,
                  fmt::format("cannot resolve {}: {}", where.host, ::gai_strerror(error)));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);

  std::vector<Listening> all;
  int last_error = EADDRNOTAVAIL;
  for (const addrinfo* item = found; item; item = item->ai_next) {
    Listening made;
    made.tcp = true;
    made.socket = Descriptor(::socket(item->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const int on = 1;
    if (made.socket) {
      ::setsockopt(made.socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
      // "::" would otherwise take the IPv4 port as well, which its own socket is about to take.
      if (item->ai_family == AF_INET6)
        ::setsockopt(made.socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    }
    if (!made.socket || ::bind(made.socket.get(), item->ai_addr, item->ai_addrlen) != 0 ||
        ::listen(made.socket.get(), kBacklog) != 0) {
      last_error = errno;
      continue;
    }
    sockaddr_storage taken{};
    socklen_t length = sizeof taken;
    ::getsockname(made.socket.get(), reinterpret_cast<sockaddr*>(&taken), &length);
    made.address = numeric(taken, length);
    all.push_back(std::move(made));
  }
  if (all.empty())
    return refuse_os(kTcpField, fmt::format("cannot listen on {} port {}", where.host, where.port),
                     last_error);
  return all;
}

Peer peer_of(int socket) {
  Peer peer;
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (::getpeername(socket, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    peer.description = "a client that has left";
  } else if (address.ss_family == AF_UNIX) {
    ucred credentials{};
    socklen_t size = sizeof credentials;
    if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) == 0) {
      peer.credentials = Peer::Credentials{uint32_t(credentials.pid), credentials.uid, credentials.gid};
      peer.description = fmt::format("unix pid {} uid {}", credentials.pid, credentials.uid);
    } else {
      peer.description = "unix";
    }
  } else {
    peer.description = numeric(address, length);
  }
  return peer;
}

std::string uri_of(const Listening& listening, std::string_view export_name) {
  if (listening.tcp)
    return fmt::format("nbd://{}/{}", listening.address, percent_encode(export_name));
  return fmt::format("nbd+unix:///{}?socket={}", percent_encode(export_name),
                     percent_encode(listening.address));
}

}  // namespace obraz::nbd
