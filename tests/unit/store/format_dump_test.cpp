// The bytes of two small stores against the dump that is checked in (stores.hex): whoever changes the format
// sees here that stores made before can no longer be read as they were, and bumps the version.
//
// After a wanted change: OBRAZ_WRITE_DUMP=1 unit_store --gtest_filter='FormatDump*', and read the difference.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "store/store.h"
#include "support/sim_device.h"
#include "support/sim_loop.h"

namespace obraz {
namespace {

using test::SimDevice;
using test::SimImage;
using test::SimLoop;

constexpr uint64_t kDataBytes = limits::kMinDataSize, kJournalBytes = limits::kMinJournalSize;

// Lines of 32 bytes that are not all zeros.
std::string dump(const char* name, const SimImage& image, uint64_t size_bytes) {
  std::string out;
  for (uint64_t page = 0; page < size_bytes / SimImage::kPageSize; ++page) {
    if (!image.has_page(page))
      continue;
    for (uint64_t line = 0; line < SimImage::kPageSize; line += 32) {
      std::array<std::byte, 32> bytes;
      image.read(page * SimImage::kPageSize + line, bytes);
      if (std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; }))
        continue;
      out += fmt::format("{} {:08x} ", name, page * SimImage::kPageSize + line);
      for (const std::byte byte : bytes)
        out += fmt::format("{:02x}", std::to_integer<unsigned>(byte));
      out += '\n';
    }
  }
  return out;
}

// A disk with two clusters written, an image of it, a block written since, and, when the image has its
// checksums, a trim; a resource. Then a little is written, and more. The journal of the last changes stays
// behind.
Task<Status> fill(Store* store) {
  const VolumeId disk = store->new_volume_id(), image = store->new_volume_id();
  Transaction first;
  first.push_back(CreateVolume{disk, limits::kMinVolumeSize});
  first.push_back(PutResource{"key", "value"});
  Status status = co_await store->commit(std::move(first));
  OBRAZ_CO_TRY(status);
  Volume volume = *store->open_volume(disk);
  const std::vector<std::byte> bytes(2 * kClusterSize, std::byte{0x11});
  status = co_await volume.write(0, bytes);
  OBRAZ_CO_TRY(status);
  Transaction second;
  second.push_back(CloneVolume{image, disk, VolumeKind::frozen, limits::kMinVolumeSize});
  status = co_await store->commit(std::move(second));
  OBRAZ_CO_TRY(status);
  co_return co_await volume.write(kClusterSize, ConstBytes(bytes).first(kBlockSize));
}

Task<Status> change(Store* store) {
  Status status = co_await store->checkpoint();
  OBRAZ_CO_TRY(status);
  Volume volume = *store->open_volume({1});
  status = co_await volume.discard(kClusterSize / 2, kClusterSize);
  OBRAZ_CO_TRY(status);
  status = co_await volume.flush();
  OBRAZ_CO_TRY(status);
  std::vector<std::byte> block(kBlockSize);  // little, so the journal carries it
  block[1] = std::byte{0x22};
  for (int i = 0; i < 2; ++i) {
    status = co_await volume.write(0, block);
    OBRAZ_CO_TRY(status);
    status = co_await volume.flush();
    OBRAZ_CO_TRY(status);
  }
  // Much, so `data` is flushed, and what was carried has landed.
  const std::vector<std::byte> much(kClusterSize / 2);
  status = co_await volume.write(0, much);
  OBRAZ_CO_TRY(status);
  co_return co_await volume.flush();
}

TEST(FormatDump, IsTheOneCheckedIn) {
  SimLoop loop({.seed = 1});
  const uint64_t meta_bytes = Store::meta_bytes_for(kDataBytes, kJournalBytes);
  SimDevice meta(loop, {.size_bytes = meta_bytes, .seed = 1, .name = "meta"});
  SimDevice data(loop, {.size_bytes = kDataBytes, .seed = 2, .name = "data"});
  Uuid uuid;
  for (size_t i = 0; i < uuid.bytes.size(); ++i)
    uuid.bytes[i] = std::byte(0xa0 + i);
  ASSERT_TRUE(loop.run(Store::format(meta, data, {.uuid = uuid, .journal_bytes = kJournalBytes})));
  std::string found = "# a new store\n" + dump("meta", meta.contents(), meta_bytes) +
                      dump("data", data.contents(), kDataBytes);
  // Nothing happens by time: what is written follows from what is asked for.
  auto store = loop.run(Store::open(
      loop, meta, data,
      {.commit_interval_us = 1'000'000'000, .reclaim_pause_us = 1'000'000'000, .scrub_bytes_per_s = 0}));
  ASSERT_TRUE(store);
  const Status filled = loop.run(fill(store->get()));
  ASSERT_TRUE(filled) << describe(filled.error());
  ASSERT_TRUE(loop.run_until([&] { return (*store)->volume_info({2})->summed; }));
  const Status changed = loop.run(change(store->get()));
  ASSERT_TRUE(changed) << describe(changed.error());
  loop.run((*store)->abandon());
  found += "# in use\n" + dump("meta", meta.contents(), meta_bytes);  // of `data`, the places are in `meta`

  const std::string path = std::string(OBRAZ_TEST_SOURCES) + "/unit/store/stores.hex";
  if (std::getenv("OBRAZ_WRITE_DUMP")) {
    std::ofstream(path) << found;
    FAIL() << "written anew: " << path;
  }
  std::ifstream file(path);
  const std::string expected{std::istreambuf_iterator<char>(file), {}};
  EXPECT_EQ(found, expected);
}

// The same store as it was written before there were checksums of data. It opens, holds what it held, and has
// checksums soon.
TEST(FormatDump, AStoreOfBeforeChecksumsOpensAndGetsThem) {
  SimImage meta_image, data_image;
  std::ifstream file(std::string(OBRAZ_TEST_SOURCES) + "/unit/store/store_before_checksums.hex");
  bool in_use = false;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with('#')) {
      in_use = line == "# in use";
      if (in_use)
        meta_image = {};  // all of it follows once more
      continue;
    }
    std::array<std::byte, 32> bytes;
    for (size_t i = 0; i < bytes.size(); ++i)
      bytes[i] = std::byte(std::stoul(line.substr(14 + 2 * i, 2), nullptr, 16));
    (line.starts_with("meta") ? meta_image : data_image)
        .write(std::stoul(line.substr(5, 8), nullptr, 16), bytes);
  }
  ASSERT_TRUE(in_use);
  SimLoop loop({.seed = 1});
  const uint64_t meta_bytes = Store::meta_bytes_for(kDataBytes, kJournalBytes);
  SimDevice meta(loop, {.size_bytes = meta_bytes, .name = "meta"}, meta_image);
  SimDevice data(loop, {.size_bytes = kDataBytes, .name = "data"}, data_image);
  const auto fresh = [&] { return Store::open(loop, meta, data, {.scrub_bytes_per_s = 0}); };
  auto store = loop.run(fresh());
  ASSERT_TRUE(store) << describe(store.error());
  ASSERT_EQ((*store)->volumes().size(), 2u);
  ASSERT_EQ((*store)->resources().size(), 1u);
  ASSERT_TRUE(loop.run_until([&] { return (*store)->volume_info({2})->summed; }));
  ASSERT_TRUE(loop.run((*store)->close()));
  store = loop.run(fresh());
  ASSERT_TRUE(store) << describe(store.error());
  EXPECT_TRUE((*store)->volume_info({2})->summed);
  EXPECT_EQ((*store)->stats().summed_bytes, 2 * kClusterSize);
  ASSERT_TRUE(loop.run((*store)->close()));
}

}  // namespace
}  // namespace obraz
