// The oracle accepts what its rules allow and nothing else.
#include "support/oracle.h"

#include <gtest/gtest.h>

#include <vector>

#include "support/stamp.h"

namespace obraz::test {
namespace {

constexpr uint64_t kSize = 4 << 20;
using Outcome = Oracle::Outcome;

std::vector<std::byte> block(uint64_t volume, uint64_t offset, uint32_t version,
                             size_t length = kModelBlock) {
  std::vector<std::byte> out(length);
  stamp(out, volume, offset, version);
  return out;
}

struct OracleTest : testing::Test {
  OracleTest() {
    oracle.create_begins(1, kSize);
    oracle.creation_ends(1, true);
  }
  void write(uint64_t volume, uint32_t version, Outcome outcome = Outcome::done) {
    oracle.ends(oracle.write_begins(volume, 0, block(1, 0, version)), outcome);
  }
  bool reads(uint64_t volume, uint32_t version) {
    const auto began = oracle.read_begins();
    return !oracle.read_ends(volume, began, 0,
                             version ? block(1, 0, version) : std::vector<std::byte>(kModelBlock));
  }
  bool recovers(uint64_t volume, uint32_t version) {
    Oracle copy = oracle;
    copy.crashed();
    return !copy.recovered_bytes(volume, 0,
                                 version ? block(1, 0, version) : std::vector<std::byte>(kModelBlock));
  }
  void flush() { oracle.flush_ends(oracle.flush_begins()); }
  Oracle oracle;
};

TEST_F(OracleTest, ReadsSeeTheLastCompletedWrite) {
  EXPECT_TRUE(reads(1, 0));
  write(1, 1);
  EXPECT_TRUE(reads(1, 1));
  EXPECT_FALSE(reads(1, 0));
  write(1, 2);
  EXPECT_TRUE(reads(1, 2));
  EXPECT_FALSE(reads(1, 1));
}

TEST_F(OracleTest, AWriteInFlightMayBeSeenOrNot) {
  write(1, 1);
  const auto ticket = oracle.write_begins(1, 0, block(1, 0, 2));
  EXPECT_TRUE(reads(1, 1));
  EXPECT_TRUE(reads(1, 2));
  oracle.ends(ticket, Outcome::done);
  EXPECT_FALSE(reads(1, 1));
}

TEST_F(OracleTest, AfterACrashUnflushedWritesAreThereOrNot) {
  write(1, 1);
  flush();
  write(1, 2);
  write(1, 3);
  EXPECT_TRUE(recovers(1, 1));
  EXPECT_TRUE(recovers(1, 2));
  EXPECT_TRUE(recovers(1, 3));
  EXPECT_FALSE(recovers(1, 0));
  flush();
  EXPECT_FALSE(recovers(1, 2));
  EXPECT_TRUE(recovers(1, 3));
}

TEST_F(OracleTest, AFlushCoversWhatHadEndedWhenItBegan) {
  const auto ticket = oracle.write_begins(1, 0, block(1, 0, 1));
  const auto began = oracle.flush_begins();
  oracle.ends(ticket, Outcome::done);
  oracle.flush_ends(began);
  EXPECT_TRUE(recovers(1, 0));
  flush();
  EXPECT_FALSE(recovers(1, 0));
}

TEST_F(OracleTest, FuaIsDurableAtOnce) {
  write(1, 1, Outcome::durable);
  EXPECT_FALSE(recovers(1, 0));
  EXPECT_TRUE(recovers(1, 1));
}

TEST_F(OracleTest, ASlowReadMaySeeWhatWasThereWhenItBegan) {
  write(1, 1, Outcome::durable);
  const auto slow = oracle.read_begins();
  write(1, 2, Outcome::durable);
  EXPECT_TRUE(reads(1, 2));
  write(1, 3, Outcome::durable);
  EXPECT_TRUE(reads(1, 3));
  Oracle copy = oracle;
  EXPECT_FALSE(copy.read_ends(1, slow, 0, block(1, 0, 1)));
  EXPECT_FALSE(oracle.read_ends(1, slow, 0, block(1, 0, 2)));
  EXPECT_FALSE(reads(1, 1));
}

TEST_F(OracleTest, AFailedWriteMayHaveHappened) {
  write(1, 1, Outcome::durable);
  write(1, 2, Outcome::failed);
  EXPECT_TRUE(reads(1, 1));
  EXPECT_TRUE(reads(1, 2));
  flush();
  EXPECT_TRUE(recovers(1, 1));
  EXPECT_TRUE(reads(1, 2));  // quiet and flushed: from now on it is what was read
  EXPECT_FALSE(reads(1, 1));
}

TEST_F(OracleTest, SectorsAreJudgedOnTheirOwn) {
  write(1, 1);
  write(1, 2);
  auto torn = block(1, 0, 1);
  const auto second = block(1, 0, 2);
  std::copy(second.begin() + 512, second.begin() + 1024, torn.begin() + 512);
  Oracle copy = oracle;
  copy.crashed();
  EXPECT_FALSE(copy.recovered_bytes(1, 0, torn));
  torn[513] = std::byte{0x42};  // within a sector nothing is mixed
  oracle.crashed();
  EXPECT_TRUE(oracle.recovered_bytes(1, 0, torn));
}

TEST_F(OracleTest, AnotherVolumesBytesAreNamed) {
  write(1, 1);
  const auto began = oracle.read_begins();
  const Problem problem = oracle.read_ends(1, began, 0, block(2, 0x3000, 9));
  ASSERT_TRUE(problem);
  EXPECT_NE(problem->find("volume 2 offset 0x3000 version 9"), std::string::npos) << *problem;
}

TEST_F(OracleTest, ACloneIsWhatTheSourceWasAtSomeTimeWhileItWasMade) {
  write(1, 1);
  const auto ticket = oracle.write_begins(1, 0, block(1, 0, 2));
  oracle.clone_begins(2, 1, true, kSize);
  oracle.ends(ticket, Outcome::done);
  write(1, 3);
  oracle.creation_ends(2, true);
  write(1, 4);
  for (uint32_t version : {1, 2, 3}) {
    Oracle copy = oracle;
    EXPECT_FALSE(copy.read_ends(2, copy.read_begins(), 0, block(1, 0, version))) << version;
    for (uint32_t other : {1, 2, 3})  // frozen: always the same
      EXPECT_EQ(!copy.read_ends(2, copy.read_begins(), 0, block(1, 0, other)), other == version);
  }
  EXPECT_FALSE(reads(2, 0));
  EXPECT_FALSE(reads(2, 4));
}

TEST_F(OracleTest, RevertBringsBackAndIsDurable) {
  write(1, 1, Outcome::durable);
  oracle.clone_begins(2, 1, true, kSize);
  oracle.creation_ends(2, true);
  write(1, 2, Outcome::durable);
  const auto ticket = oracle.revert_begins(1, 2);
  EXPECT_TRUE(reads(1, 1));
  EXPECT_TRUE(reads(1, 2));
  oracle.revert_ends(1, ticket, true);
  EXPECT_FALSE(reads(1, 2));
  EXPECT_TRUE(recovers(1, 1));
  EXPECT_FALSE(recovers(1, 2));
}

TEST_F(OracleTest, PresenceAfterACrash) {
  oracle.create_begins(2, kSize);
  oracle.create_begins(3, kSize);
  oracle.creation_ends(3, true);
  oracle.delete_begins(3);
  oracle.crashed();
  EXPECT_FALSE(oracle.recovered_volume(2, std::nullopt, false));
  EXPECT_FALSE(oracle.recovered_volume(3, kSize, false));
  EXPECT_TRUE(oracle.recovered_volume(1, std::nullopt, false)) << "acknowledged";
  EXPECT_TRUE(oracle.recovered_volume(9, kSize, false)) << "never made";
  EXPECT_TRUE(oracle.recovered_volume(1, kSize * 2, false));
}

TEST_F(OracleTest, PartialWritesKeepWhatIsAroundThem) {
  write(1, 1);
  const auto part = block(1, 100, 2, 50);
  oracle.ends(oracle.write_begins(1, 100, part), Outcome::done);
  auto expected = block(1, 0, 1);
  std::copy(part.begin(), part.end(), expected.begin() + 100);
  const auto began = oracle.read_begins();
  EXPECT_FALSE(oracle.read_ends(1, began, 0, expected));
  EXPECT_FALSE(reads(1, 1));
}

TEST_F(OracleTest, DiscardTakesWholeBlocksOnly) {
  write(1, 1);
  oracle.ends(oracle.discard_begins(1, 1, 2 * kModelBlock), Outcome::done);
  EXPECT_TRUE(reads(1, 1));
  oracle.ends(oracle.discard_begins(1, 0, kModelBlock), Outcome::done);
  EXPECT_TRUE(reads(1, 0));
}

TEST_F(OracleTest, ResourcesAreOldOrNewUntilAcknowledged) {
  oracle.put_begins("a", "1");
  oracle.put_ends("a", true);
  oracle.put_begins("a", "2");
  for (const char* value : {"1", "2"}) {
    Oracle copy = oracle;
    EXPECT_FALSE(copy.recovered_resources({{"a", value}}));
  }
  Oracle copy = oracle;
  EXPECT_TRUE(copy.recovered_resources({{"a", "3"}}));
  copy = oracle;
  EXPECT_TRUE(copy.recovered_resources({}));
  oracle.put_ends("a", true);
  EXPECT_TRUE(oracle.recovered_resources({{"a", "1"}}));
}

}  // namespace
}  // namespace obraz::test
