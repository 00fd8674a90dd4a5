#include "image/layout_wire.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

namespace obraz::test {
namespace {

using layout_wire::decode_layout;
using layout_wire::encode_layout;

DiskLayout some_layout() {
  DiskLayout layout;
  layout.table = PartitionTable::gpt;
  layout.table_id = "id";
  for (uint32_t i = 1; i <= 3; ++i)
    layout.partitions.push_back({.number = i,
                                 .offset = i << 20,
                                 .length = INT64_MAX,
                                 .type = "type",
                                 .name = "Größe",
                                 .uuid = "uuid",
                                 .active = i == 2,
                                 .file_system = {.type = "ext4", .label = "label", .uuid = "another"}});
  layout.boot = BootMethod::both;
  layout.windows = {WindowsContent::boot, WindowsEvidence::boot_manager, 2};
  layout.incomplete = true;
  return layout;
}

TEST(LayoutWire, WhatIsWrittenIsRead) {
  const auto bytes = encode_layout(some_layout());
  const auto layout = decode_layout(bytes);
  ASSERT_TRUE(layout.has_value());
  EXPECT_EQ(encode_layout(*layout), bytes);
  EXPECT_EQ(layout->partitions.at(1).name, "Größe");
  EXPECT_TRUE(layout->partitions.at(1).active);
  EXPECT_EQ(layout->windows.partition, 2u);
  EXPECT_TRUE(decode_layout(encode_layout({})).has_value());
}

// The largest answer fits a message.
TEST(LayoutWire, LargestFitsItsMessage) {
  DiskLayout layout = some_layout();
  Partition& partition = layout.partitions[0];
  partition.type.assign(limits::kMaxLayoutIdentifier, 'x');
  partition.name.assign(limits::kMaxPartitionName, 'x');
  partition.uuid = partition.file_system.type = partition.file_system.uuid = partition.type;
  partition.file_system.label.assign(limits::kMaxLayoutText, 'x');
  layout.partitions.assign(limits::kMaxPartitions, partition);
  layout.windows = {};
  const auto bytes = encode_layout(layout);
  EXPECT_LT(bytes.size() + 1, limits::kMaxLayoutAnswer);
  EXPECT_TRUE(decode_layout(bytes).has_value());
}

TEST(LayoutWire, EveryCutAndEveryAdditionIsSeen) {
  auto bytes = encode_layout(some_layout());
  for (size_t length = 0; length < bytes.size(); ++length)
    EXPECT_FALSE(decode_layout(ConstBytes(bytes).first(length)).has_value()) << length;
  bytes.push_back(std::byte(0));
  EXPECT_FALSE(decode_layout(bytes).has_value());
}

TEST(LayoutWire, WhatNoLayoutHasIsRefused) {
  const auto refused = [](auto change) {
    DiskLayout layout = some_layout();
    change(layout);
    return !decode_layout(encode_layout(layout)).has_value();
  };
  EXPECT_FALSE(refused([](DiskLayout&) {}));
  EXPECT_TRUE(refused([](DiskLayout& layout) { layout.table = PartitionTable(3); }));
  EXPECT_TRUE(refused([](DiskLayout& layout) { layout.table = PartitionTable::none; }));
  EXPECT_TRUE(refused([](DiskLayout& layout) { layout.boot = BootMethod(4); }));
  EXPECT_TRUE(refused([](DiskLayout& layout) { layout.partitions[0].offset = uint64_t(INT64_MAX) + 1; }));
  EXPECT_TRUE(refused([](DiskLayout& layout) { layout.partitions[0].length = UINT64_MAX; }));
  EXPECT_TRUE(refused([](DiskLayout& layout) { layout.windows.content = WindowsContent::data; }));
  EXPECT_TRUE(refused([](DiskLayout& layout) { layout.windows.content = WindowsContent(3); }));
  EXPECT_TRUE(refused([](DiskLayout& layout) { layout.windows.evidence = WindowsEvidence::none; }));
  EXPECT_TRUE(refused([](DiskLayout& layout) { layout.windows.evidence = WindowsEvidence(200); }));
  EXPECT_TRUE(refused([](DiskLayout& layout) { layout.windows.partition = 4; }));
  EXPECT_TRUE(refused([](DiskLayout& layout) {
    layout.windows = {WindowsContent::none, WindowsEvidence::none, 1};
  }));
}

// A text that could not be shown has no way in, though no encoder of ours writes one.
TEST(LayoutWire, TextThatIsNotCleanIsRefused) {
  const auto good = encode_layout(some_layout());
  size_t places = 0;
  for (size_t i = 0; i + 4 < good.size(); ++i)
    if (std::memcmp(&good[i], "label", 5) == 0 || std::memcmp(&good[i], "type", 4) == 0) {
      for (const int bad : {0x00, 0x1b, 0x7f, 0x80, 0xff}) {
        auto bytes = good;
        bytes[i + 1] = std::byte(bad);
        EXPECT_FALSE(decode_layout(bytes).has_value());
      }
      ++places;
    }
  EXPECT_EQ(places, 6u);
}

TEST(LayoutWire, AnyBytesAreALayoutOrNot) {
  const auto good = encode_layout(some_layout());
  std::mt19937_64 random(1);
  for (int i = 0; i < 200'000; ++i) {
    auto bytes = good;
    for (size_t changes = 1 + random() % 4; changes > 0; --changes)
      bytes[random() % bytes.size()] = std::byte(random());
    if (const auto layout = decode_layout(bytes)) {
      EXPECT_TRUE(decode_layout(encode_layout(*layout)).has_value());
    }
  }
}

}  // namespace
}  // namespace obraz::test
