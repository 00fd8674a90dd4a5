#include "base/duration.h"

#include <charconv>
#include <limits>

namespace obraz {
namespace {

struct Unit {
  char letter;
  int64_t seconds;
};
constexpr Unit kUnits[] = {{'d', 86'400}, {'h', 3600}, {'m', 60}, {'s', 1}};

}  // namespace

std::optional<int64_t> parse_duration(std::string_view text) {
  if (text == "0")
    return 0;
  if (text.size() < 2)
    return std::nullopt;
  const char letter = text.back() >= 'A' && text.back() <= 'Z' ? char(text.back() - 'A' + 'a') : text.back();
  text.remove_suffix(1);
  for (const Unit& unit : kUnits) {
    if (unit.letter != letter)
      continue;
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (end != text.data() + text.size())
      return std::nullopt;
    constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
    if (error == std::errc::result_out_of_range || value > uint64_t(kMax / unit.seconds))
      return kMax;
    return int64_t(value) * unit.seconds;
  }
  return std::nullopt;
}

std::string format_duration(int64_t seconds) {
  for (const Unit& unit : kUnits)
    if (seconds != 0 && seconds % unit.seconds == 0)
      return std::to_string(seconds / unit.seconds) + unit.letter;
  return "0s";
}

}  // namespace obraz
