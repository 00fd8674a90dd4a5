#include "image_support.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/limits.h"
#include "image/file_view.h"
#include "support/stamp.h"

namespace obraz::test {
namespace {

constexpr uint64_t kDataSize = 256 * limits::MiB, kJournalSize = 1 * limits::MiB;

template <typename T>
void patch(const std::string& path, uint64_t offset, T value, void (*store)(std::byte*, T)) {
  std::byte bytes[sizeof(T)];
  store(bytes, value);
  patch_file(path, offset, bytes);
}

Task<Result<Volume>> open_volume(Store& store, VolumeId id) {
  co_return store.open_volume(id);
}

Task<Status> create(Store& store, VolumeId& id, uint64_t size_bytes) {
  id = store.new_volume_id();
  Transaction transaction;
  transaction.push_back(CreateVolume{id, size_bytes});
  Status status = co_await store.commit(std::move(transaction));
  co_return status;
}

Task<Status> read_all(Store& store, VolumeId id, uint64_t offset, Bytes into) {
  auto volume = store.open_volume(id);
  OBRAZ_CO_TRY(volume);
  Status status = co_await volume->read(offset, into);
  co_return status;
}

Task<Status> write_all(Store& store, VolumeId id, uint64_t offset, ConstBytes from) {
  auto volume = store.open_volume(id);
  OBRAZ_CO_TRY(volume);
  Status status = co_await volume->write(offset, from);
  co_return status;
}

Task<Status> status_all(Store& store, VolumeId id, std::vector<Extent>& out) {
  auto volume = store.open_volume(id);
  OBRAZ_CO_TRY(volume);
  Status status = co_await volume->block_status(0, volume->size_bytes(), 1000, out);
  co_return status;
}

}  // namespace

WorkDirectory::WorkDirectory() {
  path_ = testing::TempDir() + "/obraz-image-XXXXXX";
  OBRAZ_CHECK(::mkdtemp(path_.data()) != nullptr);
}

WorkDirectory::~WorkDirectory() {
  std::filesystem::remove_all(path_);
}

std::vector<std::string> WorkDirectory::entries() const {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(path_))
    names.push_back(entry.path().filename());
  std::ranges::sort(names);
  return names;
}

void shell(const std::string& command) {
  ASSERT_EQ(std::system((command + " </dev/null").c_str()), 0) << command;
}

ByteVector read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.is_open()) << path;
  ByteVector bytes(file_size(path));
  file.read(reinterpret_cast<char*>(bytes.data()), std::streamsize(bytes.size()));
  return bytes;
}

void write_file(const std::string& path, ConstBytes bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()), std::streamsize(bytes.size()));
  ASSERT_TRUE(file.good()) << path;
}

void patch_file(const std::string& path, uint64_t offset, ConstBytes bytes) {
  const OwnedFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  ASSERT_EQ(write_fully(fd.get(), bytes, offset), 0) << path;
}

void patch_be32(const std::string& path, uint64_t offset, uint32_t value) {
  patch(path, offset, value, store_be);
}
void patch_be64(const std::string& path, uint64_t offset, uint64_t value) {
  patch(path, offset, value, store_be);
}
void patch_le32(const std::string& path, uint64_t offset, uint32_t value) {
  patch(path, offset, value, store_le);
}
void patch_le64(const std::string& path, uint64_t offset, uint64_t value) {
  patch(path, offset, value, store_le);
}

uint64_t file_size(const std::string& path) {
  struct stat status {};
  EXPECT_EQ(::stat(path.c_str(), &status), 0) << path;
  return uint64_t(status.st_size);
}

uint64_t file_space(const std::string& path) {
  struct stat status {};
  EXPECT_EQ(::stat(path.c_str(), &status), 0) << path;
  return uint64_t(status.st_blocks) * 512;
}

ByteVector make_raw_disk(const std::string& path, uint64_t size_bytes) {
  ByteVector content(size_bytes);
  const auto put = [&](uint64_t offset, uint64_t length) {
    offset = std::min(offset, size_bytes);
    length = std::min(length, size_bytes - offset);
    stamp(Bytes(content).subspan(offset, length), 1, offset, 1);
  };
  put(0, 100'000);
  put(size_bytes / 2 / kBlockSize * kBlockSize, 3 * limits::MiB);
  put(size_bytes / 4 * 3 / kBlockSize * kBlockSize, kBlockSize);
  put(size_bytes - std::min<uint64_t>(size_bytes, 70'000), 70'000);

  const OwnedFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  EXPECT_EQ(::ftruncate(fd.get(), off_t(size_bytes)), 0);
  for (uint64_t at = 0; at < size_bytes; at += kBlockSize) {
    const auto block = ConstBytes(content).subspan(at, std::min<uint64_t>(kBlockSize, size_bytes - at));
    EXPECT_EQ(is_zero(block) ? 0 : write_fully(fd.get(), block, at), 0);
  }
  return content;
}

OtherServer::OtherServer(const std::string& arguments) {
  shell(fmt::format("nbdkit -U {} -P {} {}", work_ / "s", work_ / "pid", arguments));
}

OtherServer::~OtherServer() {
  shell(fmt::format("kill $(cat {})", work_ / "pid"));
}

std::vector<pid_t> children() {
  std::vector<pid_t> pids;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream list(task.path() / "children");
    for (pid_t pid; list >> pid;)
      pids.push_back(pid);
  }
  return pids;
}

testing::AssertionResult refused(const Refusal& refusal, ErrorCode code, const std::string& part) {
  if (refusal.code != code || refusal.message.find(part) == std::string::npos)
    return testing::AssertionFailure() << "refused as " << name_of(refusal.code) << ": " << refusal.message;
  return testing::AssertionSuccess();
}

testing::AssertionResult open_refused(const ImportSpec& spec, ErrorCode code, const std::string& part) {
  const auto source = ImportSource::open(spec);
  if (source)
    return testing::AssertionFailure() << spec.location << " was opened as " << name_of((*source)->format());
  return refused(source.error(), code, part);
}

Task<void> StoreThread::start(StoreThread& self, std::promise<Status>& started) {
  FormatOptions format;
  format.uuid = Uuid::random();
  format.journal_bytes = kJournalSize;
  Status formatted = co_await Store::format(*self.meta_, *self.data_, format);
  if (!formatted) {
    started.set_value(formatted);
    co_return;
  }
  auto store = co_await Store::open(*self.reactor_, *self.meta_, *self.data_, StoreOptions());
  if (store)
    self.store_ = std::move(*store);
  started.set_value(store ? Status() : Status(Failure(store.error())));
}

Task<void> StoreThread::stop(StoreThread& self) {
  Status closed = co_await self.store_->close();
  (void)closed;  // a test may have made the devices fail
  self.store_.reset();
  self.reactor_->stop();
}

StoreThread::StoreThread() {
  std::promise<Status> started;
  std::promise<void> ready;
  thread_ = std::thread([this, &ready] {
    // The ring belongs to the thread that makes it.
    auto reactor = Reactor::create();
    OBRAZ_CHECK(reactor.has_value());
    reactor_ = std::move(*reactor);
    gate_ = std::make_unique<Gate>(*reactor_);
    data_ = std::make_unique<MemoryDevice>(*reactor_, kDataSize);
    meta_ = std::make_unique<MemoryDevice>(*reactor_, Store::meta_bytes_for(kDataSize, kJournalSize));
    ready.set_value();
    reactor_->run();
    gate_.reset();
    meta_.reset();
    data_.reset();
    reactor_.reset();
  });
  ready.get_future().wait();
  reactor_->post([this, &started] { gate_->spawn(start(*this, started)); });
  const Status status = started.get_future().get();
  OBRAZ_CHECK(status.has_value());
}

StoreThread::~StoreThread() {
  reactor_->post([this] { gate_->spawn(stop(*this)); });
  thread_.join();
}

VolumeId StoreThread::create_volume(uint64_t size_bytes) {
  VolumeId id;
  const Status status = call<Status>([&](Store& store) { return create(store, id, size_bytes); });
  EXPECT_TRUE(status.has_value());
  return id;
}

Volume StoreThread::open(VolumeId id) {
  auto volume = call<Result<Volume>>([id](Store& store) { return open_volume(store, id); });
  EXPECT_TRUE(volume.has_value());
  return volume.value_or(Volume());
}

ByteVector StoreThread::read(VolumeId id, uint64_t offset, uint64_t length) {
  ByteVector bytes(length, std::byte(0xee));
  for (uint64_t at = 0; at < length; at += 4 * limits::MiB) {
    const Bytes piece = Bytes(bytes).subspan(at, std::min(4 * limits::MiB, length - at));
    const Status status = call<Status>([&](Store& store) { return read_all(store, id, offset + at, piece); });
    EXPECT_TRUE(status.has_value());
  }
  return bytes;
}

void StoreThread::write(VolumeId id, uint64_t offset, ConstBytes bytes) {
  const Status status = call<Status>([&](Store& store) { return write_all(store, id, offset, bytes); });
  EXPECT_TRUE(status.has_value());
}

std::vector<Extent> StoreThread::status(VolumeId id) {
  std::vector<Extent> extents;
  const Status status = call<Status>([&](Store& store) { return status_all(store, id, extents); });
  EXPECT_TRUE(status.has_value());
  return extents;
}

}  // namespace obraz::test
