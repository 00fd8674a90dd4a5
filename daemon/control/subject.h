// Subjects: who is at the other end of a Unix socket, as the system knows it.
//
// Thread: the control thread; the system's name service is asked, and its answers are kept for
// limits::kSubjectSeconds, so that is how long somebody stays in a group after leaving it.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <map>
#include <utility>

#include "base/result.h"
#include "catalog/access.h"

namespace obraz {

struct PeerIds {
  uid_t uid = 0;
  gid_t gid = 0;
};

// SO_PEERCRED of a connected Unix socket.
Result<PeerIds> peer_ids(int fd);

class Subjects {
 public:
  // user:NAME with group:NAME for each group of the user and for that of the process; numbers for what the
  // system has no name for. Root and the user that we run as are superusers.
  SubjectRef subject_of(PeerIds ids);
  // Ourselves.
  SubjectRef self();

 private:
  struct Known {
    SubjectRef subject;
    std::chrono::steady_clock::time_point until;
  };
  std::map<std::pair<uid_t, gid_t>, Known> known_;
};

}  // namespace obraz
