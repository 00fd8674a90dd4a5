// Order: in which order a list call answers, and PageToken: where one of its pages ended. docs/control-api.md
// has the language of order_by.
//
// Invariants: an order is total, for ties go by id; a token names a position in it, not an entry, so what
// follows is the same whether or not the entry it was made of is still there. Pure; any thread.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/refusal.h"
#include "catalog/facts.h"
#include "catalog/filter.h"

namespace obraz {

class Order {
 public:
  Order() : Order({{Key::name, false}}) {}  // by name, as the empty text
  static Answer<Order> parse(std::string_view order_by);

  // Equal only for facts of one resource.
  std::strong_ordering compare(const Facts& a, const Facts& b) const;
  bool before(const Facts& a, const Facts& b) const { return compare(a, b) < 0; }

  // By name, then id, as an index keeps it: no need to sort.
  bool is_default() const { return text() == Order().text(); }
  bool has_name() const { return has(Key::name); }
  bool has_created_at() const { return has(Key::created_at); }
  // The same for all ways to write one order.
  std::string text() const;

 private:
  enum class Key { name, created_at, id };
  struct Term {
    Key key = Key::name;
    bool descending = false;
  };
  explicit Order(std::vector<Term> terms);
  bool has(Key key) const;
  static const char* word_for(Key key);

  std::vector<Term> terms_;  // each key at most once, id last
};

// The position of a page's last entry, as far as its order asks.
struct PageToken {
  std::string id;
  std::string name;
  int64_t created_at = 0;

  // At most limits::kMaxPageToken printable ASCII characters without spaces.
  static std::string encode(const Facts& last, const Filter& filter, const Order& order);
  // Refuses what encode() does not make, and what it has made for another filter or order. The next page has
  // what order.before(token.facts(), …) says.
  static Answer<PageToken> decode(std::string_view token, const Filter& filter, const Order& order);

  Facts facts() const;  // for Order::compare() alone; they refer to the token
};

}  // namespace obraz
