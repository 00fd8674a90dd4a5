// FileIdentity: whose rights count when a file is opened for somebody who asked for it over a socket.
//
// Only the rights to files are taken on (setfsuid(2) and the thread's groups), so nobody can send signals to
// us or trace us meanwhile. Links that are no names (those in /proc/PID/fd, say) are not followed: they lead
// to what the daemon has, whoever asks. Needs root. Thread: any; each has its own.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

namespace obraz {

struct FileIdentity {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups = {};
};
using FileIdentityRef = std::shared_ptr<const FileIdentity>;  // null: the process's own

// Whether this process can take on others.
bool can_act_for_others();

// While it lives, the calling thread has the identity's rights to files, and threads and processes that it
// makes would begin with them. It ends on the same thread.
class ActingAs {
 public:
  explicit ActingAs(const FileIdentityRef& identity);
  ActingAs(const ActingAs&) = delete;
  ~ActingAs();

  // As open(2) with O_CLOEXEC: a descriptor, or -1 and errno.
  int open(const std::string& path, int flags) const;

 private:
  const FileIdentityRef identity_;
  std::vector<gid_t> groups_;  // the thread's own
  uid_t uid_ = 0;              //
  gid_t gid_ = 0;              //
};

}  // namespace obraz
