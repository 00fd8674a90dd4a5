#include "base/file_identity.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/check.h"

namespace obraz {
namespace {

// glibc's setgroups() would change all threads. What cannot be taken back must not go on.
void set_groups_of_thread(const std::vector<gid_t>& groups) {
  OBRAZ_CHECK(::syscall(SYS_setgroups, groups.size(), groups.data()) == 0);
}

// These two calls tell no errors, only what was there before.
void set_ids(uid_t uid, gid_t gid) {
  ::setfsgid(gid);
  ::setfsuid(uid);
  OBRAZ_CHECK(gid_t(::setfsgid(gid_t(-1))) == gid && uid_t(::setfsuid(uid_t(-1))) == uid);
}

}  // namespace

bool can_act_for_others() {
  return ::geteuid() == 0;
}

ActingAs::ActingAs(const FileIdentityRef& identity) : identity_(identity) {
  if (!identity_)
    return;
  const int count = ::getgroups(0, nullptr);
  OBRAZ_CHECK(count >= 0);
  groups_.resize(size_t(count));
  OBRAZ_CHECK(::getgroups(count, groups_.data()) == count);
  uid_ = uid_t(::setfsuid(uid_t(-1)));
  gid_ = gid_t(::setfsgid(gid_t(-1)));
  set_groups_of_thread(identity_->groups);
  set_ids(identity_->uid, identity_->gid);
}

ActingAs::~ActingAs() {
  if (!identity_)
    return;
  set_ids(uid_, gid_);
  set_groups_of_thread(groups_);
}

int ActingAs::open(const std::string& path, int flags) const {
  if (!identity_)
    return ::open(path.c_str(), flags | O_CLOEXEC);
  open_how how{};
  how.flags = uint64_t(flags) | O_CLOEXEC;
  how.resolve = RESOLVE_NO_MAGICLINKS;
  return int(::syscall(SYS_openat2, AT_FDCWD, path.c_str(), &how, sizeof how));
}

}  // namespace obraz
