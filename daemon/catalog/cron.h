// Cron: the instants at which something is to be done again and again, as crontab(5) has them: minute, hour,
// day of the month, month, day of the week, in UTC. Fields are *, numbers, ranges (1-5), lists (1,15) and
// steps (*/10, 8-18/2); months and days of the week also by the first three letters of their names; 0 and 7
// are Sunday. Where both kinds of days are restricted, either is enough. @hourly, @daily, @weekly, @monthly
// and @yearly stand for what they say. Pure; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/refusal.h"

namespace obraz {

class Cron {
 public:
  // Refuses, saying which field is wrong, what is no such expression, and what never comes (31 February).
  static Answer<Cron> parse(std::string_view expression, std::string_view field);

  // The first instant after this one (seconds since 1970); nothing after the end of the years that can be
  // told.
  std::optional<int64_t> next_after(int64_t seconds) const;

 private:
  bool is_day(int64_t days_since_1970) const;

  uint64_t minutes_ = 0, hours_ = 0, days_ = 0, months_ = 0, weekdays_ = 0;  // a bit for each
  bool any_day_ = true, any_weekday_ = true;
};

}  // namespace obraz
