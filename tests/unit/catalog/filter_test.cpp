#include "catalog/filter.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <random>

#include "base/limits.h"
#include "catalog/time.h"
#include "obraz/v1/common.pb.h"
#include "obraz/v1/disk.pb.h"

namespace obraz {
namespace {

constexpr int64_t kSecond = kNanosecondsPerSecond;

// A resource that owns what its facts refer to.
struct Resource {
  std::string id = "1aaaaaaaaaaaaaaaaaaa", name = "vm1", family = "debian-12", status = "READY",
              os_type = "LINUX";
  int64_t created_at = 1'717'156'800 * kSecond;  // 2024-05-31T12:00:00Z
  std::map<std::string, std::string> labels = {{"env", "prod"}, {"empty", ""}, {"a/b", "x\\y"}};
};

bool matches(const Filter& filter, const Resource& r) {
  const LabelsOf labels(r.labels);
  return filter.matches({.id = r.id,
                         .name = r.name,
                         .family = r.family,
                         .status = r.status,
                         .os_type = r.os_type,
                         .created_at = r.created_at,
                         .labels = &labels});
}

bool matches(std::string_view text, const Resource& resource = {}) {
  const auto filter = Filter::parse(text);
  EXPECT_TRUE(filter) << text << ": " << (filter ? "" : filter.error().message);
  return filter && matches(*filter, resource);
}

// The sentence of the refusal; empty when it was not refused.
std::string refused(std::string_view text) {
  const auto filter = Filter::parse(text);
  if (filter)
    return {};
  EXPECT_EQ(filter.error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(filter.error().field, "filter");
  return filter.error().message;
}

TEST(Filter, EmptyMatchesEverything) {
  for (const std::string text : {"", " ", "\t\r\n "}) {
    EXPECT_TRUE(matches(text, {}));
    EXPECT_TRUE(Filter::parse(text)->matches_all());
  }
  EXPECT_TRUE(Filter().matches({}));
}

TEST(Filter, EveryFieldIsComparedWithItsFact) {
  for (const std::string good : {"name = vm1",
                                 "name=vm1",
                                 "name = 'vm1'",
                                 "name = \"vm1\"",
                                 "name IN (vm1)",
                                 "name in (a, vm1,b)",
                                 "name != vm2",
                                 "name NOT IN (vm2, vm3)",
                                 "name not In(vm2)",
                                 "family = debian-12",
                                 "status = READY",
                                 "status IN (READY, CREATING, ERROR, DELETING)",
                                 "status != DELETING",
                                 "os.type = LINUX",
                                 "os.type != WINDOWS",
                                 "id = 1aaaaaaaaaaaaaaaaaaa",
                                 "id != 1",
                                 "labels.env = prod",
                                 "labels.env IN (dev, prod)",
                                 "labels.env != dev",
                                 "labels.'env' = prod",
                                 "labels.\"a/b\" = 'x\\\\y'",
                                 "labels.a/b != x",
                                 "labels.empty = \"\"",
                                 "labels.empty = ''"})
    EXPECT_TRUE(matches(good)) << good;
  for (const std::string bad :
       {"name = vm", "name = vm11", "name = \"\"", "name IN (a, b)", "name NOT IN (a, vm1)", "name != vm1",
        "family = debian-1", "status = CREATING", "status NOT IN (READY)", "os.type = WINDOWS",
        "os.type != LINUX", "id = 2aaaaaaaaaaaaaaaaaaa", "labels.env = dev", "labels.env != prod",
        "labels.Env = prod", "labels.\"env \" = prod"})
    EXPECT_FALSE(matches(bad)) << bad;
}

TEST(Filter, ConditionsMustAllHold) {
  EXPECT_TRUE(matches("name = vm1 AND status = READY and labels.env = prod"));
  EXPECT_TRUE(matches("name='vm1'AND status=READY"));
  EXPECT_TRUE(matches("\n name = vm1\n  And\tstatus = READY\r\n"));
  EXPECT_FALSE(matches("name = vm1 AND status = READY AND labels.env = dev"));
  EXPECT_FALSE(matches("name = vm1 AND name = vm2"));
  EXPECT_FALSE(matches("name != vm1 AND name != vm2"));
}

TEST(Filter, AMissingLabelEqualsNothing) {
  EXPECT_TRUE(matches("labels.k != x"));
  EXPECT_TRUE(matches("labels.k != ''"));
  EXPECT_TRUE(matches("labels.k NOT IN (x, '')"));
  EXPECT_FALSE(matches("labels.k = x"));
  EXPECT_FALSE(matches("labels.k = ''"));
  EXPECT_FALSE(matches("labels.k IN (x, '')"));
  EXPECT_TRUE(Filter::parse("labels.k != x")->matches({}));
  EXPECT_FALSE(Filter::parse("labels.k = ''")->matches({}));
}

TEST(Filter, WhatIsNotThereIsEmpty) {
  const Resource bare{.name = "", .family = "", .os_type = "", .labels = {}};
  EXPECT_TRUE(matches("name = ''", bare));
  EXPECT_TRUE(matches("family = ''", bare));
  EXPECT_TRUE(matches("family != debian-12", bare));
  EXPECT_TRUE(matches("os.type NOT IN (LINUX, WINDOWS)", bare));
  EXPECT_FALSE(matches("name = vm1", bare));
}

TEST(Filter, TimesAreCompared) {
  for (const std::string good :
       {"created_at = 2024-05-31T12:00:00Z", "created_at = 2024-05-31T14:00:00+02:00",
        "created_at = '2024-05-31t12:00:00.000000000z'", "created_at = 2024-05-31T11:30:00-00:30",
        "created_at > 2024-05-31", "created_at >= 2024-05-31", "created_at != 2024-05-31",
        "created_at<2024-06-01", "created_at <= 2024-05-31T12:00:00Z", "created_at >= 2024-05-31T12:00:00Z",
        "created_at > 2024-05-31T11:59:59.999999999Z", "created_at < 2024-05-31T12:00:00.000000001Z",
        "created_at >= 2024-05-01 AND created_at < 2024-06-01", "created_at < 9999-12-31T23:59:59Z",
        "created_at > 0000-01-01", "created_at IN (2024-05-31T12:00:00Z, 2024-05-31)",
        "created_at NOT IN (2024-05-31, 2024-06-01)", "created_at > 1970-01-01T00:00:00Z"})
    EXPECT_TRUE(matches(good)) << good;
  for (const std::string bad :
       {"created_at = 2024-05-31", "created_at < 2024-05-31", "created_at > 2024-05-31T12:00:00Z",
        "created_at < 2024-05-31T12:00:00Z", "created_at != 2024-05-31T12:00:00Z",
        "created_at > 2024-05-31T12:00:00.000000001Z", "created_at > 9999-12-31",
        "created_at IN (2024-05-31, 2024-06-01)", "created_at NOT IN (2024-05-31T12:00:00Z)"})
    EXPECT_FALSE(matches(bad)) << bad;
}

TEST(Filter, ABadFilterIsRefusedWithThePlace) {
  const std::string no_field = "the fields are name, family, status, os.type, labels.KEY, created_at, id";
  const std::string no_time = "is not a time like 2024-05-31T12:00:00Z (RFC 3339) or a date like 2024-05-31";
  const std::vector<std::pair<std::string, std::string>> table = {
      // fields
      {"=", "at 1: expected a field, found \"=\""},
      {"'name' = x", "at 1: expected a field, found 'name'"},
      {"size = 4", "at 1: there is no field \"size\"; " + no_field},
      {"  description = x", "at 3: there is no field \"description\"; " + no_field},
      {"Name = x", "at 1: there is no field \"Name\"; " + no_field},
      {"labels = x", "at 1: there is no field \"labels\"; " + no_field},
      {"NOT name = x", "at 1: there is no field \"NOT\"; " + no_field},
      {"(name = x)", "at 1: expected a field, found \"(\""},
      {"labels. = x", "at 8: expected the key of a label, found \" \""},
      {"labels.", "at 8: expected the key of a label, found the end"},
      {"labels.\"\" = x", "at 8: the key of a label is never empty"},
      {"labels.a\\b = x", "at 9: a key with \"\\\" needs quotes"},
      {"labels.ä = x", "at 8: a key with \"ä\" needs quotes"},
      {"labels.'a = x", "at 8: the text that begins here lacks its closing quote"},
      // operators
      {"name", "at 5: expected =, !=, IN or NOT IN, found the end"},
      {"name vm1", "at 6: expected =, !=, IN or NOT IN, found \"vm1\""},
      {"name < vm1", "at 6: expected =, !=, IN or NOT IN, found \"<\""},
      {"name >= vm1", "at 6: expected =, !=, IN or NOT IN, found \">=\""},
      {"name ! vm1", "at 6: expected =, !=, IN or NOT IN, found \"!\""},
      {"name ~ vm1", "at 6: expected =, !=, IN or NOT IN, found \"~\""},
      {"name:vm1", "at 1: there is no field \"name:vm1\"; " + no_field},
      {"labels.k\"x\"", "at 9: expected =, !=, IN or NOT IN, found \"x\""},
      {"created_at 1", "at 12: expected =, !=, <, <=, >, >=, IN or NOT IN, found \"1\""},
      {"name NOT = x", "at 10: expected IN after NOT, found \"=\""},
      {"name NOT", "at 9: expected IN after NOT, found the end"},
      {"name IN x", "at 9: expected \"(\" after IN, found \"x\""},
      // values
      {"name =", "at 7: expected a value, found the end"},
      {"labels.env = ", "at 14: expected a value, found the end"},
      {"name == x", "at 7: expected a value, found \"=\""},
      {"name = (x)", "at 8: expected a value, found \"(\""},
      {"name = AND status = READY", "at 8: expected a value, found \"AND\"; as a value it needs quotes"},
      {"name = not", "at 8: expected a value, found \"not\"; as a value it needs quotes"},
      {"name = vm*", "at 10: a value with \"*\" needs quotes"},
      {"name = *", "at 8: a value with \"*\" needs quotes"},
      {"name = \\", "at 8: a value with \"\\\" needs quotes"},
      {"name = Кот", "at 8: a value with \"К\" needs quotes"},
      {std::string("name = a\0b", 10), "at 9: a value with \"?\" needs quotes"},
      {"name IN ()", "at 10: expected a value, found \")\""},
      {"name IN (a,)", "at 12: expected a value, found \")\""},
      {"name IN (a b)", "at 12: expected \",\" or \")\", found \"b\""},
      {"name IN (a, b", "at 14: expected \",\" or \")\", found the end"},
      {"status = ready", "at 10: status is never \"ready\", but CREATING, READY, ERROR or DELETING"},
      {"status IN (READY, '')", "at 19: status is never \"\", but CREATING, READY, ERROR or DELETING"},
      {"os.type != BSD", "at 12: os.type is never \"BSD\", but LINUX or WINDOWS"},
      {"created_at > yesterday", "at 14: \"yesterday\" " + no_time},
      {"created_at > 2024-02-30", "at 14: \"2024-02-30\" " + no_time},
      {"created_at > '2024-05-31 12:00:00Z'", "at 14: \"2024-05-31 12:00:00Z\" " + no_time},
      {"created_at > 2024-05-31T12:00:00", "at 14: \"2024-05-31T12:00:00\" " + no_time},
      {"created_at > ''", "at 14: \"\" " + no_time},
      // between conditions
      {"name = x OR name = y", "at 10: expected AND or the end, found \"OR\""},
      {"name = x, name = y", "at 9: expected AND or the end, found \",\""},
      {"name = 'x''y'", "at 11: expected AND or the end, found 'y'"},
      {"name = x AND", "at 13: expected a field, found the end"},
      {"name = x AND AND", "at 14: there is no field \"AND\"; " + no_field},
      {"name = x ANDname = y", "at 10: expected AND or the end, found \"ANDname\""},
      // quotes, and characters that are more than one byte
      {"name = 'x", "at 8: the text that begins here lacks its closing quote"},
      {"name = \"x'", "at 8: the text that begins here lacks its closing quote"},
      {"name = 'x\\'", "at 8: the text that begins here lacks its closing quote"},
      {"name = 'ääää' x", "at 15: expected AND or the end, found \"x\""},
      {"name = x '" + std::string(60, 'y') + "'",
       "at 10: expected AND or the end, found '" + std::string(39, 'y') + "…"},
      {"name = x 'a\nb'", "at 10: expected AND or the end, found 'a?b'"},
      {"name = x \xc3", "at 10: this is not UTF-8"},
      {"name = 'ä\xff'", "at 10: this is not UTF-8"},
  };
  for (const auto& [text, sentence] : table)
    EXPECT_EQ(refused(text), "filter: " + sentence) << text;
}

TEST(Filter, EscapesStandForCharacters) {
  const std::vector<std::pair<std::string, std::string>> good = {
      {R"('a"b')", "a\"b"},
      {R"("a'b")", "a'b"},
      {R"('\'\"\\')", "'\"\\"},
      {R"("\n\t")", "\n\t"},
      {R"("\x41\x7a")", "Az"},
      {R"("\xc3\xa4")", "ä"},
      {R"("\xD0\xb9")", "й"},
      {R"("\u0041\u00e4\u20AC")", "Aä€"},
      {R"("\u07ff\u0800\uffff\ud7ff\ue000")", "\u07ff\u0800\uffff\ud7ff\ue000"},
      {R"("\xf0\x9f\x90\xb1🐱")", "🐱🐱"},
      {"\"\\\\x41\"", "\\x41"},
      {"'a\nb'", "a\nb"},
      {R"("a\x00b\u0000")", std::string("a\0b\0", 4)},
  };
  for (const auto& [text, value] : good) {
    Resource resource;
    resource.name = value;
    EXPECT_TRUE(matches("name = " + text, resource)) << text;
    resource.name += "x";
    EXPECT_FALSE(matches("name = " + text, resource)) << text;
    resource.labels = {{value, "v"}};
    EXPECT_TRUE(matches("labels." + text + " = v", resource)) << text;
  }
  const std::string escapes = R"(after \ comes \, ", ', n, t, xHH or uHHHH; \ itself is \\)";
  const std::vector<std::pair<std::string, std::string>> bad = {
      {R"('a\q')", "at 10: " + escapes},
      {R"('ä\r')", "at 10: " + escapes},
      {R"('\ä')", "at 9: " + escapes},
      {R"('\)", "at 9: " + escapes},
      {R"('\X41')", "at 9: " + escapes},
      {R"('\x4')", R"(at 9: \x takes two hexadecimal digits)"},
      {R"('\x4g')", R"(at 9: \x takes two hexadecimal digits)"},
      {R"('\x)", R"(at 9: \x takes two hexadecimal digits)"},
      {R"('\u004')", R"(at 9: \u takes four hexadecimal digits)"},
      {R"('\u+041')", R"(at 9: \u takes four hexadecimal digits)"},
      {R"('a\ud83d\udc31')", R"(at 10: \ud83d is half of a character; write the character itself)"},
      {R"('a\udfff')", R"(at 10: \udfff is half of a character; write the character itself)"},
      {R"('\xff')", R"(at 8: the \x in this text do not make UTF-8)"},
      {R"('\xc3')", R"(at 8: the \x in this text do not make UTF-8)"},
      {R"('\xed\xa0\x80')", R"(at 8: the \x in this text do not make UTF-8)"},
      {R"('\xc0\x80')", R"(at 8: the \x in this text do not make UTF-8)"},
  };
  for (const auto& [text, sentence] : bad)
    EXPECT_EQ(refused("name = " + text), "filter: " + sentence) << text;
}

TEST(Filter, LengthConditionsAndValuesAreBounded) {
  std::string text = "name != '";
  for (size_t characters = text.size() + 1; characters < limits::kMaxFilterLength; ++characters)
    text += "ä";
  text += "'";
  EXPECT_EQ(refused(text), "");
  EXPECT_EQ(refused(text + " "), "filter has 1001 characters; at most 1000 are allowed");

  std::string conditions = "id=1";
  for (unsigned i = 1; i < limits::kMaxFilterConditions; ++i)
    conditions += " AND id=1";
  EXPECT_EQ(refused(conditions), "");
  EXPECT_EQ(refused(conditions + " AND id=1"), "filter: at 577: at most 64 conditions are allowed");

  std::string values = "id=1 AND id IN(1";
  for (unsigned i = 2; i < limits::kMaxFilterValues; ++i)
    values += ",1";
  EXPECT_EQ(refused(values + ")"), "");
  EXPECT_EQ(refused(values + ",1)"), "filter: at 414: at most 200 values are allowed");
}

TEST(Filter, OneExactNameIsKnown) {
  const auto exact = [](std::string_view text) { return Filter::parse(text)->exact_name(); };
  EXPECT_EQ(exact("name = vm1"), "vm1");
  EXPECT_EQ(exact(" name IN ('vm1', vm1) "), "vm1");
  for (const std::string other : {"", "name != vm1", "name NOT IN (vm1)", "name IN (vm1, vm2)", "name = ''",
                                  "id = 1", "labels.name = vm1", "name = vm1 AND status = READY"})
    EXPECT_EQ(exact(other), std::nullopt) << other;
}

TEST(Filter, StatusesAndSystemsAreThoseOfTheMessages) {
  const auto try_all = [](const google::protobuf::EnumDescriptor& words, std::string_view field) {
    for (int i = 0; i < words.value_count(); ++i) {
      const bool is_known = words.value(i)->number() != 0;
      EXPECT_EQ(refused(fmt::format("{} = {}", field, words.value(i)->name())).empty(), is_known)
          << words.value(i)->name();
    }
  };
  try_all(*v1::ResourceStatus_descriptor(), "status");
  try_all(*v1::Os_Type_descriptor(), "os.type");
}

TEST(Filter, LabelsMayBeThoseOfAMessage) {
  v1::Disk disk;
  (*disk.mutable_labels())["env"] = "prod";
  const LabelsOf labels(disk.labels());
  EXPECT_TRUE(Filter::parse("labels.env = prod AND labels.k != x")->matches({.labels = &labels}));
  EXPECT_FALSE(Filter::parse("labels.env != prod")->matches({.labels = &labels}));
}

TEST(Filter, FingerprintsTellFiltersApart) {
  const auto of = [](std::string_view text) { return Filter::parse(text)->fingerprint(); };
  EXPECT_EQ(of("name = vm1"), of("name = vm1"));
  EXPECT_NE(of("name = vm1"), of("name = vm2"));
  EXPECT_NE(of("name = vm1"), of(""));
}

TEST(Instant, IsReadAsRfc3339HasIt) {
  const auto parse = [](std::string_view text) { return Instant::parse(text); };
  EXPECT_EQ(parse("1970-01-01T00:00:00Z"), Instant(0, 0));
  EXPECT_EQ(parse("1970-01-01"), Instant(0, 0));
  EXPECT_EQ(parse("1970-01-01T00:00:00.5Z"), Instant(0, 500'000'000));
  EXPECT_EQ(parse("1970-01-01T00:00:00.123456789+00:01"), Instant(-60, 123'456'789));
  EXPECT_EQ(parse("1969-12-31T23:59:59.999999999Z"), Instant(-1, 999'999'999));
  EXPECT_EQ(parse("2000-02-29T23:59:59-23:59"), Instant(951'868'799 + 86'340, 0));
  EXPECT_EQ(parse("0000-01-01"), Instant(-62'167'219'200, 0));
  EXPECT_EQ(parse("9999-12-31T23:59:59Z"), Instant(253'402'300'799, 0));
  EXPECT_EQ(parse("2016-12-31T23:59:60Z"), parse("2017-01-01"));
  EXPECT_EQ(parse("2017-01-01T00:59:60.25+01:00"), parse("2017-01-01T00:00:00.25Z"));
  for (const std::string bad : {"",
                                "2024",
                                "2024-05",
                                "2024-5-31",
                                "24-05-31",
                                "2024-00-01",
                                "2024-13-01",
                                "2024-05-00",
                                "2024-05-32",
                                "2023-02-29",
                                "1900-02-29",
                                "2024-05-31T",
                                "2024-05-31Z",
                                "2024-05-31T12Z",
                                "2024-05-31T12:00Z",
                                "2024-05-31T12:00:00",
                                "2024-05-31T24:00:00Z",
                                "2024-05-31T12:60:00Z",
                                "2024-05-31T12:00:61Z",
                                "2024-05-31T12:00:60Z",
                                "2024-05-31T12:00:00.Z",
                                "2024-05-31T12:00:00.1234567890Z",
                                "2024-05-31T12:00:00,5Z",
                                "2024-05-31T12:00:00+2:00",
                                "2024-05-31T12:00:00+24:00",
                                "2024-05-31T12:00:00+02:60",
                                "2024-05-31T12:00:00+0200",
                                "2024-05-31T12:00:00ZZ",
                                "2024-05-31T12:00:00Z ",
                                " 2024-05-31",
                                "+2024-05-31",
                                "2024-05-31T-1:00:00Z",
                                "20240531"})
    EXPECT_EQ(parse(bad), std::nullopt) << bad;
}

TEST(Instant, OfNanosecondsRoundsDown) {
  EXPECT_EQ(Instant::of(0), Instant(0, 0));
  EXPECT_EQ(Instant::of(1), Instant(0, 1));
  EXPECT_EQ(Instant::of(-1), Instant(-1, 999'999'999));
  EXPECT_EQ(Instant::of(-kSecond), Instant(-1, 0));
  EXPECT_EQ(Instant::of(std::numeric_limits<int64_t>::min()), Instant(-9'223'372'037, 145'224'192));
}

// --- a simple reference: conditions as they were drawn, written down in many ways and judged one by one

struct Drawn {
  std::string field, op;  // labels.KEY; = != < <= > >= IN NOT IN
  std::vector<std::string> values;
  std::vector<int64_t> times;  // of created_at, one for each value
};

class Draw {
 public:
  explicit Draw(uint64_t seed) : random_(seed) {}

  size_t below(size_t bound) { return std::uniform_int_distribution<size_t>(0, bound - 1)(random_); }
  template <typename T>
  const T& one_of(const std::vector<T>& choices) {
    return choices[below(choices.size())];
  }

  Resource resource() {
    Resource r{.id = one_of(ids_),
               .name = one_of(words_),
               .family = one_of(words_),
               .status = one_of(statuses_),
               .os_type = below(3) == 0 ? "" : one_of(systems_),
               .created_at = time(),
               .labels = {}};
    for (const std::string& key : keys_) {
      if (below(2) == 0)
        r.labels[key] = one_of(words_);
    }
    return r;
  }

  Drawn condition() {
    static const std::vector<std::string> kFields = {"id",      "name",       "family", "status",
                                                     "os.type", "created_at", "labels."};
    Drawn drawn{.field = one_of(kFields), .op = {}, .values = {}, .times = {}};
    const bool timed = drawn.field == "created_at";
    const std::vector<std::string> operators = {"=", "!=", "IN", "NOT IN", "<", "<=", ">", ">="};
    drawn.op = operators[below(timed ? operators.size() : 4)];
    const size_t count = drawn.op.ends_with("IN") ? 1 + below(4) : 1;
    for (size_t i = 0; i < count; ++i) {
      if (timed) {
        drawn.times.push_back(time());
        drawn.values.push_back(written(drawn.times.back()));
      } else {
        drawn.values.push_back(one_of(drawn.field == "status"    ? statuses_
                                      : drawn.field == "os.type" ? systems_
                                      : drawn.field == "id"      ? ids_
                                                                 : words_));
      }
    }
    if (drawn.field == "labels.")
      drawn.field += one_of(keys_);
    return drawn;
  }

  std::string written(const Drawn& drawn) {
    std::string text = drawn.field;
    if (text.starts_with("labels."))
      text = "labels." + value(text.substr(7));
    text += drawn.op.front() >= 'A' ? " " + any_case(drawn.op) + space() + "(" : space() + drawn.op;
    for (size_t i = 0; i < drawn.values.size(); ++i)
      text += (i == 0 ? "" : space() + ",") + space() + value(drawn.values[i]);
    return drawn.op.ends_with("IN") ? text + space() + ")" : text;
  }
  std::string written(const std::vector<Drawn>& conditions) {
    std::string text = space();
    for (size_t i = 0; i < conditions.size(); ++i)
      text += (i == 0 ? "" : " " + any_case("AND") + " ") + written(conditions[i]) + space();
    return text;
  }

 private:
  int64_t time() { return (int64_t(below(5)) - 1) * 86'400 * kSecond + int64_t(below(3)) - 1; }
  std::string written(int64_t time) {
    // Shifted by whole hours, so that the same instant is written in several ways.
    const int64_t hours = int64_t(below(5)) - 2, shifted = time + hours * 3600 * kSecond;
    int64_t seconds = shifted / kSecond, nanoseconds = shifted % kSecond;
    if (nanoseconds < 0)
      --seconds, nanoseconds += kSecond;
    const time_t whole = seconds;
    tm parts{};
    ::gmtime_r(&whole, &parts);
    if (hours == 0 && nanoseconds == 0 && seconds % 86'400 == 0 && below(2) == 0)
      return fmt::format("{:04}-{:02}-{:02}", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday);
    std::string text =
        fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}", parts.tm_year + 1900, parts.tm_mon + 1,
                    parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
    if (nanoseconds != 0)
      text += fmt::format(".{:09}", nanoseconds);
    return text + (hours == 0 ? "Z" : fmt::format("{}{:02}:00", hours < 0 ? '-' : '+', std::abs(hours)));
  }
  std::string space() { return std::string(below(3), below(4) == 0 ? '\n' : ' '); }
  std::string any_case(std::string word) {
    for (char& c : word)
      c = below(2) == 0 && c != ' ' ? char(c | 0x20) : c;
    return word;
  }
  std::string value(const std::string& text) {
    const auto is_bare = [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
             c == '.' || c == '/' || c == ':' || c == '+';
    };
    if (!text.empty() && text != "and" && std::ranges::all_of(text, is_bare) && below(2) == 0)
      return text;
    const char quote = below(2) == 0 ? '\'' : '"';
    std::string quoted(1, quote);
    bool in_bytes = false;  // a character is either written whole or all of its bytes are escaped
    for (const char c : text) {
      if ((c & 0xc0) != 0x80)
        in_bytes = below(4) == 0;
      if (in_bytes)
        quoted += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
      else if (static_cast<unsigned char>(c) < 0x80 && below(4) == 0)
        quoted += fmt::format("\\u{:04X}", c);
      else if (c == quote || c == '\\')
        quoted += std::string("\\") + c;
      else
        quoted += c;
    }
    return quoted + quote;
  }

  std::mt19937_64 random_;
  const std::vector<std::string> words_ = {"", "a", "b", "and", "a-b", "a\\b", "ä\"'"},
                                 keys_ = {"k", "a/b", "a\\b"}, ids_ = {"1a", "1b", "2a"},
                                 statuses_ = {"CREATING", "READY", "ERROR", "DELETING"},
                                 systems_ = {"LINUX", "WINDOWS"};
};

bool holds(const Drawn& drawn, const Resource& r) {
  if (drawn.field == "created_at") {
    const int64_t first = drawn.times.front();
    if (drawn.op == "<")
      return r.created_at < first;
    if (drawn.op == "<=")
      return r.created_at <= first;
    if (drawn.op == ">")
      return r.created_at > first;
    if (drawn.op == ">=")
      return r.created_at >= first;
    const bool is_in = std::ranges::count(drawn.times, r.created_at) != 0;
    return is_in == (drawn.op == "=" || drawn.op == "IN");
  }
  const bool wanted = drawn.op == "=" || drawn.op == "IN";
  std::string value = drawn.field == "id"        ? r.id
                      : drawn.field == "name"    ? r.name
                      : drawn.field == "family"  ? r.family
                      : drawn.field == "status"  ? r.status
                      : drawn.field == "os.type" ? r.os_type
                                                 : "";
  if (drawn.field.starts_with("labels.")) {
    if (!r.labels.contains(drawn.field.substr(7)))
      return !wanted;
    value = r.labels.at(drawn.field.substr(7));
  }
  return (std::ranges::count(drawn.values, value) != 0) == wanted;
}

TEST(Filter, AgreesWithASimpleReference) {
  constexpr unsigned kFilters = 4000, kResources = 10;
  unsigned matched = 0;
  for (unsigned seed = 0; seed < kFilters; ++seed) {
    Draw draw(seed);
    std::vector<Drawn> conditions;
    for (size_t i = draw.below(4); i > 0; --i)
      conditions.push_back(draw.condition());
    const std::string text = draw.written(conditions);
    const auto filter = Filter::parse(text);
    ASSERT_TRUE(filter) << "seed " << seed << ": " << text << "\n" << filter.error().message;
    for (unsigned i = 0; i < kResources; ++i) {
      const Resource resource = draw.resource();
      const bool expected =
          std::ranges::all_of(conditions, [&](const Drawn& drawn) { return holds(drawn, resource); });
      ASSERT_EQ(matches(*filter, resource), expected) << "seed " << seed << ": " << text;
      matched += expected;
    }
  }
  EXPECT_GT(matched, kFilters * kResources / 5);
  EXPECT_LT(matched, kFilters * kResources * 4 / 5);
}

}  // namespace
}  // namespace obraz
