// A whole NBD server inside the test: a reactor thread with a store on memory devices, a control thread, and
// a source of exports that the test fills. Exports: the volumes made by add_disk(), by the names given there.
// Thread: the test's, unless said otherwise.
#pragma once

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <condition_variable>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "client.h"
#include "io/buffer_pool.h"
#include "io/reactor.h"
#include "nbd/server.h"
#include "nbd/sessions.h"
#include "store/store.h"
#include "support/memory_device.h"

namespace obraz::test {

// Answers from a table; safe to ask from any thread.
class FakeSource final : public nbd::ExportSource {
 public:
  void add(nbd::Export exported);
  void alias(const std::string& name, const std::string& of);
  void refuse_attaching(bool refuse);
  unsigned attached(const std::string& name) const;  // sessions now
  // Waits until that many sessions are attached to it. False when that takes unreasonably long.
  bool wait_attached(const std::string& name, unsigned count) const;

  boost::asio::awaitable<Answer<nbd::Export>> find(std::string name, nbd::Peer peer) override;
  boost::asio::awaitable<Answer<std::vector<nbd::ListedExport>>> list(nbd::Peer peer) override;
  boost::asio::awaitable<Answer<void>> attach(nbd::Export exported, nbd::Peer peer) override;
  void detach(const nbd::Export& exported) override;

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::map<std::string, nbd::Export> exports_;
  std::map<std::string, std::string> aliases_;
  std::map<std::string, unsigned> attached_;
  bool refuse_ = false;
};

// Asks until the condition holds; the answer comes from another thread, so each look is an event of its own.
template <typename Condition>
bool eventually(Condition condition) {
  for (unsigned i = 0; i < 1'000'000; ++i)
    if (condition())
      return true;
  return false;
}

struct HarnessOptions {
  size_t arena_bytes = BufferPool::kMaxBuffer;
  nbd::SessionsOptions sessions{};
  unsigned max_sessions = limits::kMaxSessions;
  unsigned handshake_ms = 60'000;
  bool tcp = false;
};

class Harness {
 public:
  explicit Harness(HarnessOptions options = {});
  ~Harness();

  // Runs a task on the reactor's thread and waits for its result.
  template <typename T>
  T run(std::move_only_function<Task<T>()> start) {
    std::promise<T> promise;
    std::future<T> future = promise.get_future();
    reactor_->post([this, &start, &promise] { gate_->spawn(keep<T>(start, promise)); });
    return future.get();
  }

  // Makes an export. Its volume's number comes back.
  VolumeId add_disk(const std::string& name, uint64_t size_bytes = 64 << 20);
  // A frozen copy of the disk as it is now.
  VolumeId add_frozen(const std::string& name, VolumeId of);

  Client connect() { return Client::to_unix(path_); }
  // Connects and reaches transmission.
  Client attach(const std::string& name, unsigned features = Client::kSimple);
  uint16_t tcp_port() const;
  std::vector<nbd::SessionInfo> sessions();
  nbd::Server::Stats stats();
  void commit(Transaction transaction);
  unsigned close_sessions_of(VolumeId volume);
  // Begins to stop the sessions and returns when that has taken hold; wait_stopped() waits for the end.
  void begin_stop();
  void wait_stopped() { stopped_.get(); }
  void stop_server();  // as a daemon does first

  const std::string& path() const { return path_; }
  FakeSource source;

 private:
  template <typename T>
  static Task<void> keep(std::move_only_function<Task<T>()>& start, std::promise<T>& promise) {
    T value = co_await start();
    promise.set_value(std::move(value));
  }
  void run_reactor(HarnessOptions options, std::promise<void>& ready);
  Task<void> open_store(nbd::SessionsOptions options, std::promise<void>& ready);
  Task<void> stop_sessions(std::promise<void> stopped);
  Task<bool> close_store();
  Task<Status> commit_task(Transaction transaction);

  std::string folder_, path_;
  std::thread reactor_thread_, control_thread_;
  boost::asio::io_context control_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{control_.get_executor()};

  // The reactor thread's.
  std::unique_ptr<Reactor> reactor_;
  std::unique_ptr<Gate> gate_;
  std::unique_ptr<BufferPool> pool_;
  std::unique_ptr<MemoryDevice> meta_, data_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<nbd::Sessions> sessions_;

  std::unique_ptr<nbd::Server> server_;
  bool server_stopped_ = false;
  std::future<void> stopped_;
  bool stop_begun_ = false;
};

}  // namespace obraz::test
