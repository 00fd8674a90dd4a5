#include "client/progress.h"

#include <fmt/core.h>

#include <algorithm>
#include <string_view>

#include "base/size.h"
#include "client/output.h"
#include "client/style.h"

namespace obraz::client {
namespace {

constexpr unsigned kMaxBarWidth = 40, kMinBarWidth = 5;

int64_t percent(const v1::OperationMetadata& metadata) {
  if (metadata.bytes_total() <= 0)
    return 0;
  return int64_t(100.0 * double(metadata.bytes_done()) / double(metadata.bytes_total()));
}

// Bytes, rate and time left, as far as they are known.
std::string numbers(const v1::OperationMetadata& metadata, std::string_view separator) {
  std::string text = fmt::format("{} of {}", format_size(uint64_t(metadata.bytes_done())),
                                 format_size(uint64_t(metadata.bytes_total())));
  if (metadata.bytes_per_second() > 0)
    text += fmt::format("{}{}/s", separator, format_size(uint64_t(metadata.bytes_per_second())));
  if (metadata.has_eta_seconds())
    text += fmt::format("{}{} left", separator, short_duration(metadata.eta_seconds()));
  return text;
}

}  // namespace

ProgressDisplay::Mode ProgressDisplay::suitable_mode() {
  return style_of(stderr).escapes ? Mode::bar : Mode::lines;
}

std::string ProgressDisplay::bar(const v1::OperationMetadata& metadata, unsigned columns) {
  if (metadata.bytes_total() <= 0)
    return metadata.phase();
  const std::string after = fmt::format("] {:3}%  {}", percent(metadata), numbers(metadata, "  "));
  const size_t taken = metadata.phase().size() + 2 + after.size() + 1;  // the last column stays free
  if (taken + kMinBarWidth > columns)
    return line(metadata).substr(0, columns > 0 ? columns - 1 : 0);
  const size_t width = std::min<size_t>(kMaxBarWidth, columns - taken);
  const size_t done = std::min(width, size_t(int64_t(width) * percent(metadata) / 100));
  return metadata.phase() + " [" + std::string(done, '#') + std::string(width - done, '-') + after;
}

std::string ProgressDisplay::line(const v1::OperationMetadata& metadata) {
  if (metadata.bytes_total() <= 0)
    return metadata.phase();
  return fmt::format("{}: {}%, {}", metadata.phase(), percent(metadata), numbers(metadata, ", "));
}

void ProgressDisplay::show(const v1::Operation& operation) {
  const v1::OperationMetadata& metadata = operation.metadata();
  if (mode_ == Mode::none || operation.done() || metadata.phase().empty())
    return;
  if (mode_ == Mode::bar) {
    fmt::print(stderr, "\r\x1b[K{}", bar(metadata, unsigned(style_of(stderr).columns)));
    std::fflush(stderr);
    drawn_ = true;
    return;
  }
  const int64_t tenth = metadata.bytes_total() > 0 ? percent(metadata) / 10 : -1;
  if (metadata.phase() == last_phase_ && tenth <= last_tenth_)
    return;
  last_phase_ = metadata.phase();
  last_tenth_ = tenth;
  fmt::print(stderr, "{}\n", line(metadata));
}

void ProgressDisplay::clear() {
  if (drawn_)
    fmt::print(stderr, "\r\x1b[K");
  drawn_ = false;
}

}  // namespace obraz::client
