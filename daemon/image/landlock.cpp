#include "image/landlock.h"

#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

namespace obraz {
namespace {

// Later versions of the interface than the oldest kernel headers we build with, by their numbers.
constexpr uint64_t kAllVersion1 = (1ull << 13) - 1, kRefer = 1ull << 13, kTruncate = 1ull << 14;
constexpr uint64_t kNetBind = 1, kNetConnect = 2;

struct RulesetAttributes {  // as of version 4; earlier kernels take a shorter one
  uint64_t handled_files, handled_net;
};

constexpr const char* kSystem[] = {"/usr", "/bin", "/lib", "/lib32", "/lib64", "/libx32"};
constexpr const char* kReadable[] = {"/etc/ld.so.cache", "/dev/null", "/dev/urandom", "/sys"};

bool add_rule(int ruleset, int fd, uint64_t access) {
  landlock_path_beneath_attr rule{};
  rule.allowed_access = access;
  rule.parent_fd = fd;
  return ::syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) == 0;
}

void add_path(int ruleset, const char* path, uint64_t access, uint64_t directory_access) {
  OwnedFd fd(::open(path, O_PATH | O_CLOEXEC | O_DIRECTORY));
  if (fd) {
    add_rule(ruleset, fd.get(), access | directory_access);
    return;
  }
  fd = OwnedFd(::open(path, O_PATH | O_CLOEXEC));
  if (fd)
    add_rule(ruleset, fd.get(), access);
}

}  // namespace

OwnedFd make_ruleset(const std::vector<int>& files, bool may_write, int program) {
  const long version = ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  if (version < 1)
    return {};
  RulesetAttributes attributes{kAllVersion1, version >= 4 ? kNetBind | kNetConnect : 0};
  if (version >= 2)
    attributes.handled_files |= kRefer;
  if (version >= 3)
    attributes.handled_files |= kTruncate;
  const size_t size = version >= 4 ? sizeof attributes : sizeof attributes.handled_files;
  OwnedFd ruleset(int(::syscall(SYS_landlock_create_ruleset, &attributes, size, 0)));
  if (!ruleset)
    return {};
  const uint64_t read = LANDLOCK_ACCESS_FS_READ_FILE, write = LANDLOCK_ACCESS_FS_WRITE_FILE;
  for (const char* path : kSystem)
    add_path(ruleset.get(), path, read | LANDLOCK_ACCESS_FS_EXECUTE, LANDLOCK_ACCESS_FS_READ_DIR);
  for (const char* path : kReadable)
    add_path(ruleset.get(), path, read, LANDLOCK_ACCESS_FS_READ_DIR);
  if (program >= 0 && !add_rule(ruleset.get(), program, read | LANDLOCK_ACCESS_FS_EXECUTE))
    return {};
  const uint64_t truncate = attributes.handled_files & kTruncate;
  for (const int fd : files)
    if (!add_rule(ruleset.get(), fd, may_write ? read | write | truncate : read))
      return {};
  return ruleset;
}

int restrict_self(int ruleset) {
  return ::syscall(SYS_landlock_restrict_self, ruleset, 0) == 0 ? 0 : errno;
}

}  // namespace obraz
