// A table against a plain array, through freezes and reloads, with every page accounted for.
#include "store/table.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <vector>

#include "base/crc32c.h"

namespace obraz {
namespace {

// The pages of a device, as far as a table can tell.
struct Pages {
  std::map<uint64_t, std::vector<std::byte>> content;
  std::set<uint64_t> live;
  uint64_t next = 100;

  Table::Freeze freeze() {
    return {.allocate =
                [this] {
                  live.insert(next);
                  return Page{next++};
                },
            .retire = [this](Page page) { EXPECT_EQ(live.erase(page.value), 1u) << "page " << page.value; },
            .emit =
                [this](Page page, uint32_t type, ConstBytes bytes) {
                  EXPECT_TRUE(
                      content.emplace(page.value, std::vector<std::byte>(bytes.begin(), bytes.end())).second)
                      << "a page is written once";
                  return crc32c(bytes, type);
                },
            .adjust = [](uint64_t, Bytes) {}};
  }
};

// Loads a table from its root, as opening a store does. The pages it reads are those that are in use.
bool load(Table& table, const disk::TableRoot& root, const Pages& pages, std::set<uint64_t>& named) {
  if (!table.prepare(root, 1 << 30))
    return false;
  for (unsigned level = table.levels(); level-- > 0;)
    for (uint64_t i = 0; i < table.refs(level).size(); ++i) {
      const disk::PageRef ref = table.refs(level)[i];
      if (!ref)
        continue;
      const auto& bytes = pages.content.at(ref.page.value);
      const uint32_t type = level == 0 ? disk::kTypeTablePage : disk::type_of_index(level - 1);
      EXPECT_EQ(crc32c(bytes, type), ref.checksum);
      EXPECT_TRUE(named.insert(ref.page.value).second);
      if (!table.set_page(level, i, bytes))
        return false;
    }
  return true;
}

TEST(Table, AgainstAnArray) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    std::mt19937_64 random(seed);
    Pages pages;
    // Up to two levels of index pages: 256 × 4 KiB and a little more.
    const uint64_t most = random() % 3 == 0 ? 400 * 4096 : 20 * 4096;
    uint64_t length = random() % most / 64 * 64;
    Table table(length);
    std::vector<std::byte> model(length);
    for (int round = 0; round < 15; ++round) {
      if (random() % 3 == 0) {
        length = random() % most / 64 * 64;
        table.resize(length);
        model.resize(length);
      }
      for (uint64_t i = random() % 40; i > 0 && length > 0; --i) {
        const uint64_t at = random() % (length / 64) * 64;
        const std::byte value{uint8_t(random() % 3)};  // zeros often: pages fall away
        std::fill_n(table.edit(at, 64), 64, value);
        std::fill_n(model.begin() + long(at), 64, value);
      }
      if (random() % 4 == 0 && length > 0) {  // a whole page becomes zeros
        const uint64_t page = random() % divide_up(length, 4096);
        for (uint64_t at = page * 4096; at < std::min(length, (page + 1) * 4096); at += 64) {
          std::fill_n(table.edit(at, 64), 64, std::byte{0});
          std::fill_n(model.begin() + long(at), 64, std::byte{0});
        }
      }
      const uint64_t worst = table.worst_case_pages(), before = pages.next;
      const disk::TableRoot root = table.freeze(pages.freeze());
      ASSERT_LE(pages.next - before, worst) << seed;
      ASSERT_FALSE(table.dirty());
      ASSERT_EQ(root.length_bytes, length);
      Table again;
      std::set<uint64_t> named;
      ASSERT_TRUE(load(again, root, pages, named)) << seed;
      ASSERT_EQ(named, pages.live) << "seed " << seed << ": pages leaked, or in use and given back";
      ASSERT_EQ(again.length_bytes(), length);
      for (uint64_t at = 0; at < length; at += 64) {
        ASSERT_EQ(std::memcmp(again.at(at), &model[at], 64), 0) << seed << " " << at;
        ASSERT_EQ(std::memcmp(table.at(at), &model[at], 64), 0) << seed << " " << at;
      }
      ASSERT_FALSE(again.dirty());
      if (random() % 3 == 0)
        table = std::move(again);  // reopened
    }
  }
}

TEST(Table, ShrinkingForgets) {
  Pages pages;
  Table table(128);
  table.set_u32(20, 7);  // at byte 80
  table.freeze(pages.freeze());
  table.resize(64);
  const auto root = table.freeze(pages.freeze());
  Table again;
  std::set<uint64_t> named;
  EXPECT_TRUE(load(again, root, pages, named)) << "what was forgotten is still on the page";
  table.resize(128);
  EXPECT_EQ(table.u32(20), 0u);
}

TEST(Table, AFreezeWithoutChangesWritesNothing) {
  Pages pages;
  Table table(100 * 4096);
  table.set_u32(5, 1);
  const auto first = table.freeze(pages.freeze());
  const uint64_t written = pages.content.size();
  const auto second = table.freeze(pages.freeze());
  EXPECT_EQ(pages.content.size(), written);
  EXPECT_EQ(first.root, second.root);
}

TEST(Table, OneChangeWritesItsPageAndThoseAboveIt) {
  Pages pages;
  Table table(300 * 4096);
  for (uint32_t i = 0; i < 300; ++i)
    table.set_u32(i * 1024, i + 1);
  const auto first = table.freeze(pages.freeze());
  EXPECT_EQ(first.levels, 2u);
  const uint64_t written = pages.content.size();
  table.set_u32(7, 9);
  table.freeze(pages.freeze());
  EXPECT_EQ(pages.content.size() - written, 3u);
}

TEST(Table, TheAdjustmentGoesToTheCopyOnly) {
  Pages pages;
  Table table(4096);
  table.set_u32(0, 10);
  auto freeze = pages.freeze();
  freeze.adjust = [](uint64_t page, Bytes content) {
    EXPECT_EQ(page, 0u);
    store_le<uint32_t>(content.data(), 9);
  };
  const auto root = table.freeze(freeze);
  EXPECT_EQ(table.u32(0), 10u);
  EXPECT_EQ(load_le<uint32_t>(pages.content.at(root.root.page.value).data()), 9u);
}

TEST(Table, ImpossibleRootsAreRefused) {
  Table table;
  EXPECT_FALSE(table.prepare({{Page{5}, 1}, 1 << 20, 0}, 1 << 30)) << "256 pages need an index";
  EXPECT_FALSE(table.prepare({{Page{5}, 1}, 4096, 1}, 1 << 30)) << "one page needs none";
  EXPECT_FALSE(table.prepare({{Page{5}, 1}, 0, 0}, 1 << 30)) << "nothing has no page";
  EXPECT_FALSE(table.prepare({{Page{5}, 1}, 8192, 1}, 4096)) << "too long";
  EXPECT_TRUE(table.prepare({{Page{5}, 1}, 8192, 1}, 1 << 30));
}

TEST(Table, BytesBeyondTheLengthMustBeZero) {
  std::vector<std::byte> page(4096);
  Table table;
  ASSERT_TRUE(table.prepare({{Page{5}, 1}, 64, 0}, 1 << 30));
  EXPECT_TRUE(table.set_page(0, 0, page));
  page[64] = std::byte{1};
  EXPECT_FALSE(table.set_page(0, 0, page));
}

}  // namespace
}  // namespace obraz
