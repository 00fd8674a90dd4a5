// The parts of nbdload that know nothing of NBD.
#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "tools/nbdload/histogram.h"
#include "tools/nbdload/stamps.h"
#include "tools/nbdload/workload.h"

namespace obraz::load {
namespace {

TEST(Histogram, PercentilesAreTrueToABucket) {
  Histogram histogram;
  for (uint64_t value = 1; value <= 100'000; ++value)
    histogram.record(value * 1000);
  EXPECT_EQ(histogram.count(), 100'000u);
  EXPECT_EQ(histogram.max(), 100'000'000u);
  EXPECT_DOUBLE_EQ(histogram.mean(), 50'000'500.0);
  for (const double share : {0.001, 0.5, 0.9, 0.99, 0.999}) {
    const double exact = share * 1e8;
    EXPECT_GE(double(histogram.percentile(share)), exact);
    EXPECT_LE(double(histogram.percentile(share)), exact * (1 + 1.0 / 64) + 1000);
  }
  EXPECT_EQ(histogram.percentile(1), histogram.max());
}

TEST(Histogram, SmallValuesAreExactAndTheLargestFit) {
  Histogram histogram;
  for (const uint64_t value : {0, 1, 5, 127})
    histogram.record(value);
  EXPECT_EQ(histogram.percentile(0.25), 0u);
  EXPECT_EQ(histogram.percentile(0.5), 1u);
  EXPECT_EQ(histogram.percentile(0.75), 5u);
  EXPECT_EQ(histogram.percentile(1), 127u);
  histogram.record(UINT64_MAX);
  EXPECT_EQ(histogram.percentile(1), UINT64_MAX);
  EXPECT_EQ(Histogram().percentile(0.5), 0u);
}

TEST(Histogram, SumsOfHistograms) {
  Histogram a, b;
  a.record(10);
  b.record(1000);
  b.record(2000);
  a.add(b);
  EXPECT_EQ(a.count(), 3u);
  EXPECT_EQ(a.max(), 2000u);
  EXPECT_EQ(a.percentile(0.3), 10u);
}

TEST(Workload, ASequenceWrapsAround) {
  Workload workload({.offset = 8192, .length = 3 * 4096, .sequential = true});
  for (const uint64_t expected : {8192, 12288, 16384, 8192}) {
    const auto request = workload.next();
    ASSERT_TRUE(request);
    EXPECT_EQ(request->kind, Kind::read);
    EXPECT_EQ(request->offset, expected);
  }
}

TEST(Workload, RandomPlacesAreBlocksOfTheRange) {
  Workload workload({.offset = 4096, .length = 64 * 4096, .read_percent = 70});
  std::set<uint64_t> places;
  unsigned reads = 0;
  for (unsigned i = 0; i < 10'000; ++i) {
    const auto request = workload.next();
    EXPECT_EQ(request->offset % 4096, 0u);
    EXPECT_GE(request->offset, 4096u);
    EXPECT_LT(request->offset, 65 * 4096u);
    places.insert(request->offset);
    reads += request->kind == Kind::read;
  }
  EXPECT_EQ(places.size(), 64u);
  EXPECT_NEAR(reads, 7000, 300);
}

// For ranges that are powers of two, and such that are not.
TEST(Workload, EachPieceIsWrittenOnceAndThenItEnds) {
  for (const uint64_t pieces : {1, 2, 3, 64, 1000, 1025}) {
    Workload workload(
        {.length = pieces * 65536, .read_percent = 0, .once_per = 65536, .flush_every = 10, .seed = pieces});
    std::set<uint64_t> places;
    uint64_t flushes = 0, neighbours = 0, last = 0;
    while (const auto request = workload.next()) {
      if (request->kind == Kind::flush) {
        ++flushes;
        EXPECT_EQ(places.size(), flushes * 10);
        continue;
      }
      EXPECT_EQ(request->kind, Kind::write);
      EXPECT_EQ(request->offset % 65536, 0u);
      EXPECT_LT(request->offset, pieces * 65536);
      EXPECT_TRUE(places.insert(request->offset).second) << request->offset;
      neighbours += request->offset == last + 65536;
      last = request->offset;
    }
    EXPECT_EQ(places.size(), pieces);
    EXPECT_LE(neighbours, std::max<uint64_t>(2, pieces / 20)) << "in a random order";
  }
}

TEST(Workload, EachPieceIsReadOnceAndThenItEnds) {
  for (const bool sequential : {false, true}) {
    Workload workload({.offset = 65536, .length = 100 * 65536, .sequential = sequential, .once_per = 65536});
    std::set<uint64_t> places;
    while (const auto request = workload.next()) {
      EXPECT_EQ(request->kind, Kind::read);
      EXPECT_TRUE(places.insert(request->offset).second);
    }
    EXPECT_EQ(places.size(), 100u);
    EXPECT_EQ(*places.begin(), 65536u);
    EXPECT_EQ(*places.rbegin(), 100 * 65536u);
  }
}

TEST(Workload, AnotherSeedIsAnotherOrder) {
  Workload a({.length = 1000 * 4096, .once_per = 4096, .seed = 1});
  Workload b({.length = 1000 * 4096, .once_per = 4096, .seed = 2});
  unsigned same = 0;
  for (unsigned i = 0; i < 1000; ++i)
    same += a.next()->offset == b.next()->offset;
  EXPECT_LT(same, 50u);
}

TEST(Stamps, TellTheNewestVersionOfEachBlock) {
  Stamps stamps(4096, 4 * 4096, 4096);
  std::vector<std::byte> old(4096), now(4096), other(4096);
  EXPECT_TRUE(stamps.holds(4096, old)) << "never written";
  EXPECT_FALSE(stamps.written(4096));
  stamps.stamp(4096, old);
  EXPECT_TRUE(stamps.holds(4096, old));
  stamps.stamp(4096, now);
  EXPECT_TRUE(stamps.holds(4096, now));
  EXPECT_FALSE(stamps.holds(4096, old));
  stamps.stamp(8192, other);
  EXPECT_FALSE(stamps.holds(8192, now)) << "of another block";
  now[4095] ^= std::byte{1};
  EXPECT_FALSE(stamps.holds(4096, now));
  EXPECT_FALSE(stamps.holds(8192, std::vector<std::byte>(4096)));
}

TEST(Stamps, ABlockIsTakenOnce) {
  Stamps stamps(0, 2 * 4096, 4096);
  EXPECT_TRUE(stamps.take(0));
  EXPECT_FALSE(stamps.take(0));
  EXPECT_TRUE(stamps.take(4096));
  stamps.give_back(0);
  EXPECT_TRUE(stamps.take(0));
}

}  // namespace
}  // namespace obraz::load
