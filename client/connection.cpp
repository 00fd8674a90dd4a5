#include "client/connection.h"

#include <fmt/core.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/limits.h"
#include "proto/framing.h"

namespace obraz::client {

std::unexpected<v1::Error> failed(v1::Error::Code code, std::string message) {
  v1::Error error;
  error.set_code(code);
  error.set_message(std::move(message));
  return std::unexpected(std::move(error));
}

std::string control_path(const std::string& option) {
  if (!option.empty())
    return option;
  if (const char* variable = std::getenv("OBRAZ_CONTROL"); variable && *variable)
    return variable;
  constexpr const char* kNear = "./obraz-data/control.sock";
  struct stat status {};
  return ::stat(kNear, &status) == 0 ? kNear : "/run/obraz/control.sock";
}

Outcome<std::unique_ptr<Connection>> Connection::open(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    return failed(
        v1::Error::INVALID_ARGUMENT,
        fmt::format("the control socket's path has at most {} bytes: {}", sizeof address.sun_path - 1, path));
  path.copy(address.sun_path, path.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0)
    return failed(v1::Error::INTERNAL, fmt::format("cannot make a socket: {}", std::strerror(errno)));
  std::unique_ptr<Connection> connection(new Connection(fd));
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    const int error = errno;
    return failed(
        error == EACCES ? v1::Error::PERMISSION_DENIED : v1::Error::UNAVAILABLE,
        fmt::format(
            "cannot reach obrazd at {}: {}; is it running? --control or $OBRAZ_CONTROL name its socket", path,
            std::strerror(error)));
  }
  return connection;
}

Connection::~Connection() {
  ::close(fd_);
}

Outcome<void> Connection::send(const google::protobuf::MessageLite& message) {
  const auto frame = encode_frame(message, limits::kMaxControlRequest);
  if (!frame)
    return failed(v1::Error::INVALID_ARGUMENT, "the request is too large");
  size_t sent = 0;
  while (sent < frame->size()) {
    const ssize_t n = ::send(fd_, frame->data() + sent, frame->size() - sent, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR)
      continue;
    // The daemon may have said why it does not listen any more.
    if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
      return {};
    if (n < 0)
      return failed(v1::Error::UNAVAILABLE, fmt::format("cannot send to obrazd: {}", std::strerror(errno)));
    sent += size_t(n);
  }
  return {};
}

Outcome<void> Connection::receive_bytes(char* into, size_t size) {
  while (size > 0) {
    const ssize_t n = ::recv(fd_, into, size, 0);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return failed(v1::Error::UNAVAILABLE,
                    fmt::format("the connection to obrazd broke: {}", std::strerror(errno)));
    if (n == 0)
      return failed(v1::Error::UNAVAILABLE, "obrazd closed the connection before it answered");
    into += n;
    size -= size_t(n);
  }
  return {};
}

Outcome<uint64_t> Connection::begin(const std::string& method, const google::protobuf::MessageLite& request) {
  v1::Request envelope;
  envelope.set_id(++last_id_);
  envelope.set_method(method);
  request.SerializeToString(envelope.mutable_message());
  if (auto sent = send(envelope); !sent)
    return std::unexpected(sent.error());
  return last_id_;
}

Outcome<v1::Response> Connection::next() {
  FrameHeader header;
  if (auto received = receive_bytes(reinterpret_cast<char*>(header.data()), header.size()); !received)
    return std::unexpected(received.error());
  const auto length = decode_frame_header(header, limits::kMaxControlFrame);
  if (!length)
    return failed(v1::Error::INTERNAL, "what answers there is not obrazd");
  std::string body(*length, '\0');
  if (auto received = receive_bytes(body.data(), body.size()); !received)
    return std::unexpected(received.error());
  v1::Response response;
  if (!decode_frame_body(body, response))
    return failed(v1::Error::INTERNAL, "what answers there is not obrazd, or of another version");
  return response;
}

Outcome<void> Connection::call_stream(const std::string& method, const google::protobuf::MessageLite& request,
                                      google::protobuf::MessageLite& response,
                                      const std::function<void()>& each) {
  const auto id = begin(method, request);
  if (!id)
    return std::unexpected(id.error());
  bool more = true;
  while (more) {
    const auto answer = next();
    if (!answer)
      return std::unexpected(answer.error());
    if (answer->id() != 0 && answer->id() != *id)
      return failed(v1::Error::INTERNAL, "obrazd answered a question that was not asked");
    if (answer->has_error())
      return std::unexpected(answer->error());
    if (!response.ParseFromString(answer->message()))
      return failed(v1::Error::INTERNAL, "obrazd's answer does not decode; is it of another version?");
    each();
    more = answer->more();
  }
  return {};
}

Outcome<void> Connection::call(const std::string& method, const google::protobuf::MessageLite& request,
                               google::protobuf::MessageLite& response) {
  return call_stream(method, request, response, [] {});
}

}  // namespace obraz::client
