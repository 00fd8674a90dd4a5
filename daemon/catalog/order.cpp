#include "catalog/order.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <optional>
#include <span>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/limits.h"
#include "catalog/kind.h"
#include "catalog/rules.h"
#include "catalog/scanner.h"

namespace obraz {
namespace {

// A token is a tag of filter and order, the time when the order has it, the id, and after a dot the name when
// the order has it. Numbers have a fixed length, so that the longest token just fits.
constexpr std::string_view kDigits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz-";
constexpr unsigned kBitsPerDigit = 6;
constexpr size_t kTagDigits = 5, kTimeDigits = 11, kMaxIdLength = 20;  // of an id: catalog/kind.h
constexpr uint32_t kTagBits = (1u << kTagDigits * kBitsPerDigit) - 1;
static_assert(kDigits.size() == 1u << kBitsPerDigit);
static_assert(kTagDigits + kTimeDigits + kMaxIdLength + 1 + limits::kMaxNameLength <= limits::kMaxPageToken);

void append_number(std::string& token, uint64_t number, size_t digits) {
  for (size_t i = digits; i-- > 0;)
    token += kDigits[number >> i * kBitsPerDigit & (kDigits.size() - 1)];
}

// Takes it from the front; nothing: that is none of append_number()'s.
std::optional<uint64_t> take_number(std::string_view& token, size_t digits) {
  if (token.size() < digits)
    return std::nullopt;
  uint64_t number = 0;
  for (const char c : token.substr(0, digits)) {
    const size_t digit = kDigits.find(c);
    if (digit == std::string_view::npos || number >> (64 - kBitsPerDigit) != 0)
      return std::nullopt;
    number = number << kBitsPerDigit | digit;
  }
  token.remove_prefix(digits);
  return number;
}

uint32_t tag_of(const Filter& filter, const Order& order) {
  const std::string text = order.text();
  return crc32c(std::as_bytes(std::span(text)), filter.fingerprint()) & kTagBits;
}

bool is_whole_id(std::string_view id) {
  return id == kDefaultFolder ||
         (is_id(id) && id.size() <= kMaxIdLength &&
          std::ranges::all_of(id, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z'); }));
}

std::unexpected<Refusal> invalid(std::string message) {
  return refuse(ErrorCode::invalid_argument, "page_token", std::move(message));
}

}  // namespace

Order::Order(std::vector<Term> terms) : terms_(std::move(terms)) {
  // No two resources have one id, so nothing after it decides.
  const auto id = std::ranges::find(terms_, Key::id, &Term::key);
  if (id == terms_.end())
    terms_.push_back({Key::id, false});
  else
    terms_.erase(id + 1, terms_.end());
}

Answer<Order> Order::parse(std::string_view order_by) {
  Scanner scanner(order_by, "order_by");
  if (const auto legal = scanner.check(limits::kMaxOrderLength); !legal)
    return std::unexpected(legal.error());
  scanner.skip_spaces();
  if (scanner.at_end())
    return Order();
  constexpr std::array kKeys = {Key::name, Key::created_at, Key::id};
  std::vector<Term> terms;
  do {
    scanner.skip_spaces();
    const size_t place = scanner.place();
    const std::string found = scanner.found();
    const std::string_view word = scanner.take_word();
    if (word.empty())
      return scanner.expected("a field");
    const auto key = std::ranges::find(kKeys, word, word_for);
    if (key == kKeys.end())
      return scanner.refuse_at(
          place, fmt::format("there is no order by {}; the fields are name, created_at, id", found));
    if (std::ranges::find(terms, *key, &Term::key) != terms.end())
      return scanner.refuse_at(place, fmt::format("{} is there twice", found));
    scanner.skip_spaces();
    const bool descending = scanner.take_keyword("desc");
    const bool said = descending || scanner.take_keyword("asc");
    terms.push_back({*key, descending});
    scanner.skip_spaces();
    if (!scanner.at_end() && !scanner.rest().starts_with(','))
      return scanner.expected(said ? "\",\" or the end" : "asc, desc, \",\" or the end");
  } while (scanner.take(","));
  return Order(std::move(terms));
}

std::strong_ordering Order::compare(const Facts& a, const Facts& b) const {
  for (const Term& term : terms_) {
    std::strong_ordering order = std::strong_ordering::equal;
    switch (term.key) {
      case Key::name:
        order = a.name <=> b.name;
        break;
      case Key::created_at:
        order = a.created_at <=> b.created_at;
        break;
      case Key::id:
        order = a.id <=> b.id;
        break;
    }
    if (order != 0)
      return term.descending ? 0 <=> order : order;
  }
  return std::strong_ordering::equal;
}

std::string Order::text() const {
  std::string text;
  for (const Term& term : terms_)
    text.append(text.empty() ? "" : ", ")
        .append(word_for(term.key))
        .append(term.descending ? " desc" : " asc");
  return text;
}

bool Order::has(Key key) const {
  return std::ranges::find(terms_, key, &Term::key) != terms_.end();
}

const char* Order::word_for(Key key) {
  switch (key) {
    case Key::name:
      return "name";
    case Key::created_at:
      return "created_at";
    case Key::id:
      return "id";
  }
  OBRAZ_CHECK(!"a key");
}

std::string PageToken::encode(const Facts& last, const Filter& filter, const Order& order) {
  std::string token;
  append_number(token, tag_of(filter, order), kTagDigits);
  if (order.has_created_at())
    append_number(token, uint64_t(last.created_at), kTimeDigits);
  token += last.id;
  if (order.has_name())
    token.append(".").append(last.name);
  return token;
}

Answer<PageToken> PageToken::decode(std::string_view token, const Filter& filter, const Order& order) {
  const auto foreign = [] { return invalid("page_token must be one that an earlier page answered"); };
  if (token.size() > limits::kMaxPageToken)
    return foreign();
  const auto tag = take_number(token, kTagDigits);
  if (!tag)
    return foreign();
  if (*tag != tag_of(filter, order))
    return invalid(
        "page_token is of a list with another filter or order_by; repeat those of its first page, or begin "
        "again "
        "without a page_token");
  PageToken position;
  if (order.has_created_at()) {
    const auto time = take_number(token, kTimeDigits);
    if (!time)
      return foreign();
    position.created_at = int64_t(*time);
  }
  const size_t dot = token.find('.');
  if ((dot != std::string_view::npos) != order.has_name() || !is_whole_id(token.substr(0, dot)))
    return foreign();
  position.id = token.substr(0, dot);
  if (order.has_name()) {
    position.name = token.substr(dot + 1);
    if (!rules::check_name(position.name))
      return foreign();
  }
  return position;
}

Facts PageToken::facts() const {
  return {.id = id, .name = name, .created_at = created_at};
}

}  // namespace obraz
