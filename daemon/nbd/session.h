// Session: one client in transmission. One coroutine receives, judges and starts requests; each request is a
// coroutine of its own that ends when its reply is sent; one coroutine sends (SendQueue).
//
// Where the bytes of a write go: requests are received into a small buffer, several at a time when they are
// small. What a receive has already brought of a payload is moved, the rest is received straight into the
// pool buffer, and that buffer is what the device writes: it is placed so that address and offset agree
// modulo 4 KiB. After a write longer than the small buffer the next receive takes one header only, so a
// stream of large writes is not moved at all. Back-pressure: no slot (kMaxRequestsPerSession), no share of
// payload memory (kMaxSessionPayload) or no free buffer each stop the receiving, of this session only.
//
// Invariant: run() returns when every request has ended, every reply has been sent or given up, and the
// socket is closed. Thread: the reactor's.
#pragma once

#include <ctime>
#include <memory>

#include "nbd/send_queue.h"
#include "nbd/sessions.h"
#include "nbd/wire.h"

namespace obraz::nbd {

class Session {
 public:
  Session(Sessions& sessions, uint64_t id, Adoption adoption, Volume volume);
  ~Session();

  Task<void> run();

  // From now on requests get ESHUTDOWN; the session ends as soon as what it has received is answered.
  void refuse();
  // At once: nothing more is received or sent. Requests in flight still run to their end.
  void cut_off();

  VolumeId volume() const { return volume_.id(); }
  SessionInfo info() const;
  uint64_t in_flight() const { return requests_.count(); }
  // Since when the peer, for whose requests payload memory is held, has neither taken the next part of its
  // replies nor sent the next part of a write; 0 when it keeps us waiting for neither.
  uint64_t stalled_since_us() const;
  std::string describe() const;
  std::move_only_function<void()> take_ended() { return std::move(ended_); }

 private:
  // A request that was accepted, with what it occupies.
  struct InFlight {
    Request request;
    uint64_t share = 0;  // of the session's payload memory
    Buffer buffer;       // empty when no bytes go with the request
    Bytes payload;       // the request's bytes inside it
  };

  // --- receiving ----------------------------------------------------------------------------------------
  Task<void> receive_requests();
  Task<bool> refuse_request(Request request, Verdict verdict);
  void serve(InFlight in_flight);
  Task<bool> fill(size_t size);  // at least `size` bytes in the receive buffer
  void fit_buffer();
  bool take_payload(Bytes into);
  Task<bool> receive_payload(Bytes into);
  Task<bool> drain(uint64_t length);
  static size_t shift_of(const Request& request);
  static uint64_t payload_size(const Request& request);

  // --- requests: each runs in requests_ -----------------------------------------------------------------
  Task<void> answer(Request request, Verdict verdict);
  Task<void> serve_read(InFlight in_flight);
  Task<void> serve_write(InFlight in_flight);
  Task<void> serve_status(InFlight in_flight);
  Task<void> serve_other(InFlight in_flight);
  Task<Result<size_t>> gather_status(Request request, Bytes into);
  void compose_read(Reply& reply, const InFlight& in_flight, std::vector<Extent>& extents) const;
  void compose_result(Reply& reply, const Request& request, const Status& status);
  void compose_error(Reply& reply, const Request& request, WireError error, const char* text);
  void leave(InFlight& in_flight);

  Terms terms() const { return {volume_.size_bytes(), read_only_, structured_, base_allocation_}; }
  std::vector<Extent> take_extents();

  Sessions& sessions_;
  Reactor& reactor_;
  const uint64_t id_;
  Descriptor socket_;
  RingFile file_;
  Volume volume_;
  const std::string export_name_, token_, peer_;
  const bool read_only_, structured_, base_allocation_;
  const std::time_t since_;
  std::move_only_function<void()> ended_;

  SendQueue queue_;
  Gate requests_, sender_;
  Semaphore slots_, shares_;
  uint64_t payload_held_ = 0;
  uint64_t receiving_since_us_ = 0;  // a part of a payload; 0: none is awaited

  std::unique_ptr<std::byte[]> received_;  // capacity_ bytes, of which [begin_, end_) are not used yet
  size_t capacity_ = limits::kReceiveBuffer, begin_ = 0, end_ = 0;
  size_t last_received_ = 0;  // bytes, by the last receive into it
  bool only_header_ = false;  // the next receive takes a header and nothing of what follows it
  bool refusing_ = false, cut_off_ = false;

  std::vector<std::vector<Extent>> spare_extents_;  // so that reads do not allocate
  SessionInfo counters_;                            // its numbers
};

}  // namespace obraz::nbd
