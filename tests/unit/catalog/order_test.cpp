#include "catalog/order.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <set>

#include "base/limits.h"
#include "catalog/kind.h"

namespace obraz {
namespace {

constexpr int64_t kMin = std::numeric_limits<int64_t>::min(), kMax = std::numeric_limits<int64_t>::max();

Order order_of(std::string_view text) {
  const auto order = Order::parse(text);
  EXPECT_TRUE(order) << text << ": " << (order ? "" : order.error().message);
  return order ? *order : Order();
}
Filter filter_of(std::string_view text) {
  return Filter::parse(text).value();
}

TEST(Order, IsByNameUnlessItIsSaid) {
  for (const std::string text : {"", "  ", "name", " name ", "name asc", "name ASC", "name, id",
                                 "name,id asc", "name , id , created_at desc"}) {
    EXPECT_EQ(order_of(text).text(), "name asc, id asc") << text;
    EXPECT_TRUE(order_of(text).is_default()) << text;
  }
  EXPECT_EQ(Order().text(), "name asc, id asc");
}

TEST(Order, FieldsComeOneAfterTheOther) {
  const std::vector<std::pair<std::string, std::string>> table = {
      {"created_at", "created_at asc, id asc"},
      {"created_at desc", "created_at desc, id asc"},
      {"id", "id asc"},
      {"id desc", "id desc"},
      {"id,name", "id asc"},
      {"name DESC,created_at Desc", "name desc, created_at desc, id asc"},
      {"\tcreated_at\n,\nname desc,id desc", "created_at asc, name desc, id desc"},
  };
  for (const auto& [text, expected] : table) {
    EXPECT_EQ(order_of(text).text(), expected) << text;
    EXPECT_FALSE(order_of(text).is_default()) << text;
    EXPECT_EQ(order_of(expected).text(), expected);
  }
}

TEST(Order, ABadOneIsRefusedWithThePlace) {
  const std::string no_field = "; the fields are name, created_at, id";
  const std::vector<std::pair<std::string, std::string>> table = {
      {"size", ": at 1: there is no order by \"size\"" + no_field},
      {"name, Id", ": at 7: there is no order by \"Id\"" + no_field},
      {"desc", ": at 1: there is no order by \"desc\"" + no_field},
      {"name,", ": at 6: expected a field, found the end"},
      {",name", ": at 1: expected a field, found \",\""},
      {"name,,id", ": at 6: expected a field, found \",\""},
      {"'name'", ": at 1: expected a field, found 'name'"},
      {"-name", ": at 1: there is no order by \"-name\"" + no_field},
      {"name id", ": at 6: expected asc, desc, \",\" or the end, found \"id\""},
      {"name descending", ": at 6: expected asc, desc, \",\" or the end, found \"descending\""},
      {"name desc asc", ": at 11: expected \",\" or the end, found \"asc\""},
      {"name;", ": at 5: expected asc, desc, \",\" or the end, found \";\""},
      {"name, name desc", ": at 7: \"name\" is there twice"},
      {"nämé", ": at 1: there is no order by \"n\"" + no_field},
      {"ä", ": at 1: expected a field, found \"ä\""},
      {"name \xff", ": at 6: this is not UTF-8"},
      {"name" + std::string(97, ' '), " has 101 characters; at most 100 are allowed"},
  };
  for (const auto& [text, sentence] : table) {
    const auto refused = Order::parse(text);
    ASSERT_FALSE(refused) << text;
    EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument);
    EXPECT_EQ(refused.error().field, "order_by");
    EXPECT_EQ(refused.error().message, "order_by" + sentence) << text;
  }
  EXPECT_TRUE(Order::parse("name" + std::string(96, ' ')));
}

TEST(Order, ComparesByItsFieldsAndThenById) {
  const Facts a{.id = "1a", .name = "a", .created_at = 2}, b{.id = "1b", .name = "b", .created_at = 1},
      c{.id = "1c", .name = "a", .created_at = 2};
  EXPECT_TRUE(Order().before(a, b));
  EXPECT_TRUE(Order().before(a, c));
  EXPECT_TRUE(order_of("name desc").before(b, a));
  EXPECT_TRUE(order_of("name desc").before(a, c));
  EXPECT_TRUE(order_of("name desc, id desc").before(c, a));
  EXPECT_TRUE(order_of("created_at").before(b, a));
  EXPECT_TRUE(order_of("created_at desc").before(a, b));
  EXPECT_TRUE(order_of("id desc").before(c, a));
  EXPECT_EQ(Order().compare(a, a), std::strong_ordering::equal);
  EXPECT_TRUE(order_of("created_at").before({.created_at = kMin}, {.created_at = kMax}));
  EXPECT_TRUE(Order().before({.id = "1b", .name = ""}, {.id = "1a", .name = "a"}));
}

// --- page tokens

TEST(PageToken, HoldsThePositionThatItsOrderAsksFor) {
  const std::string id = new_resource_id(Kind::disk), name(limits::kMaxNameLength, 'z');
  const Filter filter = filter_of("labels.env = prod");
  for (const std::string text : {"", "name desc", "created_at", "created_at desc, name", "id", "id desc"}) {
    for (const std::string& shown : {name, std::string(), std::string("a-b_c")}) {
      for (const int64_t time : {kMin, int64_t(-1), int64_t(0), int64_t(1'717'156'800'123'456'789), kMax}) {
        const Order order = order_of(text);
        const std::string token =
            PageToken::encode({.id = id, .name = shown, .created_at = time}, filter, order);
        EXPECT_LE(token.size(), limits::kMaxPageToken);
        EXPECT_TRUE(std::ranges::all_of(token, [](char c) { return c > 0x20 && c < 0x7f; })) << token;
        const auto position = PageToken::decode(token, filter, order);
        ASSERT_TRUE(position) << token;
        EXPECT_EQ(position->id, id);
        EXPECT_EQ(position->name, order.has_name() ? shown : "");
        EXPECT_EQ(position->created_at, order.has_created_at() ? time : 0);
        EXPECT_EQ(order.compare(position->facts(), {.id = id, .name = shown, .created_at = time}),
                  std::strong_ordering::equal);
      }
    }
  }
}

TEST(PageToken, IsTheSameInEveryRun) {
  const Facts facts{.id = "1aaaaaaaaaaaaaaaaaaa", .name = "vm1", .created_at = 1};
  EXPECT_EQ(PageToken::encode(facts, filter_of(""), Order()), "KhQ-D1aaaaaaaaaaaaaaaaaaa.vm1");
  EXPECT_EQ(PageToken::encode(facts, filter_of("status = READY"), order_of("created_at, name")),
            "Jjb1I000000000011aaaaaaaaaaaaaaaaaaa.vm1");
}

TEST(PageToken, OfAnotherFilterOrOrderIsRefused) {
  const Facts facts{.id = "1a", .name = "vm1", .created_at = 1};
  const Filter filter = filter_of("status = READY");
  const Order order = order_of("created_at");
  const std::string token = PageToken::encode(facts, filter, order);
  EXPECT_TRUE(PageToken::decode(token, filter, order));
  EXPECT_TRUE(PageToken::decode(token, filter_of("status = READY"), order_of("created_at asc, id")));
  const auto expect_refused = [&](std::string_view other_filter, std::string_view other_order) {
    const auto refused = PageToken::decode(token, filter_of(other_filter), order_of(other_order));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument);
    EXPECT_EQ(refused.error().field, "page_token");
    EXPECT_EQ(refused.error().message,
              "page_token is of a list with another filter or order_by; repeat those of its first page, or "
              "begin again without a page_token");
  };
  expect_refused("", "created_at");
  expect_refused("status = ERROR", "created_at");
  expect_refused("status = READY", "");
  expect_refused("status = READY", "created_at desc");
  expect_refused("status = READY", "created_at, name");
}

TEST(PageToken, WhatWasNeverATokenIsRefused) {
  const Facts facts{.id = "1aaaaaaaaaaaaaaaaaaa", .name = "vm1", .created_at = 1};
  const auto expect_refused = [](const std::string& token, const Order& order) {
    const auto refused = PageToken::decode(token, Filter(), order);
    ASSERT_FALSE(refused) << token;
    EXPECT_EQ(refused.error().field, "page_token");
    EXPECT_EQ(refused.error().message, "page_token must be one that an earlier page answered") << token;
  };
  const Order by_name, by_time = order_of("created_at"), by_both = order_of("created_at, name");
  const std::string name_tag = PageToken::encode(facts, Filter(), by_name).substr(0, 5);
  const std::string time_tag = PageToken::encode(facts, Filter(), by_time).substr(0, 5);
  const std::string both_tag = PageToken::encode(facts, Filter(), by_both).substr(0, 5);
  for (const std::string& token : {std::string(""), std::string("a"), std::string("vm1/1a"),
                                   std::string("ääääää"), std::string(101, '0'), std::string("0000\0", 5)})
    expect_refused(token, by_name);
  for (const std::string& position :
       {std::string(""), std::string("."), std::string(".vm1"), std::string("1a"), std::string("a.vm1"),
        std::string("1A.vm1"), std::string("1a.VM1"), std::string("1a.vm1.x"), std::string("1a.vm1 "),
        std::string("1a.vm1-"), std::string("1 a.vm1"), std::string("1a.v\0m", 6), std::string("1ä.vm1"),
        "1" + std::string(20, 'a') + ".vm1", "1a." + std::string(64, 'z'), "1a." + std::string(90, 'z')})
    expect_refused(name_tag + position, by_name);
  // 11 digits of 6 bits are more than 64 bits.
  for (const std::string position : {"", "0", "00000000001", "G00000000001a", "----------- 1a",
                                     "00000000001a", "000000000011a.vm1", "0000000000.1a", "0000000000 1a"})
    expect_refused(time_tag + position, by_time);
  expect_refused(both_tag + "000000000011a", by_both);
  EXPECT_TRUE(PageToken::decode(time_tag + "000000000011a", Filter(), by_time));
  EXPECT_TRUE(PageToken::decode(time_tag + "F----------1a", Filter(), by_time));
  EXPECT_TRUE(PageToken::decode(name_tag + "1a.vm1", Filter(), by_name));
}

// Reads a list page by page while others come and go.
TEST(PageToken, PagesShowOnceWhatExistsAllTheTime) {
  struct Resource {
    std::string id, name;
    int64_t created_at = 0;
    bool operator<(const Resource& other) const { return id < other.id; }
    Facts facts() const { return {.id = id, .name = name, .created_at = created_at}; }
  };
  const std::vector<std::string> orders = {"",   "name desc", "created_at",           "created_at desc, name",
                                           "id", "id desc",   "name, created_at desc"};
  for (unsigned seed = 0; seed < 200; ++seed) {
    std::mt19937_64 random(seed);
    const auto below = [&](size_t bound) { return size_t(random() % bound); };
    const auto draw = [&] {
      return Resource{fmt::format("1{:05}", below(100'000)),
                      below(3) == 0 ? "" : std::string(1 + below(2), char('a' + below(3))),
                      int64_t(below(6)) - 3};
    };
    const Order order = order_of(orders[seed % orders.size()]);
    std::set<Resource> lasting, passing;
    while (lasting.size() < 40)
      lasting.insert(draw());
    std::multiset<std::string> seen;
    std::vector<Resource> listed;
    std::string token;
    do {
      for (unsigned i = 0; i < 10; ++i)
        passing.insert(draw());
      std::vector<Resource> all(lasting.begin(), lasting.end());
      std::ranges::copy_if(passing, std::back_inserter(all),
                           [&](const Resource& r) { return !lasting.contains(r); });
      std::ranges::sort(
          all, [&](const Resource& a, const Resource& b) { return order.before(a.facts(), b.facts()); });
      auto from = all.begin();
      if (!token.empty()) {
        const auto position = PageToken::decode(token, Filter(), order);
        ASSERT_TRUE(position) << token;
        from = std::ranges::find_if(
            all, [&](const Resource& r) { return order.before(position->facts(), r.facts()); });
      }
      token.clear();
      const auto until = from + std::min<ptrdiff_t>(all.end() - from, ptrdiff_t(1 + below(5)));
      for (auto at = from; at != until; ++at) {
        seen.insert(at->id);
        listed.push_back(*at);
      }
      if (until != all.end())
        token = PageToken::encode(listed.back().facts(), Filter(), order);
      passing.clear();  // the last of the page among them, at times
    } while (!token.empty());
    for (const Resource& resource : lasting)
      EXPECT_EQ(seen.count(resource.id), 1u) << "seed " << seed << ", " << order.text();
    EXPECT_TRUE(std::ranges::is_sorted(
        listed, [&](const Resource& a, const Resource& b) { return order.before(a.facts(), b.facts()); }));
  }
}

}  // namespace
}  // namespace obraz
