#include "io/file_device.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <thread>

#include "base/log.h"

namespace obraz {
namespace {

constexpr uint64_t kMaxTransfer = 16u << 20;  // of one system call; well below the kernel's limit of 2 GiB

Failure open_failure(int os_error) {
  switch (os_error) {
    case ENOENT:
      return Failure(Error{ErrorCode::not_found, os_error, "cannot open"});
    case EEXIST:
      return Failure(Error{ErrorCode::already_exists, os_error, "cannot create"});
    case EBUSY:
      return fail(ErrorCode::failed_precondition, "in use by another process");
    case EACCES:
    case EPERM:
      return Failure(Error{ErrorCode::permission_denied, os_error, "cannot open"});
    default:
      return fail_os(os_error, "cannot open");
  }
}

}  // namespace

namespace {

// The descriptor, locked.
Result<int> open_once(const std::string& path, const FileDevice::Options& options, bool& direct) {
  const int flags =
      (options.read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | (options.create ? O_CREAT | O_EXCL : 0);
  struct stat status {};
  const bool block = !options.create && ::stat(path.c_str(), &status) == 0 && S_ISBLK(status.st_mode);
  const int exclusive = block && !options.read_only ? O_EXCL : 0;
  direct = options.direct;
  int fd = ::open(path.c_str(), flags | exclusive | (direct ? O_DIRECT : 0), 0600);
  if (fd < 0 && errno == EINVAL && direct) {
    log::warning("{}: the file system refuses O_DIRECT; using the page cache", path);
    direct = false;
    // A refused O_CREAT | O_DIRECT may have left the file behind.
    fd = ::open(path.c_str(), options.create ? flags & ~O_EXCL : flags | exclusive, 0600);
  }
  if (fd < 0)
    return open_failure(errno);
  if (::flock(fd, (options.read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0)
    return fd;
  const int os_error = errno;
  ::close(fd);
  return os_error == EWOULDBLOCK ? fail(ErrorCode::failed_precondition, "in use by another process")
                                 : fail_os(os_error, "cannot lock");
}

}  // namespace

Result<std::unique_ptr<FileDevice>> FileDevice::open(Reactor& reactor, const std::string& path,
                                                     const Options& options) {
  bool direct = options.direct;
  Result<int> opened = open_once(path, options, direct);
  // There is no call that waits for this lock and gives up after a time.
  constexpr std::chrono::milliseconds kStep(10);
  std::chrono::milliseconds left(options.lock_patience_ms);
  if (!opened && opened.error().code == ErrorCode::failed_precondition && left.count() > 0)
    log::info("{}: in use; waiting up to {} ms for it", path, left.count());
  for (; !opened && opened.error().code == ErrorCode::failed_precondition && left.count() > 0;
       left -= kStep) {
    std::this_thread::sleep_for(kStep);
    opened = open_once(path, options, direct);
  }
  if (!opened)
    return Failure(opened.error());
  const int fd = *opened;
  const auto give_up = [fd](Failure failure) {
    ::close(fd);
    return failure;
  };
  if (options.create && ::ftruncate(fd, off_t(options.create_size_bytes)) != 0)
    return give_up(fail_os(errno, "cannot set the size"));
  struct stat status {};
  if (::fstat(fd, &status) != 0)
    return give_up(fail_os(errno, "cannot stat"));
  uint64_t size = uint64_t(status.st_size);
  if (S_ISBLK(status.st_mode)) {
    if (::ioctl(fd, BLKGETSIZE64, &size) != 0)
      return give_up(fail_os(errno, "cannot get the size"));
  } else if (!S_ISREG(status.st_mode)) {
    return give_up(fail(ErrorCode::invalid_argument, "neither a regular file nor a block device"));
  }
  return std::unique_ptr<FileDevice>(
      new FileDevice(reactor, fd, direct, S_ISBLK(status.st_mode), round_down(size, kBlockSize)));
}

FileDevice::FileDevice(Reactor& reactor, int fd, bool direct, bool block_device, uint64_t size_bytes)
    : reactor_(reactor),
      file_(reactor.register_file(fd)),
      direct_(direct),
      block_device_(block_device),
      size_bytes_(size_bytes) {}

FileDevice::~FileDevice() {
  reactor_.unregister_file(file_);
  ::close(file_.fd);
}

Task<Status> FileDevice::read(uint64_t offset, Bytes into) {
  OBRAZ_CHECK(offset % kBlockSize == 0 && into.size() % kBlockSize == 0);
  while (!into.empty()) {
    const int n = co_await reactor_.read(file_, into.first(std::min(into.size(), kMaxTransfer)), offset);
    if (n == -EINTR || n == -EAGAIN)
      continue;
    if (n < 0)
      co_return fail_os(-n, "read failed");
    if (n == 0)
      co_return fail_os(EIO, "the file is shorter than it was");
    into = into.subspan(size_t(n));
    offset += uint64_t(n);
  }
  co_return Status();
}

Task<Status> FileDevice::write(uint64_t offset, ConstBytes from) {
  OBRAZ_CHECK(offset % kBlockSize == 0 && from.size() % kBlockSize == 0);
  while (!from.empty()) {
    const int n = co_await reactor_.write(file_, from.first(std::min(from.size(), kMaxTransfer)), offset);
    if (n == -EINTR || n == -EAGAIN)
      continue;
    if (n <= 0)
      co_return fail_os(n < 0 ? -n : EIO, "write failed");
    from = from.subspan(size_t(n));
    offset += uint64_t(n);
  }
  co_return Status();
}

Task<Status> FileDevice::write_and_flush(uint64_t offset, ConstBytes from) {
  OBRAZ_CHECK(offset % kBlockSize == 0 && from.size() % kBlockSize == 0 && !from.empty());
  if (from.size() <= kMaxTransfer) {
    const auto done = co_await reactor_.write_and_sync(file_, from, offset);
    if (done.first == int(from.size()))
      co_return done.second < 0 ? fail_os(-done.second, "flush failed") : Status();
    // Short, or interrupted: there was no flush. What is left takes the long way.
    if (done.first < 0 && done.first != -EINTR && done.first != -EAGAIN)
      co_return fail_os(-done.first, "write failed");
    const auto written = size_t(std::max(done.first, 0)) / kBlockSize * kBlockSize;
    from = from.subspan(written);
    offset += written;
  }
  co_return co_await Device::write_and_flush(offset, from);
}

Task<Status> FileDevice::flush() {
  // Not retried, not even after EINTR: after a failed fsync the kernel may have dropped the error together
  // with the dirty pages, so a second success would prove nothing.
  const int n = co_await reactor_.data_sync(file_);
  if (n < 0)
    co_return fail_os(-n, "flush failed");
  co_return Status();
}

Task<Status> FileDevice::discard(uint64_t offset, uint64_t length) {
  if (!can_discard_)
    co_return Status();
  const int n = co_await reactor_.punch(file_, offset, length);
  if (n == -EOPNOTSUPP || n == -ENOSYS || n == -EINVAL) {
    log::info("device: freed space is not given back, the file system cannot punch holes");
    can_discard_ = false;
  } else if (n < 0 && n != -EINTR) {
    co_return fail_os(-n, "discard failed");
  }
  co_return Status();
}

Task<Status> FileDevice::allocate(uint64_t offset, uint64_t length) {
  if (block_device_ || !can_allocate_)
    co_return Status();
  for (;;) {
    const int n = co_await reactor_.allocate(file_, offset, length);
    if (n == -EINTR)
      continue;
    if (n == -EOPNOTSUPP || n == -ENOSYS) {
      log::warning(
          "device: the file system cannot preallocate; a full file system will show as failed writes");
      can_allocate_ = false;
    } else if (n < 0) {
      co_return fail_os(-n, "cannot preallocate");
    }
    co_return Status();
  }
}

}  // namespace obraz
