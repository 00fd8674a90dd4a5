// Connection: a blocking connection to the daemon's control socket: one call at a time with call(), several
// in flight with begin() and next().
//
// Every failure, of the daemon's or of the way to it, is a v1::Error. Thread: one.
#pragma once

#include <expected>
#include <functional>
#include <memory>
#include <string>

#include "obraz/v1/envelope.pb.h"
#include "obraz/v1/error.pb.h"

namespace google::protobuf {
class MessageLite;
}

namespace obraz::client {

template <typename T>
using Outcome = std::expected<T, v1::Error>;

std::unexpected<v1::Error> failed(v1::Error::Code code, std::string message);

// --control, else $OBRAZ_CONTROL, else ./obraz-data/control.sock where it exists, else
// /run/obraz/control.sock.
std::string control_path(const std::string& option);

class Connection {
 public:
  static Outcome<std::unique_ptr<Connection>> open(const std::string& path);
  ~Connection();

  Outcome<void> call(const std::string& method, const google::protobuf::MessageLite& request,
                     google::protobuf::MessageLite& response);
  // Calls `each` after each response has been put into `response`, the last included.
  Outcome<void> call_stream(const std::string& method, const google::protobuf::MessageLite& request,
                            google::protobuf::MessageLite& response, const std::function<void()>& each);

  // Sends a call and answers its id, which is one more than that of the call before. At most
  // limits::kMaxControlInFlight may be under way: the daemon reads no more.
  Outcome<uint64_t> begin(const std::string& method, const google::protobuf::MessageLite& request);
  // Waits for a response to any of them.
  Outcome<v1::Response> next();
  // To wait until one has come.
  int descriptor() const { return fd_; }

 private:
  explicit Connection(int fd) : fd_(fd) {}
  Outcome<void> send(const google::protobuf::MessageLite& message);
  Outcome<void> receive_bytes(char* into, size_t size);

  int fd_;
  uint64_t last_id_ = 0;
};

}  // namespace obraz::client
