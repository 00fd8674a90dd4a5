// Listening sockets: a Unix socket in the file system, and TCP addresses as people write them.
//
// A socket file left behind by a daemon that died is replaced; one that answers, and anything that is not a
// socket, is never touched. The file gets its owner and mode before it can be connected to. Refusals are
// sentences for the operator. These calls block for a moment (name resolution, a connect to ourselves): they
// belong to start-up. Thread: the control thread, or main's before it starts.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/refusal.h"
#include "nbd/descriptor.h"
#include "nbd/export.h"

namespace obraz::nbd {

struct HostPort {
  std::string host;  // without brackets
  uint16_t port = 0;
  friend bool operator==(const HostPort&, const HostPort&) = default;
};
// "HOST:PORT", "[V6]:PORT"; ":PORT" and "PORT" are the loopback address. Port 0 lets the system choose.
Answer<HostPort> parse_host_port(std::string_view text);

struct Listening {
  Descriptor socket;
  bool tcp = false;
  std::string address;  // the path, or the numeric "HOST:PORT" that was really taken
  // Of the socket file, so that only our own is removed again.
  dev_t device = 0;
  ino_t inode = 0;
};

struct UnixOptions {
  std::string path;
  mode_t mode = 0600;
  std::optional<gid_t> group;  // the file's group; pointless without mode 0660
};
Answer<Listening> listen_unix(const UnixOptions& options);
// Removes the socket file if it is still the one that was made.
void remove_socket_file(const Listening& listening);

// Every address the host resolves to; at least one.
Answer<std::vector<Listening>> listen_tcp(const HostPort& where);

// The other end of a connected socket.
Peer peer_of(int socket);

// "nbd://HOST:PORT/NAME" or "nbd+unix:///NAME?socket=PATH", for users to paste. A wildcard address is given
// as is.
std::string uri_of(const Listening& listening, std::string_view export_name);

}  // namespace obraz::nbd
