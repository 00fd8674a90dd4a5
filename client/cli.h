// The command line of obraz: what may be said, and what it does.
//
// Exit status: 0 done, 1 refused (by the daemon, or it cannot be reached), 2 a wrong command line.
#pragma once

namespace obraz::client {

int run(int argc, char** argv);

}  // namespace obraz::client
