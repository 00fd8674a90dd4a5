// Sessions: all clients in transmission, on the reactor. It takes over sockets whose handshake is done,
// shares the buffer pool among them fairly, ends them when asked, and tells about them.
//
// Invariants: a session's volume stays open as long as the session; `ended` of an adoption is called exactly
// once, after the socket is closed and nothing of the session is left; payload memory of one session is
// bounded by kMaxSessionPayload, that of all by the pool. A peer that takes no reply for `stall_us` while
// others wait for the memory its replies hold is disconnected; without such need it may sleep as long as it
// likes. Thread: the reactor's.
#pragma once

#include <ctime>
#include <functional>
#include <list>
#include <optional>
#include <string>
#include <vector>

#include "base/limits.h"
#include "io/buffer_pool.h"
#include "io/reactor.h"
#include "nbd/descriptor.h"
#include "nbd/handshake.h"
#include "store/store.h"

namespace obraz::nbd {

class Session;

struct SessionsOptions {
  uint64_t grace_us = limits::kStopGraceSeconds * 1'000'000ull;
  uint64_t stall_us = limits::kStallSeconds * 1'000'000ull;
};

// What the handshake hands over.
struct Adoption {
  Descriptor socket;
  Negotiated terms;
  Peer peer;
  std::move_only_function<void()> ended;
};

struct SessionInfo {
  uint64_t id = 0;  // of this run of the daemon
  VolumeId volume;
  std::string export_name, peer;
  std::string token;  // of the export, as its source gave it
  bool read_only = false;
  std::time_t since = 0;
  uint64_t requests = 0;       // received, good and bad
  uint64_t errors = 0;         // of them answered with an error
  uint64_t bytes_read = 0;     // sent to the client, holes included
  uint64_t bytes_written = 0;  // received and stored
  uint64_t in_flight = 0;      // requests being worked on
};

class Sessions {
 public:
  Sessions(Reactor& reactor, BufferPool& pool, Store& store, SessionsOptions options = {});
  Sessions(const Sessions&) = delete;
  ~Sessions();

  // Starts a session. When it cannot (stopping, the volume is gone) the socket is closed and `ended` called
  // at once.
  void adopt(Adoption adoption);

  // Accepts no further sessions and ends all: what is in flight is finished and answered, later requests get
  // ESHUTDOWN, and peers that do not take their replies within the grace period are cut off. Once.
  Task<void> stop();
  // The same for the sessions of one volume; returns how many there were.
  Task<unsigned> close_sessions_of(VolumeId volume);

  // Of one volume, or all. A task, so that it fits AsioBridge::call as it is.
  Task<std::vector<SessionInfo>> list(std::optional<VolumeId> volume = std::nullopt);
  size_t count() const { return sessions_.size(); }
  uint64_t in_flight() const;  // requests of all, each a coroutine

 private:
  friend class Session;

  BufferPool& pool() { return pool_; }
  // A payload buffer when none is free at once. Waiting ones make the peers that hold memory without reading
  // their replies suspicious.
  Task<Buffer> acquire(size_t size);
  Task<void> relieve();
  Task<void> end_all(std::optional<VolumeId> volume);
  Task<void> cut_off_later(Timer& timer, std::optional<VolumeId> volume);
  Task<void> run(Session& session);

  Reactor& reactor_;
  BufferPool& pool_;
  Store& store_;
  SessionsOptions options_;
  std::list<Session> sessions_;
  uint64_t next_id_ = 1;
  bool stopping_ = false;

  Gate gate_;      // sessions and relieve()
  Event changed_;  // a session has ended
  Timer relief_timer_;
  unsigned waiting_ = 0;  // for a buffer
  bool relieving_ = false;
};

}  // namespace obraz::nbd
