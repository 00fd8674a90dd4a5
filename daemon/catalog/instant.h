// Instant: a time as a person writes it (RFC 3339), of any year from 0 to 9999. Nanoseconds since 1970 in 64
// bits, as resources have them, end in 2262, so it has its seconds apart. Pure; any thread.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string_view>

namespace obraz {

struct Instant {
  int64_t seconds = 0;      // since 1970 (UTC)
  int32_t nanoseconds = 0;  // 0 to 999,999,999, also before 1970

  static Instant of(int64_t nanoseconds_since_1970);
  // 2024-05-31T12:00:00Z, with up to nine digits of a fraction and Z or an offset like +02:00; or 2024-05-31
  // alone, which is the first instant of that day in UTC. Nothing when it is neither.
  static std::optional<Instant> parse(std::string_view text);

  friend auto operator<=>(const Instant&, const Instant&) = default;
};

}  // namespace obraz
