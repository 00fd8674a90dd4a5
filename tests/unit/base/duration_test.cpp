#include "base/duration.h"

#include <gtest/gtest.h>

namespace obraz {
namespace {

TEST(Duration, IsDigitsAndAUnit) {
  EXPECT_EQ(parse_duration("0"), 0);
  EXPECT_EQ(parse_duration("90s"), 90);
  EXPECT_EQ(parse_duration("5m"), 300);
  EXPECT_EQ(parse_duration("24h"), 86'400);
  EXPECT_EQ(parse_duration("7D"), 604'800);
  for (const char* wrong : {"", "d", "5", "-1s", "+1s", "1.5h", "1 h", "1w", "hd", "1hh"})
    EXPECT_EQ(parse_duration(wrong), std::nullopt) << wrong;
}

TEST(Duration, WhatDoesNotFitIsTooLargeForEveryLimit) {
  EXPECT_EQ(parse_duration("99999999999999999999s"), INT64_MAX);
  EXPECT_EQ(parse_duration("106751991167301d"), INT64_MAX);
}

TEST(Duration, IsWrittenAsItIsRead) {
  EXPECT_EQ(format_duration(0), "0s");
  EXPECT_EQ(format_duration(90), "90s");
  EXPECT_EQ(format_duration(86'400), "1d");
  EXPECT_EQ(format_duration(90'000), "25h");
  for (const int64_t seconds : {1, 59, 60, 3601, 7200, 604'800})
    EXPECT_EQ(parse_duration(format_duration(seconds)), seconds);
}

}  // namespace
}  // namespace obraz
