// MethodTable: from the name of a method, as proto/ has it, to the code that answers it.
//
// Invariants: a handler sends exactly one last response, unless the client is gone; what does not decode as
// the method's request is refused before the handler's own code sees it. Thread: the control thread.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/refusal.h"
#include "catalog/access.h"

namespace google::protobuf {
class Message;
class MessageLite;
}  // namespace google::protobuf

namespace obraz {

// Where the responses to one request go.
class Responder {
 public:
  virtual ~Responder() = default;
  // Returns when the response has been handed to the socket; false when the client is gone.
  virtual boost::asio::awaitable<bool> send(const google::protobuf::MessageLite& message, bool more) = 0;
  virtual boost::asio::awaitable<bool> send(Refusal refusal) = 0;
};

class MethodTable {
 public:
  using Handler =
      std::function<boost::asio::awaitable<void>(SubjectRef subject, std::string message, Responder&)>;

  void add(std::string name, Handler handler) { handlers_.emplace(std::move(name), std::move(handler)); }
  // `call` answers once: awaitable<Answer<Response>>(SubjectRef subject, Request).
  template <typename Request, typename Call>
  void add_unary(std::string name, Call call);
  // `call` sends by itself: awaitable<void>(SubjectRef subject, Request, Responder&).
  template <typename Request, typename Call>
  void add_stream(std::string name, Call call);

  const Handler* find(const std::string& name) const {
    const auto found = handlers_.find(name);
    return found == handlers_.end() ? nullptr : &found->second;
  }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& [name, handler] : handlers_)
      names.push_back(name);
    return names;
  }

 private:
  static Refusal undecodable() {
    return Refusal{ErrorCode::invalid_argument, "",
                   "the request does not decode as the message of its method"};
  }
  template <typename Request, typename Call>
  static boost::asio::awaitable<void> run_unary(const Call& call, SubjectRef subject, std::string message,
                                                Responder& responder) {
    Request request;
    if (!request.ParseFromString(message)) {
      co_await responder.send(undecodable());
      co_return;
    }
    message.clear();
    auto answer = co_await call(std::move(subject), std::move(request));
    if (answer)
      co_await responder.send(*answer, false);
    else
      co_await responder.send(std::move(answer.error()));
  }
  template <typename Request, typename Call>
  static boost::asio::awaitable<void> run_stream(const Call& call, SubjectRef subject, std::string message,
                                                 Responder& responder) {
    Request request;
    if (request.ParseFromString(message))
      co_await call(std::move(subject), std::move(request), responder);
    else
      co_await responder.send(undecodable());
  }

  std::map<std::string, Handler> handlers_;
};

template <typename Request, typename Call>
void MethodTable::add_unary(std::string name, Call call) {
  add(std::move(name),
      [call = std::move(call)](SubjectRef subject, std::string message, Responder& responder) {
        return run_unary<Request>(call, std::move(subject), std::move(message), responder);
      });
}

template <typename Request, typename Call>
void MethodTable::add_stream(std::string name, Call call) {
  add(std::move(name),
      [call = std::move(call)](SubjectRef subject, std::string message, Responder& responder) {
        return run_stream<Request>(call, std::move(subject), std::move(message), responder);
      });
}

}  // namespace obraz
