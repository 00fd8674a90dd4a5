// What the image tests share: a directory for their files, the programs that make them (qemu-img and qemu-nbd
// must be installed: a test without them fails), disks with known content, and a store on memory behind a
// running reactor.
#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/bytes.h"
#include "image/source.h"
#include "io/reactor.h"
#include "store/store.h"
#include "support/memory_device.h"

namespace obraz::test {

// A directory of its own, removed at the end.
class WorkDirectory {
 public:
  WorkDirectory();
  ~WorkDirectory();
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }
  std::vector<std::string> entries() const;  // sorted

 private:
  std::string path_;
};

// Runs a shell command; fails the test when it fails.
void shell(const std::string& command);

using ByteVector = std::vector<std::byte>;
ByteVector read_file(const std::string& path);
void write_file(const std::string& path, ConstBytes bytes);
// Writes over bytes of a file, in place.
void patch_file(const std::string& path, uint64_t offset, ConstBytes bytes);
void patch_be32(const std::string& path, uint64_t offset, uint32_t value);
void patch_be64(const std::string& path, uint64_t offset, uint64_t value);
void patch_le32(const std::string& path, uint64_t offset, uint32_t value);
void patch_le64(const std::string& path, uint64_t offset, uint64_t value);
uint64_t file_size(const std::string& path);
uint64_t file_space(const std::string& path);  // bytes taken on disk

// A raw file of that size with data at its beginning, in its middle (one lone block among zeros included) and
// at its end, holes elsewhere. Returns its content.
ByteVector make_raw_disk(const std::string& path, uint64_t size_bytes);

// An NBD server of another make (nbdkit) on a Unix socket, for the time of a test. For one client: this make
// may abort when one leaves in the middle of its requests.
class OtherServer {
 public:
  explicit OtherServer(const std::string& arguments);
  ~OtherServer();
  std::string uri() const { return "nbd+unix:///?socket=" + (work_ / "s"); }

 private:
  WorkDirectory work_;
};

// The running child processes of this process.
std::vector<pid_t> children();

// The sentence of a refusal contains `part`.
testing::AssertionResult refused(const Refusal& refusal, ErrorCode code, const std::string& part);

// Tries to open; hands back the refusal, or fails.
testing::AssertionResult open_refused(const ImportSpec& spec, ErrorCode code, const std::string& part);

// A store on memory and the reactor's thread that runs it.
class StoreThread {
 public:
  StoreThread();
  ~StoreThread();

  Reactor& reactor() { return *reactor_; }
  MemoryDevice& data() { return *data_; }
  VolumeId create_volume(uint64_t size_bytes);
  Volume open(VolumeId id);
  ByteVector read(VolumeId id, uint64_t offset, uint64_t length);
  void write(VolumeId id, uint64_t offset, ConstBytes bytes);
  std::vector<Extent> status(VolumeId id);

  // Runs work on the reactor's thread and waits for its task.
  template <typename T>
  T call(std::function<Task<T>(Store&)> work) {
    std::promise<T> promise;
    auto result = promise.get_future();
    reactor_->post([this, &work, &promise] { gate_->spawn(fulfil<T>(*this, work, promise)); });
    return result.get();
  }

 private:
  template <typename T>
  static Task<void> fulfil(StoreThread& self, std::function<Task<T>(Store&)>& work,
                           std::promise<T>& promise) {
    T value = co_await work(*self.store_);
    promise.set_value(std::move(value));
  }
  static Task<void> start(StoreThread& self, std::promise<Status>& started);
  static Task<void> stop(StoreThread& self);

  std::unique_ptr<Reactor> reactor_;
  std::unique_ptr<Gate> gate_;
  std::unique_ptr<MemoryDevice> meta_, data_;
  std::unique_ptr<Store> store_;
  std::thread thread_;
};

}  // namespace obraz::test
