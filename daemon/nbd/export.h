// What the NBD server must know of the resources: names become exports here, and nowhere else does this layer
// learn what a disk, an image or a folder is. The catalog answers through ExportSource; main connects the
// two.
//
// Invariant: every attach() that succeeded is followed by exactly one detach() of the same export, so the
// source can count sessions and refuse what an attached volume forbids. Thread: the control thread.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/refusal.h"
#include "store/types.h"

namespace obraz::nbd {

// Who is at the other end of a socket.
struct Peer {
  std::string description;  // "unix pid 12 uid 0", "127.0.0.1:4711"
  struct Credentials {
    uint32_t pid, uid, gid;
  };
  std::optional<Credentials> credentials;  // of a Unix socket's peer; nothing over TCP
};

struct Export {
  VolumeId volume;
  bool read_only = false;
  uint64_t size_bytes = 0;
  std::string name{};         // the canonical one, at most kMaxExportName bytes
  std::string description{};  // for people, at most kMaxExportName bytes
  std::string token{};        // whatever the source needs to recognise it in attach() and detach()
};

struct ListedExport {
  std::string name, description;
};

class ExportSource {
 public:
  virtual ~ExportSource() = default;

  // By any name it goes by. Refusals: not_found, permission_denied, unavailable; the message reaches the
  // client.
  virtual boost::asio::awaitable<Answer<Export>> find(std::string name, Peer peer) = 0;
  // What this peer may see, by canonical name.
  virtual boost::asio::awaitable<Answer<std::vector<ListedExport>>> list(Peer peer) = 0;
  // A session begins on what find() answered. Refuses when it must not, or no longer can.
  virtual boost::asio::awaitable<Answer<void>> attach(Export exported, Peer peer) = 0;
  virtual void detach(const Export& exported) = 0;
};

}  // namespace obraz::nbd
