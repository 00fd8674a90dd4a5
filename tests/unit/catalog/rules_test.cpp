#include "catalog/rules.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/limits.h"
#include "base/size.h"
#include "catalog/kind.h"

namespace obraz {
namespace {

using limits::GiB, limits::MiB, limits::TiB;

TEST(Rules, NamesAreLowerCaseIdentifiers) {
  for (const std::string good : {"", "a", "vm1", "a-b_c", "a0", "z-1"})
    EXPECT_TRUE(rules::check_name(good)) << good;
  EXPECT_TRUE(rules::check_name(std::string(63, 'a')));
  for (const std::string bad : {"A", "1a", "-a", "a-", "a_", "a b", "a/b", "ä", "a.b", "aB", "a\n"})
    EXPECT_FALSE(rules::check_name(bad)) << bad;
  EXPECT_FALSE(rules::check_name(std::string(64, 'a')));
}

TEST(Rules, ARefusalNamesItsField) {
  const auto refused = rules::check_name("Bad", "folder_id");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(refused.error().field, "folder_id");
  EXPECT_NE(refused.error().message.find("\"Bad\""), std::string::npos);
}

TEST(Rules, FamiliesHaveThreeCharactersAndNoUnderscore) {
  for (const std::string good : {"", "abc", "debian-12", "a-1"})
    EXPECT_TRUE(rules::check_family(good)) << good;
  for (const std::string bad : {"a", "ab", "a_b", "Abc", "ab-", "1ab"})
    EXPECT_FALSE(rules::check_family(bad)) << bad;
}

TEST(Rules, DescriptionsAreCountedInCharacters) {
  std::string umlauts;
  for (int i = 0; i < 256; ++i)
    umlauts += "ü";
  EXPECT_TRUE(rules::check_description(umlauts));
  EXPECT_FALSE(rules::check_description(umlauts + "x"));
}

TEST(Rules, LabelsAreBoundedInNumberAndCharacters) {
  EXPECT_TRUE(rules::check_labels({{"a", ""}, {"a-_./\\@0", "0-_./\\@a"}}));
  EXPECT_FALSE(rules::check_labels({{"", "x"}}));
  EXPECT_FALSE(rules::check_labels({{"0a", "x"}}));
  EXPECT_FALSE(rules::check_labels({{"a", "X"}}));
  EXPECT_FALSE(rules::check_labels({{"a", std::string(64, 'x')}}));
  EXPECT_FALSE(rules::check_labels({{std::string(64, 'x'), "a"}}));
  std::map<std::string, std::string> labels;
  for (int i = 0; i < 64; ++i)
    labels["k" + std::to_string(i)] = "v";
  EXPECT_TRUE(rules::check_labels(labels));
  labels["one-more"] = "v";
  EXPECT_FALSE(rules::check_labels(labels));
}

TEST(Rules, DiskSizesAreRoundedUpToFourMebibytes) {
  EXPECT_EQ(rules::disk_size(1).value(), 4 * MiB);
  EXPECT_EQ(rules::disk_size(4 * MiB).value(), 4 * MiB);
  EXPECT_EQ(rules::disk_size(4 * MiB + 1).value(), 8 * MiB);
  EXPECT_EQ(rules::disk_size(4 * TiB).value(), 4 * TiB);
  for (const int64_t bad : {int64_t(0), int64_t(-1), int64_t(4 * TiB) + 1,
                            std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()})
    EXPECT_FALSE(rules::disk_size(bad)) << bad;
}

TEST(Rules, MinDiskSizeIsNotBelowTheSource) {
  EXPECT_EQ(rules::min_disk_size(0, GiB).value(), GiB);
  EXPECT_EQ(rules::min_disk_size(2 * GiB, GiB).value(), 2 * GiB);
  EXPECT_FALSE(rules::min_disk_size(GiB - 1, GiB));
  EXPECT_FALSE(rules::min_disk_size(4 * MiB - 1, 0));
  EXPECT_FALSE(rules::min_disk_size(-1, 0));
  EXPECT_FALSE(rules::min_disk_size(4 * TiB + 1, 0));
}

TEST(Rules, SourcesAreAbsolutePathsOrNbdUris) {
  for (const std::string good : {"/a", "nbd://host/x", "nbd+unix:///x?socket=/s", "nbds://host"})
    EXPECT_TRUE(rules::check_import_source(good)) << good;
  for (const std::string& bad : {std::string(), std::string("a"), std::string("http://x"),
                                 std::string("/a\0b", 4), "/" + std::string(limits::kMaxSourceLength, 'x')})
    EXPECT_FALSE(rules::check_import_source(bad)) << bad.substr(0, 20);
}

TEST(Rules, FormatsAreThoseThatExist) {
  for (const std::string good : {"", "raw", "qcow2", "vmdk", "vpc", "vhdx", "vdi"})
    EXPECT_TRUE(rules::check_import_format(good)) << good;
  EXPECT_FALSE(rules::check_import_format("iso"));
  EXPECT_TRUE(rules::check_export_format("qcow2"));
  EXPECT_FALSE(rules::check_export_format("vmdk"));
}

TEST(Rules, IdempotencyKeysArePrintableAscii) {
  EXPECT_TRUE(rules::check_idempotency_key(""));
  EXPECT_TRUE(rules::check_idempotency_key("6f1c-Key"));
  EXPECT_FALSE(rules::check_idempotency_key("a b"));
  EXPECT_FALSE(rules::check_idempotency_key("a\nb"));
  EXPECT_FALSE(rules::check_idempotency_key(std::string(101, 'x')));
}

TEST(Size, IsReadInPowersOf1024) {
  EXPECT_EQ(parse_size("0"), 0);
  EXPECT_EQ(parse_size("4096"), 4096);
  EXPECT_EQ(parse_size("3K"), 3 * 1024);
  EXPECT_EQ(parse_size("2m"), 2 * 1024 * 1024);
  EXPECT_EQ(parse_size("1G"), 1 << 30);
  EXPECT_EQ(parse_size("4T"), int64_t(4) << 40);
  for (const std::string bad : {"", "K", "-1", "+1", "1.5G", "1 G", "1GB", "0x10", "G1", "1P"})
    EXPECT_EQ(parse_size(bad), std::nullopt) << bad;
}

TEST(Size, BeyondSixtyThreeBitsIsTheLargest) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(parse_size("9223372036854775807"), kMax);
  EXPECT_EQ(parse_size("9223372036854775808"), kMax);
  EXPECT_EQ(parse_size("99999999999999999999999999"), kMax);
  EXPECT_EQ(parse_size("8388608T"), kMax);
}

TEST(Size, IsWrittenForPeopleAndExactly) {
  EXPECT_EQ(format_size(0), "0 B");
  EXPECT_EQ(format_size(1023), "1023 B");
  EXPECT_EQ(format_size(1536), "1.5 KiB");
  EXPECT_EQ(format_size(4 * MiB), "4 MiB");
  EXPECT_EQ(format_size(GiB - 1), "1 GiB");
  EXPECT_EQ(exact_size(4 * MiB), "4M");
  EXPECT_EQ(exact_size(4097), "4097");
  EXPECT_EQ(exact_size(0), "0");
}

TEST(Kind, AnIdIsNeverAName) {
  for (const Kind kind : kVolumeKinds) {
    const std::string id = new_resource_id(kind);
    EXPECT_EQ(id.size(), 20u);
    EXPECT_TRUE(is_id(id));
    EXPECT_FALSE(rules::check_name(id));
    EXPECT_NE(id, new_resource_id(kind));
  }
}

}  // namespace
}  // namespace obraz
