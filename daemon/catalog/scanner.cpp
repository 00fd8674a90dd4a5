#include "catalog/scanner.h"

#include <fmt/core.h>

#include <algorithm>

#include "proto/text.h"

namespace obraz {
namespace {

constexpr std::string_view kSpaces = " \t\r\n", kQuotes = "\"'", kSymbols = "=!<>(),";

bool is_one_of(char c, std::string_view characters) {
  return characters.find(c) != std::string_view::npos;
}
bool is_word_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         is_one_of(c, "-_./:@+");
}
bool begins_character(char c) {
  return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
}
char lower(char c) {
  return c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c;
}

size_t count_characters(std::string_view text) {
  return size_t(std::ranges::count_if(text, begins_character));
}

// Bytes of the first `characters` characters.
size_t length_of(std::string_view text, size_t characters) {
  size_t length = 0;
  for (; length < text.size(); ++length) {
    if (begins_character(text[length]) && characters-- == 0)
      break;
  }
  return length;
}

size_t word_length(std::string_view text) {
  return size_t(std::ranges::find_if_not(text, is_word_character) - text.begin());
}

}  // namespace

bool equals_ignoring_case(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, {}, lower, lower);
}

std::string shown(std::string_view text) {
  constexpr size_t kShown = 40;
  const size_t length = length_of(text, kShown);
  std::string out(text.substr(0, length));
  std::ranges::replace_if(
      out, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
  return length < text.size() ? out + "…" : out;
}

Answer<void> Scanner::check(size_t max_characters) const {
  if (!is_valid_utf8(text_)) {
    const std::string mended = valid_utf8(text_);  // of the same length
    const auto wrong = std::ranges::mismatch(text_, mended).in1;
    return refuse_at(size_t(wrong - text_.begin()), "this is not UTF-8");
  }
  if (const size_t characters = count_characters(text_); characters > max_characters)
    return refuse(
        ErrorCode::invalid_argument, std::string(field_),
        fmt::format("{} has {} characters; at most {} are allowed", field_, characters, max_characters));
  return {};
}

void Scanner::skip_spaces() {
  place_ = std::min(text_.find_first_not_of(kSpaces, place_), text_.size());
}

std::string_view Scanner::take_word() {
  const std::string_view word = rest().substr(0, word_length(rest()));
  place_ += word.size();
  return word;
}

bool Scanner::take_keyword(std::string_view keyword) {
  const std::string_view word = rest().substr(0, word_length(rest()));
  if (!equals_ignoring_case(word, keyword))
    return false;
  place_ += word.size();
  return true;
}

bool Scanner::take(std::string_view symbol) {
  if (!rest().starts_with(symbol))
    return false;
  place_ += symbol.size();
  return true;
}

bool Scanner::at_stranger() const {
  if (at_end())
    return false;
  const char next = text_[place_];
  return !is_word_character(next) && !is_one_of(next, kSpaces) && !is_one_of(next, kQuotes) &&
         !is_one_of(next, kSymbols);
}

std::string Scanner::found() const {
  if (at_end())
    return "the end";
  const std::string_view rest = this->rest();
  if (is_one_of(rest.front(), kQuotes)) {
    const size_t closing = rest.find(rest.front(), 1);
    return shown(rest.substr(0, closing == std::string_view::npos ? closing : closing + 1));
  }
  size_t length = word_length(rest);
  if (length == 0)
    length = is_one_of(rest.front(), "!<>") && rest.substr(1).starts_with('=') ? 2 : length_of(rest, 1);
  return fmt::format("\"{}\"", shown(rest.substr(0, length)));
}

std::unexpected<Refusal> Scanner::refuse_at(size_t place, std::string_view sentence) const {
  return refuse(ErrorCode::invalid_argument, std::string(field_),
                fmt::format("{}: at {}: {}", field_, count_characters(text_.substr(0, place)) + 1, sentence));
}

std::unexpected<Refusal> Scanner::expected(std::string_view what) const {
  return refuse_at(place_, fmt::format("expected {}, found {}", what, found()));
}

}  // namespace obraz
