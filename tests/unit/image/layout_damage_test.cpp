// Disks that are damaged at random, where it matters: in what was looked at when they were whole. Every one
// has an answer that keeps to the rules; a seed names the same damage of the same disk. The disks differ from
// run to run in their identifiers and times only; a failure prints all that was changed, with what was there.
#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "base/limits.h"
#include "image/layout_wire.h"
#include "layout_support.h"

namespace obraz::test {
namespace {

constexpr uint64_t kPage = 4096;
constexpr unsigned kVariants = 400;         // in this process
constexpr unsigned kConfinedVariants = 25;  // by obraz-layout

class LayoutDamage : public testing::TestWithParam<std::string> {
 protected:
  // The pages with anything in them that an examination of the whole disk asks for.
  std::vector<uint64_t> pages_of(FileDisk& disk) {
    FileBytes bytes(disk);
    (void)examine_disk(bytes);
    std::vector<uint64_t> pages;
    std::vector<std::byte> page(kPage);
    for (const auto& range : bytes.asked())
      for (uint64_t at = range.offset; at + kPage <= range.offset + range.length; at += kPage)
        if (disk.read(at, page) && !is_zero(page))
          pages.push_back(at);
    return pages;
  }

  // Changes a few things, most of them where there was something; tells what.
  std::string damage(FileDisk& disk, const std::vector<uint64_t>& pages, std::mt19937_64& random) {
    std::string story;
    disk.changes().clear();
    std::vector<std::byte> page(kPage);
    for (unsigned count = 1 + unsigned(random() % 12); count > 0; --count) {
      // Small pages of tables and boot sectors are few and matter most.
      const uint64_t place =
          pages[random() % (random() % 2 ? std::min<size_t>(pages.size(), 16) : pages.size())];
      EXPECT_TRUE(disk.read(place, page));
      size_t at = random() % kPage;
      for (unsigned tries = 0; tries < 4096 && page[at] == std::byte(0); ++tries)
        at = (at + 1) % kPage;
      const size_t length = std::min<size_t>(size_t(1) << random() % 5, kPage - at);
      std::vector<std::byte> bytes(page.begin() + ptrdiff_t(at), page.begin() + ptrdiff_t(at + length));
      const auto before = bytes;
      switch (random() % 6) {
        case 0:
          std::ranges::fill(bytes, std::byte(0));
          break;
        case 1:
          std::ranges::fill(bytes, std::byte(0xff));
          break;
        case 2:
          for (std::byte& byte : bytes)
            byte = std::byte(random());
          break;
        case 3:
          bytes[0] ^= std::byte(1 << random() % 8);
          break;
        case 4:  // one more, one less
          bytes[0] = std::byte(uint8_t(bytes[0]) + (random() % 2 ? 1 : -1));
          break;
        default: {  // what belongs somewhere else
          std::vector<std::byte> other(kPage);
          EXPECT_TRUE(disk.read(pages[random() % pages.size()], other));
          bytes.assign(other.begin() + ptrdiff_t(at), other.begin() + ptrdiff_t(at + length));
        }
      }
      story += fmt::format("{}:", place + at);
      for (size_t i = 0; i < bytes.size(); ++i)
        story += fmt::format(" {:02x}>{:02x}", uint8_t(before[i]), uint8_t(bytes[i]));
      story += '\n';
      disk.changes()[place + at] = std::move(bytes);
    }
    return story;
  }

  DiskMaker maker_;
};

TEST_P(LayoutDamage, HasAnAnswer) {
  FileDisk disk(maker_.make(GetParam()));
  const auto pages = pages_of(disk);
  ASSERT_FALSE(pages.empty());
  unsigned unlike = 0;
  const std::string whole = describe(examine(disk));
  for (unsigned seed = 0; seed < kVariants; ++seed) {
    std::mt19937_64 random(seed);
    SCOPED_TRACE(fmt::format("seed {}:\n{}", seed, damage(disk, pages, random)));
    FileBytes bytes(disk);
    const DiskLayout layout = examine_disk(bytes);
    uint64_t total = 0;
    for (const auto& range : bytes.asked())
      total += range.length;
    ASSERT_LE(total, limits::kLayoutReadTotal);
    ASSERT_LE(bytes.asked().size(), limits::kLayoutReads);
    const auto encoded = layout_wire::encode_layout(layout);
    const auto decoded = layout_wire::decode_layout(encoded);
    ASSERT_TRUE(decoded.has_value());
    ASSERT_EQ(describe(*decoded), describe(layout));
    unlike += describe(layout) != whole;
  }
  EXPECT_GT(unlike, 0u);  // else it was damaged where nobody looks
}

TEST_P(LayoutDamage, HasAnAnswerFromTheConfinedProgram) {
  FileDisk disk(maker_.make(GetParam()));
  const auto pages = pages_of(disk);
  ASSERT_FALSE(pages.empty());
  for (unsigned seed = 0; seed < kConfinedVariants; ++seed) {
    std::mt19937_64 random(10'000 + seed);
    SCOPED_TRACE(fmt::format("seed {}:\n{}", seed, damage(disk, pages, random)));
    const auto layout = probe_layout(disk.reader(), disk.size_bytes());
    ASSERT_TRUE(layout.has_value()) << layout.error().message;
    ASSERT_EQ(describe(*layout), describe(examine(disk)));
  }
  EXPECT_TRUE(children().empty());
}

// Every cut at one of these places, and the same place filled with noise up to the end.
TEST_P(LayoutDamage, HasAnAnswerWhenItIsCutOff) {
  const std::string path = maker_.make(GetParam());
  std::mt19937_64 random(1);
  for (uint64_t size = file_size(path); size > 0; size = size * 3 / 5) {
    quiet(fmt::format("truncate -s {} {}", size, path));
    FileDisk disk(path);
    EXPECT_TRUE(layout_wire::decode_layout(layout_wire::encode_layout(examine(disk))).has_value()) << size;
    std::vector<std::byte> noise(std::min<uint64_t>(size, 3000));
    for (std::byte& byte : noise)
      byte = std::byte(random());
    disk.changes()[size - noise.size()] = noise;
    EXPECT_TRUE(layout_wire::decode_layout(layout_wire::encode_layout(examine(disk))).has_value()) << size;
  }
}

std::vector<std::string> disks_with_something() {
  std::vector<std::string> names = DiskMaker::names();
  std::erase(names, "empty");
  return names;
}

INSTANTIATE_TEST_SUITE_P(Disks, LayoutDamage, testing::ValuesIn(disks_with_something()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace obraz::test
