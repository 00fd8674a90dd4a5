// OBRAZ_CHECK: our own bugs stop the process, in every build. Never for input from a peer or a disk: that is
// a Result. The service manager restarts the daemon and the journal replays.
#pragma once

namespace obraz {

[[noreturn]] void check_failed(const char* expression, const char* file, int line);

}  // namespace obraz

#define OBRAZ_CHECK(expression) \
  (static_cast<bool>(expression) ? void(0) : ::obraz::check_failed(#expression, __FILE__, __LINE__))
