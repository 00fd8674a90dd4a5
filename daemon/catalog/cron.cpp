#include "catalog/cron.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <utility>

namespace obraz {
namespace {

constexpr size_t kLongest = 100;  // of an expression
constexpr int64_t kSecondsPerDay = 86'400;
constexpr int64_t kLongestGapDays = 8 * 366 + 2;  // from a 29 February to the next one, around 2100
constexpr int64_t kLastSecond = 9'214'646'400;    // the end of 2261, where nanoseconds in 63 bits end

struct FieldRule {
  std::string_view name;
  unsigned least, most;
  std::string_view words;  // of three letters each, for `least` and those that follow
};
constexpr std::array<FieldRule, 5> kFields = {{{"minute", 0, 59, ""},
                                               {"hour", 0, 23, ""},
                                               {"day of the month", 1, 31, ""},
                                               {"month", 1, 12, "janfebmaraprmayjunjulaugsepoctnovdec"},
                                               {"day of the week", 0, 7, "sunmontuewedthufrisat"}}};
constexpr std::array<std::pair<std::string_view, std::string_view>, 5> kShorthands = {
    {{"@hourly", "0 * * * *"},
     {"@daily", "0 0 * * *"},
     {"@weekly", "0 0 * * 0"},
     {"@monthly", "0 0 1 * *"},
     {"@yearly", "0 0 1 1 *"}}};

// Up to the separator, which is taken, too.
std::string_view take(std::string_view& text, char separator) {
  const size_t end = std::min(text.find(separator), text.size());
  const std::string_view part = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return part;
}

std::optional<unsigned> number(std::string_view text, const FieldRule& rule) {
  if (text.size() == 3 && !rule.words.empty()) {
    std::string small(text);
    for (char& c : small)
      c = c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c;
    for (size_t at = 0; at < rule.words.size(); at += 3)
      if (rule.words.substr(at, 3) == small)
        return rule.least + unsigned(at / 3);
  }
  if (text.empty() || text.size() > 2)
    return std::nullopt;
  unsigned value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9')
      return std::nullopt;
    value = value * 10 + unsigned(c - '0');
  }
  return value >= rule.least && value <= rule.most ? std::optional(value) : std::nullopt;
}

// The bits of one field; nothing when it is wrong.
std::optional<uint64_t> parse_field(std::string_view text, const FieldRule& rule) {
  uint64_t bits = 0;
  if (text.empty() || text.ends_with(','))
    return std::nullopt;
  while (!text.empty()) {
    std::string_view part = take(text, ',');
    const bool stepped = part.find('/') != std::string_view::npos;
    const std::string_view range = take(part, '/');
    unsigned first = rule.least, last = rule.most, step = 1;
    if (range != "*") {
      const size_t dash = range.find('-');
      const auto from = number(range.substr(0, dash), rule);
      const auto to = dash == std::string_view::npos ? from : number(range.substr(dash + 1), rule);
      if (!from || !to || *from > *to || (stepped && dash == std::string_view::npos))
        return std::nullopt;
      first = *from;
      last = *to;
    }
    if (stepped) {
      const FieldRule any_step{"", 1, rule.most, ""};
      const auto asked = number(part, any_step);
      if (!asked)
        return std::nullopt;
      step = *asked;
    }
    for (unsigned value = first; value <= last; value += step)
      bits |= uint64_t(1) << value;
  }
  return bits;
}

}  // namespace

Answer<Cron> Cron::parse(std::string_view expression, std::string_view field) {
  // So that it can be quoted, too.
  if (expression.size() > kLongest ||
      !std::ranges::all_of(expression, [](char c) { return c >= 0x20 && c < 0x7f; }))
    return refuse(ErrorCode::invalid_argument, std::string(field),
                  fmt::format("an expression has at most {} printable ASCII characters", kLongest));
  std::string_view rest = expression;
  for (const auto& [word, meaning] : kShorthands)
    if (expression == word)
      rest = meaning;
  Cron cron;
  const std::array<uint64_t*, 5> into = {&cron.minutes_, &cron.hours_, &cron.days_, &cron.months_,
                                         &cron.weekdays_};
  for (size_t i = 0; i < kFields.size(); ++i) {
    rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
    const std::string_view text = take(rest, ' ');
    const auto bits = parse_field(text, kFields[i]);
    if (!bits)
      return refuse(
          ErrorCode::invalid_argument, std::string(field),
          fmt::format("'{}' is no {}; an expression has minute, hour, day of the month, month and day of "
                      "the week, such as '30 2 * * 1-5', or is @hourly, @daily, @weekly, @monthly, @yearly",
                      text.substr(0, 20), kFields[i].name));
    *into[i] = *bits;
    if (i == 2)
      cron.any_day_ = text.starts_with('*');
    if (i == 4)
      cron.any_weekday_ = text.starts_with('*');
  }
  if (rest.find_first_not_of(' ') != std::string_view::npos)
    return refuse(ErrorCode::invalid_argument, std::string(field),
                  "an expression has five fields, and no more");
  if (cron.weekdays_ >> 7 & 1)
    cron.weekdays_ |= 1;
  if (!cron.next_after(0))
    return refuse(ErrorCode::invalid_argument, std::string(field),
                  fmt::format("the day that '{}' means never comes", expression));
  return cron;
}

bool Cron::is_day(int64_t days_since_1970) const {
  const std::chrono::sys_days day{std::chrono::days(days_since_1970)};
  const std::chrono::year_month_day date(day);
  if (!(months_ >> unsigned(date.month()) & 1))
    return false;
  const bool is_date = days_ >> unsigned(date.day()) & 1;
  const bool is_weekday = weekdays_ >> std::chrono::weekday(day).c_encoding() & 1;
  return any_day_ || any_weekday_ ? is_date && is_weekday : is_date || is_weekday;
}

std::optional<int64_t> Cron::next_after(int64_t seconds) const {
  const int64_t from = (seconds / 60 + 1) * 60;  // the first whole minute after it
  const int64_t first_day = from / kSecondsPerDay;
  for (int64_t day = first_day; day <= first_day + kLongestGapDays && day * kSecondsPerDay < kLastSecond;
       ++day) {
    if (!is_day(day))
      continue;
    const int64_t minute_of_day = day == first_day ? from % kSecondsPerDay / 60 : 0;
    for (int64_t hour = minute_of_day / 60; hour < 24; ++hour) {
      if (!(hours_ >> hour & 1))
        continue;
      const int64_t earliest = hour == minute_of_day / 60 ? minute_of_day % 60 : 0;
      const uint64_t left = minutes_ >> earliest;
      if (left != 0)
        return day * kSecondsPerDay + hour * 3600 + (earliest + std::countr_zero(left)) * 60;
    }
  }
  return std::nullopt;
}

}  // namespace obraz
