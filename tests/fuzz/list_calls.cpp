// Fuzzes what reads the text of list calls: filter, order_by and page_token. The first byte chooses which,
// the rest is the text; of a page token, a line with its order and then the token, before which its tag is
// put unless the choice is to leave it as it is, for nobody guesses tags.
//
// Beyond not crashing: a refusal names its field and a place in the text, in a sentence that can be printed;
// a filter joined with itself is the same filter; an order is total, and so is what its tokens say; a token
// that is read is the one that would be made of the same position. Where the first byte is kExpression, the
// text is when a schedule is due instead: then that is later each time, and at a whole minute.
#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/limits.h"
#include "catalog/cron.h"
#include "catalog/filter.h"
#include "catalog/kind.h"
#include "catalog/order.h"
#include "catalog/rules.h"
#include "proto/text.h"

using namespace obraz;

namespace {

struct Resource {
  std::string id, name, family, status, os_type;
  int64_t created_at = 0;
  std::map<std::string, std::string> labels;
};

// What inputs may be about; ids and names in no order.
const std::array<Resource, 6>& resources() {
  static const std::array<Resource, 6> kResources = {{
      {"1b", "a", "", "READY", "LINUX", 0, {{"k", "v"}}},
      {"1a", "", "abc", "CREATING", "", -1, {{"k", ""}, {"a/b", "x\\y"}}},
      {"1c", "", "", "ERROR", "WINDOWS", INT64_MAX, {}},
      {"1e", "vm1", "abc", "DELETING", "LINUX", INT64_MIN, {{"k", "v"}}},
      {"1d", std::string(63, 'z'), "", "READY", "LINUX", 1'717'156'800'000'000'000, {}},
      {std::string(20, '1'), "b", "", "READY", "LINUX", 1'717'156'800'000'000'000, {{"env", "prod"}}},
  }};
  return kResources;
}

Facts facts_of(const Resource& resource, const Labels* labels = nullptr) {
  return {.id = resource.id,
          .name = resource.name,
          .family = resource.family,
          .status = resource.status,
          .os_type = resource.os_type,
          .created_at = resource.created_at,
          .labels = labels};
}

bool matches(const Filter& filter, const Resource& resource) {
  const LabelsOf labels(resource.labels);
  return filter.matches(facts_of(resource, &labels));
}

size_t characters_of(std::string_view text) {
  return size_t(std::ranges::count_if(text, [](char c) { return (c & 0xc0) != 0x80; }));
}

// Answers whether it passed.
template <typename T>
bool judge(const Answer<T>& answer, std::string_view field, std::string_view text) {
  if (answer)
    return true;
  const std::string& message = answer.error().message;
  OBRAZ_CHECK(answer.error().code == ErrorCode::invalid_argument && answer.error().field == field);
  OBRAZ_CHECK(message.starts_with(field) && message.size() < 400 && is_valid_utf8(message));
  for (const char c : message)
    OBRAZ_CHECK(uint8_t(c) >= 0x20 && c != 0x7f);
  const std::string at = std::string(field) + ": at ";
  if (message.starts_with(at)) {
    size_t place = 0;
    std::from_chars(message.data() + at.size(), message.data() + message.size(), place);
    OBRAZ_CHECK(place >= 1 && place <= characters_of(text) + 1);
  }
  return false;
}

void try_filter(std::string_view text) {
  const auto filter = Filter::parse(text);
  if (!judge(filter, "filter", text))
    return;
  OBRAZ_CHECK(is_valid_utf8(text) && characters_of(text) <= limits::kMaxFilterLength);
  const bool is_blank = text.find_first_not_of(" \t\r\n") == std::string_view::npos;
  OBRAZ_CHECK(filter->matches_all() == is_blank);
  const std::string twice = is_blank ? " " : std::string(text) + " AND " + std::string(text);
  const auto doubled = Filter::parse(twice);
  if (!judge(doubled, "filter", twice))  // for its length alone
    OBRAZ_CHECK(doubled.error().message.find("at most") != std::string::npos);
  for (Resource resource : resources()) {
    const bool is_match = matches(*filter, resource);
    OBRAZ_CHECK(!is_blank || is_match);
    OBRAZ_CHECK(!doubled || matches(*doubled, resource) == is_match);
    if (const auto name = filter->exact_name()) {
      OBRAZ_CHECK(!name->empty() && is_valid_utf8(*name) && is_match == (resource.name == *name));
      resource.name = *name;
      OBRAZ_CHECK(matches(*filter, resource));
    }
  }
}

void try_order(std::string_view text) {
  const auto order = Order::parse(text);
  if (!judge(order, "order_by", text))
    return;
  OBRAZ_CHECK(characters_of(text) <= limits::kMaxOrderLength);
  const auto again = Order::parse(order->text());
  OBRAZ_CHECK(again && again->text() == order->text());
  std::array<Facts, 6> sorted;
  std::ranges::transform(resources(), sorted.begin(), [](const Resource& r) { return facts_of(r); });
  std::ranges::sort(sorted, [&](const Facts& a, const Facts& b) { return order->before(a, b); });
  const Filter filter = Filter::parse("status = READY").value();
  for (size_t i = 0; i < sorted.size(); ++i) {
    const std::string token = PageToken::encode(sorted[i], filter, *order);
    OBRAZ_CHECK(token.size() <= limits::kMaxPageToken &&
                std::ranges::all_of(token, [](char c) { return c > 0x20 && c < 0x7f; }));
    const auto position = PageToken::decode(token, filter, *again);
    OBRAZ_CHECK(position && !PageToken::decode(token, Filter(), *order));
    for (size_t k = 0; k < sorted.size(); ++k) {
      OBRAZ_CHECK(order->compare(sorted[i], sorted[k]) == (i <=> k));
      OBRAZ_CHECK(order->compare(position->facts(), sorted[k]) == (i <=> k));
    }
  }
}

void try_token(std::string_view text, bool with_tag) {
  const std::string_view line = text.substr(0, text.find('\n'));
  text.remove_prefix(std::min(line.size() + 1, text.size()));
  const auto order = Order::parse(line);
  if (!order)
    return;
  constexpr size_t kTag = 5;
  std::string token(text);
  if (with_tag)
    token.insert(0, PageToken::encode(facts_of(resources()[0]), Filter(), *order), 0, kTag);
  const auto position = PageToken::decode(token, Filter(), *order);
  if (!judge(position, "page_token", token))
    return;
  OBRAZ_CHECK(is_id(position->id) && rules::check_name(position->name));
  OBRAZ_CHECK(PageToken::encode(position->facts(), Filter(), *order) == token);
}

constexpr uint8_t kExpression = 0xcf;

void try_expression(std::string_view text) {
  const auto cron = Cron::parse(text, "expression");
  if (!cron) {
    const Refusal& refusal = cron.error();
    OBRAZ_CHECK(refusal.code == ErrorCode::invalid_argument && refusal.field == "expression");
    OBRAZ_CHECK(is_valid_utf8(refusal.message) && refusal.message.size() < 400);
    return;
  }
  for (int64_t now : {int64_t(0), int64_t(1'717'156'799), int64_t(9'214'646'399)})
    for (int step = 0; step < 3; ++step) {
      const auto next = cron->next_after(now);
      if (!next)
        break;
      OBRAZ_CHECK(*next > now && *next % 60 == 0 && cron->next_after(*next - 1) == next);
      now = *next;
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0 || size > 8192)
    return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] == kExpression) {
    try_expression(text);
    return 0;
  }
  switch (data[0] % 4) {
    case 0:
      try_filter(text);
      break;
    case 1:
      try_order(text);
      break;
    default:
      try_token(text, data[0] % 4 == 2);
  }
  return 0;
}
