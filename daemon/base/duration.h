// Durations as people write them: digits, then s, m, h or d (either case). Pure; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace obraz {

// Seconds; 0 needs no unit. Nothing when it is not a duration. What does not fit becomes INT64_MAX, which
// every limit refuses.
std::optional<int64_t> parse_duration(std::string_view text);

// In the same form, by the largest unit that it is a whole number of: "24h" is "1d", "90s" stays.
std::string format_duration(int64_t seconds);

}  // namespace obraz
