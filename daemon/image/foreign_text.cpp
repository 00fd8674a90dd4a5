#include "image/foreign_text.h"

#include <cstdint>

namespace obraz {
namespace {

// The bytes of the character that the text begins with, or 0 when it begins with none that may be shown.
size_t shown_character(std::string_view text) {
  const auto lead = uint8_t(text[0]);
  if (lead < 0x80)
    return lead >= 0x20 && lead != 0x7f ? 1 : 0;
  const size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < length)
    return 0;
  uint32_t code = lead & (0xffu >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    const auto next = uint8_t(text[i]);
    if ((next & 0xc0) != 0x80)
      return 0;
    code = code << 6 | (next & 0x3f);
  }
  constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  if (code < kSmallest[length] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
    return 0;
  const bool control = code < 0xa0;  // C1; C0 has one byte
  const bool line_break = code == 0x2028 || code == 0x2029;
  const bool direction = code == 0x61c || code == 0x200e || code == 0x200f ||
                         (code >= 0x202a && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
  const bool no_character = code == 0xfeff || (code & 0xfffe) == 0xfffe || (code >= 0xfdd0 && code <= 0xfdef);
  return control || line_break || direction || no_character ? 0 : length;
}

}  // namespace

std::string clean_text(std::string_view foreign, size_t limit) {
  std::string text;
  while (!foreign.empty()) {
    const size_t length = shown_character(foreign), taken = length > 0 ? length : 1;
    if (text.size() + taken > limit)
      break;
    text += length > 0 ? foreign.substr(0, length) : std::string_view("?");
    foreign.remove_prefix(taken);
  }
  text.erase(text.find_last_not_of(' ') + 1);
  text.erase(0, text.find_first_not_of(' '));
  return text;
}

bool is_clean_text(std::string_view text, size_t limit) {
  if (text.size() > limit)
    return false;
  while (!text.empty()) {
    const size_t length = shown_character(text);
    if (length == 0)
      return false;
    text.remove_prefix(length);
  }
  return true;
}

}  // namespace obraz
