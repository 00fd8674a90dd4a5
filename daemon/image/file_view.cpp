#include "image/file_view.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>

namespace obraz {

void OwnedFd::reset() {
  if (fd_ >= 0)
    ::close(std::exchange(fd_, -1));
}

int read_fully(int fd, Bytes into, uint64_t offset) {
  while (!into.empty()) {
    const ssize_t n = ::pread(fd, into.data(), into.size(), off_t(offset));
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return errno;
    if (n == 0)
      return EPIPE;
    into = into.subspan(size_t(n));
    offset += uint64_t(n);
  }
  return 0;
}

int write_fully(int fd, ConstBytes from, uint64_t offset) {
  while (!from.empty()) {
    const ssize_t n = ::pwrite(fd, from.data(), from.size(), off_t(offset));
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return n < 0 ? errno : EIO;
    from = from.subspan(size_t(n));
    offset += uint64_t(n);
  }
  return 0;
}

Answer<void> FileView::read(uint64_t offset, Bytes into, const char* what) const {
  if (!holds(offset, into.size()))
    return refuse_source(
        fmt::format("the file is truncated or damaged: {} would end at byte {}, the file has {}", what,
                    offset + into.size(), size_bytes));
  const int os_error = read_fully(fd, into, offset);
  if (os_error == EPIPE)
    return refuse(ErrorCode::failed_precondition, "source", "the file was shortened while it was read");
  if (os_error != 0)
    return refuse_os(os_error, "source", fmt::format("read {}", what));
  return {};
}

}  // namespace obraz
