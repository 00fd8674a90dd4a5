// Fuzzes the store as its clients see it: the input is a list of requests, crashes and power cuts, run on the
// simulated machine of tests/sim; the oracle judges every read and every recovery. Where a random history
// draws, this one is led by what code was reached.
//
// Two bytes choose the configuration. The rest are steps: a byte for the kind (its lower five bits; bit 7:
// wait for all requests before the next step) and two to four bytes of arguments, as far as there are any. A
// problem ends the process with its text and the trace of all that was done.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "sim/world.h"

using namespace obraz;
using namespace obraz::test;

namespace {

constexpr uint64_t KiB = limits::KiB, MiB = limits::MiB, GiB = limits::GiB;
constexpr size_t kMaxInput = 300, kMaxVolumes = 12, kMaxAtOnce = 24;

// The world takes these signals to print its trace. A fuzzer wants them, to keep the input; it gets them
// back.
class FuzzersSignals {
 public:
  FuzzersSignals() {
    for (size_t i = 0; i < std::size(kSignals); ++i)
      sigaction(kSignals[i], nullptr, &kept_[i]);
  }
  void give_back() const {
    for (size_t i = 0; i < std::size(kSignals); ++i)
      if (kept_[i].sa_flags & SA_SIGINFO)
        sigaction(kSignals[i], &kept_[i], nullptr);
  }

 private:
  static constexpr int kSignals[] = {SIGABRT, SIGSEGV};
  struct sigaction kept_[std::size(kSignals)];
};

class Input {
 public:
  Input(const uint8_t* data, size_t size) : at_(data), end_(data + size) {}
  explicit operator bool() const { return at_ < end_; }
  uint8_t byte() { return at_ < end_ ? *at_++ : 0; }

 private:
  const uint8_t *at_, *end_;
};

WorldOptions options_of(uint8_t first, uint8_t second) {
  WorldOptions options;
  options.seed = 1 + second % 16;
  options.store.node_cache_bytes = (first & 1 ? 64 : 8) * 4 * KiB;
  options.store.dirty_nodes = first & 2 ? 2 : 16;
  options.store.commit_interval_us = first & 4 ? 200 : 1'000'000;
  options.store.reclaim_pause_us = first & 8 ? 0 : 1'000;
  options.store.reclaim_step_nodes = first & 16 ? 1 : 16;
  options.shuffle = (first & 32) != 0;
  if (first & 64)  // too few pages of metadata for all that may be asked for
    options.meta_bytes = (256 + 340) * 4 * KiB + options.journal_bytes;
  if (first & 128)
    options.store.clone_cache_bytes = 256 * KiB;
  options.max_latency_us = second & 16 ? 500 : 20;
  options.slow = second & 32 ? 0.1 : 0;
  return options;
}

template <typename T>
Task<void> ignore(Task<T> task) {
  co_await std::move(task);
}

class Run {
 public:
  Run(uint8_t first, uint8_t second)
      : world_(options_of(first, second)),
        stride_(second & 64 ? 259 : 1),
        size_(second & 128  ? 5 * GiB
              : second & 64 ? 260 * MiB
                            : 4 * MiB) {
    world_.may_be_full = true;
    world_.open();
  }

  bool over() const { return !world_.problem().empty(); }
  std::string report() const { return world_.problem() + "\n" + world_.trace(); }

  void step(Input& input) {
    const uint8_t what = input.byte();
    request(what % 32, input);
    if ((what & 128) != 0 || ++at_once_ >= kMaxAtOnce)
      join();
    if (!world_.power.is_on())
      recover();
  }

  void end() {
    join();
    if (!world_.power.is_on())
      recover();
    world_.power.arm({}, survival_);  // what judges is not to be cut
    world_.verify();
    world_.check();
    world_.verify();
    world_.close();
  }

 private:
  void join() {
    world_.loop.join();
    at_once_ = 0;
  }
  template <typename T>
  void spawn(Task<T> task) {
    world_.loop.spawn(ignore(std::move(task)));
  }
  uint64_t pick(VolumeKind kind, uint8_t number) const {
    const auto all = world_.usable(kind);
    return all.empty() ? 0 : all[number % all.size()];
  }
  uint64_t pick_any(uint8_t number) const {
    const uint64_t frozen = number & 1 ? pick(VolumeKind::frozen, uint8_t(number / 2)) : 0;
    return frozen ? frozen : pick(VolumeKind::disk, uint8_t(number / 2));
  }
  struct Range {
    uint64_t offset, length;
  };
  // A few blocks of a few clusters; not aligned when the last bit says so.
  Range take_range(Input& input) const {
    const uint8_t where = input.byte(), much = input.byte();
    Range range{where / kBlocksPerCluster * stride_ * kClusterSize + where % kBlocksPerCluster * kBlockSize,
                (1u + much / 2 % 64) * kBlockSize};
    if (much & 1) {
      range.offset += much * 13u;
      range.length -= much * 11u;
    }
    return range;
  }

  void request(uint8_t what, Input& input) {
    const bool room = world_.oracle.volumes().size() < kMaxVolumes;
    const uint64_t disk = pick(VolumeKind::disk, what < 26 ? input.byte() : 0);
    if (disk == 0 && what < 26) {
      spawn(world_.create(size_));
      return;
    }
    switch (what) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4: {
        const Range range = take_range(input);
        spawn(world_.write(disk, range.offset, range.length, what == 4));
        break;
      }
      case 5: {
        const Range range = take_range(input);
        Volume::ZeroOptions options;
        options.keep_allocated = range.length % 3 == 0;
        options.fua = range.length % 5 == 0;
        spawn(world_.zero(disk, range.offset, range.length, options));
        break;
      }
      case 6: {
        const Range range = take_range(input);
        spawn(world_.discard(disk, range.offset, range.length));
        break;
      }
      case 7:
        spawn(world_.discard(disk, 0, size_));
        break;
      case 8:
      case 9: {
        const uint64_t volume = pick_any(input.byte());
        const Range range = take_range(input);
        spawn(world_.read(volume, range.offset, range.length));
        break;
      }
      case 10:
        spawn(world_.block_status(pick_any(input.byte()), 0, size_));
        break;
      case 11:
      case 12:
        if (room)
          spawn(world_.snapshot(disk));
        break;
      case 13:
        if (room)
          spawn(world_.snapshot_all(world_.usable(VolumeKind::disk)));
        break;
      case 14:
      case 15:
        if (room)
          spawn(world_.clone(pick_any(input.byte()), VolumeKind::disk));
        break;
      case 16:
        if (room)
          spawn(world_.create(size_));
        break;
      case 17:
        spawn(world_.remove(disk));
        break;
      case 18:
        if (const uint64_t frozen = pick(VolumeKind::frozen, input.byte()))
          spawn(world_.remove(frozen));
        break;
      case 19:
        // One change of a size at a time, for the oracle knows no order among them.
        if (const uint64_t frozen = pick(VolumeKind::frozen, input.byte())) {
          join_sizes();
          world_.loop.spawn(change_size(world_.revert(disk, frozen)));
        }
        break;
      case 20: {
        const uint64_t more = 4 * MiB << input.byte() % 4;
        join_sizes();
        if (world_.oracle.knows(disk) && world_.oracle.volume(disk).size_bytes() < size_ + 200 * MiB)
          world_.loop.spawn(change_size(world_.resize(disk, world_.oracle.volume(disk).size_bytes() + more)));
        break;
      }
      case 21: {
        const uint64_t a = pick(VolumeKind::frozen, input.byte()), b = pick(VolumeKind::frozen, input.byte());
        if (a && b)
          spawn(world_.diff(a, b));
        break;
      }
      case 22: {
        const uint8_t key = input.byte();
        spawn(world_.put("key/" + std::to_string(key % 8), std::string(key * 120u, 'v')));
        break;
      }
      case 23:
      case 24:
        spawn(world_.flush());
        break;
      case 25:
        spawn(world_.checkpoint());
        break;
      case 26:
      case 27:  // some of what is under way goes on
        world_.loop.run_for_us(1u + input.byte() * (what == 26 ? 1u : 100u));
        break;
      case 28: {  // the power goes at some operation from now
        const uint8_t when = input.byte();
        survival_.keep = (when % 5) / 4.0;
        survival_.torn = when % 5 == 4 ? 0 : 0.2;
        world_.power.arm(
            {world_.power.operations() + 1 + input.byte(), CutPoint::When(when / 5 % 3), when >= 200},
            survival_);
        break;
      }
      case 29: {
        const uint8_t how = input.byte();
        survival_.keep = (how % 5) / 4.0;
        survival_.torn = how % 5 == 4 ? 0 : 0.2;
        crash(how < 200);
        if (how % 2 == 1) {  // and again while it recovers
          world_.power.arm({1u + input.byte() % 64u, CutPoint::When(how / 5 % 3), how % 4 == 1}, survival_);
          world_.open();
          crash(true);
        }
        open();
        break;
      }
      case 30:
        join();
        if (world_.power.is_on()) {
          world_.power.arm({}, survival_);
          world_.check();
          world_.verify();
        }
        break;
      default:
        join();
    }
  }

  Task<void> change_size(Task<bool> task) {
    changing_ = true;
    co_await std::move(task);
    changing_ = false;
  }
  void join_sizes() {
    if (changing_)
      join();
  }
  void crash(bool power) {
    world_.crash(power ? &survival_ : nullptr);
    at_once_ = 0;
    changing_ = false;
  }
  void recover() {
    crash(true);
    open();
  }
  void open() {
    world_.power.arm({}, survival_);
    if (!over() && !world_.store)
      world_.open();
    world_.verify();
  }

  World world_;
  const uint64_t stride_, size_;
  Survival survival_;
  size_t at_once_ = 0;
  bool changing_ = false;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 3 || size > kMaxInput)
    return 0;
  Input input(data, size);
  const uint8_t first = input.byte(), second = input.byte();
  std::string problem;
  {
    const FuzzersSignals signals;
    Run run(first, second);
    signals.give_back();
    while (input && !run.over())
      run.step(input);
    if (!run.over())
      run.end();
    if (run.over())
      problem = run.report();
  }
  if (!problem.empty()) {
    std::fprintf(stderr, "%s\n", problem.c_str());
    std::abort();
  }
  return 0;
}
