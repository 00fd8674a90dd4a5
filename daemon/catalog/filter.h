// Filter: which resources a list call answers: conditions on their facts that must all hold.
// docs/control-api.md has the language.
//
// Invariants: a filter keeps nothing of the text it was parsed from; its conditions and values are bounded
// (limits::kMaxFilter…), and so is what one matches() costs. Pure; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/refusal.h"
#include "catalog/facts.h"
#include "catalog/instant.h"

namespace obraz {

class Filter {
 public:
  Filter() = default;  // matches everything, as the empty text does
  static Answer<Filter> parse(std::string_view text);

  bool matches(const Facts& facts) const;
  bool matches_all() const { return conditions_.empty(); }
  // The name when all that is asked for is one name: an index has the answer without a search. Never empty:
  // any number of resources have no name.
  std::optional<std::string> exact_name() const;
  // Of the text; it tells one filter from another in page tokens.
  uint32_t fingerprint() const { return fingerprint_; }

 private:
  class Parser;
  enum class Field { id, name, family, status, os_type, created_at, label };
  enum class Operator { among, not_among, before, until, after, since };  // = IN, != NOT IN, < <= > >=
  struct Condition {
    Field field = Field::id;
    std::string key;  // of a label
    Operator op = Operator::among;
    std::vector<std::string> words;  // sorted
    std::vector<Instant> instants;   // sorted; of created_at, which has no words
  };
  static bool holds(const Condition& condition, const Facts& facts);

  std::vector<Condition> conditions_;
  uint32_t fingerprint_ = 0;
};

}  // namespace obraz
