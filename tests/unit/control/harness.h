// A control server on a socket of its own, over a real catalog and store; and raw clients that may misbehave.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <boost/asio/detached.hpp>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <future>
#include <mutex>
#include <thread>

#include "client/connection.h"
#include "control/jobs.h"
#include "control/server.h"
#include "control/services.h"
#include "proto/framing.h"
#include "unit/catalog/harness.h"

namespace obraz::test {

// Transfers that do what the test says. Its calls come from workers.
class FakeTransfer final : public ImageTransfer {
 public:
  class FakeSource final : public Source {
   public:
    explicit FakeSource(uint64_t size) : size_(size) {}
    uint64_t size_bytes() const override { return size_; }
    std::string format() const override { return "raw"; }

   private:
    uint64_t size_;
  };

  uint64_t size = 5 * limits::MiB;
  std::optional<v1::Layout> layout = v1::Layout();  // of every volume; none: it cannot be told
  bool wait_for_stop = false;                       // of copying: neither fail nor finish before
  std::atomic<int> content = 0;                     // of every volume, as its digest has it; -1: unreadable

  std::string asked_sha256() {  // of the last source
    const std::lock_guard lock(mutex_);
    return asked_sha256_;
  }

  Answer<std::unique_ptr<Source>> open(const SourceSpec& source, Progress& progress,
                                       std::stop_token) override {
    if (source.location == "/missing")
      return refuse(ErrorCode::not_found, "source", "there is no file /missing");
    {
      const std::lock_guard lock(mutex_);
      asked_sha256_ = source.sha256;
    }
    if (!source.sha256.empty())
      progress.bytes_total = progress.bytes_done = 3 * size;  // a file that is longer than the disk in it
    return std::make_unique<FakeSource>(size);
  }
  Answer<void> import(Source&, VolumeId, Progress& progress, std::stop_token stop) override {
    return copy(progress, stop);
  }
  Answer<v1::Layout> examine(VolumeId, std::stop_token) override {
    return layout ? Answer<v1::Layout>(*layout) : refuse(ErrorCode::io, "", "nobody can tell");
  }
  Answer<std::string> digest(VolumeId, Pace pace, Progress& progress, std::stop_token stop) override {
    if (pace == Pace::at_once)
      if (const auto copied = copy(progress, stop); !copied)
        return std::unexpected(copied.error());
    const int found = content;
    return found < 0 ? refuse(ErrorCode::io, "", "it cannot be read")
                     : Answer<std::string>("sha256-tree:" + std::to_string(found));
  }
  Answer<void> export_to(VolumeId, const TargetSpec&, Progress& progress, std::stop_token stop) override {
    return copy(progress, stop);
  }

 private:
  std::mutex mutex_;  // several jobs open their sources at once
  std::string asked_sha256_;

  Answer<void> copy(Progress& progress, std::stop_token stop) {
    progress.bytes_total = size;
    progress.bytes_done = size / 2;
    if (wait_for_stop) {
      std::mutex mutex;
      std::condition_variable_any changed;
      std::unique_lock lock(mutex);
      changed.wait(lock, stop, [] { return false; });
      return refuse(ErrorCode::cancelled, "", "the operation was cancelled");
    }
    progress.bytes_done = size;
    return {};
  }
};

class ControlHarness {
 public:
  ControlHarness() {
    directory_ = testing::TempDir() + "/obraz-control-XXXXXX";
    OBRAZ_CHECK(::mkdtemp(directory_.data()));
    jobs.emplace(base.context().get_executor(), base.catalog(), transfer);
    services.emplace(base.catalog(), *jobs, base.store(),
                     DaemonFacts{"1", "/store", path() + ".nbd", "", ""});
    auto listening = ControlServer::listen(base.context().get_executor(), path(), services->methods());
    OBRAZ_CHECK(listening);
    server = std::move(*listening);
    boost::asio::co_spawn(base.context(), server->run(), boost::asio::detached);
    thread_ = std::thread([this] { base.context().run(); });
  }
  ~ControlHarness() {
    stop();
    server.reset();
    services.reset();
    jobs.reset();
    std::filesystem::remove_all(directory_);
  }
  // The order of a clean stop. The harness's own context is run by the caller's thread again afterwards.
  void stop() {
    if (!thread_.joinable())
      return;
    boost::asio::co_spawn(base.context(), stop_all(), [this](std::exception_ptr) { base.context().stop(); });
    thread_.join();
    base.context().restart();
    base.context().poll();
  }
  std::string path() const { return directory_ + "/control.sock"; }
  std::unique_ptr<client::Connection> connect() {
    auto connection = client::Connection::open(path());
    OBRAZ_CHECK(connection);
    return std::move(*connection);
  }

  Harness base;
  FakeTransfer transfer;
  std::optional<Jobs> jobs;
  std::optional<Services> services;
  std::unique_ptr<ControlServer> server;

 private:
  boost::asio::awaitable<void> stop_all() {
    server->close();
    co_await jobs->stop();
    co_await server->drain();
  }
  std::string directory_;
  std::thread thread_;
};

// A bare socket.
class RawClient {
 public:
  explicit RawClient(const std::string& path) : fd_(::socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    OBRAZ_CHECK(::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  }
  ~RawClient() { ::close(fd_); }
  void send(const std::string& bytes) {
    OBRAZ_CHECK(::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL) == ssize_t(bytes.size()));
  }
  void end_sending() { ::shutdown(fd_, SHUT_WR); }
  // Nothing when the server has closed.
  std::optional<v1::Response> receive() {
    FrameHeader header;
    if (!receive_all(reinterpret_cast<char*>(header.data()), header.size()))
      return std::nullopt;
    const auto length = decode_frame_header(header, limits::kMaxControlFrame);
    OBRAZ_CHECK(length);
    std::string body(*length, '\0');
    OBRAZ_CHECK(receive_all(body.data(), body.size()));
    v1::Response response;
    OBRAZ_CHECK(decode_frame_body(body, response));
    return response;
  }
  bool receive_byte() {
    char byte;
    return receive_all(&byte, 1);
  }
  static std::string frame(uint64_t id, const std::string& method,
                           const google::protobuf::MessageLite& message) {
    v1::Request request;
    request.set_id(id);
    request.set_method(method);
    message.SerializeToString(request.mutable_message());
    return *encode_frame(request, limits::kMaxControlFrame);
  }

 private:
  bool receive_all(char* into, size_t size) {
    while (size > 0) {
      const ssize_t n = ::recv(fd_, into, size, 0);
      if (n <= 0)
        return false;
      into += n;
      size -= size_t(n);
    }
    return true;
  }
  int fd_;
};

}  // namespace obraz::test
