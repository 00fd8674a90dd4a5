// One line per event on standard error, with a level that journald understands (sd-daemon(3) prefixes when
// standard error is the journal, words otherwise). Thread-safe; never on the path of a single request.
#pragma once

#include <fmt/core.h>

#include <string_view>

namespace obraz::log {

enum class Level : unsigned char { error = 3, warning = 4, notice = 5, info = 6, debug = 7 };

void set_level(Level level);
void write(Level level, std::string_view line);

template <typename... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::error, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void warning(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::warning, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::info, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::debug, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace obraz::log
