#include "base/crc32c.h"

#include <gtest/gtest.h>

#include <array>
#include <random>
#include <string_view>
#include <vector>

namespace obraz {
namespace {

ConstBytes bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

// RFC 3720, appendix B.4.
TEST(Crc32c, VectorsOfRfc3720) {
  std::array<std::byte, 32> bytes;
  bytes.fill(std::byte{0});
  EXPECT_EQ(crc32c(bytes), 0x8a9136aau);
  bytes.fill(std::byte{0xff});
  EXPECT_EQ(crc32c(bytes), 0x62a8ab43u);
  for (unsigned i = 0; i < 32; ++i)
    bytes[i] = std::byte(i);
  EXPECT_EQ(crc32c(bytes), 0x46dd794eu);
  for (unsigned i = 0; i < 32; ++i)
    bytes[i] = std::byte(31 - i);
  EXPECT_EQ(crc32c(bytes), 0x113fdb5cu);
  unsigned char command[48] = {0x01, 0xc0};  // an iSCSI Read (10) command
  command[16] = 0x14;
  command[22] = 0x04;
  command[27] = 0x14;
  command[31] = 0x18;
  command[32] = 0x28;
  command[40] = 0x02;
  EXPECT_EQ(crc32c(std::as_bytes(std::span(command))), 0xd9963a56u);
}

TEST(Crc32c, CheckValueOfTheCatalogue) {
  EXPECT_EQ(crc32c(bytes_of("123456789")), 0xe3069283u);
}

TEST(Crc32c, NothingHasChecksumZero) {
  EXPECT_EQ(crc32c({}), 0u);
}

// The hardware path takes eight bytes at a time: every split and every alignment must come to the same.
TEST(Crc32c, InPartsAsInOne) {
  std::mt19937 random(1);
  std::vector<std::byte> bytes(300);
  for (auto& byte : bytes)
    byte = std::byte(random());
  for (size_t start = 0; start < 16; ++start) {
    const ConstBytes part = ConstBytes(bytes).subspan(start);
    const uint32_t whole = crc32c(part);
    for (size_t cut = 0; cut <= part.size(); ++cut)
      ASSERT_EQ(crc32c(part.subspan(cut), crc32c(part.first(cut))), whole) << start << " " << cut;
  }
}

// Bit by bit from the polynomial, as the definition has it.
TEST(Crc32c, AsTheDefinition) {
  std::mt19937 random(2);
  for (size_t length = 0; length < 200; ++length) {
    std::vector<std::byte> bytes(length);
    uint32_t expected = 0xffffffff;
    for (auto& byte : bytes) {
      byte = std::byte(random());
      expected ^= uint32_t(byte);
      for (int bit = 0; bit < 8; ++bit)
        expected = (expected & 1) ? (expected >> 1) ^ 0x82f63b78u : expected >> 1;
    }
    ASSERT_EQ(crc32c(bytes), ~expected) << length;
  }
}

}  // namespace
}  // namespace obraz
