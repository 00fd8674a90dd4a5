#include "control/subject.h"

#include <grp.h>
#include <pwd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <vector>

#include "base/limits.h"

namespace obraz {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kEntryBytes = 65536;  // of a name service; an entry that does not fit stays a number

std::string group_name(gid_t gid) {
  std::vector<char> buffer(kEntryBytes);
  group entry{};
  group* found = nullptr;
  const bool named = ::getgrgid_r(gid, &entry, buffer.data(), buffer.size(), &found) == 0 && found;
  return "group:" + (named ? std::string(found->gr_name) : std::to_string(gid));
}

Subject look_up(PeerIds ids) {
  Subject subject;
  subject.superuser = ids.uid == 0 || ids.uid == ::geteuid();
  std::vector<char> buffer(kEntryBytes);
  passwd entry{};
  passwd* found = nullptr;
  const bool named = ::getpwuid_r(ids.uid, &entry, buffer.data(), buffer.size(), &found) == 0 && found;
  subject.name = "user:" + (named ? std::string(found->pw_name) : std::to_string(ids.uid));
  std::vector<gid_t> groups = {ids.gid};
  if (named) {
    int count = limits::kMaxSubjectGroups;
    std::vector<gid_t> listed(size_t(count), 0);
    if (::getgrouplist(found->pw_name, found->pw_gid, listed.data(), &count) < 0)
      count = limits::kMaxSubjectGroups;  // the first ones
    groups.insert(groups.end(), listed.begin(), listed.begin() + count);
  }
  std::ranges::sort(groups);
  groups.erase(std::unique(groups.begin(), groups.end()), groups.end());
  for (const gid_t gid : groups)
    subject.groups.push_back(group_name(gid));
  if (!subject.superuser && can_act_for_others())
    subject.files = std::make_shared<const FileIdentity>(FileIdentity{ids.uid, ids.gid, std::move(groups)});
  return subject;
}

}  // namespace

Result<PeerIds> peer_ids(int fd) {
  ucred credentials{};
  socklen_t length = sizeof credentials;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0)
    return fail_os(errno, "cannot learn who is calling");
  return PeerIds{credentials.uid, credentials.gid};
}

SubjectRef Subjects::subject_of(PeerIds ids) {
  const auto now = Clock::now();
  const std::pair key(ids.uid, ids.gid);
  if (const auto known = known_.find(key); known != known_.end() && now < known->second.until)
    return known->second.subject;
  if (known_.size() >= limits::kMaxKnownSubjects)
    known_.clear();
  auto subject = std::make_shared<const Subject>(look_up(ids));
  known_[key] = {subject, now + std::chrono::seconds(limits::kSubjectSeconds)};
  return subject;
}

SubjectRef Subjects::self() {
  return subject_of({::geteuid(), ::getegid()});
}

}  // namespace obraz
