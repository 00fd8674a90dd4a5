#include "base/log.h"

#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <string>

namespace obraz::log {
namespace {

std::atomic<Level> threshold{Level::info};

const char* word(Level level) {
  switch (level) {
    case Level::error:
      return "error: ";
    case Level::warning:
      return "warning: ";
    case Level::notice:
      return "";
    case Level::info:
      return "";
    case Level::debug:
      return "debug: ";
  }
  return "";
}

}  // namespace

void set_level(Level level) {
  threshold = level;
}

void write(Level level, std::string_view line) {
  if (level > threshold.load(std::memory_order_relaxed))
    return;
  static const bool to_journal = std::getenv("JOURNAL_STREAM") != nullptr;
  std::string out =
      to_journal ? fmt::format("<{}>{}\n", int(level), line) : fmt::format("{}{}\n", word(level), line);
  // One write call, so that lines of several threads do not mix. A log that cannot be written is not
  // reported.
  [[maybe_unused]] const auto n = ::write(STDERR_FILENO, out.data(), out.size());
}

}  // namespace obraz::log
