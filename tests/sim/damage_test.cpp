// Damage at rest: every page of metadata in turn holds wrong bytes. The store refuses to open, or it opens
// and answers right or with an error, and says that it is damaged; it never answers wrong bytes, and never
// dies of it.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>

#include "sim/seeds.h"
#include "sim/world.h"
#include "store/check.h"

namespace obraz::test {
namespace {

constexpr uint64_t KiB = limits::KiB, MiB = limits::MiB;

Task<void> fill(World& w) {
  const uint64_t large = co_await w.create(64 * MiB);
  for (uint64_t i = 0; i < 8; ++i)
    co_await w.write(large, i * 8 * MiB, 64 * KiB);
  const uint64_t snapshot = co_await w.snapshot(large);
  co_await w.write(large, 4 * KiB, 4 * KiB);
  co_await w.write(large, 40 * MiB, 128 * KiB);
  co_await w.clone(snapshot, VolumeKind::disk);
  const uint64_t other = co_await w.create(4 * MiB);
  co_await w.write(other, 0, 256 * KiB);
  co_await w.put("note", std::string(5000, 'n'));
  co_await w.flush();
}

class Damage : public testing::Test {
 protected:
  // A store that was filled and closed, cleanly or not.
  void make(bool cleanly, const WorldOptions& options = {}) {
    world = std::make_unique<World>(options);
    ASSERT_TRUE(world->open());
    world->loop.run(fill(*world));
    if (cleanly) {
      world->close();
    } else {  // some of it in a checkpoint, some in the journal
      world->loop.run(world->checkpoint());
      world->loop.run(fill(*world));
      const Survival everything{.keep = 1, .torn = 0};
      world->crash(&everything);
    }
    ASSERT_EQ(world->problem(), "");
  }
  Result<std::unique_ptr<Store>> open() {
    return world->loop.run(Store::open(world->loop, world->meta, world->data, world->options.store));
  }
  ErrorCode error_of_open() {
    auto opened = open();
    if (opened) {
      ADD_FAILURE() << "it opened";
      world->store = std::move(*opened);
      return ErrorCode::unsupported;
    }
    return opened.error().code;
  }
  bool checker_finds_something() {
    const auto report = world->loop.run(check_store(world->loop, world->meta, world->data, CheckOptions{}));
    return !report || !report->clean();
  }
  std::unique_ptr<World> world;
};

TEST_F(Damage, OfAnyPageIsConfinedAndNamed) {
  for (const bool cleanly : {true, false}) {
    make(cleanly);
    std::vector<uint64_t> pages;
    for (uint64_t page = 0; page < world->meta.size_bytes() / kBlockSize; ++page)
      if (world->meta.contents().has_page(page))
        pages.push_back(page);
    uint64_t refused = 0, confined = 0;
    for (size_t i = 0; i < pages.size(); i += scaled(10) == 10 ? 1 : 5) {
      const uint64_t page = pages[i];
      make(cleanly);
      const bool superblock = page == 0 || page == 16, journal = page >= 256 && page < 320;
      world->meta.corrupt(page * kBlockSize + i * 37 % 4000, i % 3 == 0 ? 1 : 64);
      const bool noticed = checker_finds_something();
      auto opened = open();
      if (!opened) {
        ++refused;
        EXPECT_EQ(opened.error().code, ErrorCode::corruption) << "page " << page;
        EXPECT_TRUE(noticed) << "page " << page;
        EXPECT_FALSE(superblock) << "the other one serves";
        continue;
      }
      world->store = std::move(*opened);
      // A damaged batch of the last commit passes for a torn one: what it held is lost.
      if (journal)
        continue;
      const DamageFound found = world->loop.run(read_what_is_left(*world));
      EXPECT_EQ(world->problem(), "") << "page " << page << (cleanly ? "" : ", not closed cleanly");
      EXPECT_GT(found.right, 0u) << "page " << page;
      if (found.errors == 0)  // nothing uses it any more
        continue;
      ++confined;
      EXPECT_FALSE(superblock);
      EXPECT_TRUE(noticed) << "page " << page;
      EXPECT_EQ(world->store->health(), StoreHealth::damaged) << "page " << page;
      EXPECT_NE(world->store->health_reason(), "");
      for (const VolumeInfo& info : world->store->volumes())
        EXPECT_EQ(info.damaged, found.damaged.contains(info.id.value))
            << "page " << page << " volume " << info.id.value;
    }
    EXPECT_GT(refused, 0u);
    if (scaled(10) == 10) {
      EXPECT_GT(confined, 0u);
    }
  }
}

// A rotten batch is told from a torn one by what follows it; only the last commit can pass for torn.
TEST_F(Damage, OfTheJournalIsNotTakenForItsEnd) {
  struct Commits {
    static Task<void> make(World& w, uint64_t count) {
      for (uint64_t i = 0; i < count; ++i)
        co_await w.put(fmt::format("key/{}", i), std::string(100, 'v'));
    }
  };
  constexpr uint64_t kCommits = 12;
  for (uint64_t damaged = 0; damaged < kCommits; ++damaged) {
    for (const bool rotten : {true, false}) {
      world = std::make_unique<World>(WorldOptions{});
      ASSERT_TRUE(world->open());
      if (!rotten)  // the journal's pages are the first that are written now, one for each commit
        world->meta.lie(SimDevice::Lie::lost, 1 + damaged, 256 * kBlockSize, 320 * kBlockSize);
      world->loop.run(Commits::make(*world, kCommits));
      world->crash(nullptr);
      ASSERT_EQ(world->problem(), "");
      if (rotten)
        world->meta.corrupt((256 + damaged) * kBlockSize + damaged * 5, 1);
      if (damaged + 1 < kCommits) {
        EXPECT_TRUE(checker_finds_something());
        EXPECT_EQ(error_of_open(), ErrorCode::corruption) << damaged;
      } else {
        EXPECT_TRUE(world->open());
        EXPECT_EQ(world->store->resources().size(), kCommits - 1);
      }
    }
  }
}

TEST_F(Damage, OfOneSuperblockTheOtherServes) {
  for (const uint64_t page : {0, 16}) {
    make(true);
    world->meta.corrupt(page * kBlockSize, kBlockSize);
    ASSERT_TRUE(world->open()) << world->problem();
    world->verify();
    EXPECT_EQ(world->problem(), "");
    world->check();
    world->verify();
    EXPECT_EQ(world->problem(), "");
  }
}

// Both places hold the newest generation. The pages that only the one before named are being written over by
// the next checkpoint when the power goes, and then the place that was written first is found damaged.
TEST_F(Damage, OfTheNewestSuperblockAfterACutCheckpointLosesNothing) {
  WorldOptions options;             // so few pages that a checkpoint must take what the last one has given up
  options.journal_bytes = 4 * MiB;  // no checkpoint but those asked for
  options.meta_bytes = options.journal_bytes + (256 + 260) * 4 * KiB;
  struct Churn {
    static Task<void> go(World& w, uint64_t disk, uint64_t rounds) {
      for (uint64_t i = 0; i < rounds; ++i) {
        co_await change_all(w, disk);
        co_await w.checkpoint();
      }
    }
    static Task<void> change_all(World& w, uint64_t disk) {
      for (uint64_t leaf = 0; leaf < 4; ++leaf)
        co_await w.write(disk, leaf * 16 * MiB, 4 * KiB);
      for (uint64_t i = 0; i < 10; ++i)
        co_await w.put(fmt::format("large/{}", i),
                       std::string(limits::kMaxResourceSize, char('a' + w.requests % 26)));
    }
    static Task<void> checkpoint(World& w) { co_await w.checkpoint(); }
  };
  for (uint64_t rounds = 1; rounds < 6; ++rounds) {
    make(true, options);
    ASSERT_TRUE(world->open());
    const uint64_t disk = world->loop.run(world->create(64 * MiB));
    world->loop.run(Churn::go(*world, disk, rounds));
    std::array<std::byte, 8> generations[2];
    for (unsigned i = 0; i < 2; ++i)
      world->meta.contents().read(i * 16 * kBlockSize + 64, generations[i]);
    const uint64_t generation =
        std::max(load_le<uint64_t>(generations[0].data()), load_le<uint64_t>(generations[1].data()));
    world->loop.run(Churn::change_all(*world, disk));
    auto held = world->meta.hold(IoKind::write, 0, 17 * kBlockSize);
    world->loop.spawn(Churn::checkpoint(*world));
    world->loop.run_until([&] { return held->caught(); });
    const Survival nothing{.keep = 0, .torn = 0};
    world->crash(&nothing);
    world->meta.corrupt((generation % 2 == 0 ? 0 : 16) * kBlockSize, 64);
    ASSERT_TRUE(world->open()) << world->problem();
    world->verify();
    world->check();
    ASSERT_EQ(world->problem(), "") << rounds;
  }
}

TEST_F(Damage, OfBothSuperblocksIsToldFromNoStore) {
  make(true);
  world->meta.corrupt(100, 1);
  world->meta.corrupt(16 * kBlockSize + 100, 1);
  EXPECT_EQ(error_of_open(), ErrorCode::corruption);
  world->meta.corrupt(0, 8);  // the magic, too
  world->meta.corrupt(16 * kBlockSize, 8);
  EXPECT_EQ(error_of_open(), ErrorCode::not_found);
}

TEST_F(Damage, OfTheLabelIsRefused) {
  make(true);
  world->data.corrupt(20, 1);
  EXPECT_EQ(error_of_open(), ErrorCode::corruption);
}

TEST_F(Damage, ADataDeviceOfAnotherStoreIsRefused) {
  make(true);
  SimLoop& loop = world->loop;
  SimDevice meta(loop, {.size_bytes = world->meta.size_bytes()}),
      data(loop, {.size_bytes = world->data.size_bytes()});
  FormatOptions format;
  format.uuid.bytes[0] = std::byte{0x99};
  format.journal_bytes = world->options.journal_bytes;
  ASSERT_TRUE(loop.run(Store::format(meta, data, format)));
  const auto opened = loop.run(Store::open(loop, world->meta, data, world->options.store));
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, ErrorCode::corruption);
}

TEST_F(Damage, AShorterDeviceIsRefused) {
  make(true);
  SimLoop& loop = world->loop;
  SimDevice data(loop, {.size_bytes = world->data.size_bytes() / 2}, world->data.durable());
  const auto opened = loop.run(Store::open(loop, world->meta, data, world->options.store));
  ASSERT_FALSE(opened);
  SimDevice meta(loop, {.size_bytes = world->meta.size_bytes() / 2}, world->meta.durable());
  EXPECT_FALSE(loop.run(Store::open(loop, meta, world->data, world->options.store)));
}

TEST_F(Damage, EmptyDevicesAreNoStore) {
  SimLoop loop;
  SimDevice meta(loop, {.size_bytes = 16 * MiB}), data(loop, {.size_bytes = 16 * MiB});
  const auto opened = loop.run(Store::open(loop, meta, data, StoreOptions{}));
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, ErrorCode::not_found);
}

}  // namespace
}  // namespace obraz::test
