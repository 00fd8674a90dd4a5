#include "image/digest.h"

#include <gtest/gtest.h>

#include "base/limits.h"
#include "image_support.h"
#include "support/stamp.h"

namespace obraz::test {
namespace {

using limits::KiB;
using limits::MiB;
constexpr uint64_t kLeaf = ContentDigest::kLeafSize;

// The definition in docs/image-digest.md, word for word, over content in memory.
Sha256::Value tree(ConstBytes leaves) {
  Sha256 sha256;
  if (leaves.size() == kLeaf) {
    const std::byte mark{0};
    sha256.add({&mark, 1});
    sha256.add(leaves);
    return sha256.finish();
  }
  uint64_t count = 1;
  while (2 * count < leaves.size() / kLeaf)
    count *= 2;
  const Sha256::Value left = tree(leaves.first(count * kLeaf)), right = tree(leaves.subspan(count * kLeaf));
  const std::byte mark{1};
  sha256.add({&mark, 1});
  sha256.add(left);
  sha256.add(right);
  return sha256.finish();
}

std::string defined(ConstBytes content) {
  Sha256 sha256;
  std::byte head[9] = {std::byte(2)};
  store_be<uint64_t>(head + 1, content.size());
  sha256.add(head);
  sha256.add(tree(content));
  return "sha256-tree:" + hex(sha256.finish());
}

std::string digest(ConstBytes content) {
  ContentDigest digest(content.size());
  digest.add(content);
  return digest.finish();
}

TEST(Sha256Test, IsTheOneOfTheStandard) {
  Sha256 sha256;
  const auto add = [&](std::string_view text) { sha256.add(std::as_bytes(std::span(text))); };
  EXPECT_EQ(hex(sha256.finish()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  add("a");
  add("bc");
  EXPECT_EQ(hex(sha256.finish()), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(ContentDigestTest, IsWhatTheDocumentSays) {
  ContentDigest zeros(4 * MiB);
  zeros.add_zeros(4 * MiB);
  EXPECT_EQ(zeros.finish(), "sha256-tree:9346d96dc57cc091298e7bf29ae2b7d359c5b0a02efab7ad6056789e6b1fdb2b");
  ByteVector content(12 * MiB);
  content[5'000'000] = std::byte(1);
  EXPECT_EQ(digest(content), "sha256-tree:2f6717d3256c6f8998df1806878ca829028ba473273cf8e88f73278f8d25b225");
}

TEST(ContentDigestTest, FollowsTheDefinitionForEveryCountOfLeaves) {
  ByteVector content(40 * kLeaf);
  stamp(content, 1, 0, 1);
  for (uint64_t leaves = 1; leaves <= 40; ++leaves)
    EXPECT_EQ(digest(Bytes(content).first(leaves * kLeaf)), defined(Bytes(content).first(leaves * kLeaf)))
        << leaves;
}

TEST(ContentDigestTest, ZerosAreTheSameHoweverTheyAreTold) {
  // Data in each leaf in turn, the zeros before and behind it told as one run, and as bytes.
  for (uint64_t leaves = 1; leaves <= 13; ++leaves)
    for (uint64_t data = 0; data < leaves; ++data) {
      ByteVector content(leaves * kLeaf);
      stamp(Bytes(content).subspan(data * kLeaf, kLeaf), 1, 0, 1);
      ContentDigest told(content.size());
      told.add_zeros(data * kLeaf);
      told.add(Bytes(content).subspan(data * kLeaf, kLeaf));
      told.add_zeros(content.size() - (data + 1) * kLeaf);
      EXPECT_EQ(told.finish(), digest(content)) << data << " of " << leaves;
    }
}

TEST(ContentDigestTest, TheLargestImageOfZerosTakesNoTime) {
  ContentDigest digest(limits::kMaxVolumeSize);
  digest.add_zeros(limits::kMaxVolumeSize - kLeaf);
  digest.add_zeros(kLeaf);
  ContentDigest whole(limits::kMaxVolumeSize);
  whole.add_zeros(limits::kMaxVolumeSize);
  EXPECT_EQ(digest.finish(), whole.finish());
}

TEST(ContentDigestTest, EveryBitAndTheSizeCount) {
  ByteVector content(3 * kLeaf);
  stamp(content, 1, 0, 1);
  const std::string before = digest(content);
  for (const uint64_t at : {uint64_t(0), kLeaf - 1, kLeaf, 3 * kLeaf - 1}) {
    content[at] ^= std::byte(1);
    EXPECT_NE(digest(content), before) << at;
    content[at] ^= std::byte(1);
  }
  ByteVector longer = content;
  longer.resize(4 * kLeaf);
  EXPECT_NE(digest(longer), before);
  // Two leaves that change places.
  std::swap_ranges(content.begin(), content.begin() + kLeaf, content.begin() + kLeaf);
  EXPECT_NE(digest(content), before);
}

class VolumeDigest : public testing::Test {
 protected:
  Answer<std::string> run(VolumeId id, std::stop_token stop = {}, uint64_t bytes_per_s = 0) {
    return digest_of_volume(store_.reactor(), store_.open(id), bytes_per_s, progress_, stop);
  }
  // Data here and there, and what the volume then holds.
  ByteVector fill(VolumeId id, uint64_t size) {
    ByteVector content(size);
    for (const auto& [offset, length] :
         {std::pair<uint64_t, uint64_t>{0, 200'000}, {size / 2 + 4096, 3 * MiB + 5}, {size - 4096, 4096}}) {
      const Bytes piece = Bytes(content).subspan(offset, length);
      stamp(piece, 1, offset, 1);
      store_.write(id, offset, piece);
    }
    return content;
  }

  StoreThread store_;
  Progress progress_;
};

TEST_F(VolumeDigest, IsThatOfItsContent) {
  const VolumeId id = store_.create_volume(64 * MiB);
  const ByteVector content = fill(id, 64 * MiB);
  const auto found = run(id);
  ASSERT_TRUE(found.has_value()) << found.error().message;
  EXPECT_EQ(*found, digest(content));
  EXPECT_EQ(progress_.bytes_done, 64 * MiB);
  EXPECT_EQ(progress_.bytes_total, 64 * MiB);
}

TEST_F(VolumeDigest, AnEmptyVolumeHasThatOfZeros) {
  const auto found = run(store_.create_volume(4 * MiB));
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(*found, "sha256-tree:9346d96dc57cc091298e7bf29ae2b7d359c5b0a02efab7ad6056789e6b1fdb2b");
}

TEST_F(VolumeDigest, ZerosThatAreStoredAndHolesAreTheSame) {
  const VolumeId holes = store_.create_volume(8 * MiB), written = store_.create_volume(8 * MiB);
  store_.write(written, 3 * MiB, ByteVector(100 * KiB));
  store_.write(written, 0, ByteVector(4096, std::byte(1)));
  store_.write(written, 0, ByteVector(4096));
  EXPECT_EQ(run(holes).value(), run(written).value());
}

TEST_F(VolumeDigest, GivesWayWhenItHasTime) {
  const VolumeId id = store_.create_volume(8 * MiB);
  const ByteVector content = fill(id, 8 * MiB);
  const auto found = run(id, {}, 64 * MiB);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(*found, digest(content));
}

TEST_F(VolumeDigest, AStopEndsIt) {
  const VolumeId id = store_.create_volume(64 * MiB);
  fill(id, 64 * MiB);
  std::stop_source stop;
  // So slow that it would never end by itself.
  std::jthread later([&] {
    while (progress_.bytes_done == 0)
      std::this_thread::yield();
    stop.request_stop();
  });
  const auto found = run(id, stop.get_token(), 1);
  ASSERT_FALSE(found.has_value());
  EXPECT_EQ(found.error().code, ErrorCode::cancelled);
}

}  // namespace
}  // namespace obraz::test
