#include "client/tree.h"

#include <gtest/gtest.h>

namespace obraz::client {
namespace {

v1::TreeVolume volume(const std::string& kind, const std::string& id, const std::string& source_kind = "",
                      const std::string& source_id = "") {
  v1::TreeVolume volume;
  volume.set_kind(kind);
  volume.set_id(id);
  volume.set_name("n" + id);
  volume.set_source_kind(source_kind);
  volume.set_source_id(source_id);
  volume.set_status(v1::READY);
  volume.mutable_created_at()->set_seconds(std::stol(id));
  return volume;
}

// "id<parent@depth" of each, in order.
std::string order(const v1::Tree& tree) {
  std::string text;
  for (const auto& volume : tree.volumes())
    text += volume.id() + "<" + volume.parent_id() + "@" + std::to_string(volume.depth()) + " ";
  return text;
}

std::vector<std::string> drawn(const v1::Tree& tree) {
  std::vector<std::string> column;
  for (const Row& row : tree_rows(tree))
    column.push_back(row[0]);
  return column;
}

TEST(Tree, EachStandsBelowWhatItWasMadeOf) {
  const v1::Tree tree = tree_of({volume("disk", "6", "image", "1"), volume("snapshot", "4", "disk", "2"),
                                 volume("disk", "2", "image", "1"), volume("image", "1", "file"),
                                 volume("image", "5", "snapshot", "4"), volume("disk", "3")});
  EXPECT_EQ(order(tree), "1<@0 2<1@1 4<2@2 5<4@3 6<1@1 3<@0 ");
  EXPECT_EQ(drawn(tree), (std::vector<std::string>{"VOLUME", "image/n1", "├─ disk/n2", "│  └─ snapshot/n4",
                                                   "│     └─ image/n5", "└─ disk/n6", "disk/n3"}));
}

TEST(Tree, WhatWasMadeOfSomethingThatIsGoneIsARootAndSaysOfWhat) {
  const v1::Tree tree = tree_of({volume("disk", "2", "image", "1"), volume("image", "3", "file")});
  EXPECT_EQ(order(tree), "2<@0 3<@0 ");
  EXPECT_EQ(tree_rows(tree)[1].back(), "image 1");
  EXPECT_EQ(tree_rows(tree)[2].back(), "file");
}

TEST(Tree, ADaemonThatContradictsItselfLosesNothing) {
  EXPECT_EQ(order(tree_of({volume("disk", "1", "disk", "2"), volume("disk", "2", "disk", "1"),
                           volume("disk", "3", "disk", "3")})),
            "1<@0 2<1@1 3<@0 ");
  EXPECT_EQ(order(tree_of({})), "");
}

TEST(Tree, AChainMayBeLongerThanAnyTerminalIsWide) {
  std::vector<v1::TreeVolume> chain = {volume("disk", "1")};
  for (int i = 2; i <= 20'000; ++i)
    chain.push_back(volume("disk", std::to_string(i), "disk", std::to_string(i - 1)));
  const v1::Tree tree = tree_of(chain);
  ASSERT_EQ(tree.volumes_size(), 20'000);
  EXPECT_EQ(tree.volumes(19'999).depth(), 19'999);
  EXPECT_LT(drawn(tree).back().size(), 200u);
}

TEST(Tree, WhatCannotBeCountedIsNotZero) {
  v1::TreeVolume counted = volume("disk", "1"), uncounted = volume("disk", "2");
  counted.set_exclusive_bytes(0);
  counted.set_shared_bytes(4096);
  const auto rows = tree_rows(tree_of({counted, uncounted}));
  EXPECT_EQ(rows[1][4], "0 B");
  EXPECT_EQ(rows[1][5], "4 KiB");
  EXPECT_EQ(rows[2][4], "-");
}

}  // namespace
}  // namespace obraz::client
