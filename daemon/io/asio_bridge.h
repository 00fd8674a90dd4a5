// The visible crossing from the control thread (Boost.Asio coroutines) to the reactor and back.
//
//   Result<Volume> v = co_await bridge.call<Result<Volume>>([&store, id]() -> Task<Result<Volume>> { … });
//
// The function makes its Task on the reactor's thread; the Task's result comes back to the asking executor.
// The function object lives until its Task has ended, so a capturing lambda that *returns* a task of a named
// coroutine is fine; keep coroutine lambdas captureless all the same. Thread: call() from any Asio thread;
// close() from the reactor's.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <functional>
#include <memory>
#include <utility>

#include "io/reactor.h"
#include "io/sync.h"
#include "io/task.h"

namespace obraz {

class AsioBridge {
 public:
  explicit AsioBridge(Reactor& reactor) : reactor_(reactor), gate_(reactor) {}

  // T must be movable. After close() has begun, calls still pending run to their end; later ones get
  // `otherwise`.
  template <typename T>
  boost::asio::awaitable<T> call(std::move_only_function<Task<T>()> start, T otherwise) {
    auto executor = co_await boost::asio::this_coro::executor;
    co_return co_await boost::asio::async_initiate<const boost::asio::use_awaitable_t<>, void(T)>(
        [this, executor](auto handler, std::move_only_function<Task<T>()> start, T otherwise) {
          auto shared = std::make_shared<decltype(handler)>(std::move(handler));
          std::move_only_function<void(T)> done = [executor, shared](T value) mutable {
            boost::asio::post(executor,
                              [shared, value = std::move(value)]() mutable { (*shared)(std::move(value)); });
          };
          reactor_.post([this, start = std::move(start), otherwise = std::move(otherwise),
                         done = std::move(done)]() mutable {
            if (gate_.closed())
              return done(std::move(otherwise));
            gate_.spawn(run<T>(std::move(start), std::move(done)));
          });
        },
        boost::asio::use_awaitable, std::move(start), std::move(otherwise));
  }

  // Refuses new calls and waits for those under way. Reactor's thread.
  Task<void> close() { return gate_.close(); }

 private:
  template <typename T>
  static Task<void> run(std::move_only_function<Task<T>()> start, std::move_only_function<void(T)> done) {
    T value = co_await start();
    done(std::move(value));
  }

  Reactor& reactor_;
  Gate gate_;
};

}  // namespace obraz
