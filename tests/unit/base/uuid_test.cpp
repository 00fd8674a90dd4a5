#include "base/uuid.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace obraz {
namespace {

TEST(Uuid, TextHasFiveGroupsOfLowerCaseDigits) {
  Uuid uuid;
  for (unsigned i = 0; i < 16; ++i)
    uuid.bytes[i] = std::byte(i * 17);
  EXPECT_EQ(uuid.to_string(), "00112233-4455-6677-8899-aabbccddeeff");
}

TEST(Uuid, RandomOnesAreVersionFourAndDiffer) {
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) {
    const std::string text = Uuid::random().to_string();
    ASSERT_EQ(text.size(), 36u);
    EXPECT_EQ(text[14], '4') << text;
    EXPECT_NE(std::string("89ab").find(text[19]), std::string::npos) << text;
    EXPECT_TRUE(seen.insert(text).second) << text;
  }
}

TEST(Uuid, EqualWhenAllBytesAre) {
  Uuid a, b;
  EXPECT_EQ(a, b);
  b.bytes[15] = std::byte{1};
  EXPECT_FALSE(a == b);
}

}  // namespace
}  // namespace obraz
