// Random histories: a seed draws a configuration, a number of clients that work on all volumes at once, and
// several lives of the store, each of which ends with a power cut, the death of the process, or a clean
// close; the oracle judges every read and every recovery.
//
// One seed again: OBRAZ_SIM_SEED=n. Some: OBRAZ_SIM_SEEDS=a-b (docs/testing.md).
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "sim/seeds.h"
#include "sim/world.h"

namespace obraz::test {
namespace {

constexpr uint64_t kShards = 4;  // so that a machine with several processors shares the work
constexpr uint64_t kSeedsPerShard = 150;

class History {
 public:
  explicit History(uint64_t seed) : random_(seed * 7919), world_(draw_options(seed)) {
    world_.may_be_full = true;
    hot_ = pick({16, 64, 1024});
    // How far apart the clusters that clients use are: side by side, or a leaf or more each.
    stride_ = pick({1, 1, 1, 16, 259});
    const uint64_t reach = ((stride_ > 1 ? hot_ : 1024) / kBlocksPerCluster * stride_ + 2) * kClusterSize;
    size_ = round_up(std::max(reach, limits::kMinVolumeSize), limits::kVolumeSizeUnit);
    if (random_() % 8 == 0)
      size_ += 5 * limits::GiB;  // one level more
    disks_ = pick({1, 2, 4});
    volumes_ = pick({3, 6, 12});
    clients_ = pick({1, 2, 4, 8});
    lives_ = 2 + random_() % 4;
    survival_ = {double(pick({0, 3, 5, 7, 10})) / 10, double(pick({0, 0, 1, 3})) / 10};
    if (survival_.keep + survival_.torn > 1)
      survival_.torn = 1 - survival_.keep;
  }

  std::string run() {
    bool recover_again = false;
    for (uint64_t life = 0; life < lives_ && world_.problem().empty(); ++life) {
      live();
      const uint64_t end = random_() % 10;
      if (end == 0 && world_.power.is_on()) {
        world_.loop.join();  // a clean end: the clients' requests have ended
        world_.power.arm({}, survival_);
        world_.check();
        world_.crash(nullptr);
      } else {
        world_.crash(end < 7 ? &survival_ : nullptr);
      }
      recover_again = random_() % 4 == 0;
      while (recover_again && world_.problem().empty()) {  // cut during the recovery
        world_.power.arm({1 + random_() % 60, CutPoint::When(random_() % 3), random_() % 4 == 0}, survival_);
        world_.open();
        recover_again = !world_.power.is_on() && random_() % 2 == 0;
        world_.crash(&survival_);
      }
      if (world_.problem().empty() && random_() % 3 == 0)
        world_.check_devices("after a crash");
      recover();
    }
    live_on_to_the_end();
    return world_.problem().empty() ? std::string() : world_.problem() + "\n" + world_.trace();
  }

 private:
  uint64_t pick(std::initializer_list<uint64_t> list) { return list.begin()[random_() % list.size()]; }

  WorldOptions draw_options(uint64_t seed) {
    WorldOptions options;
    options.seed = seed;
    options.data_bytes = pick({16, 16, 24}) * limits::MiB;
    options.journal_bytes = pick({256, 256, 512, 4096}) * limits::KiB;
    options.store.node_cache_bytes = pick({8, 16, 64, 4096}) * 4096;
    options.store.dirty_nodes = pick({2, 4, 16, 1024});
    options.store.commit_interval_us = pick({200, 5'000, 1'000'000});
    options.store.reclaim_pause_us = pick({0, 10, 1'000});
    options.store.reclaim_step_nodes = unsigned(pick({1, 2, 16}));
    options.store.slab_bytes = pick({1, 4}) * limits::MiB;
    options.max_latency_us = pick({5, 50, 500});
    options.slow = double(pick({0, 0, 5, 20})) / 100;
    options.shuffle = pick({0, 1}) != 0;
    return options;
  }

  void recover() {
    if (!world_.problem().empty() || world_.store)
      return;
    world_.open();
    world_.verify();
  }

  // One life: clients at work until they have done enough or the power goes.
  void live() {
    recover();
    if (!world_.problem().empty())
      return;
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
      const uint64_t end = world_.requests + random_() % enough;
      world_.loop.run_until([&] { return world_.requests >= end || world_.down(); });
    }
  }

  void live_on_to_the_end() {
    if (!world_.problem().empty())
      return;
    ends_at_ = world_.requests + 50;
    for (uint64_t i = 0; i < clients_; ++i)
      world_.loop.spawn(client(random_()));
    world_.loop.join();
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
    const uint64_t disk = disks[random() % disks.size()];
    const bool aligned = random() % 4 != 0, fua = random() % 12 == 0;
    const uint64_t offset = draw_offset(random, aligned), length = draw_length(random, offset, aligned);
    if (what < 45) {
      co_await world_.write(disk, offset, length, fua);
    } else if (what < 52) {
      const bool whole = random() % 8 == 0;
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

  Task<void> volume_request(std::mt19937_64& random, uint64_t disk, const std::vector<uint64_t>& frozen) {
    const auto all = world_.oracle.volumes();
    const uint64_t what = random() % 13;
    if (what == 12 && !frozen.empty()) {
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
    } else if (what < 11 && !frozen.empty() && !reverting_) {
      reverting_ = true;
      co_await world_.revert(disk, frozen[random() % frozen.size()]);
      reverting_ = false;
    } else if (what == 11 && !reverting_) {
      reverting_ = true;
      const uint64_t size = world_.oracle.volume(disk).size_bytes();
      const uint64_t more = uint64_t(4) << random() % 5;
      if (size < size_ + 100 * limits::MiB)
        co_await world_.resize(disk, size + more * limits::MiB);
      reverting_ = false;
    }
  }

  std::mt19937_64 random_;
  World world_;
  Survival survival_;
  uint64_t stride_ = 1, size_ = 0;
  uint64_t hot_ = 0, disks_ = 0, volumes_ = 0, clients_ = 0, lives_ = 0, ends_at_ = 0;
  bool reverting_ = false;
};

class RandomCrash : public testing::TestWithParam<uint64_t> {};

INSTANTIATE_TEST_SUITE_P(Shard, RandomCrash, testing::Range<uint64_t>(0, kShards));

TEST_P(RandomCrash, EveryHistoryIsOneTheOracleAllows) {
  const auto [first, last] = seeds_from_env(kShards * kSeedsPerShard);
  for (uint64_t seed = first; seed <= last; ++seed) {
    if (seed % kShards != GetParam())
      continue;
    History history(seed);
    const std::string problem = history.run();
    ASSERT_TRUE(problem.empty()) << "seed " << seed << " (again with OBRAZ_SIM_SEED=" << seed
                                 << "): " << problem;
  }
}

}  // namespace
}  // namespace obraz::test
