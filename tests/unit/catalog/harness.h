// A catalog over a real store on memory devices: the reactor on a thread of its own, the control thread's
// context run by the test itself, one call or several at a time.
#pragma once

#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/limits.h"
#include "catalog/catalog.h"
#include "catalog/store_access.h"
#include "io/asio_bridge.h"
#include "io/reactor.h"
#include "store/store.h"
#include "support/memory_device.h"

namespace obraz::test {

inline const Caller kRoot{std::make_shared<const Subject>(Subject{"user:root", {"group:root"}, true}), "", 0};

class Harness {
 public:
  Harness() {
    std::promise<void> made;
    thread_ = std::thread([this, &made] {
      auto reactor = Reactor::create();
      OBRAZ_CHECK(reactor);
      reactor_ = std::move(*reactor);
      tasks_.emplace(*reactor_);
      made.set_value();
      reactor_->run();
      tasks_.reset();
      meta_.reset();
      data_.reset();
      reactor_.reset();
    });
    made.get_future().wait();
    const bool formatted = on_reactor([this] { return format(); });
    OBRAZ_CHECK(formatted);
    start();
  }
  ~Harness() {
    stop();
    reactor_->stop();
    thread_.join();
  }

  // Closes the store and opens it again. `crash`: without the order of a clean stop.
  void restart(bool crash = false) {
    stop(crash);
    start();
  }

  // Runs one call to its end.
  template <typename T>
  T run(boost::asio::awaitable<T> call) {
    std::optional<T> result;
    spawn(std::move(call), result);
    while (!result)
      context_.run_one();
    return std::move(*result);
  }
  void run(boost::asio::awaitable<void> call) {
    bool done = false;
    boost::asio::co_spawn(context_, std::move(call), [&done](std::exception_ptr) { done = true; });
    while (!done)
      context_.run_one();
  }
  // Starts all calls before any of them has ended.
  template <typename T>
  std::vector<T> run_together(std::vector<boost::asio::awaitable<T>> calls) {
    std::vector<std::optional<T>> results(calls.size());
    for (size_t i = 0; i < calls.size(); ++i)
      spawn(std::move(calls[i]), results[i]);
    for (auto& result : results) {
      while (!result)
        context_.run_one();
    }
    std::vector<T> values;
    for (auto& result : results)
      values.push_back(std::move(*result));
    return values;
  }

  // What the catalog's clock shows from now on, in nanoseconds; not before it shows the system's.
  void set_time(int64_t nanoseconds) { time_ = nanoseconds; }
  Catalog& catalog() { return *catalog_; }
  StoreAccess& store() { return *access_; }
  boost::asio::io_context& context() { return context_; }
  size_t volumes() { return run(access_->volumes())->size(); }

  // --- how commits are shared; from any thread but the reactor's
  // --------------------------------------------------------------------------------------------------
  // The next commit ends only with release_commits(); what comes meanwhile waits for the one after it.
  void hold_commits() {
    on_reactor([this] { return hold(); });
  }
  void wait_until_a_commit_is_held() {
    on_reactor([this] { return until_held(); });
  }
  // Until the store knows of so many changes, durable or not. False: it never does, as it seems.
  bool wait_until_records(uint64_t records) {
    return on_reactor([this, records] { return until_records(records); });
  }
  void release_commits() {
    on_reactor([this] { return release(); });
  }
  StoreStats store_stats() {
    return on_reactor<StoreStats>([this] { return read_stats(); });
  }

  // --- short forms
  // --------------------------------------------------------------------------------------------------
  Answer<OperationRef> create_disk(const std::string& name, int64_t size, const std::string& image = "") {
    v1::CreateDiskRequest request;
    request.set_name(name);
    request.set_size(size);
    if (!image.empty())
      request.set_image_id(image);
    return run(catalog().create_disk(kRoot, request));
  }
  Answer<OperationRef> delete_disk(const std::string& name) {
    return run(catalog().delete_disk(kRoot, to_delete(name)));
  }
  static v1::DeleteDiskRequest to_delete(const std::string& name) {
    v1::DeleteDiskRequest request;
    request.set_disk_id(name);
    return request;
  }
  Answer<OperationRef> create_image(const std::string& name, const std::string& disk,
                                    const std::string& family = "") {
    v1::CreateImageRequest request;
    request.set_name(name);
    request.set_disk_id(disk);
    request.set_family(family);
    return run(catalog().create_image(kRoot, request));
  }
  Answer<OperationRef> create_snapshot(const std::string& name, const std::string& disk) {
    v1::CreateSnapshotsRequest request;
    request.add_snapshots()->set_disk_id(disk);
    request.mutable_snapshots(0)->set_name(name);
    return run(catalog().create_snapshots(kRoot, request));
  }
  // Bytes that are no zeros.
  void write(const std::string& export_name, uint64_t offset, uint64_t length) {
    const auto found = catalog().find_export(*kRoot.subject, export_name);
    OBRAZ_CHECK(found);
    const Status written = on_reactor<Status>([&] { return write_to(found->volume, offset, length); });
    OBRAZ_CHECK(written);
  }
  std::string disk_names() {
    std::string names;
    const auto disks = catalog().list_disks(kRoot, {});
    for (const auto& disk : disks->disks())
      names += (names.empty() ? "" : " ") + disk.name();
    return names;
  }

 private:
  template <typename T>
  void spawn(boost::asio::awaitable<T> call, std::optional<T>& result) {
    boost::asio::co_spawn(context_, std::move(call), [&result](std::exception_ptr error, T value) {
      OBRAZ_CHECK(!error);
      result.emplace(std::move(value));
    });
  }
  // Runs a task on the reactor and waits for it.
  template <typename T = bool, typename Start>
  T on_reactor(Start start) {
    std::promise<T> promise;
    auto future = promise.get_future();
    reactor_->post([this, &promise, &start] { tasks_->spawn(fulfil(start(), promise)); });
    return future.get();
  }
  template <typename T>
  static Task<void> fulfil(Task<T> task, std::promise<T>& promise) {
    T value = co_await std::move(task);
    promise.set_value(std::move(value));
  }
  Task<Status> write_to(VolumeId id, uint64_t offset, uint64_t length) {
    Result<Volume> volume = store_->open_volume(id);
    OBRAZ_CHECK(volume);
    const std::vector<std::byte> bytes(length, std::byte(1));
    const Status status = co_await volume->write(offset, bytes);
    co_return status;
  }
  // Only `meta` is flushed by a commit that writes no data.
  Task<bool> hold() {
    meta_->hold_flushes();
    co_return true;
  }
  Task<bool> until_held() {
    co_await meta_->wait_until_one_is_held();
    co_return true;
  }
  Task<bool> until_records(uint64_t records) {
    const uint64_t deadline_us = reactor_->now_us() + 30'000'000;  // against hanging only
    while (store_->stats().records < records && reactor_->now_us() < deadline_us)
      co_await yield(*reactor_);
    co_return store_->stats().records >= records;
  }
  Task<bool> release() {
    meta_->release_flushes();
    co_return true;
  }
  Task<StoreStats> read_stats() { co_return store_->stats(); }
  Task<bool> format() {
    constexpr uint64_t kData = 256 * limits::MiB, kJournal = limits::MiB;
    meta_.emplace(*reactor_, Store::meta_bytes_for(kData, kJournal));
    data_.emplace(*reactor_, kData);
    FormatOptions options{Uuid::random(), kJournal};
    Status status = co_await Store::format(*meta_, *data_, std::move(options));
    co_return status.has_value();
  }
  Task<bool> open() {
    StoreOptions options;
    Result<std::unique_ptr<Store>> store = co_await Store::open(*reactor_, *meta_, *data_, options);
    OBRAZ_CHECK(store);
    store_ = std::move(*store);
    bridge_.emplace(*reactor_);
    co_return true;
  }
  Task<bool> close(bool crash) {
    co_await bridge_->close();
    if (crash) {
      co_await store_->abandon();
    } else {
      Status status = co_await store_->close();
      OBRAZ_CHECK(status);
    }
    store_.reset();
    bridge_.reset();
    co_return true;
  }
  void start() {
    const bool opened = on_reactor([this] { return open(); });
    OBRAZ_CHECK(opened);
    access_.emplace(*store_, *bridge_);
    catalog_.emplace(context_.get_executor(), *access_,
                     Clock([this] { return time_ ? time_ : Clock::system_now(); }));
    const auto loaded = run(catalog_->load());
    OBRAZ_CHECK(loaded);
  }
  void stop(bool crash = false) {
    run(catalog_->stop());
    catalog_.reset();
    access_.reset();
    const bool closed = on_reactor([this, crash] { return close(crash); });
    OBRAZ_CHECK(closed);
  }

  std::thread thread_;
  std::unique_ptr<Reactor> reactor_;
  std::optional<Gate> tasks_;
  std::optional<MemoryDevice> meta_, data_;
  std::unique_ptr<Store> store_;
  std::optional<AsioBridge> bridge_;

  boost::asio::io_context context_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{context_.get_executor()};
  std::optional<StoreAccess> access_;
  std::optional<Catalog> catalog_;
  int64_t time_ = 0;
};

}  // namespace obraz::test
