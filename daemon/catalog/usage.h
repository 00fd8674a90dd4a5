// Usage: how long resources were there and how large they were, by month (UTC), kind and OS type. Pure
// arithmetic; catalog_usage.cpp knows when to do it.
//
// Invariant: a period that is added in parts gives what it gives as a whole, but for what is rounded: at most
// half a millisecond and half a MiB second for each part and month. Any thread.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "catalog/kind.h"
#include "obraz/v1/common.pb.h"
#include "obraz/v1/usage.pb.h"

namespace obraz {

// Months are counted from January 1970.
int month_of(int64_t nanoseconds);
int64_t begin_of_month(int month);                      // nanoseconds since 1970
std::optional<int> parse_month(std::string_view text);  // "2026-11"
std::string format_month(int month);

// Of one resource, in bytes.
struct UsageLevels {
  uint64_t virtual_bytes = 0, exclusive_bytes = 0, shared_bytes = 0;
};

struct UsageKey {
  int month = 0;
  Kind kind = Kind::disk;
  v1::Os::Type os = v1::Os::LINUX;
  auto operator<=>(const UsageKey&) const = default;
};

struct UsageAmounts {
  int64_t milliseconds = 0, virtual_mib_seconds = 0, exclusive_mib_seconds = 0, shared_mib_seconds = 0;
  bool operator==(const UsageAmounts&) const = default;
};

class UsageRows {
 public:
  // One resource of those levels from an instant to another (nanoseconds); nothing when there is no time
  // between.
  void add(Kind kind, v1::Os::Type os, const UsageLevels& levels, int64_t from, int64_t to);
  // Forgets what is older than limits::kUsageMonths.
  void forget_before(int64_t now);
  const std::map<UsageKey, UsageAmounts>& all() const { return rows_; }

  // What does not make sense in a record is left out.
  void read(const v1::UsageRecord& record);
  void write(v1::UsageRecord& record) const;

 private:
  std::map<UsageKey, UsageAmounts> rows_;
};

// What a caller is shown: seconds, rounded down.
v1::UsageAmounts to_message(const UsageAmounts& amounts);

}  // namespace obraz
