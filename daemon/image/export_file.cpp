#include "image/export_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "base/limits.h"

namespace obraz {
namespace {

constexpr mode_t kMode = 0600;  // a disk's content is nobody else's business until its owner says so

}  // namespace

Answer<ExportFile> ExportFile::create(const std::string& path, FileIdentityRef as, bool nameless) {
  const ActingAs acting(as);
  const size_t slash = path.rfind('/');
  const std::string name = path.substr(slash == path.npos ? 0 : slash + 1);
  const std::string folder = slash == path.npos ? "." : path.substr(0, slash + 1);
  if (name.empty() || name == "." || name == ".." || path.find('\0') != path.npos ||
      path.size() > limits::kMaxSourceLength)
    return refuse(ErrorCode::invalid_argument, "path", fmt::format("'{}' is not the path of a file", path));
  OwnedFd directory(acting.open(folder, O_RDONLY | O_DIRECTORY));
  if (!directory)
    return refuse_os(errno, "path", fmt::format("open the directory {}", folder));
  struct stat status {};
  if (::fstatat(directory.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0)
    return refuse(ErrorCode::already_exists, "path", fmt::format("{} exists; it is not overwritten", path));

  OwnedFd file;
  if (nameless)
    file = OwnedFd(::openat(directory.get(), ".", O_TMPFILE | O_RDWR | O_CLOEXEC, kMode));
  if (file)
    return ExportFile(std::move(as), std::move(directory), std::move(file), path, name, "");
  if (nameless && errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)
    return refuse_os(errno, "path", fmt::format("create a file in {}", folder));
  const std::string partial = name + ".partial";
  file = OwnedFd(
      ::openat(directory.get(), partial.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, kMode));
  if (!file)
    return refuse_os(errno, "path", fmt::format("create {}.partial", path));
  return ExportFile(std::move(as), std::move(directory), std::move(file), path, name, partial);
}

ExportFile::~ExportFile() {
  if (!file_ || partial_.empty())
    return;
  const ActingAs acting(as_);
  ::unlinkat(directory_.get(), partial_.c_str(), 0);
}

// 0, or an errno; EEXIST when the name was taken meanwhile.
int ExportFile::give_name() const {
  const int dir = directory_.get();
  if (partial_.empty()) {
    const std::string place = fmt::format("/proc/self/fd/{}", file_.get());
    return ::linkat(AT_FDCWD, place.c_str(), dir, name_.c_str(), AT_SYMLINK_FOLLOW) == 0 ? 0 : errno;
  }
  if (::renameat2(dir, partial_.c_str(), dir, name_.c_str(), RENAME_NOREPLACE) == 0)
    return 0;
  if (errno != EINVAL && errno != ENOSYS)
    return errno;
  if (::linkat(dir, partial_.c_str(), dir, name_.c_str(), 0) != 0)
    return errno;
  ::unlinkat(dir, partial_.c_str(), 0);
  return 0;
}

Answer<void> ExportFile::commit() {
  const ActingAs acting(as_);
  if (::fsync(file_.get()) != 0)
    return refuse_os(errno, "path", fmt::format("write {} to disk", path_));
  const int os_error = give_name();
  if (os_error == EEXIST)
    return refuse(ErrorCode::already_exists, "path",
                  fmt::format("{} exists by now; it is not overwritten", path_));
  if (os_error != 0)
    return refuse_os(os_error, "path", fmt::format("name the file {}", path_));
  partial_.clear();
  if (::fsync(directory_.get()) != 0) {
    const int sync_error = errno;
    ::unlinkat(directory_.get(), name_.c_str(), 0);
    return refuse_os(sync_error, "path", fmt::format("write the name of {} to disk", path_));
  }
  return {};
}

}  // namespace obraz
