#include "image/source.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

#include "base/limits.h"
#include "image/confined_child.h"
#include "image_support.h"

namespace obraz::test {
namespace {

using limits::MiB;

TEST(ImportSource, MissingFileIsNotFound) {
  const WorkDirectory work;
  EXPECT_TRUE(open_refused({.location = work / "none", .format = {}}, ErrorCode::not_found, "none"));
  EXPECT_TRUE(open_refused({.location = "", .format = {}}, ErrorCode::invalid_argument, "neither"));
  EXPECT_TRUE(open_refused({.location = std::string("a\0b", 3), .format = {}}, ErrorCode::invalid_argument,
                           "neither"));
  EXPECT_TRUE(open_refused({.location = std::string(5000, 'a'), .format = {}}, ErrorCode::invalid_argument,
                           "neither"));
}

TEST(ImportSource, OnlyRegularFilesAndBlockDevicesAreOpened) {
  const WorkDirectory work;
  ASSERT_EQ(::mkfifo((work / "pipe").c_str(), 0600), 0);
  EXPECT_TRUE(open_refused({.location = work / "pipe", .format = {}}, ErrorCode::invalid_argument, "a pipe"));
  EXPECT_TRUE(
      open_refused({.location = work.path(), .format = {}}, ErrorCode::invalid_argument, "a directory"));
  EXPECT_TRUE(
      open_refused({.location = "/dev/zero", .format = {}}, ErrorCode::invalid_argument, "character device"));
  EXPECT_TRUE(
      open_refused({.location = "/proc/self/mem", .format = {}}, ErrorCode::invalid_argument, "empty"));
}

TEST(ImportSource, EmptyAndTooLargeFilesAreRefused) {
  const WorkDirectory work;
  shell("truncate -s 0 " + (work / "empty"));
  EXPECT_TRUE(open_refused({.location = work / "empty", .format = {}}, ErrorCode::invalid_argument, "empty"));
  shell(fmt::format("truncate -s {} {}", limits::kMaxVolumeSize + 1, work / "large"));
  EXPECT_TRUE(open_refused({.location = work / "large", .format = {}}, ErrorCode::invalid_argument, "limit"));
  shell(fmt::format("truncate -s {} {}", limits::kMaxVolumeSize, work / "large"));
  EXPECT_TRUE(ImportSource::open({.location = work / "large", .format = {}}).has_value());
}

TEST(ImportSource, AFileWithAnotherSha256IsNotLookedAt) {
  const WorkDirectory work;
  const std::string empty_hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
  write_file(work / "file", ByteVector(3 * MiB + 5, std::byte('a')));
  shell("sha256sum " + (work / "file") + " > " + (work / "sum"));
  const ByteVector sum = read_file(work / "sum");
  const std::string right(reinterpret_cast<const char*>(sum.data()), 64);
  Progress progress;
  EXPECT_TRUE(
      ImportSource::open({.location = work / "file", .sha256 = right, .progress = &progress}).has_value());
  EXPECT_EQ(progress.bytes_done, 3 * MiB + 5);
  EXPECT_EQ(progress.bytes_total, 3 * MiB + 5);
  EXPECT_TRUE(open_refused({.location = work / "file", .sha256 = empty_hash}, ErrorCode::corruption, right));
  // A damaged qcow2 file would be refused for what it is, if anybody looked.
  write_file(work / "damaged.qcow2", ByteVector(1 * MiB, std::byte('Q')));
  EXPECT_TRUE(
      open_refused({.location = work / "damaged.qcow2", .format = ImageFormat::qcow2, .sha256 = empty_hash},
                   ErrorCode::corruption, "SHA-256"));
  EXPECT_TRUE(open_refused({.location = "nbd://localhost:1/", .sha256 = empty_hash},
                           ErrorCode::invalid_argument, "SHA-256"));
}

TEST(ImportSource, FileInUseIsRefused) {
  const WorkDirectory work;
  make_raw_disk(work / "disk", 4 * MiB);
  const OwnedFd other(::open((work / "disk").c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(::flock(other.get(), LOCK_EX), 0);
  EXPECT_TRUE(
      open_refused({.location = work / "disk", .format = {}}, ErrorCode::failed_precondition, "in use"));
  ASSERT_EQ(::flock(other.get(), LOCK_UN), 0);
  struct flock lock {};  // as QEMU does for a disk that a machine writes to
  lock.l_type = F_RDLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = 101;
  lock.l_len = 1;
  ASSERT_EQ(::fcntl(other.get(), F_OFD_SETLK, &lock), 0);
  EXPECT_TRUE(
      open_refused({.location = work / "disk", .format = {}}, ErrorCode::failed_precondition, "in use"));
  lock.l_type = F_UNLCK;
  ASSERT_EQ(::fcntl(other.get(), F_OFD_SETLK, &lock), 0);
  EXPECT_TRUE(ImportSource::open({.location = work / "disk", .format = {}}).has_value());
}

TEST(ImportSource, HolesOfARawFileAreToldExactly) {
  const WorkDirectory work;
  shell("truncate -s 64M " + (work / "disk"));
  const ByteVector data(64 * 1024, std::byte(1));
  patch_file(work / "disk", 32 * MiB, data);
  const auto source = ImportSource::open({.location = work / "disk", .format = {}});
  ASSERT_TRUE(source.has_value());
  std::vector<SourceExtent> extents;
  const StopSignal stop({});
  ASSERT_TRUE((*source)->extents(0, 64 * MiB, extents, stop).has_value());
  uint64_t at = 0, bytes_of_data = 0;
  for (const SourceExtent& extent : extents) {
    EXPECT_EQ(extent.offset, at);
    at += extent.length;
    bytes_of_data += extent.zero ? 0 : extent.length;
  }
  EXPECT_EQ(at, 64 * MiB);
  EXPECT_GE(bytes_of_data, 64u * 1024);
  EXPECT_LE(bytes_of_data, 2 * MiB) << "holes are said to be data";
}

TEST(ImportSource, SwapOfTheFileAfterItWasOpenedChangesNothing) {
  const WorkDirectory work;
  const ByteVector content = make_raw_disk(work / "disk.raw", 4 * MiB);
  shell(fmt::format("qemu-img convert -f raw -O qcow2 {} {}", work / "disk.raw", work / "image"));
  const auto source = ImportSource::open({.location = work / "image", .format = {}});
  ASSERT_TRUE(source.has_value()) << source.error().message;
  shell(fmt::format("rm {0} && ln -s /etc/passwd {0}", work / "image"));
  ByteVector read(MiB);
  Transfer transfer{.offset = 0, .bytes = read};
  ASSERT_TRUE((*source)->start_read(transfer).has_value());
  const StopSignal stop({});
  while (!transfer.done)
    ASSERT_TRUE((*source)->wait(stop, -1).has_value());
  EXPECT_EQ(transfer.os_error, 0);
  EXPECT_TRUE(std::equal(read.begin(), read.end(), content.begin()));
}

TEST(ImportSource, StrangeFileNamesAreOnlyNames) {
  const WorkDirectory work;
  make_raw_disk(work / "disk.raw", 4 * MiB);
  for (const char* name : {"json:{}", "nbd:localhost:1", "a,b=c", "fat:rw:x", "-x", "a b\"c"}) {
    shell(fmt::format("cd {} && qemu-img convert -f raw -O qcow2 disk.raw x.qcow2 && mv -- x.qcow2 '{}'",
                      work.path(), name));
    const auto source = ImportSource::open({.location = work / name, .format = {}});
    EXPECT_TRUE(source.has_value()) << name << ": " << source.error().message;
  }
}

TEST(ImportSource, ReaderEndsWithItsSource) {
  const WorkDirectory work;
  make_raw_disk(work / "disk.raw", 4 * MiB);
  shell(fmt::format("qemu-img convert -f raw -O qcow2 {} {}", work / "disk.raw", work / "image"));
  auto source = ImportSource::open({.location = work / "image", .format = {}});
  ASSERT_TRUE(source.has_value()) << source.error().message;
  EXPECT_EQ(children().size(), 1u);
  source->reset();
  EXPECT_TRUE(children().empty());
}

TEST(ImportSource, CancelledOpenStartsNothing) {
  const WorkDirectory work;
  make_raw_disk(work / "disk", 4 * MiB);
  std::stop_source stop;
  stop.request_stop();
  const auto source = ImportSource::open({.location = work / "disk", .format = {}}, stop.get_token());
  ASSERT_FALSE(source.has_value());
  EXPECT_EQ(source.error().code, ErrorCode::cancelled);
}

TEST(ImportSource, MissingReaderIsToldByName) {
  const WorkDirectory work;
  make_raw_disk(work / "disk.raw", 4 * MiB);
  shell(fmt::format("qemu-img convert -f raw -O qcow2 {} {}", work / "disk.raw", work / "image"));
  ConfinedChild::Options options;
  options.program = "obraz-no-such-program";
  const auto child = ConfinedChild::start(options);
  ASSERT_FALSE(child.has_value());
  EXPECT_TRUE(
      refused(child.error(), ErrorCode::failed_precondition, "obraz-no-such-program is not installed"));
}

// --- NBD
// -----------------------------------------------------------------------------------------------------------

ByteVector read_all(ImportSource& source) {
  ByteVector bytes(source.size_bytes());
  const StopSignal stop({});
  for (uint64_t at = 0; at < bytes.size(); at += MiB) {
    Transfer transfer{.offset = at, .bytes = Bytes(bytes).subspan(at, std::min(MiB, bytes.size() - at))};
    EXPECT_TRUE(source.start_read(transfer).has_value());
    while (!transfer.done)
      EXPECT_TRUE(source.wait(stop, -1).has_value());
    EXPECT_EQ(transfer.os_error, 0);
  }
  return bytes;
}

TEST(ImportSourceNbd, ExportIsRead) {
  const WorkDirectory work;
  const ByteVector content = make_raw_disk(work / "disk", 8 * MiB);
  const OtherServer server("-r file " + (work / "disk"));
  const auto source = ImportSource::open({.location = server.uri(), .format = ImageFormat::raw});
  ASSERT_TRUE(source.has_value()) << source.error().message;
  EXPECT_EQ((*source)->size_bytes(), content.size());
  EXPECT_EQ(read_all(**source), content);
}

TEST(ImportSourceNbd, ServerWithoutBlockStatusIsReadWhole) {
  const WorkDirectory work;
  const ByteVector content = make_raw_disk(work / "disk", 8 * MiB);
  const OtherServer server("-r --no-sr file " + (work / "disk"));
  const auto source = ImportSource::open({.location = server.uri(), .format = {}});
  ASSERT_TRUE(source.has_value()) << source.error().message;
  std::vector<SourceExtent> extents;
  const StopSignal stop({});
  ASSERT_TRUE((*source)->extents(0, 8 * MiB, extents, stop).has_value());
  ASSERT_EQ(extents.size(), 1u);
  EXPECT_FALSE(extents[0].zero);
  EXPECT_EQ(read_all(**source), content);
}

TEST(ImportSourceNbd, WrongUrisAreRefusedInWords) {
  EXPECT_TRUE(open_refused({.location = "http://localhost/x", .format = {}}, ErrorCode::invalid_argument,
                           "scheme http"));
  EXPECT_TRUE(open_refused({.location = "nbd+unix:///?socket=/nonexistent/s", .format = {}},
                           ErrorCode::not_found, "connect"));
  EXPECT_TRUE(open_refused({.location = "nbd+unix:///x", .format = {}}, ErrorCode::invalid_argument, ""));
  EXPECT_TRUE(open_refused({.location = "nbd://127.0.0.1:1/x", .format = {}}, ErrorCode::io, ""));
  EXPECT_TRUE(open_refused({.location = "nbd://127.0.0.1:1/x", .format = ImageFormat::qcow2},
                           ErrorCode::invalid_argument, "raw"));
}

TEST(ImportSourceNbd, AbsurdSizesAreRefused) {
  const OtherServer large("-r null size=7E");
  EXPECT_TRUE(open_refused({.location = large.uri(), .format = {}}, ErrorCode::invalid_argument, "limit"));
  const OtherServer empty("-r null size=0");
  EXPECT_TRUE(open_refused({.location = empty.uri(), .format = {}}, ErrorCode::invalid_argument, "no bytes"));
}

// A server that accepts and says nothing: only a stop ends the wait.
TEST(ImportSourceNbd, SilentServerIsLeftWhenStopped) {
  const WorkDirectory work;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, (work / "s").c_str(), sizeof address.sun_path - 1);
  const OwnedFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  std::stop_source stop;
  std::thread canceller([&] {
    const OwnedFd accepted(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    stop.request_stop();
    char byte;
    EXPECT_LE(::read(accepted.get(), &byte, 1), 0) << "the client left without a word";
  });
  const auto source =
      ImportSource::open({.location = "nbd+unix:///?socket=" + (work / "s"), .format = {}}, stop.get_token());
  canceller.join();
  ASSERT_FALSE(source.has_value());
  EXPECT_EQ(source.error().code, ErrorCode::cancelled);
}

}  // namespace
}  // namespace obraz::test
