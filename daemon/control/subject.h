// Subjects: who is at the other end of a Unix socket, as the system knows it, and how that is written
// (user:NAME).
//
// Thread: the control thread; the system's name service is asked, and its answers are kept.
#pragma once

#include <sys/types.h>

#include <map>
#include <string>

#include "base/result.h"

namespace obraz {

// SO_PEERCRED of a connected Unix socket.
Result<uid_t> peer_uid(int fd);

class Subjects {
 public:
  // user:NAME, or user:NUMBER when the system has no name for it.
  const std::string& subject_of(uid_t uid);

 private:
  static constexpr size_t kMaxKnown = 1024;
  std::map<uid_t, std::string> known_;
};

}  // namespace obraz
