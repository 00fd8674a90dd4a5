#include "image/source_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>

namespace obraz {
namespace {

constexpr off_t kQemuWriterByte = 101;  // QEMU locks it (shared) in files that it has open for writing

const char* kind_in_words(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFDIR:
      return "a directory";
    case S_IFCHR:
      return "a character device";
    case S_IFIFO:
      return "a pipe";
    case S_IFSOCK:
      return "a socket";
    default:
      return "something else";
  }
}

// Whether another process has it open for writing and says so: QEMU by its lock, other programs (this one
// among them, for the files of its store) by flock.
bool is_in_use(int fd) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = kQemuWriterByte;
  lock.l_len = 1;
  if (::fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK)
    return true;
  return ::flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
}

}  // namespace

Answer<SourceFile> SourceFile::open(const std::string& path, const FileIdentityRef& as) {
  const ActingAs acting(as);
  // O_PATH first: opening a pipe would wait, and opening some devices does something.
  const OwnedFd place(acting.open(path, O_PATH));
  struct stat status {};
  if (!place || ::fstat(place.get(), &status) != 0)
    return refuse_os(errno, "source", fmt::format("open {}", path));
  if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))
    return refuse_source(fmt::format("{} is {}, neither a regular file nor a block device", path,
                                     kind_in_words(status.st_mode)));
  OwnedFd fd(::open(fmt::format("/proc/self/fd/{}", place.get()).c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
  if (!fd)
    return refuse_os(errno, "source", fmt::format("open {}", path));
  if (is_in_use(fd.get()))
    return refuse(
        ErrorCode::failed_precondition, "source",
        fmt::format("{} is in use by another program, a virtual machine perhaps; stop it first", path));
  uint64_t size = uint64_t(status.st_size);
  if (S_ISBLK(status.st_mode) && ::ioctl(fd.get(), BLKGETSIZE64, &size) != 0)
    return refuse_os(errno, "source", fmt::format("get the size of {}", path));
  if (size == 0)
    return refuse_source(fmt::format("{} is empty", path));
  ::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  return SourceFile(std::move(fd), size, status);
}

Answer<void> SourceFile::check_unchanged() const {
  struct stat now {};
  if (::fstat(fd_.get(), &now) != 0)
    return refuse_os(errno, "source", "look at the source again");
  if (now.st_size != status_.st_size || now.st_mtim.tv_sec != status_.st_mtim.tv_sec ||
      now.st_mtim.tv_nsec != status_.st_mtim.tv_nsec)
    return refuse(ErrorCode::failed_precondition, "source", "the source was changed while it was read");
  return {};
}

}  // namespace obraz
