#include "catalog/cron.h"

#include <gtest/gtest.h>
#include <time.h>

#include <vector>

namespace obraz {
namespace {

int64_t at(const char* text) {
  tm utc{};
  EXPECT_EQ(*::strptime(text, "%Y-%m-%d %H:%M:%S", &utc), '\0') << text;
  return ::timegm(&utc);
}
std::string text_of(std::optional<int64_t> seconds) {
  if (!seconds)
    return "never";
  const time_t time = *seconds;
  tm utc{};
  ::gmtime_r(&time, &utc);
  char text[32];
  ::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &utc);
  return text;
}
std::string next(const char* expression, const char* after) {
  const auto cron = Cron::parse(expression, "expression");
  return cron ? text_of(cron->next_after(at(after))) : cron.error().message;
}

TEST(CronTest, TheNextInstantIsAfterThisOne) {
  EXPECT_EQ(next("* * * * *", "2026-11-30 21:00:00"), "2026-11-30 21:01:00");
  EXPECT_EQ(next("* * * * *", "2026-11-30 21:00:59"), "2026-11-30 21:01:00");
  EXPECT_EQ(next("0 3 * * *", "2026-11-30 03:00:00"), "2026-12-01 03:00:00");
  EXPECT_EQ(next("0 3 * * *", "2026-11-30 02:59:59"), "2026-11-30 03:00:00");
  EXPECT_EQ(next("59 23 31 12 *", "2026-12-31 23:59:00"), "2027-12-31 23:59:00");
}

TEST(CronTest, FieldsAreListsRangesAndSteps) {
  EXPECT_EQ(next("*/15 * * * *", "2026-11-30 21:16:00"), "2026-11-30 21:30:00");
  EXPECT_EQ(next("5,35 * * * *", "2026-11-30 21:05:00"), "2026-11-30 21:35:00");
  EXPECT_EQ(next("0 8-18/4 * * *", "2026-11-30 12:00:00"), "2026-11-30 16:00:00");
  EXPECT_EQ(next("0 8-18/4 * * *", "2026-11-30 16:00:00"), "2026-12-01 08:00:00");
  EXPECT_EQ(next("0 0 1 Jan,JUL *", "2026-11-30 00:00:00"), "2027-01-01 00:00:00");
  EXPECT_EQ(next("  30   2 * * 1-5  ", "2026-11-28 00:00:00"), "2026-11-30 02:30:00");  // a Saturday
}

TEST(CronTest, SundayIsZeroAndSevenAndAName) {
  for (const char* sunday : {"0 0 * * 0", "0 0 * * 7", "0 0 * * sun", "@weekly"})
    EXPECT_EQ(next(sunday, "2026-11-30 00:00:00"), "2026-12-06 00:00:00") << sunday;
  EXPECT_EQ(next("0 0 * * 5-7", "2026-12-05 00:00:00"), "2026-12-06 00:00:00");
}

TEST(CronTest, EitherKindOfDayIsEnough) {
  EXPECT_EQ(next("0 0 13 * 5", "2026-11-30 00:00:00"), "2026-12-04 00:00:00");  // a Friday
  EXPECT_EQ(next("0 0 13 * 5", "2026-12-11 00:00:00"), "2026-12-13 00:00:00");  // the 13th
  // A star with a step restricts, but keeps both necessary, as it always did.
  EXPECT_EQ(next("0 0 */2 * 5", "2026-11-30 00:00:00"), "2026-12-11 00:00:00");
}

TEST(CronTest, RareDaysAreFound) {
  EXPECT_EQ(next("0 0 29 2 *", "2026-01-01 00:00:00"), "2028-02-29 00:00:00");
  EXPECT_EQ(next("0 0 29 2 *", "2096-02-29 00:00:00"), "2104-02-29 00:00:00");
  EXPECT_EQ(next("0 0 31 * *", "2026-11-30 00:00:00"), "2026-12-31 00:00:00");
  EXPECT_EQ(next("@yearly", "2026-11-30 00:00:00"), "2027-01-01 00:00:00");
  EXPECT_EQ(next("@yearly", "2261-06-01 00:00:00"), "never");
}

TEST(CronTest, WhatIsWrongIsNamed) {
  for (const auto& [expression, named] : std::vector<std::pair<const char*, const char*>>{
           {"", "minute"},
           {"60 * * * *", "'60' is no minute"},
           {"* 24 * * *", "'24' is no hour"},
           {"* * 0 * *", "day of"},
           {"* * * 13 *", "'13' is no month"},
           {"* * * * 8", "day of the week"},
           {"* * * *", "day of the week"},
           {"* * * * * *", "five fields"},
           {"5-1 * * * *", "minute"},
           {"5/2 * * * *", "minute"},
           {"*/0 * * * *", "minute"},
           {"1,,2 * * * *", "minute"},
           {"1, * * * *", "minute"},
           {"-1 * * * *", "minute"},
           {"* * * foo *", "month"},
           {"@never", "minute"},
           {"0 0 31 2 *", "never comes"},
           {"0 0 30 2 \n*", "printable"},
           {"0 0 30 2 \xc3\xbc", "printable"},
           {"0 0 1                                                                                           "
            "   1 *",
            "at most 100"},
           {"0 0 30 2 *", "never comes"},
           {"0 0 31 4,6,9,11 *", "never comes"},
           {"001 * * * *", "minute"}}) {
    const auto cron = Cron::parse(expression, "schedule_policy.expression");
    ASSERT_FALSE(cron) << expression;
    EXPECT_EQ(cron.error().code, ErrorCode::invalid_argument);
    EXPECT_EQ(cron.error().field, "schedule_policy.expression");
    EXPECT_NE(cron.error().message.find(named), std::string::npos)
        << expression << ": " << cron.error().message;
  }
}

}  // namespace
}  // namespace obraz
