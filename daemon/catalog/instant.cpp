#include "catalog/instant.h"

#include <chrono>

#include "catalog/time.h"

namespace obraz {
namespace {

constexpr int64_t kSecondsPerMinute = 60, kSecondsPerHour = 3600, kSecondsPerDay = 24 * 3600;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

// Takes what it reads from the front of `text`; nothing is taken where it answers nothing.
std::optional<int> take_number(std::string_view& text, size_t digits) {
  if (text.size() < digits)
    return std::nullopt;
  int number = 0;
  for (const char c : text.substr(0, digits)) {
    if (!is_digit(c))
      return std::nullopt;
    number = 10 * number + (c - '0');
  }
  text.remove_prefix(digits);
  return number;
}

bool take(std::string_view& text, char c) {
  if (!text.starts_with(c))
    return false;
  text.remove_prefix(1);
  return true;
}

// Seconds of the midnight that begins a day.
std::optional<int64_t> take_date(std::string_view& text) {
  const auto year = take_number(text, 4);
  if (!year || !take(text, '-'))
    return std::nullopt;
  const auto month = take_number(text, 2);
  if (!month || !take(text, '-'))
    return std::nullopt;
  const auto day = take_number(text, 2);
  if (!day)
    return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year(*year), std::chrono::month(unsigned(*month)),
                                         std::chrono::day(unsigned(*day))};
  if (!date.ok())
    return std::nullopt;
  return std::chrono::sys_days(date).time_since_epoch().count() * kSecondsPerDay;
}

// Hours and minutes, in seconds.
std::optional<int64_t> take_minutes(std::string_view& text) {
  const auto hours = take_number(text, 2);
  if (!hours || *hours > 23 || !take(text, ':'))
    return std::nullopt;
  const auto minutes = take_number(text, 2);
  if (!minutes || *minutes > 59)
    return std::nullopt;
  return *hours * kSecondsPerHour + *minutes * kSecondsPerMinute;
}

// Digits after a dot, as nanoseconds; no dot is 0.
std::optional<int32_t> take_fraction(std::string_view& text) {
  if (!take(text, '.'))
    return 0;
  int32_t nanoseconds = 0, unit = kNanosecondsPerSecond / 10;
  if (text.empty() || !is_digit(text.front()))
    return std::nullopt;
  while (!text.empty() && is_digit(text.front())) {
    if (unit == 0)  // finer than anything that is stored: it would be compared wrongly
      return std::nullopt;
    nanoseconds += (text.front() - '0') * unit;
    unit /= 10;
    text.remove_prefix(1);
  }
  return nanoseconds;
}

// How far the local time is ahead of UTC, in seconds.
std::optional<int64_t> take_offset(std::string_view& text) {
  if (take(text, 'Z') || take(text, 'z'))
    return 0;
  const bool behind = text.starts_with('-');
  if (!take(text, '+') && !take(text, '-'))
    return std::nullopt;
  const auto offset = take_minutes(text);
  if (!offset)
    return std::nullopt;
  return behind ? -*offset : *offset;
}

}  // namespace

Instant Instant::of(int64_t nanoseconds_since_1970) {
  Instant instant{nanoseconds_since_1970 / kNanosecondsPerSecond,
                  int32_t(nanoseconds_since_1970 % kNanosecondsPerSecond)};
  if (instant.nanoseconds < 0) {
    instant.nanoseconds += kNanosecondsPerSecond;
    --instant.seconds;
  }
  return instant;
}

std::optional<Instant> Instant::parse(std::string_view text) {
  const auto midnight = take_date(text);
  if (!midnight)
    return std::nullopt;
  if (text.empty())
    return Instant{*midnight, 0};
  if (!take(text, 'T') && !take(text, 't'))
    return std::nullopt;
  const auto minutes = take_minutes(text);
  if (!minutes || !take(text, ':'))
    return std::nullopt;
  const auto seconds = take_number(text, 2);
  if (!seconds || *seconds > 60)
    return std::nullopt;
  const auto fraction = take_fraction(text);
  if (!fraction)
    return std::nullopt;
  const auto offset = take_offset(text);
  if (!offset || !text.empty())
    return std::nullopt;
  const Instant instant{*midnight + *minutes + *seconds - *offset, *fraction};
  // A leap second is the last of a day in UTC. Clocks here do not count it: it is the first of the next.
  if (*seconds == 60 && instant.seconds % kSecondsPerDay != 0)
    return std::nullopt;
  return instant;
}

}  // namespace obraz
