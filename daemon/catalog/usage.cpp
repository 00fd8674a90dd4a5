#include "catalog/usage.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>

#include "base/limits.h"
#include "catalog/time.h"

namespace obraz {
namespace {

using std::chrono::days;
using std::chrono::sys_days;
using std::chrono::year_month;

constexpr int64_t kNanosecondsPerDay = 86'400 * kNanosecondsPerSecond;
constexpr int64_t kNanosecondsPerMillisecond = 1'000'000;
constexpr int kFirstYear = 1970, kLastYear = 2261;  // of nanoseconds in 63 bits

int64_t mib_seconds(uint64_t bytes, int64_t milliseconds) {
  constexpr __int128 kUnit = limits::MiB * 1000;
  return int64_t((__int128(bytes) * milliseconds + kUnit / 2) / kUnit);
}

}  // namespace

int month_of(int64_t nanoseconds) {
  const std::chrono::year_month_day day(sys_days(days(nanoseconds / kNanosecondsPerDay)));
  return (int(day.year()) - kFirstYear) * 12 + int(unsigned(day.month())) - 1;
}

int64_t begin_of_month(int month) {
  const year_month at = std::chrono::year(kFirstYear) / std::chrono::January + std::chrono::months(month);
  return sys_days(at / 1).time_since_epoch().count() * kNanosecondsPerDay;
}

std::optional<int> parse_month(std::string_view text) {
  if (text.size() != 7 || text[4] != '-')
    return std::nullopt;
  const auto number = [&](std::string_view digits) {
    int value = 0;
    for (const char c : digits)
      value = c < '0' || c > '9' || value < 0 ? -1 : value * 10 + (c - '0');
    return value;
  };
  const int year = number(text.substr(0, 4)), month = number(text.substr(5));
  if (year < kFirstYear || year > kLastYear || month < 1 || month > 12)
    return std::nullopt;
  return (year - kFirstYear) * 12 + month - 1;
}

std::string format_month(int month) {
  return fmt::format("{:04}-{:02}", kFirstYear + month / 12, month % 12 + 1);
}

void UsageRows::add(Kind kind, v1::Os::Type os, const UsageLevels& levels, int64_t from, int64_t to) {
  while (from < to) {
    const int month = month_of(from);
    const int64_t end = std::min(to, begin_of_month(month + 1));
    const int64_t milliseconds = (end - from + kNanosecondsPerMillisecond / 2) / kNanosecondsPerMillisecond;
    UsageAmounts& row = rows_[{month, kind, os}];
    row.milliseconds += milliseconds;
    row.virtual_mib_seconds += mib_seconds(levels.virtual_bytes, milliseconds);
    row.exclusive_mib_seconds += mib_seconds(levels.exclusive_bytes, milliseconds);
    row.shared_mib_seconds += mib_seconds(levels.shared_bytes, milliseconds);
    from = end;
  }
}

void UsageRows::forget_before(int64_t now) {
  const int first = month_of(now) - limits::kUsageMonths + 1;
  rows_.erase(rows_.begin(), rows_.lower_bound({first, Kind(0), v1::Os::TYPE_UNSPECIFIED}));
}

void UsageRows::read(const v1::UsageRecord& record) {
  for (const v1::UsageRecord::Row& row : record.rows()) {
    const bool known = row.kind() >= int(Kind::disk) && row.kind() <= int(Kind::image) &&
                       (row.os().type() == v1::Os::LINUX || row.os().type() == v1::Os::WINDOWS);
    const bool sensible = row.month() >= 0 && row.month() <= (kLastYear - kFirstYear) * 12 &&
                          std::min({row.milliseconds(), row.virtual_mib_seconds(),
                                    row.exclusive_mib_seconds(), row.shared_mib_seconds()}) >= 0;
    if (known && sensible)
      rows_[{row.month(), Kind(row.kind()), row.os().type()}] = {
          row.milliseconds(), row.virtual_mib_seconds(), row.exclusive_mib_seconds(),
          row.shared_mib_seconds()};
  }
}

void UsageRows::write(v1::UsageRecord& record) const {
  for (const auto& [key, amounts] : rows_) {
    v1::UsageRecord::Row& row = *record.add_rows();
    row.set_month(key.month);
    row.set_kind(int(key.kind));
    row.mutable_os()->set_type(key.os);
    row.set_milliseconds(amounts.milliseconds);
    row.set_virtual_mib_seconds(amounts.virtual_mib_seconds);
    row.set_exclusive_mib_seconds(amounts.exclusive_mib_seconds);
    row.set_shared_mib_seconds(amounts.shared_mib_seconds);
  }
}

v1::UsageAmounts to_message(const UsageAmounts& amounts) {
  v1::UsageAmounts message;
  message.set_resource_seconds(amounts.milliseconds / 1000);
  message.set_virtual_mib_seconds(amounts.virtual_mib_seconds);
  message.set_exclusive_mib_seconds(amounts.exclusive_mib_seconds);
  message.set_shared_mib_seconds(amounts.shared_mib_seconds);
  return message;
}

}  // namespace obraz
