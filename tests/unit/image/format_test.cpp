#include "image/format.h"

#include "image_support.h"

namespace obraz::test {
namespace {

using namespace std::string_literals;

FileEnds ends_with_head(std::string head) {
  head.resize(512);
  return {head, std::string(512, '\0')};
}

const std::string kQcow2 = "QFI\xfb\0\0\0\3"s, kVmdk = "KDMV"s, kVhdx = "vhdxfile"s;

TEST(Format, NamesAreReadBack) {
  for (const char* name : {"raw", "qcow2", "vmdk", "vpc", "vhdx", "vdi"})
    EXPECT_STREQ(name_of(parse_image_format(name).value()), name);
  EXPECT_EQ(parse_image_format("vhd"), ImageFormat::vpc);
  EXPECT_FALSE(parse_image_format("QCOW2").has_value());
  EXPECT_FALSE(parse_image_format("").has_value());
}

TEST(Format, EachIsRecognisedByItsMagic) {
  EXPECT_EQ(settle_format(ends_with_head(kQcow2), {}, "x"), ImageFormat::qcow2);
  EXPECT_EQ(settle_format(ends_with_head(kVmdk), {}, "x"), ImageFormat::vmdk);
  EXPECT_EQ(settle_format(ends_with_head(kVhdx), {}, "x"), ImageFormat::vhdx);
  EXPECT_EQ(settle_format(ends_with_head("conectix"), {}, "x"), ImageFormat::vpc);
  EXPECT_EQ(settle_format(ends_with_head(std::string(0x40, 'x') + "\x7f\x10\xda\xbe"), {}, "x"),
            ImageFormat::vdi);
  EXPECT_EQ(settle_format({std::string(512, '\0'), "conectix" + std::string(504, '\0')}, {}, "x"),
            ImageFormat::vpc);
  EXPECT_EQ(settle_format(ends_with_head("anything"), {}, "x"), ImageFormat::raw);
}

TEST(Format, ShortAndEmptyFilesAreRaw) {
  EXPECT_EQ(settle_format({"", ""}, {}, "x"), ImageFormat::raw);
  EXPECT_EQ(settle_format({"QFI", "QFI"}, {}, "x"), ImageFormat::raw);
}

TEST(Format, ContradictionIsRefusedWhateverIsGiven) {
  for (const ImageFormat given : {ImageFormat::raw, ImageFormat::vmdk, ImageFormat::vdi}) {
    const auto settled = settle_format(ends_with_head(kQcow2), given, "x");
    ASSERT_FALSE(settled.has_value());
    EXPECT_EQ(settled.error().field, "format");
    EXPECT_TRUE(refused(settled.error(), ErrorCode::invalid_argument, "is a qcow2 image"));
  }
  EXPECT_EQ(settle_format(ends_with_head(kQcow2), ImageFormat::qcow2, "x"), ImageFormat::qcow2);
}

TEST(Format, GivenFormatWithoutItsMagicIsRefused) {
  const auto settled = settle_format(ends_with_head("anything"), ImageFormat::qcow2, "x");
  ASSERT_FALSE(settled.has_value());
  EXPECT_TRUE(refused(settled.error(), ErrorCode::invalid_argument, "no qcow2 image"));
}

TEST(Format, NameOfAForeignFormatWithoutItsMagicIsRefusedUnlessRawIsGiven) {
  for (const char* name : {"a.qcow2", "a.VMDK", "a.vhd", "a.vhdx", "a.vdi"}) {
    EXPECT_FALSE(settle_format(ends_with_head("anything"), {}, name).has_value()) << name;
    EXPECT_EQ(settle_format(ends_with_head("anything"), ImageFormat::raw, name), ImageFormat::raw) << name;
  }
  for (const char* name : {"a.raw", "a.img", "qcow2", "a.qcow2.img", ""})
    EXPECT_EQ(settle_format(ends_with_head("anything"), {}, name), ImageFormat::raw) << name;
}

TEST(Format, KnownButUnsupportedIsRefusedInWords) {
  struct Case {
    std::string head;
    const char* words;
  };
  const Case cases[] = {{"QFI\xfb\0\0\0\1"s, "version 1"},
                        {"# Disk DescriptorFile\nversion=1\n", "names other files"},
                        {"COWD", "COW"},
                        {"LUKS\xba\xbe", "encrypted"},
                        {"\x1f\x8b\x08", "gzip"},
                        {"\xfd"
                         "7zXZ\0"s,
                         "xz"},
                        {"\x28\xb5\x2f\xfd", "zstd"},
                        {std::string(257, 'a') + "ustar", "tar"}};
  for (const Case& c : cases) {
    const auto settled = settle_format(ends_with_head(c.head), {}, "x");
    ASSERT_FALSE(settled.has_value()) << c.words;
    EXPECT_TRUE(refused(settled.error(), ErrorCode::invalid_argument, c.words));
  }
  EXPECT_EQ(settle_format(ends_with_head("\x1f\x8b\x08"), ImageFormat::raw, "x"), ImageFormat::raw);
}

}  // namespace
}  // namespace obraz::test
