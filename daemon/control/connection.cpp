#include "control/connection.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include "base/limits.h"
#include "base/log.h"
#include "catalog/codes.h"
#include "proto/framing.h"

namespace obraz {
namespace {

constexpr auto kUse = boost::asio::as_tuple(boost::asio::use_awaitable);
using Transferred = std::tuple<boost::system::error_code, size_t>;

v1::Response refusal_response(uint64_t id, const Refusal& refusal) {
  v1::Response response;
  response.set_id(id);
  *response.mutable_error() = to_message(refusal);
  return response;
}

}  // namespace

class ControlServer::Connection::Exchange final : public Responder {
 public:
  Exchange(Connection& connection, uint64_t id) : connection_(connection), id_(id) {}

  boost::asio::awaitable<bool> send(const google::protobuf::MessageLite& message, bool more) override {
    v1::Response response;
    response.set_id(id_);
    response.set_more(more);
    message.SerializeToString(response.mutable_message());
    return connection_.write(std::move(response));
  }
  boost::asio::awaitable<bool> send(Refusal refusal) override {
    return connection_.write(refusal_response(id_, refusal));
  }

 private:
  Connection& connection_;
  const uint64_t id_;
};

ControlServer::Connection::Connection(ControlServer& server, Protocol::socket socket, SubjectRef subject)
    : server_(server),
      socket_(std::move(socket)),
      subject_(std::move(subject)),
      changed_(socket_.get_executor()) {}

void ControlServer::Connection::close() {
  broken_ = true;
  boost::system::error_code ignored;
  socket_.close(ignored);
  changed_.notify_all();
}

boost::asio::awaitable<void> ControlServer::Connection::run() {
  const auto self = shared_from_this();
  for (;;) {
    while (in_flight_ >= limits::kMaxControlInFlight && !broken_)
      co_await changed_.wait();
    if (broken_)
      break;
    Answer<v1::Request> request = co_await read_request();
    if (!request) {
      // Nobody knows where the next frame begins: say so, and leave.
      if (request.error().code != ErrorCode::disconnected) {
        v1::Response response = refusal_response(0, request.error());
        co_await write(std::move(response));
      }
      break;
    }
    ++in_flight_;
    boost::asio::co_spawn(socket_.get_executor(), handle(std::move(*request)), boost::asio::detached);
  }
  while (in_flight_ > 0)
    co_await changed_.wait();
  close();
  server_.connections_.erase(self);
  server_.changed_.notify_all();
}

boost::asio::awaitable<Answer<v1::Request>> ControlServer::Connection::read_request() {
  FrameHeader header;
  Transferred done = co_await boost::asio::async_read(socket_, boost::asio::buffer(header), kUse);
  if (std::get<0>(done))
    co_return refuse(ErrorCode::disconnected, "", "the client left");
  const Result<uint32_t> length = decode_frame_header(header, limits::kMaxControlRequest);
  if (!length)
    co_return refuse(ErrorCode::protocol, "",
                     "the frame's length must be 1 to " + std::to_string(limits::kMaxControlRequest) +
                         " bytes, little-endian; the connection is closed");
  std::string body(*length, '\0');
  done = co_await boost::asio::async_read(socket_, boost::asio::buffer(body), kUse);
  if (std::get<0>(done))
    co_return refuse(ErrorCode::disconnected, "", "the client left");
  v1::Request request;
  if (!decode_frame_body(body, request))
    co_return refuse(ErrorCode::protocol, "", "the frame does not hold a Request; the connection is closed");
  if (request.id() == 0)
    co_return refuse(ErrorCode::protocol, "", "a request's id must not be 0; the connection is closed");
  co_return request;
}

boost::asio::awaitable<void> ControlServer::Connection::handle(v1::Request request) {
  const auto self = shared_from_this();
  Exchange exchange(*this, request.id());
  const MethodTable::Handler* handler = server_.methods_.find(request.method());
  if (server_.closing_) {
    Refusal refusal{ErrorCode::unavailable, "", "the daemon is stopping"};
    co_await exchange.send(std::move(refusal));
  } else if (!handler) {
    Refusal refusal{ErrorCode::invalid_argument, "method",
                    "there is no method " + request.method().substr(0, limits::kMaxNameLength)};
    co_await exchange.send(std::move(refusal));
  } else {
    std::string message = std::move(*request.mutable_message());
    SubjectRef subject = subject_;
    co_await (*handler)(std::move(subject), std::move(message), exchange);
  }
  --in_flight_;
  changed_.notify_all();
  server_.changed_.notify_all();
}

boost::asio::awaitable<bool> ControlServer::Connection::write(v1::Response response) {
  Result<std::string> frame = encode_frame(response, limits::kMaxControlFrame);
  if (!frame) {
    const Refusal refusal{ErrorCode::resource_exhausted, "",
                          "the answer is larger than a frame may be; ask for less"};
    frame = encode_frame(refusal_response(response.id(), refusal), limits::kMaxControlFrame);
  }
  response.Clear();
  while (writing_ && !broken_)
    co_await changed_.wait();
  if (broken_)
    co_return false;
  writing_ = true;
  const Transferred done = co_await boost::asio::async_write(socket_, boost::asio::buffer(*frame), kUse);
  writing_ = false;
  if (std::get<0>(done))
    close();
  changed_.notify_all();
  co_return !std::get<0>(done);
}

}  // namespace obraz
