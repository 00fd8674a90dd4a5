#include "client/style.h"

#include <fmt/core.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>

namespace obraz::client {
namespace {

constexpr size_t kDefaultColumns = 80;  // of a terminal that does not say

bool begins_character(char c) {
  return (c & 0xc0) != 0x80;
}

}  // namespace

Style style_of(std::FILE* stream) {
  const int fd = ::fileno(stream);
  if (::isatty(fd) != 1)
    return {};
  winsize size{};
  const bool known = ::ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  const char* terminal = std::getenv("TERM");
  const char* refused = std::getenv("NO_COLOR");
  const bool capable = terminal && std::string_view(terminal) != "dumb";
  return {known ? size.ws_col : kDefaultColumns, capable, capable && (!refused || *refused == '\0')};
}

std::string coloured(std::string_view text, Colour colour, const Style& style) {
  constexpr std::array<std::string_view, 5> kSequences = {"", "1", "31", "32", "33"};
  if (!style.colours || colour == Colour::none || text.empty())
    return std::string(text);
  return fmt::format("\x1b[{}m{}\x1b[0m", kSequences[size_t(colour)], text);
}

Colour colour_of_state(std::string_view word) {
  const std::string_view first = word.substr(0, word.find_first_of(":, "));
  for (const std::string_view good : {"READY", "done", "ok", "ACTIVE"})
    if (first == good)
      return Colour::green;
  for (const std::string_view passing : {"CREATING", "DELETING", "running", "DEPRECATED", "damaged"})
    if (first == passing)
      return Colour::yellow;
  for (const std::string_view bad : {"ERROR", "OBSOLETE", "failed"})
    if (first == bad)
      return Colour::red;
  return Colour::none;
}

size_t width_of(std::string_view text) {
  return size_t(std::ranges::count_if(text, begins_character));
}

std::string shortened(std::string_view text, size_t columns) {
  if (width_of(text) <= columns)
    return std::string(text);
  size_t kept = 0, end = 0;
  while (end < text.size() && (kept + 1 < columns || !begins_character(text[end]))) {
    kept += begins_character(text[end]);
    ++end;
  }
  // What would be the next character's bytes have not been taken: end is at a character.
  return std::string(text.substr(0, end)) + "…";
}

}  // namespace obraz::client
