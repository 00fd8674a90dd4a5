#include "nbd/session.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "base/log.h"

namespace obraz::nbd {
namespace {

constexpr size_t kSpareExtents = 64;      // vectors kept for the next reads
constexpr size_t kSpareCapacity = 256;    // a larger one is given back to the heap
constexpr size_t kReceivePart = 1 << 20;  // of a payload at a time, so that progress shows
constexpr size_t kStatusBatch = 1024;     // extents asked of the volume at a time
constexpr uint64_t kMinHole = 16 * 1024;  // a shorter one among data costs less as zeros than as a chunk

}  // namespace

Session::Session(Sessions& sessions, uint64_t id, Adoption adoption, Volume volume)
    : sessions_(sessions),
      reactor_(sessions.reactor_),
      id_(id),
      socket_(std::move(adoption.socket)),
      file_(reactor_.register_file(socket_.get())),
      volume_(std::move(volume)),
      export_name_(std::move(adoption.terms.exported.name)),
      token_(std::move(adoption.terms.exported.token)),
      peer_(std::move(adoption.peer.description)),
      read_only_(adoption.terms.exported.read_only || volume_.kind() == VolumeKind::frozen),
      structured_(adoption.terms.structured),
      base_allocation_(adoption.terms.base_allocation),
      since_(std::time(nullptr)),
      ended_(std::move(adoption.ended)),
      queue_(reactor_, file_),
      requests_(reactor_),
      sender_(reactor_),
      slots_(reactor_, limits::kMaxRequestsPerSession),
      shares_(reactor_, limits::kMaxSessionPayload),
      received_(std::make_unique_for_overwrite<std::byte[]>(limits::kReceiveBuffer)) {}

Session::~Session() {
  reactor_.unregister_file(file_);
}

SessionInfo Session::info() const {
  SessionInfo info = counters_;
  info.id = id_;
  info.volume = volume_.id();
  info.export_name = export_name_;
  info.token = token_;
  info.peer = peer_;
  info.read_only = read_only_;
  info.since = since_;
  info.in_flight = in_flight();
  return info;
}

std::string Session::describe() const {
  return fmt::format("session {} ({}, {})", id_, export_name_, peer_);
}

uint64_t Session::stalled_since_us() const {
  if (payload_held_ == 0)
    return 0;
  const uint64_t sending = queue_.stalled_since_us();
  if (sending == 0 || receiving_since_us_ == 0)
    return std::max(sending, receiving_since_us_);
  return std::min(sending, receiving_since_us_);
}

void Session::refuse() {
  refusing_ = true;
  // What has arrived can still be received and is refused request by request; after it comes the end.
  ::shutdown(socket_.get(), SHUT_RD);
}

void Session::cut_off() {
  refusing_ = cut_off_ = true;
  ::shutdown(socket_.get(), SHUT_RDWR);
}

Task<void> Session::run() {
  sender_.spawn(queue_.run());
  co_await receive_requests();
  // A client that has closed its sending side only is still answered.
  co_await requests_.close();
  queue_.finish();
  co_await sender_.close();
  ::shutdown(socket_.get(), SHUT_RDWR);
}

// --- receiving ------------------------------------------------------------------------------------------

Task<void> Session::receive_requests() {
  while (!cut_off_) {
    if (end_ - begin_ < kRequestSize) {
      const bool more = co_await fill(kRequestSize);
      if (!more)
        co_return;
    }
    const Result<Request> request = decode_request({received_.get() + begin_, kRequestSize});
    begin_ += kRequestSize;
    if (!request) {
      log::warning("nbd: {}: {}; closing it", describe(), request.error().text);
      co_return;
    }
    if (request->command == Command::disconnect)
      co_return;
    ++counters_.requests;
    co_await slots_.acquire();
    Verdict verdict = validate(*request, terms());
    if (refusing_)
      verdict = {WireError::shutdown, "the server is closing this session"};
    if (verdict.error != WireError::none) {
      const bool good = co_await refuse_request(*request, verdict);
      if (!good)
        co_return;
      continue;
    }
    InFlight in_flight{*request, payload_size(*request), {}, {}};
    if (in_flight.share > 0) {
      // Nearly always at once, and then without a coroutine for it.
      if (!shares_.try_acquire(in_flight.share))
        co_await shares_.acquire(in_flight.share);
      payload_held_ += in_flight.share;
      const size_t shift = shift_of(*request);
      in_flight.buffer = sessions_.pool().try_acquire(shift + in_flight.share);
      if (!in_flight.buffer)
        in_flight.buffer = co_await sessions_.acquire(shift + in_flight.share);
      in_flight.payload = in_flight.buffer.bytes().subspan(shift);
    }
    if (request->command == Command::write && !take_payload(in_flight.payload)) {
      const bool good = co_await receive_payload(in_flight.payload);
      if (!good) {
        leave(in_flight);
        co_return;
      }
    }
    serve(std::move(in_flight));
  }
}

// Answers a request that will not be done, and gives its slot back. False: the stream is lost.
Task<bool> Session::refuse_request(Request request, Verdict verdict) {
  bool good = true;
  if (request.has_payload()) {
    // Far more than anyone may send: rather than read it all, give up the stream, after the answer.
    if (request.length > limits::kMaxDrain)
      good = false;
    else
      good = co_await drain(request.length);
    // A request that was not received whole has no answer, unless it is the one that ends the session.
    if (!good && request.length <= limits::kMaxDrain) {
      slots_.release();
      co_return false;
    }
  }
  requests_.spawn(answer(request, verdict));
  co_return good;
}

void Session::serve(InFlight in_flight) {
  switch (in_flight.request.command) {
    case Command::read:
      requests_.spawn(serve_read(std::move(in_flight)));
      break;
    case Command::write:
      requests_.spawn(serve_write(std::move(in_flight)));
      break;
    case Command::block_status:
      requests_.spawn(serve_status(std::move(in_flight)));
      break;
    default:
      requests_.spawn(serve_other(std::move(in_flight)));
      break;
  }
}

uint64_t Session::payload_size(const Request& request) {
  switch (request.command) {
    case Command::read:
    case Command::write:
      return request.length;
    case Command::block_status: {
      if (request.has(kReqOne))
        return kStatusDescriptorSize;
      // No two runs of a kind are neighbours, and none but the outer two is shorter than a block.
      const uint64_t most = std::min<uint64_t>(request.length / kBlockSize + 2, limits::kMaxStatusExtents);
      return most * kStatusDescriptorSize;
    }
    default:
      return 0;
  }
}

// Where in a page the payload begins: as on the disk, so that the device can read and write it there.
size_t Session::shift_of(const Request& request) {
  const bool data = request.command == Command::read || request.command == Command::write;
  return data ? size_t(request.offset % kBlockSize) : 0;
}

// Twice as large after a receive that filled it, for then more was waiting; small again when the session has
// nothing to do.
void Session::fit_buffer() {
  size_t fit = capacity_;
  if (last_received_ >= capacity_ - kRequestSize)
    fit = std::min<size_t>(capacity_ * 2, limits::kMaxReceiveBuffer);
  else if (requests_.count() == 0 && end_ <= kRequestSize && last_received_ <= limits::kReceiveBuffer)
    fit = limits::kReceiveBuffer;
  if (fit == capacity_)
    return;
  auto fitting = std::make_unique_for_overwrite<std::byte[]>(fit);
  std::memcpy(fitting.get(), received_.get(), end_);
  received_ = std::move(fitting);
  capacity_ = fit;
  last_received_ = 0;
}

Task<bool> Session::fill(size_t size) {
  if (begin_ > 0) {
    std::memmove(received_.get(), received_.get() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  while (end_ < size) {
    fit_buffer();
    const size_t most = only_header_ ? size - end_ : capacity_ - end_;
    const int got = co_await reactor_.receive(file_, {received_.get() + end_, most});
    if (got == -EINTR)
      continue;
    if (got <= 0)
      co_return false;
    end_ += size_t(got);
    last_received_ = size_t(got);
  }
  only_header_ = false;
  co_return true;
}

// Whether all of it had been received.
bool Session::take_payload(Bytes into) {
  if (into.size() > end_ - begin_)
    return false;
  if (!into.empty())
    std::memcpy(into.data(), received_.get() + begin_, into.size());
  begin_ += into.size();
  return true;
}

Task<bool> Session::receive_payload(Bytes into) {
  const size_t here = std::min(into.size(), end_ - begin_);
  if (here > 0)
    std::memcpy(into.data(), received_.get() + begin_, here);
  begin_ += here;
  only_header_ = into.size() > limits::kReceiveBuffer;
  into = into.subspan(here);
  while (!into.empty()) {
    receiving_since_us_ = reactor_.now_us();
    const int got =
        co_await reactor_.receive(file_, into.first(std::min(into.size(), kReceivePart)), MSG_WAITALL);
    receiving_since_us_ = 0;
    if (got == -EINTR)
      continue;
    if (got <= 0)
      co_return false;
    into = into.subspan(size_t(got));
  }
  co_return true;
}

Task<bool> Session::drain(uint64_t length) {
  for (;;) {
    const auto here = std::min<uint64_t>(length, end_ - begin_);
    begin_ += size_t(here);
    length -= here;
    if (length == 0)
      co_return true;
    begin_ = end_ = 0;
    const bool more = co_await fill(1);
    if (!more)
      co_return false;
  }
}

// --- requests -------------------------------------------------------------------------------------------

void Session::leave(InFlight& in_flight) {
  in_flight.buffer.reset();
  payload_held_ -= in_flight.share;
  shares_.release(in_flight.share);
  slots_.release();
}

void Session::compose_error(Reply& reply, const Request& request, WireError error, const char* text) {
  ++counters_.errors;
  if (structured_)
    reply.add_error(request.cookie, error, text);
  else
    reply.add_simple(request.cookie, error);
}

void Session::compose_result(Reply& reply, const Request& request, const Status& status) {
  if (status)
    return reply.add_simple(request.cookie, WireError::none);
  const bool writing = request.command == Command::write || request.command == Command::write_zeroes;
  compose_error(reply, request, wire_error(status.error().code, writing), status.error().text);
}

Task<void> Session::answer(Request request, Verdict verdict) {
  Reply reply;
  compose_error(reply, request, verdict.error, verdict.text);
  co_await queue_.send(reply);
  slots_.release();
}

std::vector<Extent> Session::take_extents() {
  std::vector<Extent> extents;
  if (!spare_extents_.empty()) {
    extents = std::move(spare_extents_.back());
    spare_extents_.pop_back();
  }
  return extents;
}

namespace {

// Makes neighbours one that a reader cannot tell apart: for it a hole and zeros are the same.
void join_neighbours(std::vector<Extent>& extents) {
  size_t used = 0;
  for (const Extent extent : extents) {
    const bool zeros = extent.hole || extent.zero;
    if (used > 0 && extents[used - 1].zero == zeros)
      extents[used - 1].length += extent.length;
    else
      extents[used++] = Extent{extent.offset, extent.length, false, zeros};
  }
  extents.resize(used);
}

// Joins what is not worth a chunk of its own: short runs of zeros among data are made data, and so is
// everything after the last chunk allowed. `payload` is the request's, `offset` its offset.
void coarsen(std::vector<Extent>& extents, Bytes payload, uint64_t offset, size_t most) {
  join_neighbours(extents);
  size_t used = 0;
  for (const Extent extent : extents) {
    const bool zeros = extent.zero;
    Extent* last = used > 0 ? &extents[used - 1] : nullptr;
    const bool last_zeros = last && last->zero;
    const bool join = last && (used == most || zeros == last_zeros || (zeros && extent.length < kMinHole) ||
                               (last_zeros && last->length < kMinHole));
    if (!join) {
      extents[used++] = Extent{extent.offset, extent.length, false, zeros};
      continue;
    }
    if (zeros != last_zeros) {
      const Extent& blank = zeros ? extent : *last;
      std::memset(payload.data() + (blank.offset - offset), 0, blank.length);
      last->zero = false;
    }
    last->length += extent.length;
  }
  extents.resize(used);
}

}  // namespace

void Session::compose_read(Reply& reply, const InFlight& in_flight, std::vector<Extent>& extents) const {
  const Request& request = in_flight.request;
  const Bytes payload = in_flight.payload;
  if (!structured_) {
    reply.add_simple(request.cookie, WireError::none);
    reply.add_bytes(payload);
    return;
  }
  if (request.length == 0)
    return reply.add_done(request.cookie);
  if (request.has(kDf))
    return reply.add_data(request.cookie, kDone, request.offset, payload);
  coarsen(extents, payload, request.offset, limits::kMaxReadChunks);
  reply.reserve(extents.size());
  for (size_t i = 0; i < extents.size(); ++i) {
    const Extent& extent = extents[i];
    const uint16_t flags = i + 1 == extents.size() ? kDone : 0;
    if (extent.zero)
      reply.add_hole(request.cookie, flags, extent.offset, uint32_t(extent.length));
    else
      reply.add_data(request.cookie, flags, extent.offset,
                     payload.subspan(size_t(extent.offset - request.offset), size_t(extent.length)));
  }
}

Task<void> Session::serve_read(InFlight in_flight) {
  const Request& request = in_flight.request;
  const bool chunks = structured_ && !request.has(kDf);
  std::vector<Extent> extents = take_extents();
  extents.clear();
  Status status;
  if (request.length > 0)
    status = co_await volume_.read(request.offset, in_flight.payload, chunks ? &extents : nullptr);
  Reply reply;
  if (status)
    compose_read(reply, in_flight, extents);
  else
    compose_result(reply, request, status);
  if (spare_extents_.size() < kSpareExtents && extents.capacity() <= kSpareCapacity)
    spare_extents_.push_back(std::move(extents));
  const bool sent = co_await queue_.send(reply);
  if (status && sent)
    counters_.bytes_read += request.length;
  leave(in_flight);
}

Task<void> Session::serve_write(InFlight in_flight) {
  const Request& request = in_flight.request;
  Status status;
  if (request.length > 0)
    status = co_await volume_.write(request.offset, in_flight.payload, request.has(kFua));
  if (status)
    counters_.bytes_written += request.length;
  // The payload is no longer needed while the reply waits for its turn.
  in_flight.buffer.reset();
  payload_held_ -= in_flight.share;
  shares_.release(std::exchange(in_flight.share, 0));
  Reply reply;
  compose_result(reply, request, status);
  co_await queue_.send(reply);
  leave(in_flight);
}

// Fills `into` with descriptors; returns how many bytes of it.
Task<Result<size_t>> Session::gather_status(Request request, Bytes into) {
  std::vector<Extent> extents;
  uint64_t at = request.offset;
  const uint64_t end = request.offset + request.length;
  size_t used = 0;
  uint32_t last_flags = 0, last_length = 0;
  while (at < end) {
    extents.clear();
    const size_t room = into.size() / kStatusDescriptorSize - used;
    if (room == 0)
      break;
    const Status status = co_await volume_.block_status(at, end - at, std::min(room, kStatusBatch), extents);
    OBRAZ_CO_TRY(status);
    for (const Extent& extent : extents) {
      const uint32_t flags = status_flags(extent);
      // Neighbours of one kind may meet where two batches do.
      const bool joins = used > 0 && flags == last_flags;
      last_length = uint32_t(extent.length) + (joins ? last_length : 0);
      last_flags = flags;
      used += joins ? 0 : 1;
      encode_status(into.data() + (used - 1) * kStatusDescriptorSize, last_length, flags);
      at = extent.offset + extent.length;
    }
    if (extents.empty())
      break;
    if (request.has(kReqOne))
      break;
  }
  if (used == 0)
    co_return fail(ErrorCode::io, "the volume told no block status");
  co_return used* kStatusDescriptorSize;
}

Task<void> Session::serve_status(InFlight in_flight) {
  const Request& request = in_flight.request;
  const Result<size_t> size = co_await gather_status(request, in_flight.payload);
  Reply reply;
  if (size) {
    reply.add_status_head(request.cookie, kBaseAllocationId, uint32_t(*size));
    reply.add_bytes(in_flight.payload.first(*size));
  } else {
    compose_result(reply, request, Failure(size.error()));
  }
  co_await queue_.send(reply);
  leave(in_flight);
}

Task<void> Session::serve_other(InFlight in_flight) {
  const Request& request = in_flight.request;
  const bool fua = request.has(kFua);
  Status status;
  if (request.command == Command::flush)
    status = co_await volume_.flush();
  else if (request.length == 0)
    status = Status();
  else if (request.command == Command::trim)
    status = co_await volume_.discard(request.offset, request.length, fua);
  else if (request.command == Command::cache)
    status = co_await volume_.cache(request.offset, request.length);
  else if (request.has(kFastZero) && request.has(kNoHole))
    status =
        fail(ErrorCode::unsupported, "zeros that take space are written, which is no faster than a write");
  else  // without NO_HOLE nothing but partial blocks is written, so FAST_ZERO needs no word
    status = co_await volume_.zero(request.offset, request.length,
                                   {.fua = fua, .keep_allocated = request.has(kNoHole)});
  Reply reply;
  compose_result(reply, request, status);
  co_await queue_.send(reply);
  leave(in_flight);
}

}  // namespace obraz::nbd
