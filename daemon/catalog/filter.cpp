#include "catalog/filter.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <span>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/limits.h"
#include "catalog/scanner.h"
#include "proto/text.h"

namespace obraz {
namespace {

constexpr std::string_view kLabelPrefix = "labels.";
constexpr std::string_view kFields = "name, family, status, os.type, labels.KEY, created_at, id";
constexpr std::array<std::string_view, 4> kStatuses = {"CREATING", "READY", "ERROR", "DELETING"};
constexpr std::array<std::string_view, 2> kOsTypes = {"LINUX", "WINDOWS"};
// Reserved, so that a forgotten value is found where it is missing, and for what the language may learn.
constexpr std::array<std::string_view, 4> kKeywords = {"AND", "OR", "NOT", "IN"};

std::optional<unsigned> hex_digit(char c) {
  if (c >= '0' && c <= '9')
    return unsigned(c - '0');
  if (c >= 'a' && c <= 'f')
    return unsigned(c - 'a' + 10);
  if (c >= 'A' && c <= 'F')
    return unsigned(c - 'A' + 10);
  return std::nullopt;
}

std::optional<unsigned> hex_number(std::string_view text, size_t digits) {
  if (text.size() < digits)
    return std::nullopt;
  unsigned number = 0;
  for (const char c : text.substr(0, digits)) {
    const auto digit = hex_digit(c);
    if (!digit)
      return std::nullopt;
    number = number * 16 + *digit;
  }
  return number;
}

bool is_surrogate(unsigned code_point) {
  return code_point >= 0xd800 && code_point < 0xe000;
}

// Of at most four hexadecimal digits.
void append_utf8(std::string& text, unsigned code_point) {
  if (code_point < 0x80) {
    text += char(code_point);
  } else if (code_point < 0x800) {
    text += char(0xc0 | code_point >> 6);
    text += char(0x80 | (code_point & 0x3f));
  } else {
    text += char(0xe0 | code_point >> 12);
    text += char(0x80 | (code_point >> 6 & 0x3f));
    text += char(0x80 | (code_point & 0x3f));
  }
}

template <typename T>
void sort_once(std::vector<T>& values) {
  std::ranges::sort(values);
  const auto again = std::ranges::unique(values);
  values.erase(again.begin(), again.end());
}

}  // namespace

// Reads one condition after the other; what a step answers ends in the condition it was given.
class Filter::Parser {
 public:
  explicit Parser(Scanner& scanner) : scanner_(scanner) {}

  Answer<std::vector<Condition>> read_all();

 private:
  Answer<void> read_field(Condition& condition);
  Answer<void> read_label_key(std::string& key);
  Answer<void> read_operator(Condition& condition);
  Answer<void> read_list(Condition& condition);
  Answer<void> read_value(Condition& condition);
  Answer<std::string> read_word();
  Answer<std::string> read_quoted();
  Answer<void> read_escape(std::string& text);
  Answer<void> add(Condition& condition, size_t place, std::string value) const;
  template <size_t N>
  Answer<void> check_known(size_t place, std::string_view field, std::string_view value,
                           const std::array<std::string_view, N>& known) const;

  Scanner& scanner_;
  size_t values_ = 0;
  bool lists_ = false;  // the operator that was read takes values in parentheses
};

Answer<std::vector<Filter::Condition>> Filter::Parser::read_all() {
  std::vector<Condition> conditions;
  scanner_.skip_spaces();
  while (!scanner_.at_end()) {
    if (!conditions.empty()) {
      if (!scanner_.take_keyword("AND"))
        return scanner_.expected("AND or the end");
      scanner_.skip_spaces();
    }
    if (conditions.size() == limits::kMaxFilterConditions)
      return scanner_.refuse_at(
          scanner_.place(), fmt::format("at most {} conditions are allowed", limits::kMaxFilterConditions));
    Condition& condition = conditions.emplace_back();
    for (const auto step : {&Parser::read_field, &Parser::read_operator, &Parser::read_list}) {
      if (const Answer<void> done = (this->*step)(condition); !done)
        return std::unexpected(done.error());
      scanner_.skip_spaces();
    }
    sort_once(condition.words);
    sort_once(condition.instants);
  }
  return conditions;
}

Answer<void> Filter::Parser::read_field(Condition& condition) {
  constexpr std::array<std::pair<std::string_view, Field>, 6> kNamed = {{{"id", Field::id},
                                                                         {"name", Field::name},
                                                                         {"family", Field::family},
                                                                         {"status", Field::status},
                                                                         {"os.type", Field::os_type},
                                                                         {"created_at", Field::created_at}}};
  const size_t place = scanner_.place();
  const std::string found = scanner_.found();
  const std::string_view word = scanner_.take_word();
  if (word.empty())
    return scanner_.expected("a field");
  if (word.starts_with(kLabelPrefix)) {
    condition.field = Field::label;
    condition.key = word.substr(kLabelPrefix.size());
    return read_label_key(condition.key);
  }
  const auto named = std::ranges::find(kNamed, word, [](const auto& pair) { return pair.first; });
  if (named == kNamed.end())
    return scanner_.refuse_at(place, fmt::format("there is no field {}; the fields are {}", found, kFields));
  condition.field = named->second;
  return {};
}

// What follows the dot; `key` has what was part of the word.
Answer<void> Filter::Parser::read_label_key(std::string& key) {
  const size_t place = scanner_.place();
  if (key.empty() && (scanner_.rest().starts_with('"') || scanner_.rest().starts_with('\''))) {
    Answer<std::string> quoted = read_quoted();
    if (!quoted)
      return std::unexpected(quoted.error());
    if (quoted->empty())
      return scanner_.refuse_at(place, "the key of a label is never empty");
    key = std::move(*quoted);
    return {};
  }
  if (scanner_.at_stranger())
    return scanner_.refuse_at(place, fmt::format("a key with {} needs quotes", scanner_.found()));
  if (key.empty())
    return scanner_.expected("the key of a label");
  return {};
}

Answer<void> Filter::Parser::read_operator(Condition& condition) {
  constexpr std::array<std::pair<std::string_view, Operator>, 6> kSymbols = {{{"=", Operator::among},
                                                                              {"!=", Operator::not_among},
                                                                              {"<=", Operator::until},
                                                                              {">=", Operator::since},
                                                                              {"<", Operator::before},
                                                                              {">", Operator::after}}};
  const bool ordered = condition.field == Field::created_at;
  lists_ = false;
  for (const auto& [symbol, op] : kSymbols) {
    const bool fits = ordered || op == Operator::among || op == Operator::not_among;
    if (fits && scanner_.take(symbol)) {
      condition.op = op;
      return {};
    }
  }
  lists_ = true;
  if (scanner_.take_keyword("IN"))
    return {};
  if (!scanner_.take_keyword("NOT"))
    return scanner_.expected(ordered ? "=, !=, <, <=, >, >=, IN or NOT IN" : "=, !=, IN or NOT IN");
  condition.op = Operator::not_among;
  scanner_.skip_spaces();
  if (!scanner_.take_keyword("IN"))
    return scanner_.expected("IN after NOT");
  return {};
}

// One value, or several in parentheses.
Answer<void> Filter::Parser::read_list(Condition& condition) {
  if (!lists_)
    return read_value(condition);
  if (!scanner_.take("("))
    return scanner_.expected("\"(\" after IN");
  do {
    scanner_.skip_spaces();
    if (const Answer<void> value = read_value(condition); !value)
      return value;
    scanner_.skip_spaces();
  } while (scanner_.take(","));
  if (!scanner_.take(")"))
    return scanner_.expected("\",\" or \")\"");
  return {};
}

Answer<void> Filter::Parser::read_value(Condition& condition) {
  const size_t place = scanner_.place();
  const bool quoted = scanner_.rest().starts_with('"') || scanner_.rest().starts_with('\'');
  Answer<std::string> value = quoted ? read_quoted() : read_word();
  if (!value)
    return std::unexpected(value.error());
  if (++values_ > limits::kMaxFilterValues)
    return scanner_.refuse_at(place, fmt::format("at most {} values are allowed", limits::kMaxFilterValues));
  return add(condition, place, std::move(*value));
}

Answer<std::string> Filter::Parser::read_word() {
  const size_t place = scanner_.place();
  const std::string found = scanner_.found();
  const std::string_view word = scanner_.take_word();
  if (scanner_.at_stranger())
    return scanner_.refuse_at(scanner_.place(),
                              fmt::format("a value with {} needs quotes", scanner_.found()));
  if (word.empty())
    return scanner_.expected("a value");
  if (std::ranges::any_of(kKeywords, [&](std::string_view k) { return equals_ignoring_case(k, word); }))
    return scanner_.refuse_at(place,
                              fmt::format("expected a value, found {}; as a value it needs quotes", found));
  return std::string(word);
}

Answer<std::string> Filter::Parser::read_quoted() {
  const size_t place = scanner_.place();
  const std::string_view quote = scanner_.rest().substr(0, 1);
  scanner_.advance(1);
  std::string text;
  while (!scanner_.take(quote)) {
    if (scanner_.at_end())
      return scanner_.refuse_at(place, "the text that begins here lacks its closing quote");
    if (scanner_.rest().starts_with('\\')) {
      if (const Answer<void> escape = read_escape(text); !escape)
        return std::unexpected(escape.error());
      continue;
    }
    text += scanner_.rest().front();
    scanner_.advance(1);
  }
  if (!is_valid_utf8(text))
    return scanner_.refuse_at(place, "the \\x in this text do not make UTF-8");
  return text;
}

Answer<void> Filter::Parser::read_escape(std::string& text) {
  const size_t place = scanner_.place();
  const std::string_view escape = scanner_.rest();
  scanner_.advance(1);
  const char kind = scanner_.at_end() ? '\0' : escape[1];
  switch (kind) {
    case '\\':
    case '"':
    case '\'':
      text += kind;
      break;
    case 'n':
      text += '\n';
      break;
    case 't':
      text += '\t';
      break;
    case 'x': {
      const auto byte = hex_number(escape.substr(2), 2);
      if (!byte)
        return scanner_.refuse_at(place, "\\x takes two hexadecimal digits");
      text += char(*byte);
      scanner_.advance(2);
      break;
    }
    case 'u': {
      const auto code_point = hex_number(escape.substr(2), 4);
      if (!code_point)
        return scanner_.refuse_at(place, "\\u takes four hexadecimal digits");
      if (is_surrogate(*code_point))
        return scanner_.refuse_at(
            place,
            fmt::format("\\u{} is half of a character; write the character itself", escape.substr(2, 4)));
      append_utf8(text, *code_point);
      scanner_.advance(4);
      break;
    }
    default:
      return scanner_.refuse_at(place, R"(after \ comes \, ", ', n, t, xHH or uHHHH; \ itself is \\)");
  }
  scanner_.advance(1);
  return {};
}

Answer<void> Filter::Parser::add(Condition& condition, size_t place, std::string value) const {
  switch (condition.field) {
    case Field::status:
      if (const auto known = check_known(place, "status", value, kStatuses); !known)
        return known;
      break;
    case Field::os_type:
      if (const auto known = check_known(place, "os.type", value, kOsTypes); !known)
        return known;
      break;
    case Field::created_at: {
      const std::optional<Instant> instant = Instant::parse(value);
      if (!instant)
        return scanner_.refuse_at(
            place, fmt::format("\"{}\" is not a time like 2024-05-31T12:00:00Z (RFC 3339) or a "
                               "date like 2024-05-31",
                               shown(value)));
      condition.instants.push_back(*instant);
      return {};
    }
    case Field::id:
    case Field::name:
    case Field::family:
    case Field::label:
      break;  // what no resource can have matches none
  }
  condition.words.push_back(std::move(value));
  return {};
}

template <size_t N>
Answer<void> Filter::Parser::check_known(size_t place, std::string_view field, std::string_view value,
                                         const std::array<std::string_view, N>& known) const {
  if (std::ranges::find(known, value) != known.end())
    return {};
  std::string list;
  for (const std::string_view word : known)
    list.append(list.empty() ? "" : word == known.back() ? " or " : ", ").append(word);
  return scanner_.refuse_at(place, fmt::format("{} is never \"{}\", but {}", field, shown(value), list));
}

Answer<Filter> Filter::parse(std::string_view text) {
  Scanner scanner(text, "filter");
  if (const auto legal = scanner.check(limits::kMaxFilterLength); !legal)
    return std::unexpected(legal.error());
  Answer<std::vector<Condition>> conditions = Parser(scanner).read_all();
  if (!conditions)
    return std::unexpected(conditions.error());
  Filter filter;
  filter.conditions_ = std::move(*conditions);
  filter.fingerprint_ = crc32c(std::as_bytes(std::span(text)));
  return filter;
}

bool Filter::holds(const Condition& condition, const Facts& facts) {
  const auto among = [&](std::string_view value) {
    return std::ranges::binary_search(condition.words, value) == (condition.op == Operator::among);
  };
  switch (condition.field) {
    case Field::id:
      return among(facts.id);
    case Field::name:
      return among(facts.name);
    case Field::family:
      return among(facts.family);
    case Field::status:
      return among(facts.status);
    case Field::os_type:
      return among(facts.os_type);
    case Field::label: {
      const std::string* value = facts.labels ? facts.labels->find(condition.key) : nullptr;
      return value ? among(*value) : condition.op == Operator::not_among;  // what is missing equals nothing
    }
    case Field::created_at:
      break;
  }
  const Instant created_at = Instant::of(facts.created_at);
  switch (condition.op) {
    case Operator::among:
      return std::ranges::binary_search(condition.instants, created_at);
    case Operator::not_among:
      return !std::ranges::binary_search(condition.instants, created_at);
    case Operator::before:
      return created_at < condition.instants.front();
    case Operator::until:
      return created_at <= condition.instants.front();
    case Operator::after:
      return created_at > condition.instants.front();
    case Operator::since:
      return created_at >= condition.instants.front();
  }
  OBRAZ_CHECK(!"an operator");
}

bool Filter::matches(const Facts& facts) const {
  return std::ranges::all_of(conditions_, [&](const Condition& c) { return holds(c, facts); });
}

std::optional<std::string> Filter::exact_name() const {
  if (conditions_.size() != 1)
    return std::nullopt;
  const Condition& only = conditions_.front();
  if (only.field != Field::name || only.op != Operator::among || only.words.size() != 1 ||
      only.words.front().empty())
    return std::nullopt;
  return only.words.front();
}

}  // namespace obraz
