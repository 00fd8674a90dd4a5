#include "base/bytes.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

namespace obraz {
namespace {

TEST(Bytes, LittleEndianPutsTheLowByteFirst) {
  std::array<std::byte, 9> at{};
  store_le<uint32_t>(at.data() + 1, 0x01020304);  // not aligned
  EXPECT_EQ(at[1], std::byte{4});
  EXPECT_EQ(at[4], std::byte{1});
  EXPECT_EQ(load_le<uint32_t>(at.data() + 1), 0x01020304u);
}

TEST(Bytes, BigEndianPutsTheHighByteFirst) {
  std::array<std::byte, 9> at{};
  store_be<uint64_t>(at.data() + 1, 0x0102030405060708);
  EXPECT_EQ(at[1], std::byte{1});
  EXPECT_EQ(at[8], std::byte{8});
  EXPECT_EQ(load_be<uint64_t>(at.data() + 1), 0x0102030405060708u);
  EXPECT_EQ(load_le<uint64_t>(at.data() + 1), 0x0807060504030201u);
}

TEST(Bytes, SwapOfEachWidth) {
  EXPECT_EQ(swap_bytes<uint8_t>(0x12), 0x12);
  EXPECT_EQ(swap_bytes<uint16_t>(0x1234), 0x3412);
  EXPECT_EQ(swap_bytes<uint32_t>(0x12345678), 0x78563412u);
  EXPECT_EQ(swap_bytes<uint64_t>(0x0123456789abcdef), 0xefcdab8967452301u);
}

// One byte set at every place of every length: none may be overlooked.
TEST(Bytes, OneByteAnywhereIsNotZero) {
  std::vector<std::byte> bytes(4096);
  for (size_t length : {0, 1, 2, 15, 16, 17, 31, 32, 33, 100, 4096}) {
    const Bytes part = Bytes(bytes).first(length);
    EXPECT_TRUE(is_zero(part)) << length;
    for (size_t i = 0; i < length; ++i) {
      part[i] = std::byte{1};
      ASSERT_FALSE(is_zero(part)) << i << " of " << length;
      part[i] = std::byte{0};
    }
  }
}

TEST(Bytes, WhatLiesAroundDoesNotMatter) {
  std::vector<std::byte> bytes(66, std::byte{0xff});
  std::fill(bytes.begin() + 1, bytes.end() - 1, std::byte{0});
  EXPECT_TRUE(is_zero(Bytes(bytes).subspan(1, 64)));
  EXPECT_FALSE(is_zero(Bytes(bytes).subspan(1, 65)));
}

TEST(Bytes, Rounding) {
  EXPECT_EQ(round_down(4095, 4096), 0u);
  EXPECT_EQ(round_down(8191, 4096), 4096u);
  EXPECT_EQ(round_up(0, 4096), 0u);
  EXPECT_EQ(round_up(1, 4096), 4096u);
  EXPECT_EQ(round_up(4096, 4096), 4096u);
  EXPECT_EQ(divide_up(0, 16), 0u);
  EXPECT_EQ(divide_up(17, 16), 2u);
}

}  // namespace
}  // namespace obraz
