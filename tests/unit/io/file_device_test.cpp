#include "io/file_device.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <thread>

#include "io/buffer_pool.h"
#include "io/sync.h"

namespace obraz {
namespace {

constexpr uint64_t kSize = 8u << 20;

Task<void> then_stop(Reactor& reactor, Task<void> task) {
  co_await std::move(task);
  reactor.stop();
}

class FileDeviceTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "obraz-file-device-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory = pattern;
    path = (directory / "data").string();
    auto made = Reactor::create();
    ASSERT_TRUE(made) << describe(made.error());
    reactor = std::move(*made);
    pool = std::make_unique<BufferPool>(*reactor, 1);
  }
  void TearDown() override {
    pool.reset();
    std::filesystem::remove_all(directory);
  }
  void run(Task<void> task) {
    Gate gate(*reactor);
    gate.spawn(then_stop(*reactor, std::move(task)));
    reactor->run();
    ASSERT_EQ(gate.count(), 0u);
  }
  FileDevice::Options creating() const {
    return {.create = true, .create_size_bytes = kSize, .direct = GetParam()};
  }
  FileDevice::Options opening() const { return {.direct = GetParam()}; }
  std::unique_ptr<FileDevice> make() {
    auto made = FileDevice::open(*reactor, path, creating());
    EXPECT_TRUE(made) << describe(made.error());
    return std::move(*made);
  }

  std::filesystem::path directory;
  std::string path;
  std::unique_ptr<Reactor> reactor;
  std::unique_ptr<BufferPool> pool;
};

INSTANTIATE_TEST_SUITE_P(Cache, FileDeviceTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "direct" : "cached"; });

Task<void> round_trip(FileDevice& device, BufferPool& pool) {
  Buffer out = pool.try_acquire(1 << 20), in = pool.try_acquire(1 << 20);
  for (size_t i = 0; i < out.size(); ++i)
    out.data()[i] = std::byte(i >> 8);
  Status status = co_await device.write(4096, out.bytes());
  EXPECT_TRUE(status) << describe(status.error());
  status = co_await device.flush();
  EXPECT_TRUE(status) << describe(status.error());
  status = co_await device.read(4096, in.bytes());
  EXPECT_TRUE(status) << describe(status.error());
  EXPECT_EQ(std::memcmp(in.data(), out.data(), in.size()), 0);
  status = co_await device.read(kSize - in.size(), in.bytes());  // never written
  EXPECT_TRUE(status) << describe(status.error());
  EXPECT_TRUE(is_zero(in.bytes()));
}

TEST_P(FileDeviceTest, WhatWasWrittenIsRead) {
  auto device = make();
  EXPECT_EQ(device->size_bytes(), kSize);
  if (!GetParam()) {
    EXPECT_FALSE(device->is_direct());
  }
  run(round_trip(*device, *pool));
}

Task<void> large(FileDevice& device, BufferPool& pool) {  // more than one system call carries
  Buffer out = pool.try_acquire(BufferPool::kMaxBuffer / 2);
  std::memset(out.data(), 0x77, out.size());
  Status status = co_await device.write(0, out.bytes());
  EXPECT_TRUE(status) << describe(status.error());
  std::memset(out.data(), 0, out.size());
  status = co_await device.read(0, out.bytes());
  EXPECT_TRUE(status) << describe(status.error());
  EXPECT_EQ(out.data()[0], std::byte{0x77});
  EXPECT_EQ(std::memcmp(out.data(), out.data() + 1, out.size() - 1), 0);
}

TEST_P(FileDeviceTest, TransfersOfThirtyTwoMebibytes) {
  auto options = creating();
  options.create_size_bytes = 32u << 20;
  auto made = FileDevice::open(*reactor, path, options);
  ASSERT_TRUE(made);
  run(large(**made, *pool));
}

Task<void> give_up(FileDevice& device, BufferPool& pool) {
  Buffer buffer = pool.try_acquire(65536);
  std::memset(buffer.data(), 0x11, buffer.size());
  Status status = co_await device.allocate(0, 1 << 20);
  EXPECT_TRUE(status) << describe(status.error());
  status = co_await device.write(65536, buffer.bytes());
  EXPECT_TRUE(status) << describe(status.error());
  status = co_await device.write(131072, buffer.bytes());
  EXPECT_TRUE(status) << describe(status.error());
  status = co_await device.allocate(0, 1 << 20);  // bytes written there stay
  EXPECT_TRUE(status) << describe(status.error());
  status = co_await device.discard(65536, 65536);
  EXPECT_TRUE(status) << describe(status.error());
  status = co_await device.read(131072, buffer.bytes());
  EXPECT_TRUE(status) << describe(status.error());
  EXPECT_EQ(buffer.data()[0], std::byte{0x11});
  EXPECT_EQ(buffer.data()[65535], std::byte{0x11});
}

TEST_P(FileDeviceTest, AllocateKeepsBytesDiscardTouchesOnlyItsRange) {
  auto device = make();
  run(give_up(*device, *pool));
  EXPECT_EQ(std::filesystem::file_size(path), kSize);  // neither changes the size
}

TEST_P(FileDeviceTest, CreateRefusesAnExistingFile) {
  make();
  const auto again = FileDevice::open(*reactor, path, creating());
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::already_exists);
}

TEST_P(FileDeviceTest, AMissingFileIsNotFound) {
  const auto missing = FileDevice::open(*reactor, path, opening());
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::not_found);
}

TEST_P(FileDeviceTest, OnlyFilesAndBlockDevicesServe) {
  const auto folder = FileDevice::open(*reactor, directory.string(), opening());
  EXPECT_FALSE(folder);
  const auto null = FileDevice::open(*reactor, "/dev/null", opening());
  ASSERT_FALSE(null);
  EXPECT_EQ(null.error().code, ErrorCode::invalid_argument);
}

TEST_P(FileDeviceTest, ASecondOpenIsRefusedUntilTheFirstIsClosed) {
  auto first = make();
  const auto second = FileDevice::open(*reactor, path, opening());
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::failed_precondition);
  const auto reader = FileDevice::open(*reactor, path, {.read_only = true, .direct = GetParam()});
  ASSERT_FALSE(reader);
  EXPECT_EQ(reader.error().code, ErrorCode::failed_precondition);
  first.reset();
  EXPECT_TRUE(FileDevice::open(*reactor, path, opening()));
}

TEST_P(FileDeviceTest, APatientOpenWaitsForTheLock) {
  auto first = make();
  auto patient = opening();
  patient.lock_patience_ms = 20;
  EXPECT_FALSE(FileDevice::open(*reactor, path, patient));
  patient.lock_patience_ms = 60'000;
  const int holder = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  first.reset();
  ASSERT_EQ(::flock(holder, LOCK_EX), 0);
  std::thread release([holder] { ::close(holder); });  // before, during or after the first attempt
  EXPECT_TRUE(FileDevice::open(*reactor, path, patient));
  release.join();
}

TEST_P(FileDeviceTest, ReadersShareAndKeepWritersOut) {
  make();
  const auto a = FileDevice::open(*reactor, path, {.read_only = true, .direct = GetParam()});
  const auto b = FileDevice::open(*reactor, path, {.read_only = true, .direct = GetParam()});
  EXPECT_TRUE(a && b);
  const auto writer = FileDevice::open(*reactor, path, opening());
  ASSERT_FALSE(writer);
  EXPECT_EQ(writer.error().code, ErrorCode::failed_precondition);
}

// The lock belongs to the open file: another process sees it, and it goes with the one that holds it.
TEST_P(FileDeviceTest, TheLockHoldsAgainstOtherProcessesAndDiesWithItsOwner) {
  make();
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    auto own = Reactor::create();
    auto held = own ? FileDevice::open(**own, path, opening()) : fail(ErrorCode::io, "");
    const char answer = held ? 'y' : 'n';
    if (::write(ready[1], &answer, 1) != 1)
      ::_exit(1);
    ::pause();
    ::_exit(0);
  }
  char answer = 0;
  ASSERT_EQ(::read(ready[0], &answer, 1), 1);
  EXPECT_EQ(answer, 'y');
  const auto refused = FileDevice::open(*reactor, path, opening());
  EXPECT_FALSE(refused);
  ::kill(child, SIGKILL);
  int status;
  ::waitpid(child, &status, 0);
  // The kernel drops a killed process's ring, and the file with it, from a work queue, after the process is
  // reaped; a daemon that starts waits for that.
  FileDevice::Options patient = opening();
  patient.lock_patience_ms = 30'000;
  EXPECT_TRUE(FileDevice::open(*reactor, path, patient));
  ::close(ready[0]);
  ::close(ready[1]);
}

Task<void> shortened(FileDevice& device, BufferPool& pool, const std::string& path) {
  std::filesystem::resize_file(path, kSize / 2);
  Buffer buffer = pool.try_acquire(65536);
  const Status status = co_await device.read(kSize - 65536, buffer.bytes());
  EXPECT_FALSE(status);
  if (!status) {
    EXPECT_EQ(status.error().code, ErrorCode::io);
  }
}

TEST_P(FileDeviceTest, AFileCutShortBehindOurBackIsAnError) {
  auto device = make();
  run(shortened(*device, *pool, path));
}

Task<void> write_one(FileDevice& device, uint64_t block, Bytes bytes, int& done) {
  std::memset(bytes.data(), int(block + 1), bytes.size());
  const Status status = co_await device.write(block * kBlockSize, bytes);
  EXPECT_TRUE(status);
  ++done;
}
Task<void> many(Reactor& reactor, FileDevice& device, BufferPool& pool, int& done) {
  Buffer buffer = pool.try_acquire(200 * kBlockSize), check = pool.try_acquire(200 * kBlockSize);
  Gate gate(reactor);
  for (uint64_t i = 0; i < 200; ++i)
    gate.spawn(write_one(device, i, buffer.bytes().subspan(i * kBlockSize, kBlockSize), done));
  co_await gate.close();
  const Status status = co_await device.read(0, check.bytes());
  EXPECT_TRUE(status);
  EXPECT_EQ(std::memcmp(buffer.data(), check.data(), check.size()), 0);
}

TEST_P(FileDeviceTest, ManyWritesInFlight) {
  auto device = make();
  int done = 0;
  run(many(*reactor, *device, *pool, done));
  EXPECT_EQ(done, 200);
}

}  // namespace
}  // namespace obraz
