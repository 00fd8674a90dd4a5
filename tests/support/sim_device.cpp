#include "support/sim_device.h"

#include <algorithm>
#include <utility>

namespace obraz::test {
namespace {

Failure power_cut() {
  return fail(ErrorCode::io, "power cut");
}

}  // namespace

const char* name_of(IoKind kind) {
  static constexpr const char* kNames[kIoKinds] = {"read", "write", "flush", "discard", "allocate"};
  return kNames[size_t(kind)];
}

// --- power
// ------------------------------------------------------------------------------------------------------------

void PowerSupply::arm(CutPoint point, Survival survival) {
  point_ = point;
  survival_ = survival;
}

void PowerSupply::cut(Survival survival) {
  if (!on_)
    return;
  on_ = false;
  for (SimDevice* device : devices_)
    device->die(&survival);
}

void PowerSupply::kill() {
  if (!on_)
    return;
  on_ = false;
  for (SimDevice* device : devices_)
    device->die(nullptr);
}

void PowerSupply::restart() {
  for (SimDevice* device : devices_)
    OBRAZ_CHECK(device->outstanding_.empty());
  on_ = true;
  operations_ = 0;
  point_ = {};
}

bool PowerSupply::reaches(uint64_t operation, CutPoint::When when) {
  if (!on_ || point_.operation != operation || point_.when != when)
    return false;
  if (point_.kill)
    kill();
  else
    cut(survival_);
  return true;
}

// --- device
// -----------------------------------------------------------------------------------------------------------

SimDevice::SimDevice(SimLoop& loop, SimDeviceOptions options, SimImage contents)
    : loop_(loop),
      options_(options),
      power_(options.power),
      random_(options.seed),
      current_(contents),
      durable_(std::move(contents)) {
  OBRAZ_CHECK(options_.size_bytes % kBlockSize == 0 && options_.min_latency_us <= options_.max_latency_us);
  if (!power_) {
    own_power_ = std::make_unique<PowerSupply>();
    power_ = own_power_.get();
  }
  power_->devices_.push_back(this);
}

SimDevice::~SimDevice() {
  OBRAZ_CHECK(outstanding_.empty());
  std::erase(power_->devices_, this);
}

void SimDevice::check_range(uint64_t offset, uint64_t length, const void* address) const {
  OBRAZ_CHECK(offset % kBlockSize == 0 && length % kBlockSize == 0 && length > 0);
  OBRAZ_CHECK(length <= options_.size_bytes && offset <= options_.size_bytes - length);
  OBRAZ_CHECK(reinterpret_cast<uintptr_t>(address) % kBlockSize == 0);
}

Task<Status> SimDevice::read(uint64_t offset, Bytes into) {
  check_range(offset, into.size(), into.data());
  Operation operation(loop_, IoKind::read, offset, into.size());
  operation.into = into;
  co_return co_await perform(operation);
}

Task<Status> SimDevice::write(uint64_t offset, ConstBytes from) {
  check_range(offset, from.size(), from.data());
  Operation operation(loop_, IoKind::write, offset, from.size());
  operation.from = from;
  co_return co_await perform(operation);
}

Task<Status> SimDevice::flush() {
  Operation operation(loop_, IoKind::flush, 0, options_.size_bytes);
  co_return co_await perform(operation);
}

Task<Status> SimDevice::discard(uint64_t offset, uint64_t length) {
  check_range(offset, length, nullptr);
  Operation operation(loop_, IoKind::discard, offset, length);
  co_return co_await perform(operation);
}

Task<Status> SimDevice::allocate(uint64_t offset, uint64_t length) {
  check_range(offset, length, nullptr);
  Operation operation(loop_, IoKind::allocate, offset, length);
  co_return co_await perform(operation);
}

uint64_t SimDevice::draw_latency() {
  const uint64_t span = options_.max_latency_us - options_.min_latency_us + 1;
  const uint64_t latency = options_.min_latency_us + random_() % span;
  return options_.slow > 0 && draw() < options_.slow ? latency * options_.slow_factor : latency;
}

int SimDevice::take_fault(const Operation& op) {
  if (op.kind == IoKind::write && op.offset < broken_to_ && op.offset + op.length > broken_from_)
    return EIO;
  Fault& fault = faults_[size_t(op.kind)];
  if (fault.countdown == 0 || --fault.countdown > 0)
    return 0;
  if (fault.for_ever)
    fault.countdown = 1;
  return fault.os_error;
}

// 1. counted (the power may go before it starts)  2. begun  3. takes effect, perhaps in two steps  4. ends.
Task<Status> SimDevice::perform(Operation& op) {
  op.number = ++power_->operations_;
  Counters& counters = counters_[size_t(op.kind)];
  ++counters.operations;
  counters.bytes += op.kind == IoKind::flush ? 0 : op.length;
  if (!power_->on_ || power_->reaches(op.number, CutPoint::When::before)) {
    co_await yield(loop_);
    co_return power_cut();
  }
  const int os_error = take_fault(op);
  begin(op);
  const auto place = outstanding_.insert(outstanding_.end(), &op);
  const uint64_t latency = draw_latency(), before = random_() % (latency + 1);
  const bool in_two_steps = op.kind == IoKind::write && !op.lost && draw() < 0.25;
  co_await op.timer.wait_us(before);
  while (power_->on_ && op.held && !op.held->released_)
    co_await op.held->event_.wait();
  if (power_->on_ && in_two_steps && os_error == 0) {
    const Pending& pending = pending_.at(op.pending);
    some_sectors(pending, [&](uint64_t at, uint64_t n) {
      current_.write(pending.offset + at, ConstBytes(pending.bytes).subspan(at, n));
    });
    co_await op.timer.wait_us(draw_latency());
  }
  power_->reaches(op.number, CutPoint::When::during);
  bool complete = power_->on_;
  if (complete) {
    if (os_error != 0)
      fail_effect(op);
    else
      finish(op);
    // A write that fails ends here; others may be reported a good while after they took effect.
    if (latency > before)
      co_await op.timer.wait_us(latency - before);
    if (power_->on_ && op.pending != 0 && os_error == 0 && !op.lost)
      pending_.at(op.pending).completed_at = ++clock_;
    power_->reaches(op.number, CutPoint::When::after);
    complete = power_->on_;
  }
  outstanding_.erase(place);
  if (!complete)
    co_return power_cut();
  if (os_error != 0) {
    ++counters.failures;
    co_return fail_os(os_error, "injected error");
  }
  co_return Status();
}

void SimDevice::begin(Operation& op) {
  if (op.kind == IoKind::write) {
    op.pending = next_pending_++;
    pending_[op.pending] = {op.offset, std::vector<std::byte>(op.from.begin(), op.from.end()), 0, false};
    take_lie(op);
  }
  if (op.kind == IoKind::flush)
    op.flush_from = clock_;
  for (auto it = holds_.begin(); it != holds_.end(); ++it) {
    Hold& hold = **it;
    if (hold.kind_ != op.kind || op.offset >= hold.to_ || op.offset + op.length <= hold.from_)
      continue;
    hold.caught_ = true;
    hold.offset_ = op.offset;
    hold.length_ = op.length;
    op.held = *it;
    holds_.erase(it);
    break;
  }
}

void SimDevice::take_lie(Operation& op) {
  if (lie_.countdown == 0 || op.offset < lie_.from || op.offset + op.length > lie_.to || --lie_.countdown > 0)
    return;
  if (lie_.lie == Lie::lost) {
    op.lost = true;
    return;
  }
  std::vector<uint64_t> others;
  for (uint64_t at = lie_.from; at + op.length <= lie_.to; at += SimImage::kPageSize)
    if (current_.has_page(at / SimImage::kPageSize) &&
        (at + op.length <= op.offset || at >= op.offset + op.length))
      others.push_back(at);
  if (!others.empty())
    pending_.at(op.pending).offset = others[random_() % others.size()];
}

void SimDevice::finish(Operation& op) {
  switch (op.kind) {
    case IoKind::read:
      current_.read(op.offset, op.into);
      break;
    case IoKind::write: {
      const Pending& pending = pending_.at(op.pending);
      // The device may fetch the bytes at any time before the end.
      OBRAZ_CHECK(std::equal(op.from.begin(), op.from.end(), pending.bytes.begin()));
      if (op.lost)
        pending_.erase(op.pending);
      else
        current_.write(pending.offset, pending.bytes);
      break;
    }
    case IoKind::flush:
      make_durable(op.flush_from);
      break;
    case IoKind::discard:
      discard_now(op);
      break;
    case IoKind::allocate:
      break;
  }
}

void SimDevice::discard_now(Operation& op) {
  std::vector<std::byte> page(SimImage::kPageSize);
  for (uint64_t at = op.offset; at < op.offset + op.length; at += SimImage::kPageSize) {
    if (!current_.has_page(at / SimImage::kPageSize))
      continue;  // was zeros; noise would only cost memory
    const uint64_t what = random_() % 3;
    if (what == 0)
      continue;
    std::fill(page.begin(), page.end(), what == 1 ? std::byte{0} : std::byte{0xd5});
    current_.write(at, page);
    pending_[next_pending_++] = {at, page, ++clock_, false};
  }
}

void SimDevice::fail_effect(Operation& op) {
  if (op.kind == IoKind::flush) {
    for (auto& [order, pending] : pending_)
      pending.doomed |= pending.completed_at != 0 && pending.completed_at <= op.flush_from;
  } else if (op.kind == IoKind::write) {
    Pending& pending = pending_.at(op.pending);
    const uint64_t what = random_() % 3;
    if (what == 0)
      current_.write(op.offset, pending.bytes);
    else if (what == 1)
      some_sectors(pending, [&](uint64_t at, uint64_t n) {
        current_.write(op.offset + at, ConstBytes(pending.bytes).subspan(at, n));
      });
    // What is visible now is as volatile as a write, and later flushes owe it nothing.
    std::vector<std::byte> mixed(op.length);
    current_.read(op.offset, mixed);
    pending.bytes = std::move(mixed);
    pending.completed_at = ++clock_;
  } else if (op.kind == IoKind::read) {
    std::fill(op.into.begin(), op.into.end(), std::byte{0xee});
  }
}

void SimDevice::make_durable(uint64_t completed_until) {
  for (auto it = pending_.begin(); it != pending_.end();) {
    const Pending& pending = it->second;
    if (pending.completed_at == 0 || pending.completed_at > completed_until || pending.doomed) {
      ++it;
      continue;
    }
    durable_.write(pending.offset, pending.bytes);
    // What an older write left doomed holds the newer bytes now: a cache has one version of a sector.
    for (auto older = pending_.begin(); older != it; ++older) {
      Pending& other = older->second;
      const uint64_t first = std::max(pending.offset, other.offset);
      const uint64_t end = std::min(pending.offset + pending.bytes.size(), other.offset + other.bytes.size());
      if (other.doomed && first < end)
        std::copy_n(pending.bytes.begin() + ptrdiff_t(first - pending.offset), end - first,
                    other.bytes.begin() + ptrdiff_t(first - other.offset));
    }
    it = pending_.erase(it);
  }
}

template <typename Function>
void SimDevice::some_sectors(const Pending& pending, Function function) {
  const uint64_t sectors = pending.bytes.size() / kSectorSize;
  if (random_() % 2 == 0) {
    if (const uint64_t n = random_() % (sectors + 1))
      function(0, n * kSectorSize);
    return;
  }
  for (uint64_t i = 0; i < sectors; ++i)
    if (random_() % 2 == 0)
      function(i * kSectorSize, kSectorSize);
}

void SimDevice::lose_power(const Survival& survival) {
  for (const auto& [order, pending] : pending_) {
    const double lot = draw();
    if (lot < survival.keep) {
      durable_.write(pending.offset, pending.bytes);
    } else if (lot < survival.keep + survival.torn) {
      some_sectors(pending, [&](uint64_t at, uint64_t n) {
        durable_.write(pending.offset + at, ConstBytes(pending.bytes).subspan(at, n));
      });
      if (options_.garbage && random_() % 4 == 0) {
        std::array<std::byte, kSectorSize> noise;
        std::generate(noise.begin(), noise.end(), [&] { return std::byte(random_()); });
        durable_.write(pending.offset + random_() % (pending.bytes.size() / kSectorSize) * kSectorSize,
                       noise);
      }
    }
  }
  pending_.clear();
  current_ = durable_;
}

// What a failed flush left open is decided when the process dies: the write is still in the cache, and the
// next flush covers it, or it is gone, and reads show what was there before.
void SimDevice::settle_doomed() {
  for (auto it = pending_.begin(); it != pending_.end();) {
    const bool gone = std::exchange(it->second.doomed, false) && random_() % 2 == 0;
    it = gone ? pending_.erase(it) : std::next(it);
  }
  current_ = durable_;
  for (const auto& [order, pending] : pending_)
    current_.write(pending.offset, pending.bytes);
}

void SimDevice::die(const Survival* survival) {
  for (Operation* op : outstanding_) {
    const auto found = pending_.find(op->pending);  // gone: a write that failed, and a flush since
    if (found != pending_.end() && op->lost) {
      pending_.erase(found);
    } else if (found != pending_.end() && !survival && found->second.completed_at == 0) {  // now or never
      Pending& pending = found->second;
      if (random_() % 2 == 0)
        current_.write(pending.offset, pending.bytes);
      else  // what it did so far stays, volatile
        current_.read(pending.offset, pending.bytes);
      pending.completed_at = ++clock_;
    }
    op->timer.cancel();
    if (op->held)
      op->held->event_.notify_all();
  }
  if (survival)
    lose_power(*survival);
  else if (std::ranges::any_of(pending_, [](const auto& entry) { return entry.second.doomed; }))
    settle_doomed();
  holds_.clear();
}

// --- faults
// -----------------------------------------------------------------------------------------------------------

void SimDevice::fail(IoKind kind, uint64_t nth, int os_error, bool for_ever) {
  OBRAZ_CHECK(nth > 0);
  faults_[size_t(kind)] = {nth, os_error, for_ever};
}

void SimDevice::break_writes(uint64_t from, uint64_t to) {
  broken_from_ = from;
  broken_to_ = to;
}

void SimDevice::lie(Lie lie, uint64_t nth, uint64_t from, uint64_t to) {
  OBRAZ_CHECK(nth > 0);
  lie_ = {nth, lie, from, to};
}

void SimDevice::heal() {
  faults_ = {};
  lie_ = {};
}

void SimDevice::corrupt(uint64_t offset, uint64_t length) {
  std::vector<std::byte> bytes(length);
  current_.read(offset, bytes);
  for (std::byte& byte : bytes)
    byte ^= std::byte{0xa5};
  current_.write(offset, bytes);
  durable_.write(offset, bytes);
}

void SimDevice::Hold::release() {
  released_ = true;
  event_.notify_all();
}

std::shared_ptr<SimDevice::Hold> SimDevice::hold(IoKind kind, uint64_t from, uint64_t to) {
  return holds_.emplace_back(new Hold(loop_, kind, from, to));
}

}  // namespace obraz::test
