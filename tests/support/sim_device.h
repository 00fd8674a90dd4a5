// SimDevice: a Device whose every fault is chosen by a test or a seed.
//
// Fault model
// - The unit is the sector of 512 bytes. A sector is old or new, never a mix, except for `garbage` (below).
// - An operation takes effect between its start and its end, at a time drawn from the seed; so operations in
// flight
//   together take effect, and end, in any order. A write may take effect in two steps: some of its sectors
//   first.
// - A completed write is visible to every later read, and lives in a volatile cache until a flush that began
// after its
//   completion has taken effect. The cache may write any part of itself back at any time.
// - Power cut: each write that no completed flush covers, completed or still in flight, is on its own kept,
// lost, or
//   torn (a prefix of its sectors, or any subset of them, is kept). A flush in flight may have taken effect
//   or not. With `garbage`, one sector of a torn write holds noise. From that moment on every operation fails
//   with ErrorCode::io, "power cut", and changes nothing, until restart().
// - Death of the process (kill): completed writes stay visible, volatile as they were; each one in flight
// still lands or
//   never does; nothing lands later. Operations fail as above until restart().
// - An injected error: a write that fails has taken effect wholly, in part, or not at all. A flush that fails
// makes
//   nothing durable, and no later flush makes durable what it should have: a system that retries it is
//   caught. When the process dies then, each such write is found to be still in the cache or gone.
// - A discarded range reads as before, as zeros or as noise, page by page of 4 KiB; and the discard is itself
// volatile.
// - Damage, where a test asks for it: sectors that rot (corrupt), writes that are lost though acknowledged or
// go to another address (lie).
// - Not modelled: reads that return what was never stored there.
//
// Misuse is a bug and aborts: offsets, lengths or addresses that are not multiples of 4 KiB, ranges beyond
// the end, and a buffer whose bytes change while it is being written.
//
// PowerSupply: what the devices of one machine share. It counts their operations, and cuts the power of all
// of them at one instant. An operation belongs to one moment of the sweep by its number: `before` it takes
// effect, `during` it (in flight: kept, lost or torn), or `after` (it took effect, yet its caller was never
// told).
//
// As a plain memory device for other tests: SimDevice device(loop, {.size_bytes = …}) and no faults. On a
// real reactor use MemoryDevice. Thread: the test's.
#pragma once

#include <array>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "io/device.h"
#include "support/sim_image.h"
#include "support/sim_loop.h"

namespace obraz::test {

class SimDevice;

enum class IoKind : uint8_t { read, write, flush, discard, allocate };
constexpr size_t kIoKinds = 5;
const char* name_of(IoKind kind);

// What a power cut leaves of the writes that were not flushed.
struct Survival {
  double keep = 0.5;  // probability that a write is kept
  double torn = 0.2;  // probability that one is torn instead
};

struct CutPoint {
  enum class When : uint8_t { before, during, after };
  uint64_t operation = 0;  // number of the operation, from 1; 0: never
  When when = When::before;
  bool kill = false;  // the process dies there, and the power stays
};

class PowerSupply {
 public:
  // Operations are counted from the construction or the last restart().
  uint64_t operations() const { return operations_; }
  void arm(CutPoint point, Survival survival);
  void cut(Survival survival);  // now
  void kill();                  // now: the process dies, the power stays
  bool is_on() const { return on_; }
  // All devices serve again: after cut() with what survived, after kill() with everything that was visible.
  // Nothing may be in flight any more.
  void restart();

 private:
  friend class SimDevice;
  bool reaches(uint64_t operation, CutPoint::When when);

  std::vector<SimDevice*> devices_;
  uint64_t operations_ = 0;
  CutPoint point_;
  Survival survival_;
  bool on_ = true;
};

struct SimDeviceOptions {
  uint64_t size_bytes = 0;
  uint64_t seed = 1;
  const char* name = "device";
  uint64_t min_latency_us = 1, max_latency_us = 50;
  double slow = 0;               // share of operations that take slow_factor times as long
  uint64_t slow_factor = 100;    //
  bool garbage = false;          // torn writes may hold noise in one sector
  PowerSupply* power = nullptr;  // its own when null
};

class SimDevice final : public Device {
 public:
  SimDevice(SimLoop& loop, SimDeviceOptions options, SimImage contents = {});
  ~SimDevice() override;

  uint64_t size_bytes() const override { return options_.size_bytes; }
  Task<Status> read(uint64_t offset, Bytes into) override;
  Task<Status> write(uint64_t offset, ConstBytes from) override;
  Task<Status> flush() override;
  Task<Status> discard(uint64_t offset, uint64_t length) override;
  Task<Status> allocate(uint64_t offset, uint64_t length) override;

  // What reads see, and what a power cut that loses everything volatile would leave.
  const SimImage& contents() const { return current_; }
  const SimImage& durable() const { return durable_; }
  PowerSupply& power() { return *power_; }
  uint64_t in_flight() const { return outstanding_.size(); }

  // --- faults
  // ---------------------------------------------------------------------------------------------------------
  // The n-th operation of the kind from now on (1: the next) fails; with `for_ever`, all after it, too.
  void fail(IoKind kind, uint64_t nth, int os_error, bool for_ever = false);
  void heal();  // no more injected errors
  // Every write that touches [from, to) fails, across restarts, until another range is broken; empty: none.
  void break_writes(uint64_t from, uint64_t to);
  // Damages what is stored, durably: for tests of checksums.
  void corrupt(uint64_t offset, uint64_t length);

  // The n-th write from now on that lies within [from, to) is acknowledged and never happens, or happens at
  // another page of the range.
  enum class Lie : uint8_t { lost, misdirected };
  void lie(Lie lie, uint64_t nth, uint64_t from, uint64_t to);

  // Keeps an operation from taking effect until it is released (or the power is cut).
  class Hold {
   public:
    bool caught() const { return caught_; }
    uint64_t offset() const { return offset_; }
    uint64_t length() const { return length_; }
    void release();

   private:
    friend class SimDevice;
    Hold(SimLoop& loop, IoKind kind, uint64_t from, uint64_t to)
        : event_(loop), kind_(kind), from_(from), to_(to) {}
    Event event_;
    IoKind kind_;
    uint64_t from_, to_, offset_ = 0, length_ = 0;
    bool caught_ = false, released_ = false;
  };
  // The next operation of the kind that touches [from, to) is caught.
  std::shared_ptr<Hold> hold(IoKind kind, uint64_t from = 0, uint64_t to = UINT64_MAX);

  struct Counters {
    uint64_t operations = 0, bytes = 0, failures = 0;
  };
  const Counters& counters(IoKind kind) const { return counters_[size_t(kind)]; }

 private:
  friend class PowerSupply;
  // A write (or discard) that is not durable yet. A page without bytes reads as zeros.
  struct Pending {
    uint64_t offset = 0;
    std::vector<std::byte> bytes;
    uint64_t completed_at = 0;  // device clock; 0: in flight
    bool doomed = false;        // a flush that covered it has failed
  };
  using PendingMap = std::map<uint64_t, Pending>;  // by order of start
  struct Operation {
    Operation(SimLoop& loop, IoKind kind, uint64_t offset, uint64_t length)
        : timer(loop), kind(kind), offset(offset), length(length) {}
    Timer timer;
    IoKind kind;
    uint64_t offset, length;
    Bytes into;
    ConstBytes from;
    uint64_t number = 0, pending = 0, flush_from = 0;
    bool lost = false;  // acknowledged, and nothing else
    std::shared_ptr<Hold> held;
  };
  struct PlannedLie {
    uint64_t countdown = 0;
    Lie lie = Lie::lost;
    uint64_t from = 0, to = 0;
  };
  struct Fault {
    uint64_t countdown = 0;
    int os_error = 0;
    bool for_ever = false;
  };

  Task<Status> perform(Operation& operation);
  void check_range(uint64_t offset, uint64_t length, const void* address) const;
  uint64_t draw_latency();
  double draw() { return double(random_() >> 11) * 0x1p-53; }
  int take_fault(const Operation& operation);
  void begin(Operation& operation);
  void take_lie(Operation& operation);
  void settle_doomed();
  void discard_now(Operation& operation);
  void finish(Operation& operation);
  void fail_effect(Operation& operation);
  void make_durable(uint64_t completed_until);
  // Of a write: calls with runs of sectors [first, count), all of it or a random part.
  template <typename Function>
  void some_sectors(const Pending& pending, Function function);
  void die(const Survival* survival);  // null: the process dies, the power stays
  void lose_power(const Survival& survival);

  SimLoop& loop_;
  SimDeviceOptions options_;
  std::unique_ptr<PowerSupply> own_power_;
  PowerSupply* power_;
  std::mt19937_64 random_;
  SimImage current_, durable_;
  PendingMap pending_;
  uint64_t next_pending_ = 1, clock_ = 1;
  std::list<Operation*> outstanding_;
  std::array<Fault, kIoKinds> faults_{};
  uint64_t broken_from_ = 0, broken_to_ = 0;
  PlannedLie lie_;
  std::array<Counters, kIoKinds> counters_{};
  std::vector<std::shared_ptr<Hold>> holds_;
};

}  // namespace obraz::test
