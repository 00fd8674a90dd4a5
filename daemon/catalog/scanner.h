// Scanner: reads the small languages of list calls (filter, order_by) from front to back, and refuses with
// the place and what was found there.
//
// Invariants: check() comes first and has succeeded; a place that is refused is the beginning of a character.
// Refers to the text, which outlives it. Pure; any thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/refusal.h"

namespace obraz {

class Scanner {
 public:
  // `field`: of the request.
  Scanner(std::string_view text, std::string_view field) : text_(text), field_(field) {}

  // That it is UTF-8, of at most so many characters.
  Answer<void> check(size_t max_characters) const;

  size_t place() const { return place_; }  // in bytes
  std::string_view rest() const { return text_.substr(place_); }
  bool at_end() const { return place_ == text_.size(); }
  void advance(size_t bytes) { place_ += bytes; }

  void skip_spaces();
  // The letters, digits and -_./:@+ that come next; empty: something else does.
  std::string_view take_word();
  bool take_keyword(std::string_view keyword);  // a whole word, in either case
  bool take(std::string_view symbol);
  // Whether a character comes next that belongs to no word, symbol or quote, nor is space.
  bool at_stranger() const;

  // What comes next, for a person: "the end", a word, a symbol, a text in its quotes, a character.
  std::string found() const;
  // FIELD: at N: SENTENCE. N counts characters from 1.
  std::unexpected<Refusal> refuse_at(size_t place, std::string_view sentence) const;
  // … expected WHAT, found …, here.
  std::unexpected<Refusal> expected(std::string_view what) const;

 private:
  std::string_view text_, field_;
  size_t place_ = 0;
};

bool equals_ignoring_case(std::string_view a, std::string_view b);  // of ASCII letters
// What a person sees of a text: at most 40 characters, without control characters.
std::string shown(std::string_view text);

}  // namespace obraz
