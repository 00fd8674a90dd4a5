#include "image/foreign_text.h"

#include <gtest/gtest.h>

#include <random>

namespace obraz::test {
namespace {

TEST(ForeignText, WhatCanBeShownStays) {
  for (const char* text : {"", "plain", "a b", "Größe", "данные", "日本語", "\U0001f4be", "\u00a0", "~"}) {
    EXPECT_EQ(clean_text(text, 100), text);
    EXPECT_TRUE(is_clean_text(text, 100));
  }
}

TEST(ForeignText, WhatCannotBeShownIsAMark) {
  using namespace std::string_literals;
  const std::string bad[] = {"\0"s,
                             "\n"s,
                             "\x1b"s,
                             "\x7f"s,
                             "\x80"s,
                             "\xc3"s,
                             "\xc0\x80"s,
                             "\xc1\xbf"s,
                             "\xe0\x80\x80"s,
                             "\xed\xa0\x80"s,
                             "\xf4\x90\x80\x80"s,
                             "\xf8\x88"s,
                             "\u0085"s,
                             "\u2028"s,
                             "\u2029"s,
                             "\u202e"s,
                             "\u2066"s,
                             "\u200f"s,
                             "\ufeff"s,
                             "\uffff"s,
                             "\ufdd0"s,
                             "\xe2\x80"s,
                             "\xf0\x9f\x92"s};
  for (const std::string& text : bad) {
    EXPECT_EQ(clean_text("a" + text + "b", 100), "a" + std::string(text.size(), '?') + "b");
    EXPECT_FALSE(is_clean_text("a" + text + "b", 100));
    EXPECT_FALSE(is_clean_text(text, 100));
  }
}

TEST(ForeignText, IsCutOffBetweenCharacters) {
  EXPECT_EQ(clean_text("abcdef", 3), "abc");
  EXPECT_EQ(clean_text("ab\u00e9", 3), "ab");
  EXPECT_EQ(clean_text("ab\u00e9", 4), "ab\u00e9");
  EXPECT_EQ(clean_text("\u65e5\u65e5", 5), "\u65e5");
  EXPECT_FALSE(is_clean_text("abcd", 3));
  EXPECT_EQ(clean_text("  a b   ", 100), "a b");
  EXPECT_EQ(clean_text("    ", 100), "");
}

TEST(ForeignText, WhatIsCleanedIsClean) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 100'000; ++i) {
    std::string text(random() % 20, '\0');
    for (char& c : text)
      c = random() % 2 ? char(random()) : "\xe2\x80\xae\xc3\xa9\xf0\x9f"[random() % 7];
    const size_t limit = random() % 24;
    const std::string clean = clean_text(text, limit);
    EXPECT_TRUE(is_clean_text(clean, limit));
    EXPECT_EQ(clean_text(clean, limit), clean);
    if (is_clean_text(text, limit) && !text.starts_with(' ') && !text.ends_with(' ')) {
      EXPECT_EQ(clean, text);
    }
  }
}

}  // namespace
}  // namespace obraz::test
