// obrazd: the daemon. The main thread is the reactor, which runs the store and NBD's transmission; a second
// thread runs everything slow. This file chooses the real devices, wires the parts together, and ends them in
// order.
//
// Start: lock and open the store (recovery), load the resources, listen, say `ready`. Stop (SIGTERM, SIGINT):
// accept nothing new, cancel imports and exports, let NBD sessions finish what is in flight, close the store
// with a checkpoint. Exit status: 0 after a clean stop, 1 when something refused to start or to close, 2 for
// a wrong command line.
#include <fmt/core.h>
#include <google/protobuf/stubs/logging.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <csignal>
#include <filesystem>
#include <functional>
#include <optional>
#include <thread>

#include "base/log.h"
#include "base/size.h"
#include "catalog/catalog.h"
#include "catalog/store_access.h"
#include "config.h"
#include "control/jobs.h"
#include "control/server.h"
#include "control/services.h"
#include "io/asio_bridge.h"
#include "io/buffer_pool.h"
#include "nbd/server.h"
#include "store/store.h"
#include "store_directory.h"
#include "wiring.h"

namespace obraz {
namespace {

template <typename T>
using awaitable = boost::asio::awaitable<T>;

// The control thread's part, made when the store is open. Members are destroyed in reverse, after both
// threads have stopped using them.
class ControlPlane {
 public:
  ControlPlane(const Config& config, Reactor& reactor, BufferPool& pool, Store& store)
      : config_(config),
        reactor_(reactor),
        pool_(pool),
        bridge_(reactor),
        store_(store, bridge_),
        catalog_(context_.get_executor(), store_),
        transfer_(reactor, store, config_.digest_rate),
        jobs_(context_.get_executor(), catalog_, transfer_, {.digest_images = config_.digest_rate > 0}),
        exports_(catalog_),
        sessions_(reactor, pool, store),
        work_(boost::asio::make_work_guard(context_)),
        signals_(context_, SIGTERM, SIGINT) {}

  // The control thread, from its beginning to its end; `ended` is called last.
  void run(std::move_only_function<void(bool good)> ended) {
    boost::asio::co_spawn(context_, live(), boost::asio::detached);
    context_.run();
    ended(good_);
  }
  // On the reactor, when the control thread has ended.
  Task<void> close_bridge() { return bridge_.close(); }

 private:
  awaitable<void> live();
  awaitable<Answer<void>> start();
  awaitable<void> stop();
  Answer<void> listen();
  awaitable<DaemonLoad> load();
  awaitable<void> disconnect(VolumeId volume);
  awaitable<Traffic> traffic(VolumeId volume);

  const Config& config_;
  Reactor& reactor_;
  BufferPool& pool_;  // the reactor's
  boost::asio::io_context context_{1};
  AsioBridge bridge_;
  StoreAccess store_;
  std::unique_ptr<AuditLog> audit_;
  Catalog catalog_;
  StoreTransfer transfer_;
  Jobs jobs_;
  CatalogExports exports_;
  nbd::Sessions sessions_;  // the reactor's
  std::optional<Services> services_;
  std::unique_ptr<ControlServer> control_;
  std::optional<nbd::Server> nbd_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  boost::asio::signal_set signals_;
  bool good_ = true;
};

awaitable<void> ControlPlane::live() {
  Answer<void> started = co_await start();
  if (started) {
    fmt::print("ready\n");
    std::fflush(stdout);
    ::sd_notify(0, "READY=1");
    log::info("serving {}; control {}, NBD {}", config_.store_path, config_.control_path,
              config_.nbd_unix_path);
    co_await signals_.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
    log::info("stopping");
    ::sd_notify(0, "STOPPING=1");
  } else {
    log::error("{}", started.error().message);
    good_ = false;
  }
  co_await stop();
  work_.reset();
}

awaitable<Answer<void>> ControlPlane::start() {
  auto audit = AuditLog::open(config_.audit_log);
  if (!audit)
    co_return std::unexpected(audit.error());
  audit_ = std::move(*audit);
  catalog_.operations().on_finish(
      [this](const OperationState& operation) { audit_->operation_ended(operation); });
  catalog_.on_attach([this](const Entry& entry, const Attachment& attachment, bool comes) {
    audit_->attached(entry, attachment, comes);
  });
  catalog_.on_disconnect([this](VolumeId volume) { return disconnect(volume); });
  catalog_.on_traffic([this](VolumeId volume) { return traffic(volume); });
  Answer<void> loaded = co_await catalog_.load();
  if (!loaded)
    co_return loaded;
  co_return listen();
}

Answer<void> ControlPlane::listen() {
  nbd::ServerOptions options;
  // Whoever may reach the folder may connect; what each may attach is decided by who it is.
  options.unix_socket = nbd::UnixOptions{config_.nbd_unix_path, 0666, std::nullopt};
  options.max_sessions = config_.max_sessions;
  for (const std::string& text : config_.nbd_tcp) {
    const auto where = nbd::parse_host_port(text);
    if (!where)
      return std::unexpected(where.error());
    options.tcp.push_back(*where);
  }
  nbd_.emplace(context_.get_executor(), reactor_, sessions_, exports_, std::move(options));
  if (const auto listening = nbd_->listen(); !listening)
    return listening;

  DaemonFacts facts;
  facts.version = OBRAZ_VERSION;
  facts.store_path = config_.store_path;
  facts.features = reactor_.features();
  for (const nbd::Listening& listening : nbd_->listening()) {
    if (!listening.tcp)
      facts.nbd_unix_path = listening.address;
    else if (facts.nbd_tcp_address.empty())
      facts.nbd_tcp_address = listening.address;
  }
  jobs_.examine_images();
  services_.emplace(
      catalog_, jobs_, store_, std::move(facts), [this] { return load(); }, audit_.get());
  auto control = ControlServer::listen(context_.get_executor(), config_.control_path, services_->methods());
  if (!control)
    return std::unexpected(control.error());
  control_ = std::move(*control);
  boost::asio::co_spawn(context_, control_->run(), boost::asio::detached);
  return {};
}

// The reactor's part of it.
Task<DaemonLoad> measure(const nbd::Sessions& sessions, const BufferPool& pool) {
  DaemonLoad load;
  load.nbd_requests = sessions.in_flight();
  load.buffer_total_bytes = pool.arena().size();
  load.buffer_used_bytes = pool.arena().size() - pool.free_bytes();
  co_return load;
}

awaitable<DaemonLoad> ControlPlane::load() {
  std::move_only_function<Task<DaemonLoad>()> ask = [this] { return measure(sessions_, pool_); };
  DaemonLoad load = co_await bridge_.call<DaemonLoad>(std::move(ask), DaemonLoad());
  load.nbd_clients = nbd_->stats().clients;
  load.nbd_handshakes = nbd_->stats().handshakes;
  load.control_connections = control_->connections();
  std::error_code error;
  for (std::filesystem::directory_iterator at("/proc/self/fd", error), end; !error && at != end;
       at.increment(error))
    ++load.open_descriptors;
  load.open_descriptors -= load.open_descriptors > 0 ? 1 : 0;  // the one that was open to count
  co_return load;
}

awaitable<void> ControlPlane::disconnect(VolumeId volume) {
  std::move_only_function<Task<unsigned>()> close = [this, volume] {
    return sessions_.close_sessions_of(volume);
  };
  co_await bridge_.call<unsigned>(std::move(close), 0u);
}

awaitable<Traffic> ControlPlane::traffic(VolumeId volume) {
  std::move_only_function<Task<std::vector<nbd::SessionInfo>>()> list = [this, volume] {
    return sessions_.list(volume);
  };
  const auto sessions =
      co_await bridge_.call<std::vector<nbd::SessionInfo>>(std::move(list), std::vector<nbd::SessionInfo>());
  co_return CatalogExports::traffic_of(sessions);
}

Task<bool> end_sessions(nbd::Sessions& sessions) {
  co_await sessions.stop();
  co_return true;
}

// Nothing here waits for a client: each step has its deadline, or ends what it waits for.
awaitable<void> ControlPlane::stop() {
  if (control_)
    control_->close();
  co_await jobs_.stop();
  if (nbd_)
    co_await nbd_->stop();
  std::move_only_function<Task<bool>()> stop_sessions = [this] { return end_sessions(sessions_); };
  co_await bridge_.call<bool>(std::move(stop_sessions), false);
  if (control_)
    co_await control_->drain();
  co_await catalog_.stop();
}

// --- the main thread
// --------------------------------------------------------------------------------------------------
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max)
    return;
  limit.rlim_cur = limit.rlim_max;
  if (::setrlimit(RLIMIT_NOFILE, &limit) != 0)
    log::warning("cannot raise the limit of open files to {}", limit.rlim_max);
}

// The control plane waits for signals, and with it their handlers would go: a second SIGTERM in the last
// steps would then kill a daemon that is ending well. These are never given back.
void hold_signals() {
  [[maybe_unused]] static auto* const held =
      new boost::asio::signal_set(*new boost::asio::io_context, SIGTERM, SIGINT);
}

class Daemon {
 public:
  Daemon(const Config& config, Reactor& reactor)
      : config_(config), reactor_(reactor), pool_(reactor, config.buffer_memory), tasks_(reactor) {
    reactor.register_arena(pool_.arena());
  }

  bool run() {
    reactor_.post([this] { tasks_.spawn(start()); });
    reactor_.run();
    if (control_thread_.joinable())
      control_thread_.join();
    control_.reset();
    store_.reset();
    return good_;
  }

 private:
  Task<void> start();
  Task<void> finish();
  Task<Answer<void>> open_store();

  const Config& config_;
  Reactor& reactor_;
  BufferPool pool_;
  StoreDevices devices_;
  std::unique_ptr<Store> store_;
  std::optional<ControlPlane> control_;
  std::thread control_thread_;
  bool good_ = true;
  Gate tasks_;
};

Task<Answer<void>> Daemon::open_store() {
  const NewStore otherwise{config_.data_size, config_.journal_size};
  Answer<StoreDevices> devices = co_await open_store_directory(reactor_, config_.store_path, otherwise);
  if (!devices)
    co_return std::unexpected(devices.error());
  devices_ = std::move(*devices);
  StoreOptions options;
  options.node_cache_bytes = config_.node_cache_size;
  options.clone_cache_bytes = config_.clone_cache_size;
  options.sum_bytes_per_s = config_.checksum_rate;
  options.scrub_bytes_per_s = config_.scrub_rate;
  options.scrub_interval_us = uint64_t(config_.scrub_days) * 86'400 * 1'000'000;
  Result<std::unique_ptr<Store>> store =
      co_await Store::open(reactor_, *devices_.meta, *devices_.data, options);
  if (!store) {
    const bool foreign = store.error().code == ErrorCode::not_found;
    co_return refuse(
        store.error().code, "store",
        foreign ? fmt::format("{} is not a store: {}", config_.store_path, describe(store.error()))
                : fmt::format("cannot open the store {}: {}", config_.store_path, describe(store.error())));
  }
  store_ = std::move(*store);
  if (config_.data_size_given && devices_.data->size_bytes() != round_up(config_.data_size, kClusterSize))
    log::warning("the store has {} of data already; --data-size is for new ones",
                 format_size(devices_.data->size_bytes()));
  co_return Answer<void>();
}

Task<void> Daemon::start() {
  Answer<void> opened = co_await open_store();
  if (!opened) {
    log::error("{}", opened.error().message);
    good_ = false;
    reactor_.stop();
    co_return;
  }
  control_.emplace(config_, reactor_, pool_, *store_);
  hold_signals();
  control_thread_ = std::thread([this] {
    control_->run([this](bool good) {
      reactor_.post([this, good] {
        good_ = good;
        tasks_.spawn(finish());
      });
    });
  });
}

Task<void> Daemon::finish() {
  co_await control_->close_bridge();
  Status closed = co_await store_->close();
  if (!closed) {
    log::error("closing the store: {}", describe(closed.error()));
    good_ = false;
  }
  reactor_.stop();
}

// What can be known to be wrong before anything is opened or made.
Answer<void> check_addresses(const Config& config) {
  for (const std::string* path : {&config.control_path, &config.nbd_unix_path}) {
    if (path->size() >= sizeof(sockaddr_un::sun_path))
      return refuse(
          ErrorCode::invalid_argument, "",
          fmt::format("the path of a socket has at most {} bytes: {}; name shorter ones with --control and "
                      "--nbd-unix",
                      sizeof(sockaddr_un::sun_path) - 1, *path));
  }
  for (const std::string& text : config.nbd_tcp) {
    if (const auto where = nbd::parse_host_port(text); !where)
      return std::unexpected(where.error());
  }
  return {};
}

// BufferPool takes it for granted.
bool has_room_for(uint64_t bytes) {
  void* memory =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED)
    return false;
  ::munmap(memory, bytes);
  return true;
}

int run(int argc, char** argv) {
  const auto config = parse_config(argc, argv);
  if (!config)
    return config.error();
  if (const auto good = check_addresses(*config); !good) {
    log::error("{}", good.error().message);
    return 2;
  }
  if (config->debug)
    log::set_level(log::Level::debug);
  std::signal(SIGPIPE, SIG_IGN);
  // What a peer sends wrong is answered to the peer; the library would write a line about each.
  google::protobuf::SetLogHandler(nullptr);
  raise_descriptor_limit();
  const auto reactor = Reactor::create({.spin_us = config->spin_us});
  if (!reactor) {
    log::error("cannot start: {}; the kernel must have io_uring (Linux 6.1 or later)",
               describe(reactor.error()));
    return 1;
  }
  if (!has_room_for(round_up(config->buffer_memory, BufferPool::kMaxBuffer) + BufferPool::kArenaAlignment)) {
    log::error("cannot start: there is no memory for --buffer-memory {}", exact_size(config->buffer_memory));
    return 1;
  }
  const bool good = Daemon(*config, **reactor).run();
  if (good)
    log::info("stopped");
  return good ? 0 : 1;
}

}  // namespace
}  // namespace obraz

int main(int argc, char** argv) {
  return obraz::run(argc, argv);
}
