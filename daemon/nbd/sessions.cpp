#include "nbd/sessions.h"

#include <algorithm>

#include "base/log.h"
#include "nbd/session.h"

namespace obraz::nbd {

Sessions::Sessions(Reactor& reactor, BufferPool& pool, Store& store, SessionsOptions options)
    : reactor_(reactor),
      pool_(pool),
      store_(store),
      options_(options),
      gate_(reactor),
      changed_(reactor),
      relief_timer_(reactor) {}

Sessions::~Sessions() {
  OBRAZ_CHECK(sessions_.empty());
}

void Sessions::adopt(Adoption adoption) {
  Result<Volume> volume = stopping_ ? Result<Volume>(fail(ErrorCode::unavailable, "stopping"))
                                    : store_.open_volume(adoption.terms.exported.volume);
  if (!volume) {
    log::warning("nbd: {}: {} is not served: {}", adoption.peer.description, adoption.terms.exported.name,
                 obraz::describe(volume.error()));
    adoption.socket.reset();
    adoption.ended();
    return;
  }
  Session& session = sessions_.emplace_back(*this, next_id_++, std::move(adoption), std::move(*volume));
  log::info("nbd: {} begins", session.describe());
  gate_.spawn(run(session));
}

Task<void> Sessions::run(Session& session) {
  co_await session.run();
  const SessionInfo info = session.info();
  log::info("nbd: {} ends: {} requests, {} errors, {} bytes read, {} written", session.describe(),
            info.requests, info.errors, info.bytes_read, info.bytes_written);
  auto ended = session.take_ended();
  sessions_.remove_if([&session](const Session& other) { return &other == &session; });
  changed_.notify_all();
  ended();
}

uint64_t Sessions::in_flight() const {
  uint64_t requests = 0;
  for (const Session& session : sessions_)
    requests += session.in_flight();
  return requests;
}

// --- ending ---------------------------------------------------------------------------------------------

namespace {

bool concerns(const Session& session, std::optional<VolumeId> volume) {
  return !volume || session.volume() == *volume;
}

}  // namespace

Task<std::vector<SessionInfo>> Sessions::list(std::optional<VolumeId> volume) {
  std::vector<SessionInfo> infos;
  for (const Session& session : sessions_)
    if (concerns(session, volume))
      infos.push_back(session.info());
  co_return infos;
}

Task<void> Sessions::cut_off_later(Timer& timer, std::optional<VolumeId> volume) {
  const bool passed = co_await timer.wait_us(options_.grace_us);
  if (!passed)
    co_return;
  for (Session& session : sessions_)
    if (concerns(session, volume)) {
      log::warning("nbd: {} does not take its replies; cutting it off", session.describe());
      session.cut_off();
    }
}

Task<void> Sessions::end_all(std::optional<VolumeId> volume) {
  const auto any = [this, volume] {
    return std::any_of(sessions_.begin(), sessions_.end(),
                       [volume](const Session& session) { return concerns(session, volume); });
  };
  for (Session& session : sessions_)
    if (concerns(session, volume))
      session.refuse();
  Timer timer(reactor_);
  Gate clock(reactor_);
  clock.spawn(cut_off_later(timer, volume));
  while (any())
    co_await changed_.wait();
  timer.cancel();
  co_await clock.close();
}

Task<void> Sessions::stop() {
  stopping_ = true;
  co_await end_all(std::nullopt);
  relief_timer_.cancel();
  co_await gate_.close();
}

Task<unsigned> Sessions::close_sessions_of(VolumeId volume) {
  const auto count =
      unsigned(std::count_if(sessions_.begin(), sessions_.end(),
                             [volume](const Session& session) { return session.volume() == volume; }));
  co_await end_all(volume);
  co_return count;
}

// --- payload memory -------------------------------------------------------------------------------------

Task<Buffer> Sessions::acquire(size_t size) {
  Buffer buffer = pool_.try_acquire(size);
  if (buffer)
    co_return std::move(buffer);
  ++waiting_;
  if (!relieving_)
    gate_.spawn(relieve());
  buffer = co_await pool_.acquire(size);
  --waiting_;
  co_return std::move(buffer);
}

// Runs only while somebody waits for a buffer: looks for peers that hold memory and do nothing.
Task<void> Sessions::relieve() {
  relieving_ = true;
  while (waiting_ > 0) {
    // At most a quarter of the limit later than the limit.
    const bool passed = co_await relief_timer_.wait_us(options_.stall_us / 4);
    if (!passed)
      break;
    const uint64_t now = reactor_.now_us();
    for (Session& session : sessions_) {
      const uint64_t since = session.stalled_since_us();
      if (since == 0 || now - since < options_.stall_us)
        continue;
      log::warning("nbd: {} has kept us waiting for {} s while others wait for its memory; cutting it off",
                   session.describe(), (now - since) / 1'000'000);
      session.cut_off();
    }
  }
  relieving_ = false;
}

}  // namespace obraz::nbd
