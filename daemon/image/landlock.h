// A Landlock ruleset for a child that runs a program of the system on given files (landlock(7)). Where the
// kernel has no Landlock the ruleset is absent and the child goes without: it is the second line of defence,
// behind inspect.h, next to syscall_filter.h.
#pragma once

#include <vector>

#include "image/file_view.h"

namespace obraz {

// Allows to run programs and load libraries of the system, to run `program` (or -1), and to open the files
// behind `files`; nothing else, and no network. Empty when the kernel has no Landlock.
OwnedFd make_ruleset(const std::vector<int>& files, bool may_write, int program = -1);

// In the child, after PR_SET_NO_NEW_PRIVS; async-signal-safe. 0, or an errno.
int restrict_self(int ruleset);

}  // namespace obraz
