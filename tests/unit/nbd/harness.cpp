#include "harness.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_future.hpp>
#include <chrono>
#include <cstdlib>
#include <filesystem>

namespace obraz::test {
namespace {

constexpr uint64_t kDataBytes = 1 << 30, kJournalBytes = 4 << 20;
constexpr auto kDeadline = std::chrono::seconds(30);

}  // namespace

// --- FakeSource -----------------------------------------------------------------------------------------

void FakeSource::add(nbd::Export exported) {
  std::lock_guard lock(mutex_);
  exported.token = "token of " + exported.name;
  exports_[exported.name] = exported;
}

void FakeSource::alias(const std::string& name, const std::string& of) {
  std::lock_guard lock(mutex_);
  aliases_[name] = of;
}

void FakeSource::refuse_attaching(bool refuse) {
  std::lock_guard lock(mutex_);
  refuse_ = refuse;
}

unsigned FakeSource::attached(const std::string& name) const {
  std::lock_guard lock(mutex_);
  const auto found = attached_.find(name);
  return found == attached_.end() ? 0 : found->second;
}

bool FakeSource::wait_attached(const std::string& name, unsigned count) const {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, kDeadline, [&] {
    const auto found = attached_.find(name);
    return (found == attached_.end() ? 0 : found->second) == count;
  });
}

boost::asio::awaitable<Answer<nbd::Export>> FakeSource::find(std::string name, nbd::Peer) {
  std::lock_guard lock(mutex_);
  if (const auto alias = aliases_.find(name); alias != aliases_.end())
    name = alias->second;
  const auto found = exports_.find(name);
  if (name == "forbidden")
    co_return refuse(ErrorCode::permission_denied, "", "not yours");
  if (found == exports_.end())
    co_return refuse(ErrorCode::not_found, "", "there is no export " + name);
  co_return found->second;
}

boost::asio::awaitable<Answer<std::vector<nbd::ListedExport>>> FakeSource::list(nbd::Peer) {
  std::lock_guard lock(mutex_);
  std::vector<nbd::ListedExport> all;
  for (const auto& [name, exported] : exports_)
    all.push_back({name, exported.description});
  co_return all;
}

boost::asio::awaitable<Answer<void>> FakeSource::attach(nbd::Export exported, nbd::Peer) {
  std::lock_guard lock(mutex_);
  EXPECT_EQ(exported.token, "token of " + exported.name);
  if (refuse_)
    co_return refuse(ErrorCode::unavailable, "", "it is being deleted");
  ++attached_[exported.name];
  changed_.notify_all();
  co_return Answer<void>();
}

void FakeSource::detach(const nbd::Export& exported) {
  std::lock_guard lock(mutex_);
  EXPECT_EQ(exported.token, "token of " + exported.name);
  EXPECT_GT(attached_[exported.name], 0u);
  --attached_[exported.name];
  changed_.notify_all();
}

// --- Harness --------------------------------------------------------------------------------------------

Harness::Harness(HarnessOptions options) {
  std::string folder = (std::filesystem::temp_directory_path() / "nbd-test.XXXXXX").string();
  EXPECT_NE(::mkdtemp(folder.data()), nullptr);
  folder_ = folder;
  path_ = folder + "/nbd.sock";
  std::promise<void> ready;
  reactor_thread_ = std::thread([this, options, &ready] { run_reactor(options, ready); });
  ready.get_future().get();

  nbd::ServerOptions server;
  server.unix_socket = nbd::UnixOptions{.path = path_, .mode = 0600, .group = {}};
  if (options.tcp)
    server.tcp.push_back({"127.0.0.1", 0});
  server.max_sessions = options.max_sessions;
  server.handshake_ms = options.handshake_ms;
  server_ = std::make_unique<nbd::Server>(control_.get_executor(), *reactor_, *sessions_, source, server);
  const auto listening = server_->listen();
  EXPECT_TRUE(listening) << listening.error().message;
  control_thread_ = std::thread([this] { control_.run(); });
}

void Harness::run_reactor(HarnessOptions options, std::promise<void>& ready) {
  auto reactor = Reactor::create();
  if (!reactor)
    ADD_FAILURE() << describe(reactor.error());
  reactor_ = std::move(*reactor);
  gate_ = std::make_unique<Gate>(*reactor_);
  pool_ = std::make_unique<BufferPool>(*reactor_, options.arena_bytes);
  data_ = std::make_unique<MemoryDevice>(*reactor_, kDataBytes);
  meta_ = std::make_unique<MemoryDevice>(*reactor_, Store::meta_bytes_for(kDataBytes, kJournalBytes));
  gate_->spawn(open_store(options.sessions, ready));
  reactor_->run();
  sessions_.reset();
  store_.reset();
  meta_.reset();
  data_.reset();
  pool_.reset();
  gate_.reset();
  reactor_.reset();
}

Task<void> Harness::open_store(nbd::SessionsOptions options, std::promise<void>& ready) {
  const Status formatted =
      co_await Store::format(*meta_, *data_, {.uuid = Uuid::random(), .journal_bytes = kJournalBytes});
  EXPECT_TRUE(formatted) << describe(formatted.error());
  auto store = co_await Store::open(*reactor_, *meta_, *data_, {});
  if (!store)
    ADD_FAILURE() << describe(store.error());
  store_ = std::move(*store);
  sessions_ = std::make_unique<nbd::Sessions>(*reactor_, *pool_, *store_, options);
  ready.set_value();
}

Harness::~Harness() {
  stop_server();
  begin_stop();
  if (stopped_.valid())
    stopped_.get();
  EXPECT_TRUE(run<bool>([this] { return close_store(); }));
  reactor_->stop();
  reactor_thread_.join();
  work_.reset();
  control_thread_.join();
  server_.reset();
  std::filesystem::remove_all(folder_);
}

Task<bool> Harness::close_store() {
  const Status closed = co_await store_->close();
  co_return closed.has_value();
}

Task<void> Harness::stop_sessions(std::promise<void> stopped) {
  co_await sessions_->stop();
  stopped.set_value();
}

void Harness::begin_stop() {
  if (std::exchange(stop_begun_, true))
    return;
  std::promise<void> begun, stopped;
  stopped_ = stopped.get_future();
  reactor_->post([this, &begun, stopped = std::move(stopped)]() mutable {
    gate_->spawn(stop_sessions(std::move(stopped)));
    begun.set_value();
  });
  begun.get_future().get();
}

void Harness::stop_server() {
  if (std::exchange(server_stopped_, true))
    return;
  boost::asio::co_spawn(control_, server_->stop(), boost::asio::use_future).get();
}

Task<Status> Harness::commit_task(Transaction transaction) {
  const Status status = co_await store_->commit(std::move(transaction));
  co_return status;
}

void Harness::commit(Transaction transaction) {
  const Status status =
      run<Status>([this, &transaction]() -> Task<Status> { return commit_task(std::move(transaction)); });
  EXPECT_TRUE(status) << describe(status.error());
}

VolumeId Harness::add_disk(const std::string& name, uint64_t size_bytes) {
  std::promise<VolumeId> promise;
  reactor_->post([this, &promise] { promise.set_value(store_->new_volume_id()); });
  const VolumeId id = promise.get_future().get();
  commit({CreateVolume{id, size_bytes}});
  source.add({.volume = id, .size_bytes = size_bytes, .name = name, .description = "disk " + name});
  return id;
}

VolumeId Harness::add_frozen(const std::string& name, VolumeId of) {
  std::promise<std::pair<VolumeId, uint64_t>> promise;
  reactor_->post([this, &promise, of] {
    promise.set_value({store_->new_volume_id(), store_->open_volume(of)->size_bytes()});
  });
  const auto [id, size_bytes] = promise.get_future().get();
  commit({CloneVolume{id, of, VolumeKind::frozen, size_bytes}});
  source.add({.volume = id, .read_only = true, .size_bytes = size_bytes, .name = name});
  return id;
}

Client Harness::attach(const std::string& name, unsigned features) {
  Client client = connect();
  EXPECT_TRUE(client.attach(name, features));
  return client;
}

uint16_t Harness::tcp_port() const {
  const std::string& address = server_->listening().back().address;
  return uint16_t(std::stoi(address.substr(address.rfind(':') + 1)));
}

std::vector<nbd::SessionInfo> Harness::sessions() {
  return run<std::vector<nbd::SessionInfo>>([this] { return sessions_->list(); });
}

unsigned Harness::close_sessions_of(VolumeId volume) {
  return run<unsigned>([this, volume] { return sessions_->close_sessions_of(volume); });
}

nbd::Server::Stats Harness::stats() {
  std::promise<nbd::Server::Stats> promise;
  boost::asio::post(control_, [this, &promise] { promise.set_value(server_->stats()); });
  return promise.get_future().get();
}

}  // namespace obraz::test
