// The checker names damage and its place. Each kind is made here, with checksums resealed up to the
// superblock where the damage is a wrong value under a right checksum, so that nothing else is wrong with the
// store; and where one fault must not look like several, the number of problems is asserted, too.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <functional>

#include "base/bytes.h"
#include "sim/world.h"
#include "store/check.h"
#include "store/disk_format.h"
#include "store/journal.h"

namespace obraz::test {
namespace {

constexpr uint64_t KiB = limits::KiB, MiB = limits::MiB;
constexpr uint64_t kPage = disk::kPageSize;
using Words = std::vector<std::string>;
using Edit = std::function<void(Bytes)>;

struct Volumes {
  uint64_t large = 0, snapshot = 0, small = 0;  // `small` shares nothing: its root is a leaf
};

Task<void> fill(World& w, Volumes& made) {
  made.large = co_await w.create(64 * MiB);
  for (uint64_t i = 0; i < 4; ++i)
    co_await w.write(made.large, i * 16 * MiB, 64 * KiB);
  made.snapshot = co_await w.snapshot(made.large);
  co_await w.write(made.large, 4 * KiB, 4 * KiB);
  made.small = co_await w.create(4 * MiB);
  co_await w.write(made.small, 0, 256 * KiB);
  co_await w.put("note/1", std::string(100, 'n'));
  co_await w.put("note/2", std::string(100, 'm'));
  co_await w.flush();
}

Task<Status> write_page(Device& device, uint64_t page, Bytes bytes) {
  Status status = co_await device.write(page * kPage, bytes);
  if (status)
    status = co_await device.flush();
  co_return status;
}

Task<void> put_twice(World& w) {
  co_await w.put("note/3", "one");
  co_await w.put("note/4", "two");
}

class Check : public testing::Test {
 protected:
  explicit Check(uint64_t sum_rate = 0) : summing(sum_rate) {}
  void SetUp() override {
    WorldOptions options;
    options.store.sum_bytes_per_s = summing;
    world = std::make_unique<World>(options);
    ASSERT_TRUE(world->open());
    world->loop.run(fill(*world, made));
    world->close();
    ASSERT_EQ(world->problem(), "");
    read_superblock();
  }

  const uint64_t summing;  // bytes per second; 0: the store has no checksums of data

  // --- surgery
  void read_superblock() {
    bool any = false;
    for (const uint64_t at : disk::kSuperblockPages) {
      const auto decoded = disk::decode_superblock(page(at), Page{at});
      ASSERT_TRUE(decoded);
      if (!any || decoded->generation > superblock.generation)
        superblock = *decoded;
      any = true;
    }
  }
  Bytes page(uint64_t number) {
    world->meta.contents().read(number * kPage, buffer.bytes());
    return buffer.bytes();
  }
  void put(uint64_t number, ConstBytes bytes) {
    AlignedBytes copy(kPage);
    std::ranges::copy(bytes, copy.bytes().begin());
    ASSERT_TRUE(world->loop.run(write_page(world->meta, number, copy.bytes())));
  }
  void put_superblocks() {
    AlignedBytes bytes(kPage);
    for (const uint64_t at : disk::kSuperblockPages) {
      encode(superblock, Page{at}, bytes.bytes());
      put(at, bytes.bytes());
    }
  }
  // The page of that type, changed; its new checksum.
  uint32_t change(uint64_t number, uint32_t type, const Edit& edit) {
    AlignedBytes bytes(kPage);
    std::ranges::copy(page(number), bytes.bytes().begin());
    edit(bytes.bytes());
    put(number, bytes.bytes());
    return disk::page_checksum(superblock.uuid, Page{number}, type, bytes.bytes());
  }
  disk::PageRef slot_ref(uint64_t number, uint64_t slot) {
    return disk::load_page_ref(&page(number)[slot * disk::kSlotSize]);
  }
  // The pages from the root down to the one with the table's byte `offset`.
  std::vector<uint64_t> table_path(unsigned id, uint64_t offset) {
    std::vector<uint64_t> path{superblock.tables[id].root.page.value};
    for (unsigned level = superblock.tables[id].levels; level > 0; --level)
      path.push_back(slot_ref(path.back(), table_slot(offset, level)).page.value);
    return path;
  }
  static uint64_t table_slot(uint64_t offset, unsigned level) {
    return offset / kPage / disk::clusters_per_slot(level - 1) % disk::kSlotsPerNode;
  }
  // Changes the table from its byte `offset` on, and reseals what is above.
  void change_table(unsigned id, uint64_t offset, const Edit& edit) {
    const std::vector<uint64_t> path = table_path(id, offset);
    ASSERT_NE(path.back(), 0u);
    uint32_t sum =
        change(path.back(), disk::kTypeTablePage, [&](Bytes bytes) { edit(bytes.subspan(offset % kPage)); });
    for (size_t i = path.size() - 1; i-- > 0;) {
      const unsigned level = unsigned(path.size() - 1 - i);
      sum = change(path[i], disk::type_of_index(level - 1), [&](Bytes bytes) {
        disk::store_page_ref(&bytes[table_slot(offset, level) * disk::kSlotSize], {Page{path[i + 1]}, sum});
      });
    }
    superblock.tables[id].root.checksum = sum;
    put_superblocks();
  }
  void set_count(unsigned id, uint64_t index, uint32_t count) {
    change_table(id, index * 4, [&](Bytes bytes) { store_le<uint32_t>(bytes.data(), count); });
  }
  uint64_t entry_offset(uint64_t volume) {
    for (uint64_t at = 0; at < superblock.tables[disk::kVolumes].length_bytes; at += disk::kVolumeEntrySize)
      if (load_le<uint64_t>(&page(table_path(disk::kVolumes, at).back())[at % kPage]) == volume)
        return at;
    ADD_FAILURE() << "no volume " << volume;
    return 0;
  }
  disk::VolumeEntry entry(uint64_t volume) {
    const uint64_t at = entry_offset(volume);
    return *disk::decode_volume_entry(&page(table_path(disk::kVolumes, at).back())[at % kPage]);
  }
  void change_entry(uint64_t volume, const Edit& edit) {
    change_table(disk::kVolumes, entry_offset(volume), edit);
  }
  void set_root(uint64_t volume, disk::PageRef ref) {
    change_entry(volume, [&](Bytes bytes) {
      store_le<uint64_t>(&bytes[16], ref.page.value);
      store_le<uint32_t>(&bytes[24], ref.checksum);
    });
  }
  // The root of `small`, which is a leaf, or of `large`, of level 1.
  void change_root(uint64_t volume, const Edit& edit) {
    const disk::VolumeEntry before = entry(volume);
    set_root(volume,
             {before.root.page, change(before.root.page.value, disk::type_of_node(before.level), edit)});
  }
  uint64_t first_cluster_of_small() {
    return disk::load_slot(page(entry(made.small).root.page.value).data()).own.value;
  }
  // One table page, made of nothing, on the last page of meta, which is free.
  void set_drops(const std::vector<disk::DropEntry>& entries) {
    const uint64_t at = superblock.pages - 1;
    auto& root = superblock.tables[disk::kDrops];
    root.levels = 0;
    root.length_bytes = entries.size() * disk::kDropEntrySize;
    root.root = {Page{at}, change(at, disk::kTypeTablePage, [&](Bytes bytes) {
                   std::ranges::fill(bytes, std::byte{0});
                   for (size_t i = 0; i < entries.size(); ++i)
                     encode(entries[i], &bytes[i * disk::kDropEntrySize]);
                 })};
    put_superblocks();
  }

  // --- looking
  CheckReport check(CheckOptions options = {.superblock_may_be_torn = false}) {
    const SimImage meta = world->meta.contents(), data = world->data.contents();
    auto report = world->loop.run(check_store(world->loop, world->meta, world->data, options));
    EXPECT_TRUE(meta == world->meta.contents() && data == world->data.contents()) << "the checker wrote";
    if (!report) {
      ADD_FAILURE() << describe(report.error());
      return {};
    }
    return std::move(*report);
  }
  static bool has(const std::vector<std::string>& lines, const Words& words) {
    return std::ranges::any_of(lines, [&](const std::string& line) {
      return std::ranges::all_of(words,
                                 [&](const std::string& word) { return line.find(word) != line.npos; });
    });
  }
  static std::string all(const CheckReport& report) {
    return fmt::format("{} problems:\n{}\nnotes:\n{}", report.problem_count, fmt::join(report.problems, "\n"),
                       fmt::join(report.notes, "\n"));
  }
  void expect(const Words& words, uint64_t problems = 1) {
    const CheckReport report = check();
    EXPECT_TRUE(has(report.problems, words)) << fmt::format("{}", fmt::join(words, " | ")) << "\n"
                                             << all(report);
    EXPECT_EQ(report.problem_count, problems) << all(report);
  }

  std::unique_ptr<World> world;
  Volumes made;
  disk::Superblock superblock;
  AlignedBytes buffer{kPage};
};

std::string page_of_meta(uint64_t page) {
  return fmt::format("page {} of meta", page);
}
std::string part_of(uint64_t volume, uint64_t bytes, uint64_t offset) {
  return fmt::format("volume {}, {} bytes at offset {}", volume, bytes, offset);
}

TEST_F(Check, AWholeStoreIsCleanAndCounted) {
  const CheckReport report = check({.read_data = true, .superblock_may_be_torn = false});
  EXPECT_TRUE(report.clean()) << all(report);
  EXPECT_TRUE(report.notes.empty()) << all(report);
  EXPECT_EQ(report.volumes, 3u);
  EXPECT_EQ(report.volume_bytes, 132 * MiB);
  EXPECT_EQ(report.resources, 5u);              // one for each volume, two notes
  EXPECT_EQ(report.nodes, 1u + 4 + 1 + 1 + 1);  // root and leaves; root and leaf of the change; the small one
  EXPECT_EQ(report.clusters, 4u + 1 + 4);
  EXPECT_EQ(report.cluster_bytes, 9 * 64 * KiB);
}

// --- superblocks, label, devices

TEST_F(Check, OneDamagedSuperblockIsNamed) {
  for (const auto& [at, name] :
       {std::pair{0, "superblock A (page 0 of meta)"}, {16, "superblock B (page 16"}}) {
    world->meta.corrupt(uint64_t(at) * kPage + 100, 1);
    expect({name, "expected", "found", "the other one serves"});
    // A torn write can only have hit the place that is written next.
    const CheckReport report = check({});
    const bool next = superblock.second_place().value == uint64_t(at);
    EXPECT_EQ(report.clean(), next) << all(report);
    EXPECT_EQ(has(report.notes, {name}), next) << all(report);
    world->meta.corrupt(uint64_t(at) * kPage + 100, 1);
  }
}

TEST_F(Check, BothDamagedSuperblocksAreNamed) {
  world->meta.corrupt(100, 1);
  world->meta.corrupt(16 * kPage + 100, 1);
  expect({"superblock A (page 0 of meta)", "expected"}, 2);
  expect({"superblock B (page 16 of meta)", "expected"}, 2);
}

TEST_F(Check, WhatIsNoStoreIsRefused) {
  SimDevice meta(world->loop, {.size_bytes = 16 * MiB}), data(world->loop, {.size_bytes = 16 * MiB});
  const auto report = world->loop.run(check_store(world->loop, meta, data, {}));
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, ErrorCode::not_found);
}

TEST_F(Check, SuperblocksOfOneGenerationThatDifferAreNamed) {
  AlignedBytes bytes(kPage);
  superblock.next_volume.value += 7;
  encode(superblock, Page{16}, bytes.bytes());
  put(16, bytes.bytes());
  expect({"superblocks: both have generation", "differ"});
}

TEST_F(Check, ADamagedLabelIsNamedAndTheRestChecked) {
  world->data.corrupt(50, 1);
  set_count(disk::kClusterCounts, first_cluster_of_small(), 5);
  expect({"label (cluster 0 of data): checksum", "expected", "found"}, 2);
  expect({fmt::format("cluster {} of data: count 5", first_cluster_of_small())}, 2);
}

TEST_F(Check, TheLabelOfAnotherStoreIsNamed) {
  AlignedBytes bytes(kPage);
  Uuid other = superblock.uuid;
  other.bytes[3] ^= std::byte{1};
  encode(disk::Label{other, superblock.clusters}, bytes.bytes());
  ASSERT_TRUE(world->loop.run(write_page(world->data, 0, bytes.bytes())));
  expect(
      {"label (cluster 0 of data)", superblock.uuid.to_string() + " expected", other.to_string() + " found"});
  encode(disk::Label{superblock.uuid, superblock.clusters + 1}, bytes.bytes());
  ASSERT_TRUE(world->loop.run(write_page(world->data, 0, bytes.bytes())));
  expect(
      {"label", fmt::format("{} clusters expected, {} found", superblock.clusters, superblock.clusters + 1)});
}

TEST_F(Check, AShortenedDataDeviceAndWhatItLostAreNamed) {
  const uint64_t first = first_cluster_of_small();
  SimDevice data(world->loop, {.size_bytes = (first + 1) * 64 * KiB}, world->data.durable());
  const auto report = world->loop.run(
      check_store(world->loop, world->meta, data, {.read_data = true, .superblock_may_be_torn = false}));
  ASSERT_TRUE(report);
  EXPECT_TRUE(has(report->problems, {fmt::format("data: {} bytes expected, {} found",
                                                 superblock.clusters * 64 * KiB, data.size_bytes())}))
      << all(*report);
  for (uint64_t i = 1; i < 4; ++i)
    EXPECT_TRUE(has(report->problems, {fmt::format("cluster {} of data: ", first + i), "beyond the end",
                                       part_of(made.small, 64 * KiB, i * 64 * KiB)}))
        << all(*report);
  EXPECT_FALSE(has(report->problems, {fmt::format("cluster {} of data: ", first)})) << all(*report);
}

TEST_F(Check, AShortenedMetaDeviceIsNamed) {
  const uint64_t leaf = entry(made.small).root.page.value;
  SimDevice meta(world->loop, {.size_bytes = leaf * kPage}, world->meta.durable());
  const auto report = world->loop.run(check_store(world->loop, meta, world->data, {}));
  ASSERT_TRUE(report);
  EXPECT_TRUE(has(report->problems, {"meta: ", "expected", fmt::format("{} found", leaf * kPage)}))
      << all(*report);
  EXPECT_TRUE(has(report->problems, {"beyond the end of the device"})) << all(*report);
}

TEST_F(Check, UnreadableDataIsNamedWithAllThatUseIt) {
  world->data.fail(IoKind::read, 2, EIO, true);  // the label is read first
  const CheckReport report = check({.read_data = true, .superblock_may_be_torn = false});
  EXPECT_EQ(report.problem_count, 9u) << all(report);
  EXPECT_TRUE(has(report.problems, {fmt::format("cluster {} of data: ", first_cluster_of_small()),
                                    "Input/output", part_of(made.small, 64 * KiB, 0)}))
      << all(report);
  EXPECT_TRUE(has(report.problems,
                  {part_of(made.large, 64 * KiB, 16 * MiB), part_of(made.snapshot, 64 * KiB, 16 * MiB)}))
      << all(report);
}

// --- tables

TEST_F(Check, ADamagedPageOfEachTableIsNamed) {
  const char* const names[] = {"cluster counts", "page counts", "volumes", "resources"};
  for (unsigned id = 0; id < 4; ++id) {
    const uint64_t damaged = table_path(id, 0).back() != 0
                                 ? table_path(id, 0).back()
                                 : table_path(id, entry(made.small).root.page.value * 4).back();
    world->meta.corrupt(damaged * kPage + 10, 1);
    const CheckReport report = check();
    EXPECT_EQ(report.problem_count, 1u) << all(report);
    EXPECT_TRUE(has(report.problems, {page_of_meta(damaged), fmt::format("of the table of {}", names[id]),
                                      "expected", "found"}))
        << all(report);
    EXPECT_TRUE(has(report.notes, {"journal: not replayed"})) << all(report);
    if (id != disk::kVolumes) {
      EXPECT_EQ(report.nodes, 8u) << "the trees are walked all the same";
    }
    world->meta.corrupt(damaged * kPage + 10, 1);
  }
}

TEST_F(Check, ADamagedIndexPageIsNamed) {
  ASSERT_GT(superblock.tables[disk::kPageCounts].levels, 0u);
  const uint64_t damaged = superblock.tables[disk::kPageCounts].root.page.value;
  world->meta.corrupt(damaged * kPage, 1);
  expect({page_of_meta(damaged), "index page 0 of level", "page counts", "expected"});
}

TEST_F(Check, ATableOfAnImpossibleShapeIsNamed) {
  const disk::Superblock whole = superblock;
  superblock.tables[disk::kVolumes].levels = 3;
  put_superblocks();
  expect({"table of volumes: impossible shape", "3 levels"});
  superblock = whole;
  superblock.tables[disk::kClusterCounts].length_bytes -= 4;
  put_superblocks();
  expect({"table of cluster counts", fmt::format("{} bytes expected", superblock.clusters * 4)});
}

TEST_F(Check, ATablePageOutsideTheNodePagesIsNamed) {
  superblock.tables[disk::kVolumes].root.page.value = 300;
  put_superblocks();
  expect({"page 300 of meta", "table of volumes", "not one of the node pages"});
}

TEST_F(Check, APageThatTwoTablesNameIsNamed) {
  superblock.tables[disk::kDrops] = superblock.tables[disk::kVolumes];
  superblock.tables[disk::kDrops].length_bytes = disk::kDropEntrySize;
  put_superblocks();
  const CheckReport report = check();
  EXPECT_TRUE(has(report.problems, {page_of_meta(superblock.tables[disk::kVolumes].root.page.value),
                                    "table of volumes", "also", "table of drops"}))
      << all(report);
}

TEST_F(Check, ACountOfATablePageIsNamed) {
  const uint64_t at = superblock.tables[disk::kVolumes].root.page.value;
  set_count(disk::kPageCounts, at, 2);
  const CheckReport report = check();
  EXPECT_TRUE(
      has(report.problems, {page_of_meta(at), "table of volumes", "count as a node is 2, 0 expected"}))
      << all(report);
}

// --- volumes

TEST_F(Check, AVolumeNumberTwiceIsNamed) {
  change_entry(made.small, [&](Bytes bytes) { store_le<uint64_t>(bytes.data(), made.large); });
  expect({fmt::format("volume {}, entry", made.large), "the number is also that of entry"});
}

TEST_F(Check, AVolumeNumberBeyondTheNextIsNamed) {
  superblock.next_volume = {made.small};
  put_superblocks();
  expect(
      {fmt::format("volume {}, entry", made.small), fmt::format("a number below {} expected", made.small)});
}

TEST_F(Check, AnImpossibleSizeIsNamed) {
  for (const uint64_t size : {uint64_t(0), limits::kMaxVolumeSize + 1}) {
    change_entry(made.small, [&](Bytes bytes) { store_le<uint64_t>(&bytes[8], size); });
    expect({fmt::format("volume {}, entry", made.small), fmt::format("{} found", size), "expected"});
  }
}

TEST_F(Check, ARootOfTheWrongLevelIsNamed) {
  change_entry(made.small, [&](Bytes bytes) { store_le<uint64_t>(&bytes[8], 64 * MiB); });
  expect({fmt::format("volume {}, entry", made.small), "level 1 expected", "level 0 found"});
}

TEST_F(Check, OtherImpossibleFieldsOfAVolumeAreNamed) {
  change_entry(made.small, [](Bytes bytes) { bytes[29] = std::byte{9}; });
  expect({fmt::format("volume {}", made.small), "kind 1 or 2 expected, 9 found"});
  change_entry(made.small, [](Bytes bytes) {
    bytes[29] = std::byte{1};
    bytes[50] = std::byte{1};
  });
  expect({fmt::format("volume {}", made.small), "reserved bytes"});
  change_entry(made.small, [](Bytes bytes) {
    bytes[50] = std::byte{0};
    store_le<uint64_t>(&bytes[16], 20);
  });
  const CheckReport report = check();
  EXPECT_TRUE(has(report.problems,
                  {fmt::format("volume {}", made.small), "root is page 20", "not one of the node pages"}))
      << all(report);
}

// --- resources

TEST_F(Check, AResourceKeyTwiceIsNamed) {
  const uint64_t at = table_path(disk::kResources, 0).back();
  const Bytes bytes = page(at);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const size_t second = text.find("note/2");
  ASSERT_NE(second, text.npos);
  change_table(disk::kResources, 0, [&](Bytes content) { content[second + 5] = std::byte{'1'}; });
  expect({"table of resources", page_of_meta(at), "the key 'note/1' is also that of entry"});
}

TEST_F(Check, AnImpossibleResourceIsNamed) {
  change_table(disk::kResources, 0, [&](Bytes content) { store_le<uint16_t>(&content[2], 5000); });
  expect({"entry 0 of the table of resources", "a key of 5000"});
}

// --- nodes

TEST_F(Check, UnreadableNodesAreNamedEachAndHideNothing) {
  const uint64_t root = entry(made.large).root.page.value, small = entry(made.small).root.page.value;
  const uint64_t shared = slot_ref(root, 2).page.value;
  world->meta.corrupt(shared * kPage, 1);
  world->meta.corrupt(small * kPage + 4000, 64);
  const uint64_t cluster = disk::load_slot(page(slot_ref(root, 3).page.value).data()).own.value;
  set_count(disk::kClusterCounts, cluster, 0);
  const CheckReport report = check();
  EXPECT_EQ(report.problem_count, 3u) << all(report);
  EXPECT_TRUE(has(report.problems,
                  {page_of_meta(shared), "node of level 0", "expected", "found",
                   part_of(made.large, 16 * MiB, 32 * MiB), part_of(made.snapshot, 16 * MiB, 32 * MiB)}))
      << all(report);
  EXPECT_TRUE(has(report.problems, {page_of_meta(small), "expected", part_of(made.small, 16 * MiB, 0)}))
      << all(report);
  EXPECT_TRUE(has(report.problems, {fmt::format("cluster {} of data: free by its count", cluster),
                                    part_of(made.large, 64 * KiB, 48 * MiB)}))
      << all(report);
  EXPECT_TRUE(has(report.notes, {"counts: ", "5 clusters"})) << all(report);
}

TEST_F(Check, AnUnreadableRootIsNamed) {
  const uint64_t root = entry(made.large).root.page.value;
  world->meta.corrupt(root * kPage, 1);
  expect({page_of_meta(root), "node of level 1", part_of(made.large, 4096 * MiB, 0)});
}

TEST_F(Check, ImpossibleSlotsOfALeafAreNamed) {
  const uint64_t clusters = superblock.clusters;
  const struct {
    Slot slot;
    const char* word;
  } cases[] = {
      {{{clusters + 3}, {}, 1, 0}, "names cluster"},
      {{{}, {clusters}, 0, 0}, "names cluster"},
      {{{2}, {}, 0, 0}, "own cluster 2 with own mask 0000"},
      {{{}, {}, 1, 0}, "own cluster 0 with own mask 0001"},
      {{{}, {}, 0, 4}, "no base, but zero mask 0004"},
      {{{2}, {3}, 3, 2}, "blocks both own and zero: masks 0003 and 0002"},
      {{{2}, {2}, 3, 0}, "own and base are both cluster 2"},
  };
  for (const auto& [slot, word] : cases) {
    change_root(made.small, [&](Bytes bytes) { disk::store_slot(&bytes[40 * disk::kSlotSize], slot); });
    const CheckReport report = check();
    EXPECT_TRUE(
        has(report.problems, {page_of_meta(entry(made.small).root.page.value), "node of level 0, slot 40",
                              word, part_of(made.small, 64 * KiB, 40 * 64 * KiB)}))
        << all(report);
  }
}

TEST_F(Check, ImpossibleSlotsOfAnInnerNodeAreNamed) {
  change_root(made.large, [](Bytes bytes) {
    disk::store_page_ref(&bytes[9 * disk::kSlotSize], {Page{17}, 5});
  });
  expect({"node of level 1, slot 9", "names page 17, which is not one of the node pages",
          part_of(made.large, 16 * MiB, 9 * 16 * MiB)});
  change_root(made.large, [](Bytes bytes) {
    disk::store_page_ref(&bytes[9 * disk::kSlotSize], {});
    bytes[8 * disk::kSlotSize + 12] = std::byte{1};
  });
  expect({"node of level 1, slot 8", "reserved bytes"});
}

// --- counts

TEST_F(Check, WrongCountsOfClustersAreNamed) {
  const uint64_t cluster = first_cluster_of_small();
  set_count(disk::kClusterCounts, cluster, 3);
  expect({fmt::format("cluster {} of data: count 3, but 1 reference found", cluster),
          part_of(made.small, 64 * KiB, 0)});
  set_count(disk::kClusterCounts, cluster, 0);
  expect({fmt::format("cluster {} of data: free by its count, but 1 reference", cluster),
          part_of(made.small, 64 * KiB, 0)});
  set_count(disk::kClusterCounts, cluster, 1);
  set_count(disk::kClusterCounts, superblock.clusters - 1, 1);
  expect({fmt::format("cluster {} of data: count 1, but 0 references found", superblock.clusters - 1)});
  set_count(disk::kClusterCounts, superblock.clusters - 1, 0);
  set_count(disk::kClusterCounts, 0, 1);
  expect({"cluster 0 of data: it holds the label, and its count is 1"});
}

TEST_F(Check, WrongCountsOfPagesAreNamed) {
  const uint64_t small = entry(made.small).root.page.value;
  set_count(disk::kPageCounts, small, 2);
  expect({page_of_meta(small), "count 2, but 1 reference found", part_of(made.small, 16 * MiB, 0)});
  set_count(disk::kPageCounts, small, 0);
  expect({page_of_meta(small), "free by its count, but 1 reference found", part_of(made.small, 16 * MiB, 0)});
  set_count(disk::kPageCounts, small, 1);
  EXPECT_TRUE(check().clean());
}

TEST_F(Check, ACountOfAPageThatNothingNamesIsNamed) {
  // A free page whose count is in a table page that is there.
  uint64_t free = entry(made.small).root.page.value;
  std::vector<uint64_t> used;
  for (unsigned id = 0; id < disk::kDrops; ++id)
    for (const uint64_t at : table_path(id, id == disk::kPageCounts ? free * 4 : 0))
      used.push_back(at);
  const uint64_t counts = table_path(disk::kPageCounts, free * 4).back();
  while (load_le<uint32_t>(&page(counts)[free * 4 % kPage]) != 0 ||
         std::ranges::find(used, free) != used.end())
    ++free;
  set_count(disk::kPageCounts, free, 1);
  expect({page_of_meta(free) + ": count 1, but 0 references found"});
}

TEST_F(Check, ACountBelowTheNodePagesIsNamed) {
  ASSERT_NE(table_path(disk::kPageCounts, 0).back(), 0u);
  set_count(disk::kPageCounts, 5, 1);
  expect({"page 5 of meta: not a node page, and its count is 1"});
}

TEST_F(Check, APageNamedTwiceIsNamedWithBothPlaces) {
  const disk::PageRef leaf = entry(made.small).root;
  change_root(made.large, [&](Bytes bytes) { disk::store_page_ref(&bytes[5 * disk::kSlotSize], leaf); });
  expect({page_of_meta(leaf.page.value), "count 1, but 2 references found", part_of(made.small, 16 * MiB, 0),
          part_of(made.large, 16 * MiB, 5 * 16 * MiB)});
}

TEST_F(Check, APageNamedAtTwoLevelsOrWithTwoChecksumsIsNamed) {
  const disk::PageRef root = entry(made.large).root, leaf = entry(made.small).root;
  set_root(made.small, root);
  CheckReport report = check();
  EXPECT_TRUE(has(report.problems,
                  {page_of_meta(root.page.value), "named as a node of level 1 and as one of level 0"}))
      << all(report);
  set_root(made.small, leaf);
  change_root(made.large, [&](Bytes bytes) {
    disk::store_page_ref(&bytes[5 * disk::kSlotSize], {leaf.page, leaf.checksum + 1});
  });
  report = check();
  EXPECT_TRUE(has(report.problems, {page_of_meta(leaf.page.value), fmt::format("{:08x}", leaf.checksum),
                                    fmt::format("{:08x}", leaf.checksum + 1)}))
      << all(report);
}

TEST_F(Check, APageThatIsNodeAndTablePageIsNamed) {
  const disk::PageRef table = superblock.tables[disk::kResources].root;
  set_root(made.small, table);
  const CheckReport report = check();
  EXPECT_TRUE(has(report.problems, {page_of_meta(table.page.value), "also", "table of resources",
                                    "node of level 0", part_of(made.small, 16 * MiB, 0)}))
      << all(report);
}

// --- drops

TEST_F(Check, ADropOfWhatIsNamedIsNamed) {
  const disk::PageRef leaf = entry(made.small).root;
  set_drops({{leaf, 0}, {leaf, 0}});
  const CheckReport report = check();
  EXPECT_TRUE(has(report.problems, {page_of_meta(leaf.page.value), "to be dropped, and its count is 1"}))
      << all(report);
  EXPECT_TRUE(has(report.problems, {page_of_meta(leaf.page.value), "twice in the table of drops"}))
      << all(report);
  EXPECT_TRUE(has(report.problems, {page_of_meta(leaf.page.value), "to be dropped, and still named",
                                    part_of(made.small, 16 * MiB, 0), "a deleted tree"}))
      << all(report);
}

TEST_F(Check, AnImpossibleDropIsNamed) {
  const disk::PageRef leaf = entry(made.small).root;
  set_drops({{leaf, 7}});
  expect({"entry 0 of the table of drops", "a level of at most 3 expected, 7 found"});
  set_drops({{{Page{40}, 1}, 0}});
  expect({"entry 0 of the table of drops", "page 40, which is not one of the node pages"});
}

TEST_F(Check, AnUnreadableDropIsNamed) {
  set_drops({{{Page{superblock.pages - 2}, 0x1234}, 1}});
  expect({page_of_meta(superblock.pages - 2), "node of level 1", "checksum 00001234 expected",
          "a deleted tree"});
}

// --- journal

class CheckJournal : public Check {
 protected:
  // Two batches of one record each behind the checkpoint.
  void SetUp() override {
    Check::SetUp();
    ASSERT_TRUE(world->open());
    world->loop.run(put_twice(*world));
    world->crash(nullptr);
    ASSERT_EQ(world->problem(), "");
    read_superblock();
    first = disk::kJournalFirstPage + superblock.journal_position % superblock.journal_bytes / kPage;
  }
  // The batch on that page with one record instead of its own, sealed.
  void replace(uint64_t at, std::vector<std::byte> records) {
    const auto header = disk::decode_batch_header(superblock.uuid, page(at));
    ASSERT_TRUE(header);
    std::vector<std::byte> batch(disk::BatchHeader::kSize);
    batch.insert(batch.end(), records.begin(), records.end());
    disk::seal_batch(superblock.uuid, *header, batch);
    batch.resize(kPage);
    put(at, batch);
  }
  std::string place(uint64_t index) const {
    return fmt::format("journal, batch {} at page {} of meta", superblock.sequence.value + 1 + index,
                       first + index);
  }
  uint64_t first = 0;
};

TEST_F(CheckJournal, IsReplayed) {
  const CheckReport report = check();
  EXPECT_TRUE(report.clean()) << all(report);
  EXPECT_EQ(report.replayed_records, 2u);
  EXPECT_EQ(report.resources, 7u);
}

TEST_F(CheckJournal, ARecordThatDoesNotFitIsNamed) {
  std::vector<std::byte> record;
  encode(disk::Record(DeleteVolume{{4711}}), record);
  replace(first + 1, record);
  expect({place(1) + ", record 0, of volume 4711", "no such volume"});
}

TEST_F(CheckJournal, AMalformedRecordIsNamed) {
  std::vector<std::byte> record;
  encode(disk::Record(DeleteVolume{{4711}}), record);
  record[0] = std::byte{99};
  replace(first + 1, record);
  expect({place(1), "malformed record"});
}

TEST_F(CheckJournal, ARottenBatchIsNamed) {
  world->meta.corrupt(first * kPage + 80, 1);
  expect({place(0), "damaged or missing"});
}

TEST_F(CheckJournal, AVolumeThatCannotBeReplayedIntoIsNamedWithItsNode) {
  const uint64_t leaf = entry(made.small).root.page.value;
  std::vector<std::byte> record;
  encode(disk::Record(disk::MapRecord{{made.small}, {1}, {}}), record);
  replace(first + 1, record);
  world->meta.corrupt(leaf * kPage, 1);
  expect({place(1) + ", record 0", fmt::format("volume {} is damaged", made.small), page_of_meta(leaf)}, 2);
  expect({page_of_meta(leaf) + " (node of level 0)", "expected", part_of(made.small, 16 * MiB, 0)}, 2);
}

// --- all together

TEST_F(Check, WhatUnreadableNodesMayExplainIsNotCalledAProblem) {
  change_table(disk::kClusterCounts, 0, [&](Bytes bytes) {
    for (uint64_t cluster = 1; cluster < superblock.clusters; ++cluster)
      store_le<uint32_t>(&bytes[cluster * 4], 9);
  });
  for (uint64_t leaf = 1; leaf < 4; ++leaf)
    world->meta.corrupt(slot_ref(entry(made.large).root.page.value, leaf).page.value * kPage, 1);
  expect({"node of level 0", part_of(made.large, 16 * MiB, 48 * MiB)}, 3);
}

TEST_F(Check, EveryProblemIsCountedBeyondTheListed) {
  change_table(disk::kClusterCounts, 0, [&](Bytes bytes) {
    for (uint64_t cluster = 1; cluster < superblock.clusters; ++cluster)
      store_le<uint32_t>(&bytes[cluster * 4], 9);
  });
  const CheckReport report = check({.max_problems = 10, .superblock_may_be_torn = false});
  EXPECT_EQ(report.problems.size(), 10u);
  EXPECT_EQ(report.problem_count, superblock.clusters - 1);
}

TEST_F(Check, TheListEndsAtItsLimit) {
  world->data.corrupt(50, 1);
  world->meta.corrupt(entry(made.small).root.page.value * kPage, 1);
  const CheckReport report = check({.max_problems = 1, .superblock_may_be_torn = false});
  EXPECT_EQ(report.problems.size(), 1u) << all(report);
  EXPECT_EQ(report.problem_count, 2u) << all(report);
}

}  // namespace
}  // namespace obraz::test
