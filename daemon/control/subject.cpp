#include "control/subject.h"

#include <pwd.h>
#include <sys/socket.h>

#include <cerrno>
#include <vector>

namespace obraz {

Result<uid_t> peer_uid(int fd) {
  ucred credentials{};
  socklen_t length = sizeof credentials;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0)
    return fail_os(errno, "cannot learn who is calling");
  return credentials.uid;
}

const std::string& Subjects::subject_of(uid_t uid) {
  if (const auto known = known_.find(uid); known != known_.end())
    return known->second;
  if (known_.size() >= kMaxKnown)
    known_.clear();
  std::vector<char> buffer(
      16384);  // entries of name services can be long; one that does not fit stays a number
  passwd entry{};
  passwd* found = nullptr;
  const bool named = ::getpwuid_r(uid, &entry, buffer.data(), buffer.size(), &found) == 0 && found;
  return known_[uid] = "user:" + (named ? std::string(found->pw_name) : std::to_string(uid));
}

}  // namespace obraz
