#include "tools/nbdload/run.h"

#include <fmt/core.h>
#include <libnbd.h>
#include <poll.h>
#include <time.h>

#include <cerrno>
#include <cstdio>
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

// What a URI names, and what is drawn for it.
struct Export {
  std::string uri;
  WorkloadOptions range;  // the options, with what the export has added
  std::optional<Workload> workload;
  std::optional<Stamps> stamps;
  std::optional<Request> held;
  bool waiting = false;  // for a block that is in use
  bool done = false;     // its workload is at its end
  size_t index = 0;
};

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
  Export* from = nullptr;
  unsigned in_flight = 0;
};

class Run {
 public:
  explicit Run(const RunOptions& options) : options_(options) {}

  std::expected<RunResult, std::string> run() {
    if (!connect())
      return std::unexpected(problem_);
    if (options_.announce) {
      fmt::print("begin\n");
      std::fflush(stdout);
    }
    if (!measure() || (options_.verify && !read_back()))
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
    const size_t total = options_.uris.size() * options_.connections;
    const size_t block = options_.workload.block_size;
    const size_t bytes = block * total * options_.depth;
    buffers_.reset(static_cast<std::byte*>(std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096)));
    if (!buffers_)
      return fail("no memory for the payloads");
    std::memset(buffers_.get(), 0x5a, bytes);
    connections_.resize(total);
    exports_.resize(options_.uris.size());
    for (size_t i = 0; i < total; ++i) {
      Connection& connection = connections_[i];
      connection.run = this;
      connection.from = &exports_[i / options_.connections];
      connection.from->index = i / options_.connections;
      connection.from->uri = options_.uris[connection.from->index];
      connection.handle.reset(nbd_create());
      if (!connection.handle || nbd_connect_uri(connection.handle.get(), connection.from->uri.c_str()) != 0)
        return fail("cannot connect: " + nbd_error());
      connection.slots.resize(options_.depth);
      for (unsigned slot = 0; slot < options_.depth; ++slot) {
        connection.slots[slot].connection = &connection;
        connection.slots[slot].buffer = buffers_.get() + block * (i * options_.depth + slot);
      }
      connection.ended.reserve(options_.depth);
    }
    for (Export& from : exports_)
      if (!prepare(from, connections_[from.index * options_.connections].handle.get()))
        return false;
    return true;
  }

  // Fits the range to the export, and refuses what it cannot do.
  bool prepare(Export& from, nbd_handle* first) {
    const int64_t size = nbd_get_size(first);
    if (size < 0)
      return fail("cannot tell the size of the export: " + nbd_error());
    const auto export_bytes = uint64_t(size);
    result_.export_bytes += export_bytes;
    WorkloadOptions workload = options_.workload;
    if (workload.offset > export_bytes)
      return fail(fmt::format("the export has {} bytes, and the range begins at {}", size, workload.offset));
    if (workload.length == 0)
      workload.length = export_bytes - workload.offset;
    const uint64_t unit = workload.once_per ? workload.once_per : workload.block_size;
    workload.length = workload.length / unit * unit;
    if (workload.length == 0)
      return fail(fmt::format("the range holds no piece of {} bytes", unit));
    if (workload.length > export_bytes - workload.offset)
      return fail(fmt::format("the export has {} bytes, and the range ends at {}", size,
                              workload.offset + workload.length));
    const bool writes = workload.read_percent < 100;
    if (writes && nbd_is_read_only(first) != 0)
      return fail("the export is read-only");
    if ((workload.flush_every != 0 || options_.verify) && nbd_can_flush(first) != 1)
      return fail("the server cannot flush");
    if (options_.fua && nbd_can_fua(first) != 1)
      return fail("the server has no FUA");
    if (options_.connections > 1 && writes && nbd_can_multi_conn(first) != 1)
      return fail("the server does not promise that several connections see the same export");
    workload.seed += from.index;
    from.range = workload;
    from.workload.emplace(workload);
    if (options_.verify)
      from.stamps.emplace(workload.offset, workload.length, workload.block_size);
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
    std::optional<Stamps>& stamps = slot.connection->from->stamps;
    if (now >= measure_from_ && now < measure_to_) {
      ++result_.requests[kind];
      if (slot.request.kind != Kind::flush)
        result_.bytes[kind] += options_.workload.block_size;
      result_.latency_ns[kind].record(now - slot.begun_ns);
      if (options_.interval_ms != 0)
        note_interval(now, now - slot.begun_ns);
    }
    if (!stamps || slot.request.kind == Kind::flush || !problem_.empty())
      return;
    if (slot.request.kind == Kind::read) {
      const std::span<const std::byte> bytes(slot.buffer, options_.workload.block_size);
      if (!stamps->holds(slot.request.offset, bytes))
        fail(fmt::format("the block at {} does not hold what was written last", slot.request.offset));
      result_.verified_blocks += stamps->written(slot.request.offset);
    }
    stamps->give_back(slot.request.offset);
  }

  void note_interval(uint64_t now, uint64_t latency_ns) {
    const auto index = size_t((now - measure_from_) / (options_.interval_ms * 1'000'000));
    if (index >= result_.intervals.size())
      result_.intervals.resize(index + 1);
    Interval& interval = result_.intervals[index];
    ++interval.requests;
    interval.max_latency_ns = std::max(interval.max_latency_ns, latency_ns);
  }

  // The next request whose block is not in use by another one, when that matters.
  static std::optional<Request> draw(Export& from) {
    for (unsigned tries = 0; tries < 64; ++tries) {
      const auto request = from.held ? std::exchange(from.held, std::nullopt) : from.workload->next();
      if (!request || !from.stamps || request->kind == Kind::flush || from.stamps->take(request->offset))
        return request;
      if (from.range.sequential || from.range.once_per != 0) {  // in its turn, when the block is free
        from.held = request;
        break;
      }
    }
    from.waiting = true;
    return std::nullopt;
  }

  bool begin(Slot& slot, const Request& request) {
    slot.request = request;
    slot.ready = false;
    const std::span<std::byte> bytes(slot.buffer, options_.workload.block_size);
    if (request.kind == Kind::write && slot.connection->from->stamps)
      slot.connection->from->stamps->stamp(request.offset, bytes);
    const nbd_completion_callback callback = {.callback = on_end, .user_data = &slot, .free = nullptr};
    nbd_handle* handle = slot.connection->handle.get();
    slot.begun_ns = clock_ns(CLOCK_MONOTONIC);
    ++slot.connection->in_flight;
    ++in_flight_;
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
    --in_flight_;
    return fail(fmt::format("cannot send a {}: {}", kKindNames[size_t(request.kind)], nbd_error()));
  }

  void collect(Connection& connection) {
    for (Slot* slot : connection.ended) {
      slot->ready = true;
      --connection.in_flight;
      --in_flight_;
    }
    connection.ended.clear();
  }

  // Waits until a socket has something to do, and does it.
  bool turn(int timeout_ms) {
    polled_.clear();
    for (Connection* connection : working_) {
      nbd_handle* handle = connection->handle.get();
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
    for (size_t i = 0; i < working_.size() && ready > 0; ++i) {
      if (polled_[i].revents == 0)
        continue;
      Connection& connection = *working_[i];
      nbd_handle* handle = connection.handle.get();
      const bool writable = (polled_[i].revents & POLLOUT) && !(polled_[i].revents & POLLIN);
      const int done = writable ? nbd_aio_notify_write(handle) : nbd_aio_notify_read(handle);
      collect(connection);
      if (done != 0 || nbd_aio_is_dead(handle) == 1 || nbd_aio_is_closed(handle) == 1)
        return fail("the connection is lost: " + nbd_error());
    }
    return problem_.empty();
  }

  bool has_turn(const Export& from) const {
    return options_.busy == 0 || options_.busy >= exports_.size() ||
           (from.index + exports_.size() - first_busy_) % exports_.size() < options_.busy;
  }

  // Gives the turn to the exports from first_busy_ on. Only they, and who still awaits an answer, are looked
  // at: a thousand idle connections cost nothing.
  void take_turn() {
    std::vector<Connection*> working;
    for (Connection& connection : connections_)
      if (has_turn(*connection.from) || connection.in_flight > 0)
        working.push_back(&connection);
    working_ = std::move(working);
  }

  // New requests wherever there is room. True when no more will come from any export.
  bool fill() {
    bool over = options_.requests != 0 && begun_ == options_.requests;
    for (Connection* connection : working_)
      connection->from->waiting = false;
    for (Connection* connection : working_) {
      Export& from = *connection->from;
      for (Slot& slot : connection->slots) {
        over = over || (options_.requests != 0 && begun_ == options_.requests);
        if (over || from.done || from.waiting || !slot.ready || !has_turn(from))
          continue;
        const auto request = draw(from);
        if (!request) {
          from.done = !from.waiting;
          done_exports_ += from.done;
          break;
        }
        if (!begin(slot, *request))
          return true;
      }
      collect(*connection);  // what was answered at once
    }
    return over || done_exports_ == exports_.size();
  }

  bool measure() {
    constexpr double kSecond = 1e9;
    const uint64_t start = clock_ns(CLOCK_MONOTONIC);
    measure_from_ = start + uint64_t(options_.warmup_seconds * kSecond);
    measure_to_ = options_.seconds > 0 ? measure_from_ + uint64_t(options_.seconds * kSecond) : UINT64_MAX;
    uint64_t cpu_from = clock_ns(CLOCK_PROCESS_CPUTIME_ID), cpu_to = 0;
    bool warming = options_.warmup_seconds > 0, over = false, nothing_to_do = false;
    uint64_t next_turn = start + kTurnNs;
    take_turn();
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
      if (options_.busy != 0 && (now >= next_turn || nothing_to_do)) {
        first_busy_ = (first_busy_ + options_.busy) % exports_.size();
        next_turn = now + kTurnNs;
        take_turn();
      }
      if (!over)
        over = fill();
      if (!problem_.empty())
        return false;
      if (in_flight_ == 0 && over)
        break;
      nothing_to_do = in_flight_ == 0;  // for those that have the turn
      const uint64_t left = std::min<uint64_t>(measure_to_ - std::min(measure_to_, now), kTurnNs);
      if (in_flight_ > 0 && !turn(over ? kPatienceMs : int(left / 1'000'000) + 1))
        return false;
    }
    if (!problem_.empty())
      return false;
    const uint64_t end = std::min(clock_ns(CLOCK_MONOTONIC), measure_to_);
    result_.begin_ns = measure_from_;
    result_.seconds = double(end - std::min(end, measure_from_)) / kSecond;
    result_.client_cpu_seconds =
        double((cpu_to ? cpu_to : clock_ns(CLOCK_PROCESS_CPUTIME_ID)) - cpu_from) / kSecond;
    return true;
  }

  // Every block that this run has written, once more, after a flush.
  bool read_back() {
    measure_from_ = measure_to_ = 0;  // nothing of it is measured
    for (Export& from : exports_)
      if (!read_back(from, connections_[from.index * options_.connections].handle.get()))
        return false;
    return true;
  }

  bool read_back(Export& from, nbd_handle* handle) {
    const WorkloadOptions& range = from.range;
    std::vector<std::byte> bytes(range.block_size);
    if (nbd_flush(handle, 0) != 0)
      return fail("flush: " + nbd_error());
    for (uint64_t at = range.offset; at < range.offset + range.length; at += range.block_size) {
      if (!from.stamps->written(at))
        continue;
      if (nbd_pread(handle, bytes.data(), bytes.size(), at, 0) != 0)
        return fail(fmt::format("read at {}: {}", at, nbd_error()));
      if (!from.stamps->holds(at, bytes))
        return fail(fmt::format("the block at {} does not hold what was written last", at));
      ++result_.verified_blocks;
    }
    return true;
  }

  const RunOptions options_;
  std::unique_ptr<std::byte, Free> buffers_;
  std::vector<Export> exports_;
  std::vector<Connection> connections_;  // those of one export beside each other
  std::vector<Connection*> working_;     // that may have something in flight
  std::vector<pollfd> polled_;           // for each of these
  size_t first_busy_ = 0;                // the export that has the turn, with those after it
  size_t done_exports_ = 0, in_flight_ = 0;
  uint64_t begun_ = 0, measure_from_ = 0, measure_to_ = UINT64_MAX;
  std::string problem_;
  RunResult result_;
};

}  // namespace

std::expected<RunResult, std::string> run_load(const RunOptions& options) {
  return std::make_unique<Run>(options)->run();
}

}  // namespace obraz::load
