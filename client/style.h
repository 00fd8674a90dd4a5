// What a stream is written to: how wide it is, and whether colours are wanted there.
#pragma once

#include <cstdio>
#include <string>
#include <string_view>

namespace obraz::client {

struct Style {
  size_t columns = 0;    // 0: lines may be of any length
  bool escapes = false;  // it understands escape sequences of ECMA-48
  bool colours = false;  // and they may have colours
};

// A terminal has a width; it understands escapes unless TERM is absent or dumb, and has colours then unless
// NO_COLOR is set and not empty (no-color.org). Anything else is a file to somebody: all of it, and no
// colours.
Style style_of(std::FILE* stream);

enum class Colour { none, bold, red, green, yellow };
// The text in that colour, as far as the style has any.
std::string coloured(std::string_view text, Colour colour, const Style& style);
// Of a word that says how something is, such as READY, ERROR, running.
Colour colour_of_state(std::string_view word);

// Columns that a text takes: one for each character, good enough for what names and paths hold.
size_t width_of(std::string_view text);
// The text, or its beginning and "…", in at most so many columns (1 or more).
std::string shortened(std::string_view text, size_t columns);

}  // namespace obraz::client
