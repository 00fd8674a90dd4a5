// Random histories: see history.h.
#include "sim/history.h"

#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <map>
#include <utility>

#include "sim/world.h"
#include "store/check.h"
#include "store/core.h"

namespace obraz::test {
namespace {

class History {
 public:
  History(uint64_t seed, HistoryTally& tally)
      : tally_(tally), random_(seed * 7919), world_(draw_options(seed)) {
    world_.may_be_full = true;
    world_.tolerated = [this](const Error& error) { return tolerates(error); };
    const uint64_t trouble = random_() % 10;
    trouble_ = trouble < 2 ? Trouble::errors : trouble < 4 ? Trouble::damage : Trouble::crashes;
    hot_ = pick({16, 64, 1024});
    // How far apart the clusters that clients use are: side by side, or a leaf or more each.
    stride_ = world_.options.meta_bytes ? pick({16, 259}) : pick({1, 1, 1, 16, 259});
    const uint64_t reach = ((stride_ > 1 ? hot_ : 1024) / kBlocksPerCluster * stride_ + 2) * kClusterSize;
    size_ = round_up(std::max(reach, limits::kMinVolumeSize), limits::kVolumeSizeUnit);
    if (random_() % 8 == 0)
      size_ += 5 * limits::GiB;  // one level more
    disks_ = pick({1, 2, 4});
    volumes_ = pick({3, 6, 12});
    if (world_.options.meta_bytes)  // which is soon full
      volumes_ = 24;
    clients_ = pick({1, 2, 4, 8});
    many_puts_ = random_() % 16 == 0;
    if (many_puts_)
      clients_ = 16;
    lives_ = 2 + random_() % 4;
    survival_ = {double(pick({0, 3, 5, 7, 10})) / 10, double(pick({0, 0, 1, 3})) / 10};
    if (survival_.keep + survival_.torn > 1)
      survival_.torn = 1 - survival_.keep;
  }

  std::string run() {
    ++tally_.histories;
    const uint64_t damaged_life = trouble_ == Trouble::damage ? random_() % lives_ : lives_;
    for (uint64_t life = 0; life < lives_ && world_.problem().empty(); ++life) {
      if (life == damaged_life) {
        live_with_damage();
        break;
      }
      live();
      end_life();
      while (random_() % 4 == 0 && world_.problem().empty()) {  // cut during the recovery
        world_.power.arm({1 + random_() % 60, CutPoint::When(random_() % 3), random_() % 4 == 0}, survival_);
        world_.open();
        crash(&survival_);
        if (random_() % 2 == 0)
          break;
      }
      if (world_.problem().empty() && random_() % 3 == 0)
        check_devices();
      recover();
    }
    if (trouble_ != Trouble::damage)
      live_on_to_the_end();
    tally_.requests += world_.requests;
    return world_.problem().empty() ? std::string() : world_.problem() + "\n" + world_.trace();
  }

 private:
  uint64_t pick(std::initializer_list<uint64_t> list) { return list.begin()[random_() % list.size()]; }

  WorldOptions draw_options(uint64_t seed) {
    WorldOptions options;
    options.seed = seed;
    options.data_bytes = pick({16, 16, 24}) * limits::MiB;
    options.journal_bytes = pick({256, 256, 512, 4096}) * limits::KiB;
    // Now and then a metadata device that cannot hold all the nodes that the clients would make.
    if (random_() % 8 == 0)
      options.meta_bytes = (256 + 300 + random_() % 200) * kBlockSize + options.journal_bytes;
    options.store.node_cache_bytes = pick({8, 16, 64, 4096}) * 4096;
    options.store.dirty_nodes = pick({2, 4, 16, 1024});
    options.store.carried_blocks = pick({0, 2, 24, 24});
    options.store.kept_blocks = pick({0, 4, 64});
    options.store.commit_interval_us = pick({200, 5'000, 1'000'000});
    options.store.reclaim_pause_us = pick({0, 10, 1'000});
    options.store.reclaim_step_nodes = unsigned(pick({1, 2, 16}));
    options.store.slab_bytes = pick({1, 4}) * limits::MiB;
    options.store.sum_bytes_per_s = pick({0, 64 * limits::MiB, limits::TiB, limits::TiB});
    options.store.scrub_bytes_per_s = pick({0, 0, limits::GiB});
    options.store.scrub_interval_us = pick({10'000, 1'000'000});
    // From none to one that holds all of a store.
    options.store.clone_cache_bytes = pick({0, 256, 1024, 32 * 1024}) * limits::KiB;
    options.store.clones_kept_for_one = (seed % 4) * 64 * limits::KiB;
    if (options.meta_bytes && random_() % 2 == 0) {  // few checkpoints, so that much is replayed
      options.journal_bytes = 4 * limits::MiB;
      options.store.dirty_nodes = 1024;
      options.store.reclaim_pause_us = 0;
      options.meta_bytes = (256 + 300 + random_() % 100) * kBlockSize + options.journal_bytes;
    }
    options.max_latency_us = pick({5, 50, 500});
    options.slow = double(pick({0, 0, 5, 20})) / 100;
    options.shuffle = pick({0, 1}) != 0;
    return options;
  }

  // What goes wrong beside crashes.
  enum class Trouble : uint8_t {
    crashes,  // nothing
    errors,   // operations of the devices fail
    damage,   // metadata rots, or its writes go astray; the history ends with that
  };

  bool tolerates(const Error& error) {
    switch (trouble_) {
      case Trouble::crashes:
        return false;
      case Trouble::errors:
        // After the store has failed its memory may be ahead of what was acknowledged: sizes, for one.
        return error.code == ErrorCode::io || error.code == ErrorCode::read_only ||
               error.code == ErrorCode::no_space ||
               (world_.store && world_.store->health() == StoreHealth::failed &&
                (error.code == ErrorCode::out_of_range || error.code == ErrorCode::invalid_argument));
      case Trouble::damage:
        return error.code == ErrorCode::corruption || error.code == ErrorCode::read_only ||
               error.code == ErrorCode::io;
    }
    return false;
  }

  // A few blocks of data that cannot be written, in this life and the next ones.
  void break_blocks() {
    const uint64_t first = (kBlocksPerCluster + random_() % (40 * kBlocksPerCluster)) * kBlockSize;
    world_.data.break_writes(first, first + pick({0, 1, 1, 4}) * kBlockSize);
  }

  void arm_error() {
    SimDevice& device = random_() % 2 == 0 ? world_.meta : world_.data;
    const IoKind kinds[] = {IoKind::read,  IoKind::write,   IoKind::write,
                            IoKind::flush, IoKind::discard, IoKind::allocate};
    const IoKind kind = kinds[random_() % std::size(kinds)];
    device.fail(kind, 1 + random_() % pick({5, 50, 500}), random_() % 4 == 0 ? ENOSPC : EIO,
                random_() % 4 == 0);
  }
  void heal() {
    for (SimDevice* device : {&world_.meta, &world_.data}) {
      for (size_t kind = 0; kind < kIoKinds; ++kind)
        tally_.errors += device->counters(IoKind(kind)).failures -
                         std::exchange(failures_[device][kind], device->counters(IoKind(kind)).failures);
      device->heal();
    }
  }

  void crash(const Survival* survival) {
    world_.crash(survival);
    heal();
    ++(survival ? tally_.power_cuts : tally_.kills);
  }

  void end_life() {
    const uint64_t end = random_() % 10;
    const bool healthy = world_.store && world_.store->health() == StoreHealth::ok;
    if (end == 0 && world_.power.is_on() && healthy && trouble_ == Trouble::crashes) {
      world_.loop.join();  // a clean end: the clients' requests have ended
      world_.power.arm({}, survival_);
      world_.check();
      crash(nullptr);
    } else {
      crash(end < 7 ? &survival_ : nullptr);
    }
  }

  void check_devices() {
    ++tally_.checks;
    world_.check_devices("after a crash");
  }

  void recover() {
    if (!world_.problem().empty() || world_.store)
      return;
    ++tally_.recoveries;
    if (trouble_ == Trouble::errors && random_() % 4 == 0) {
      arm_error();
      auto opened = world_.loop.run(Store::open(world_.loop, world_.meta, world_.data, world_.options.store));
      if (opened) {
        world_.store = std::move(*opened);
        crash(random_() % 2 == 0 ? &survival_ : nullptr);
      } else {
        const uint64_t before = tally_.errors;
        heal();
        if (tally_.errors == before)
          world_.fail("the store does not open: " + describe(opened.error()));
        crash(nullptr);  // a daemon that cannot open its store ends
      }
    }
    if (world_.problem().empty() && !world_.store)
      world_.open();
    world_.verify();
  }

  // One life in which metadata is damaged, at rest or on its way; then everything must be right or an error.
  void live_with_damage() {
    ++tally_.damages;
    recover();
    const uint64_t node_pages = world_.meta.size_bytes() / kBlockSize;
    const uint64_t first = 256 + world_.options.journal_bytes / kBlockSize;
    const uint64_t lie = random_() % 4;
    const bool data_rots = lie == 3;
    if (lie == 1 || lie == 2)
      world_.meta.lie(lie == 1 ? SimDevice::Lie::lost : SimDevice::Lie::misdirected, 1 + random_() % 40,
                      first * kBlockSize, node_pages * kBlockSize);
    world_.say(fmt::format("DAMAGE: {}", lie == 0   ? "pages rot"
                                         : lie == 1 ? "a lost write"
                                         : lie == 2 ? "a misdirected write"
                                                    : "data rots"));
    live();
    end_life();
    if (!world_.problem().empty())
      return;
    if (lie == 0) {
      std::vector<uint64_t> used;
      for (uint64_t page = first; page < node_pages; ++page)
        if (world_.meta.contents().has_page(page))
          used.push_back(page);
      for (uint64_t i = random_() % 3 + 1; i-- > 0 && !used.empty();)
        world_.meta.corrupt(used[random_() % used.size()] * kBlockSize + random_() % 8 * kSectorSize,
                            kSectorSize);
    }
    if (data_rots && !world_.loop.run(rot_data()))
      return;
    // The checker ends, whatever it finds.
    const auto report = world_.loop.run(
        check_store(world_.loop, world_.meta, world_.data, CheckOptions{.read_data = data_rots}));
    const bool noticed = !report || !report->clean();
    auto opened = world_.loop.run(Store::open(world_.loop, world_.meta, world_.data, world_.options.store));
    if (!opened) {
      if (opened.error().code != ErrorCode::corruption)
        world_.fail("damage is reported as: " + describe(opened.error()));
      if (!noticed)
        world_.fail("the store does not open, and the checker found nothing: " + describe(opened.error()));
      return;
    }
    world_.store = std::move(*opened);
    const DamageFound found = world_.loop.run(read_what_is_left(world_));
    if (found.errors > 0 && !noticed)
      world_.fail("reads failed, and the checker found nothing");
    if (found.errors > 0 && world_.store->health() != StoreHealth::damaged)
      world_.fail("reads failed, and the store calls itself healthy");
  }

  // Blocks that have checksums lose a sector. Whether there were any.
  Task<bool> rot_data() {
    const auto core = co_await StoreCore::load(world_.loop, world_.meta, world_.data, world_.options.store);
    if (!core) {
      world_.fail("what a crash left cannot be loaded: " + describe(core.error()));
      co_return false;
    }
    State& state = (*core)->state;
    std::vector<uint64_t> blocks;
    for (PhysicalCluster cluster{1}; cluster.value < (*core)->superblock.clusters; ++cluster.value) {
      if (!state.is_summed(cluster))
        continue;
      auto sums = state.sums_of(cluster);
      for (; sums.missing; sums = state.sums_of(cluster)) {
        const Status loaded = co_await state.cache().load(sums.missing->ref, sums.missing->level);
        OBRAZ_CHECK(loaded.has_value());
      }
      for (unsigned block = 0; block < kBlocksPerCluster; ++block)
        if (sums.of(block) != 0)
          blocks.push_back(cluster.value * kBlocksPerCluster + block);
    }
    for (uint64_t i = random_() % 3 + 1; i-- > 0 && !blocks.empty();)
      world_.data.corrupt(blocks[random_() % blocks.size()] * kBlockSize + random_() % 8 * kSectorSize,
                          kSectorSize);
    tally_.rotten += !blocks.empty();
    co_return !blocks.empty();
  }

  // One life: clients at work until they have done enough or the power goes.
  void live() {
    recover();
    if (!world_.problem().empty())
      return;
    if (trouble_ == Trouble::errors && random_() % 2 == 0)
      arm_error();
    else if (trouble_ == Trouble::errors)
      break_blocks();
    const bool by_operation = random_() % 2 == 0;
    const uint64_t operations = 1 + random_() % pick({20, 200, 1500});
    if (by_operation)
      world_.power.arm(
          {world_.power.operations() + operations, CutPoint::When(random_() % 3), random_() % 4 == 0},
          survival_);
    const uint64_t enough = 10 + random_() % pick({50, 200, 600});
    ends_at_ = world_.requests + enough;
    for (uint64_t i = 0; i < clients_; ++i)
      world_.loop.spawn(client(random_()));
    if (by_operation || random_() % 3 == 0) {
      world_.loop.join();
    } else {  // at a random moment
      const uint64_t end = ends_at_ - random_() % enough;
      if (!world_.loop.run_until([&] { return world_.requests >= end || world_.down(); }))
        world_.fail("the clients wait, and nothing will ever wake them");
    }
  }

  void live_on_to_the_end() {
    if (!world_.problem().empty())
      return;
    ends_at_ = world_.requests + 50;
    for (uint64_t i = 0; i < clients_; ++i)
      world_.loop.spawn(client(random_()));
    world_.loop.join();
    ++tally_.checks;
    world_.check();
    world_.verify();
    world_.close();
  }

  Task<void> client(uint64_t seed) {
    std::mt19937_64 random(seed);
    while (!world_.down() && world_.requests < ends_at_) {
      const uint64_t before = world_.requests;
      co_await one_request(random);
      if (random() % 16 == 0)
        co_await world_.sleep_us(random() % 2000);
      else if (world_.requests == before)
        co_await world_.sleep_us(1);
    }
  }

  // Offsets: few blocks, or many; aligned or not; mostly the start of the disk, sometimes far away.
  uint64_t draw_offset(std::mt19937_64& random, bool aligned) {
    uint64_t block = random() % hot_;
    if (stride_ == 1 && random() % 16 == 0)
      block = random() % 1024;  // every disk has as many
    const uint64_t cluster = block / kBlocksPerCluster * stride_;
    return cluster * kClusterSize + block % kBlocksPerCluster * kBlockSize +
           (aligned ? 0 : random() % kBlockSize);
  }
  uint64_t draw_length(std::mt19937_64& random, uint64_t offset, bool aligned) {
    uint64_t length = 1 + random() % 3;
    if (random() % 4 == 0)
      length = 1 + random() % 40;
    length *= kBlockSize;
    if (!aligned)
      length = 1 + random() % length;
    return std::min(length, size_ - offset);
  }

  Task<void> one_request(std::mt19937_64& random) {
    const auto disks = world_.usable(VolumeKind::disk);
    const auto frozen = world_.usable(VolumeKind::frozen);
    const uint64_t what = random() % 100;
    if (disks.empty() || (disks.size() < disks_ && random() % 4 == 0)) {
      co_await world_.create(size_ + limits::kVolumeSizeUnit * (random() % 2));
      co_return;
    }
    if (many_puts_ && random() % 2 == 0) {
      co_await world_.put(fmt::format("large/{}", random() % 32),
                          std::string(limits::kMaxResourceSize - random() % 8192, 'v'));
      co_return;
    }
    const uint64_t disk = disks[random() % disks.size()];
    const bool aligned = random() % 4 != 0, fua = random() % 12 == 0;
    const uint64_t offset = draw_offset(random, aligned), length = draw_length(random, offset, aligned);
    if (what < 45) {
      co_await world_.write(disk, offset, length, fua);
    } else if (what < 52) {
      const bool whole = random() % 4 == 0;
      co_await world_.discard(disk, whole ? 0 : offset, whole ? size_ : length, fua);
    } else if (what < 58) {
      Volume::ZeroOptions options;
      options.fua = fua;
      options.keep_allocated = random() % 2 == 0;
      co_await world_.zero(disk, offset, length, options);
    } else if (what < 60) {
      co_await world_.block_status(disk, offset, random() % 2 ? length : size_ - offset);
    } else if (what < 75) {
      const uint64_t from = frozen.empty() || random() % 3 != 0 ? disk : frozen[random() % frozen.size()];
      co_await world_.read(from, offset, length);
    } else if (what < 85) {
      co_await world_.flush();
    } else if (what < 86) {
      co_await world_.checkpoint();
    } else if (what < 87) {
      co_await world_.put(fmt::format("key/{}", random() % 4),
                          fmt::format("{} {}", random(), std::string(random() % 3000, 'v')));
    } else {
      co_await volume_request(random, disk, frozen);
    }
  }

  Task<void> trim(uint64_t disk) { co_await world_.discard(disk, 0, size_, false); }

  Task<void> volume_request(std::mt19937_64& random, uint64_t disk, const std::vector<uint64_t>& frozen) {
    const auto all = world_.oracle.volumes();
    const uint64_t what = random() % 14;
    if (what == 13 && !frozen.empty()) {
      co_await world_.diff(frozen[random() % frozen.size()], frozen[random() % frozen.size()]);
    } else if (what < 3 && all.size() < volumes_) {
      co_await world_.snapshot(disk);
    } else if (what < 4 && all.size() + 1 < volumes_) {
      auto disks = world_.usable(VolumeKind::disk);
      disks.resize(std::min<size_t>(disks.size(), 3));
      co_await world_.snapshot_all(disks);
    } else if (what < 7 && all.size() < volumes_) {
      const uint64_t source = frozen.empty() || random() % 4 == 0 ? disk : frozen[random() % frozen.size()];
      const bool freeze = random() % 4 == 0;
      co_await world_.clone(source, freeze ? VolumeKind::frozen : VolumeKind::disk);
    } else if (what < 10) {
      const auto& victims = random() % 3 == 0 || frozen.empty() ? std::vector<uint64_t>{disk} : frozen;
      const uint64_t victim = victims[random() % victims.size()];
      co_await world_.remove(victim);
    } else if (what < 12 && !frozen.empty() && !reverting_) {
      reverting_ = true;
      if (random() % 2 == 0)  // a long request of another client, begun before
        world_.loop.spawn(trim(disk));
      co_await world_.revert(disk, frozen[random() % frozen.size()]);
      reverting_ = false;
    } else if (what == 12 && !reverting_) {
      reverting_ = true;
      const uint64_t size = world_.oracle.volume(disk).size_bytes();
      const uint64_t more = uint64_t(4) << random() % 5;
      if (size < size_ + 100 * limits::MiB)
        co_await world_.resize(disk, size + more * limits::MiB);
      reverting_ = false;
    }
  }

  HistoryTally& tally_;
  Trouble trouble_ = Trouble::crashes;
  std::map<const SimDevice*, std::array<uint64_t, kIoKinds>> failures_;
  std::mt19937_64 random_;
  World world_;
  Survival survival_;
  uint64_t stride_ = 1, size_ = 0;
  uint64_t hot_ = 0, disks_ = 0, volumes_ = 0, clients_ = 0, lives_ = 0, ends_at_ = 0;
  bool reverting_ = false, many_puts_ = false;
};

}  // namespace

std::string run_history(uint64_t seed, HistoryTally& tally) {
  return History(seed, tally).run();
}

}  // namespace obraz::test
