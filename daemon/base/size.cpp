#include "base/size.h"

#include <fmt/core.h>

#include <limits>

namespace obraz {
namespace {

constexpr std::string_view kUnits = "KMGT";

}  // namespace

std::optional<int64_t> parse_size(std::string_view text) {
  unsigned shift = 0;
  if (!text.empty()) {
    const char last = text.back() >= 'a' && text.back() <= 'z' ? char(text.back() - 'a' + 'A') : text.back();
    if (const auto unit = kUnits.find(last); unit != std::string_view::npos) {
      shift = 10 * (unsigned(unit) + 1);
      text.remove_suffix(1);
    }
  }
  if (text.empty())
    return std::nullopt;
  constexpr auto kMax = uint64_t(std::numeric_limits<int64_t>::max());
  uint64_t value = 0;
  bool too_large = false;
  for (const char c : text) {
    if (c < '0' || c > '9')
      return std::nullopt;
    too_large = too_large || value > (kMax - 9) / 10;
    if (!too_large)
      value = value * 10 + uint64_t(c - '0');
  }
  if (too_large || value > (kMax >> shift))
    return std::numeric_limits<int64_t>::max();
  return int64_t(value << shift);
}

std::string format_size(uint64_t bytes) {
  if (bytes < 1024)
    return fmt::format("{} B", bytes);
  double value = double(bytes) / 1024;
  size_t unit = 0;
  while (value >= 1023.95 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  std::string digits = fmt::format("{:.1f}", value);
  if (digits.ends_with(".0"))
    digits.resize(digits.size() - 2);
  return fmt::format("{} {}iB", digits, kUnits[unit]);
}

std::string exact_size(uint64_t bytes) {
  size_t unit = 0;
  while (bytes != 0 && bytes % 1024 == 0 && unit < kUnits.size()) {
    bytes /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{}", bytes) : fmt::format("{}{}", bytes, kUnits[unit - 1]);
}

}  // namespace obraz
