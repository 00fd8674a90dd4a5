#include "tools/nbdload/run.h"

#include <fmt/core.h>
#include <libnbd.h>
#include <poll.h>
#include <time.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "tools/nbdload/stamps.h"

namespace obraz::load {
namespace {

constexpr int kPatienceMs = 60'000;  // with the last answers

uint64_t clock_ns(clockid_t clock) {
  timespec now;
  ::clock_gettime(clock, &now);
  return uint64_t(now.tv_sec) * 1'000'000'000 + uint64_t(now.tv_nsec);
}

std::string nbd_error() {
  const char* text = nbd_get_error();
  return text ? text : "unknown error of libnbd";
}

struct Connection;

// A place for one request in flight, with its buffer.
struct Slot {
  Connection* connection = nullptr;
  std::byte* buffer = nullptr;
  Request request;
  uint64_t begun_ns = 0;
  bool ready = true;  // nothing is in flight
};

class Run;

struct Connection {
  struct Close {
    void operator()(nbd_handle* handle) const { nbd_close(handle); }
  };
  std::unique_ptr<nbd_handle, Close> handle;
  std::vector<Slot> slots;
  std::vector<Slot*> ended;  // since the last look
  Run* run = nullptr;
  unsigned in_flight = 0;
};

class Run {
 public:
  explicit Run(const RunOptions& options) : options_(options) {}

  std::expected<RunResult, std::string> run() {
    if (!connect() || !measure() || (stamps_ && !read_back()))
      return std::unexpected(problem_);
    return std::move(result_);
  }

 private:
  struct Free {
    void operator()(std::byte* bytes) const { std::free(bytes); }
  };

  bool fail(std::string problem) {
    if (problem_.empty())
      problem_ = std::move(problem);
    return false;
  }

  bool connect() {
    const unsigned total = options_.connections * options_.depth;
    const size_t block = options_.workload.block_size;
    buffers_.reset(static_cast<std::byte*>(std::aligned_alloc(4096, (block * total + 4095) / 4096 * 4096)));
    if (!buffers_)
      return fail("no memory for the payloads");
    std::memset(buffers_.get(), 0x5a, block * total);
    connections_.resize(options_.connections);
    for (unsigned i = 0; i < options_.connections; ++i) {
      Connection& connection = connections_[i];
      connection.run = this;
      connection.handle.reset(nbd_create());
      if (!connection.handle || nbd_connect_uri(connection.handle.get(), options_.uri.c_str()) != 0)
        return fail("cannot connect: " + nbd_error());
      connection.slots.resize(options_.depth);
      for (unsigned slot = 0; slot < options_.depth; ++slot) {
        connection.slots[slot].connection = &connection;
        connection.slots[slot].buffer = buffers_.get() + block * (size_t(i) * options_.depth + slot);
      }
      connection.ended.reserve(options_.depth);
    }
    nbd_handle* first = connections_.front().handle.get();
    const int64_t size = nbd_get_size(first);
    if (size < 0)
      return fail("cannot tell the size of the export: " + nbd_error());
    result_.export_bytes = uint64_t(size);
    WorkloadOptions workload = options_.workload;
    if (workload.offset > result_.export_bytes)
      return fail(fmt::format("the export has {} bytes, and the range begins at {}", size, workload.offset));
    if (workload.length == 0)
      workload.length = result_.export_bytes - workload.offset;
    const uint64_t unit = workload.once_per ? workload.once_per : workload.block_size;
    workload.length = workload.length / unit * unit;
    if (workload.length == 0)
      return fail(fmt::format("the range holds no piece of {} bytes", unit));
    if (workload.length > result_.export_bytes - workload.offset)
      return fail(fmt::format("the export has {} bytes, and the range ends at {}", size,
                              workload.offset + workload.length));
    const bool writes = workload.once_per != 0 || workload.read_percent < 100;
    if (writes && nbd_is_read_only(first) != 0)
      return fail("the export is read-only");
    if ((workload.flush_every != 0 || options_.verify) && nbd_can_flush(first) != 1)
      return fail("the server cannot flush");
    if (options_.fua && nbd_can_fua(first) != 1)
      return fail("the server has no FUA");
    if (options_.connections > 1 && writes && nbd_can_multi_conn(first) != 1)
      return fail("the server does not promise that several connections see the same export");
    range_ = workload;
    workload_.emplace(workload);
    if (options_.verify)
      stamps_.emplace(workload.offset, workload.length, workload.block_size);
    return true;
  }

  // libnbd calls it while it holds the handle's lock, so nothing of it may be called from here.
  static int on_end(void* user, int* error) {
    Slot* slot = static_cast<Slot*>(user);
    const uint64_t now = clock_ns(CLOCK_MONOTONIC);
    Run& run = *slot->connection->run;
    if (*error != 0)
      run.fail(fmt::format("{} at {}: the server answers {}", kKindNames[size_t(slot->request.kind)],
                           slot->request.offset, std::strerror(*error)));
    run.ended(*slot, now);
    slot->connection->ended.push_back(slot);
    return 1;  // retired
  }

  void ended(Slot& slot, uint64_t now) {
    const auto kind = size_t(slot.request.kind);
    if (now >= measure_from_ && now < measure_to_) {
      ++result_.requests[kind];
      if (slot.request.kind != Kind::flush)
        result_.bytes[kind] += range_.block_size;
      result_.latency_ns[kind].record(now - slot.begun_ns);
    }
    if (!stamps_ || slot.request.kind == Kind::flush || !problem_.empty())
      return;
    if (slot.request.kind == Kind::read) {
      const std::span<const std::byte> bytes(slot.buffer, range_.block_size);
      if (!stamps_->holds(slot.request.offset, bytes))
        fail(fmt::format("the block at {} does not hold what was written last", slot.request.offset));
      result_.verified_blocks += stamps_->written(slot.request.offset);
    }
    stamps_->give_back(slot.request.offset);
  }

  // The next request whose block is not in use by another one, when that matters.
  std::optional<Request> draw() {
    for (unsigned tries = 0; tries < 64; ++tries) {
      const auto request = held_ ? std::exchange(held_, std::nullopt) : workload_->next();
      if (!request || !stamps_ || request->kind == Kind::flush || stamps_->take(request->offset))
        return request;
      if (range_.sequential || range_.once_per != 0) {  // in its turn, when the block is free
        held_ = request;
        break;
      }
    }
    waiting_ = true;
    return std::nullopt;
  }

  bool begin(Slot& slot, const Request& request) {
    slot.request = request;
    slot.ready = false;
    const std::span<std::byte> bytes(slot.buffer, range_.block_size);
    if (request.kind == Kind::write && stamps_)
      stamps_->stamp(request.offset, bytes);
    const nbd_completion_callback callback = {.callback = on_end, .user_data = &slot, .free = nullptr};
    nbd_handle* handle = slot.connection->handle.get();
    slot.begun_ns = clock_ns(CLOCK_MONOTONIC);
    ++slot.connection->in_flight;
    ++begun_;
    int64_t cookie = -1;
    switch (request.kind) {
      case Kind::read:
        cookie = nbd_aio_pread(handle, bytes.data(), bytes.size(), request.offset, callback, 0);
        break;
      case Kind::write:
        cookie = nbd_aio_pwrite(handle, bytes.data(), bytes.size(), request.offset, callback,
                                options_.fua ? LIBNBD_CMD_FLAG_FUA : 0);
        break;
      case Kind::flush:
        cookie = nbd_aio_flush(handle, callback, 0);
        break;
    }
    if (cookie >= 0)
      return true;
    --slot.connection->in_flight;
    return fail(fmt::format("cannot send a {}: {}", kKindNames[size_t(request.kind)], nbd_error()));
  }

  void collect(Connection& connection) {
    for (Slot* slot : connection.ended) {
      slot->ready = true;
      --connection.in_flight;
    }
    connection.ended.clear();
  }

  // Waits until a socket has something to do, and does it.
  bool turn(int timeout_ms) {
    polled_.clear();
    for (Connection& connection : connections_) {
      nbd_handle* handle = connection.handle.get();
      const unsigned direction = nbd_aio_get_direction(handle);
      short events = 0;
      if (direction & LIBNBD_AIO_DIRECTION_READ)
        events |= POLLIN;
      if (direction & LIBNBD_AIO_DIRECTION_WRITE)
        events |= POLLOUT;
      polled_.push_back({nbd_aio_get_fd(handle), events, 0});
    }
    const int ready = ::poll(polled_.data(), polled_.size(), timeout_ms);
    if (ready < 0 && errno != EINTR)
      return fail(std::string("poll: ") + std::strerror(errno));
    if (ready == 0 && timeout_ms == kPatienceMs)
      return fail("the server has not answered for a minute");
    for (size_t i = 0; i < connections_.size() && ready > 0; ++i) {
      if (polled_[i].revents == 0)
        continue;
      Connection& connection = connections_[i];
      nbd_handle* handle = connection.handle.get();
      const bool writable = (polled_[i].revents & POLLOUT) && !(polled_[i].revents & POLLIN);
      const int done = writable ? nbd_aio_notify_write(handle) : nbd_aio_notify_read(handle);
      collect(connection);
      if (done != 0 || nbd_aio_is_dead(handle) == 1 || nbd_aio_is_closed(handle) == 1)
        return fail("the connection is lost: " + nbd_error());
    }
    return problem_.empty();
  }

  unsigned in_flight() const {
    unsigned total = 0;
    for (const Connection& connection : connections_)
      total += connection.in_flight;
    return total;
  }

  bool measure() {
    constexpr double kSecond = 1e9;
    const uint64_t start = clock_ns(CLOCK_MONOTONIC);
    measure_from_ = start + uint64_t(options_.warmup_seconds * kSecond);
    measure_to_ = options_.seconds > 0 ? measure_from_ + uint64_t(options_.seconds * kSecond) : UINT64_MAX;
    uint64_t cpu_from = clock_ns(CLOCK_PROCESS_CPUTIME_ID), cpu_to = 0;
    bool warming = options_.warmup_seconds > 0, over = false;
    while (problem_.empty()) {
      const uint64_t now = clock_ns(CLOCK_MONOTONIC);
      if (warming && now >= measure_from_) {
        warming = false;
        cpu_from = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
      }
      if (!over && now >= measure_to_) {
        over = true;
        cpu_to = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
      }
      waiting_ = false;
      for (Connection& connection : connections_) {
        for (Slot& slot : connection.slots) {
          over = over || (options_.requests != 0 && begun_ == options_.requests);
          if (over || waiting_ || !slot.ready)
            continue;
          const auto request = draw();
          if (!request) {
            over = over || !waiting_;
            break;
          }
          if (!begin(slot, *request))
            return false;
        }
        collect(connection);  // what was answered at once
      }
      if (in_flight() == 0 && over)
        break;
      const uint64_t left = std::min<uint64_t>(measure_to_ - std::min(measure_to_, now), 1'000'000'000);
      if (in_flight() > 0 && !turn(over ? kPatienceMs : int(left / 1'000'000) + 1))
        return false;
    }
    if (!problem_.empty())
      return false;
    const uint64_t end = std::min(clock_ns(CLOCK_MONOTONIC), measure_to_);
    result_.seconds = double(end - std::min(end, measure_from_)) / kSecond;
    result_.client_cpu_seconds =
        double((cpu_to ? cpu_to : clock_ns(CLOCK_PROCESS_CPUTIME_ID)) - cpu_from) / kSecond;
    return true;
  }

  // Every block that this run has written, once more, after a flush.
  bool read_back() {
    measure_from_ = measure_to_ = 0;  // nothing of it is measured
    nbd_handle* handle = connections_.front().handle.get();
    std::vector<std::byte> bytes(range_.block_size);
    if (nbd_flush(handle, 0) != 0)
      return fail("flush: " + nbd_error());
    for (uint64_t at = range_.offset; at < range_.offset + range_.length; at += range_.block_size) {
      if (!stamps_->written(at))
        continue;
      if (nbd_pread(handle, bytes.data(), bytes.size(), at, 0) != 0)
        return fail(fmt::format("read at {}: {}", at, nbd_error()));
      if (!stamps_->holds(at, bytes))
        return fail(fmt::format("the block at {} does not hold what was written last", at));
      ++result_.verified_blocks;
    }
    return true;
  }

  const RunOptions options_;
  WorkloadOptions range_;  // the workload's, with what the export has added
  std::unique_ptr<std::byte, Free> buffers_;
  std::vector<Connection> connections_;
  std::vector<pollfd> polled_;
  std::optional<Workload> workload_;
  std::optional<Stamps> stamps_;
  std::optional<Request> held_;
  bool waiting_ = false;  // for a block that is in use
  uint64_t begun_ = 0, measure_from_ = 0, measure_to_ = UINT64_MAX;
  std::string problem_;
  RunResult result_;
};

}  // namespace

std::expected<RunResult, std::string> run_load(const RunOptions& options) {
  return std::make_unique<Run>(options)->run();
}

}  // namespace obraz::load
