// Bytes are written out here from the protocol document, not made with the functions under test.
#include "nbd/wire.h"

#include <gtest/gtest.h>

#include "client.h"

namespace obraz::nbd {
namespace {

using test::be16;
using test::be32;
using test::be64;
using test::counted;

ConstBytes bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}
std::string text_of(const std::byte* bytes, size_t size) {
  return {reinterpret_cast<const char*>(bytes), size};
}

constexpr Terms kDisk{.size_bytes = 1 << 20, .structured = true, .base_allocation = true};
WireError judge(uint16_t command, uint64_t offset, uint32_t length, uint16_t flags = 0, Terms terms = kDisk) {
  return validate({.flags = flags, .command = Command(command), .offset = offset, .length = length}, terms)
      .error;
}

TEST(NbdWire, RequestIsDecodedFieldByField) {
  const auto request =
      decode_request(bytes_of(be32(0x25609513) + be16(0x0102) + be16(0x0003) + be64(0x1112131415161718) +
                              be64(0x2122232425262728) + be32(0x31323334)));
  ASSERT_TRUE(request);
  EXPECT_EQ(request->flags, 0x0102);
  EXPECT_EQ(request->command, Command::flush);
  EXPECT_EQ(request->cookie, 0x1112131415161718u);
  EXPECT_EQ(request->offset, 0x2122232425262728u);
  EXPECT_EQ(request->length, 0x31323334u);
}

TEST(NbdWire, RequestWithAnotherMagicIsAProtocolError) {
  const auto request = decode_request(bytes_of(be32(0x25609514) + std::string(24, '\0')));
  ASSERT_FALSE(request);
  EXPECT_EQ(request.error().code, ErrorCode::protocol);
}

TEST(NbdWire, RepliesAreEncodedAsTheProtocolSays) {
  std::byte at[512];
  EXPECT_EQ(text_of(at, encode_simple_reply(at, 7, WireError::nospc)), be32(0x67446698) + be32(28) + be64(7));
  EXPECT_EQ(text_of(at, encode_chunk_header(at, 7, Chunk::none, kDone, 0)),
            be32(0x668e33ef) + be16(1) + be16(0) + be64(7) + be32(0));
  EXPECT_EQ(text_of(at, encode_data_chunk(at, 7, 0, 4096, 100)),
            be32(0x668e33ef) + be16(0) + be16(1) + be64(7) + be32(108) + be64(4096));
  EXPECT_EQ(text_of(at, encode_hole_chunk(at, 7, kDone, 4096, 100)),
            be32(0x668e33ef) + be16(1) + be16(2) + be64(7) + be32(12) + be64(4096) + be32(100));
  EXPECT_EQ(text_of(at, encode_error_chunk(at, 7, WireError::inval, "why")),
            be32(0x668e33ef) + be16(1) + be16(0x8001) + be64(7) + be32(9) + be32(22) + be16(3) + "why");
}

TEST(NbdWire, ErrorTextIsCut) {
  std::byte at[kChunkHeaderSize + 6 + kMaxErrorText];
  EXPECT_EQ(encode_error_chunk(at, 7, WireError::io, std::string(100'000, 'x')), sizeof at);
}

TEST(NbdWire, ExportQueryIsTakenApart) {
  const auto query = decode_export_query(bytes_of(counted("disk/a") + be16(2) + be16(3) + be16(1)));
  ASSERT_TRUE(query);
  EXPECT_EQ(query->name, "disk/a");
  EXPECT_EQ(query->infos, (std::vector<Info>{Info::block_size, Info::name}));
}

TEST(NbdWire, QueriesCutAnywhereOrTooLongAreRefused) {
  const std::string exported = counted("disk/a") + be16(2) + be16(3) + be16(1);
  const std::string context = counted("disk/a") + be32(2) + counted("base:") + counted("x:y");
  ASSERT_TRUE(decode_export_query(bytes_of(exported)));
  ASSERT_TRUE(decode_context_query(bytes_of(context)));
  for (size_t length = 0; length < exported.size(); ++length)
    EXPECT_FALSE(decode_export_query(bytes_of(exported.substr(0, length)))) << length;
  for (size_t length = 0; length < context.size(); ++length)
    EXPECT_FALSE(decode_context_query(bytes_of(context.substr(0, length)))) << length;
  EXPECT_FALSE(decode_export_query(bytes_of(exported + "x")));
  EXPECT_FALSE(decode_context_query(bytes_of(context + "x")));
}

TEST(NbdWire, LyingLengthsAreRefused) {
  EXPECT_FALSE(decode_export_query(bytes_of(be32(0xffffffff) + "disk/a" + be16(0))));
  EXPECT_FALSE(decode_export_query(bytes_of(counted("a") + be16(0xffff))));
  EXPECT_FALSE(decode_context_query(bytes_of(counted("a") + be32(0xffffffff))));
  EXPECT_FALSE(decode_context_query(bytes_of(counted("a") + be32(1) + be32(0xfffffffc))));
  EXPECT_TRUE(decode_export_query(bytes_of(counted(std::string(4096, 'n')) + be16(0))));
  EXPECT_FALSE(decode_export_query(bytes_of(counted(std::string(4097, 'n')) + be16(0))));
}

TEST(NbdWire, OnlyAListingUnderstandsTheNameSpace) {
  EXPECT_TRUE(selects_base_allocation("base:allocation", false));
  EXPECT_TRUE(selects_base_allocation("base:allocation", true));
  EXPECT_TRUE(selects_base_allocation("base:", true));
  EXPECT_FALSE(selects_base_allocation("base:", false));
  EXPECT_FALSE(selects_base_allocation("", true));
  EXPECT_FALSE(selects_base_allocation("base:allocationx", true));
  EXPECT_FALSE(selects_base_allocation("qemu:", true));
}

TEST(NbdWire, FlagsOfAnExport) {
  EXPECT_EQ(transmission_flags(false, false), 0xd6d & ~0x80);
  EXPECT_EQ(transmission_flags(false, true), 0xd6d | 0x80);
  EXPECT_EQ(transmission_flags(true, true) & 2, 2);
  EXPECT_EQ(transmission_flags(true, true) & (kSendTrim | kSendWriteZeroes | kSendFua | kSendFastZero), 0);
}

TEST(NbdValidate, ARangeEndsWithTheExport) {
  for (const uint16_t command : {test::kCmdRead, test::kCmdTrim, test::kCmdCache, test::kCmdStatus}) {
    EXPECT_EQ(judge(command, (1 << 20) - 1, 1), WireError::none) << command;
    EXPECT_EQ(judge(command, (1 << 20) - 1, 2), WireError::inval) << command;
    EXPECT_EQ(judge(command, 1 << 20, 1), WireError::inval) << command;
  }
  for (const uint16_t command : {test::kCmdWrite, test::kCmdZeroes}) {
    EXPECT_EQ(judge(command, (1 << 20) - 1, 1), WireError::none) << command;
    EXPECT_EQ(judge(command, (1 << 20) - 1, 2), WireError::nospc) << command;
  }
}

TEST(NbdValidate, OffsetPlusLengthDoesNotOverflow) {
  EXPECT_EQ(judge(test::kCmdRead, UINT64_MAX, 1), WireError::inval);
  EXPECT_EQ(judge(test::kCmdRead, UINT64_MAX - 4095, 4096), WireError::inval);
  EXPECT_EQ(judge(test::kCmdWrite, UINT64_MAX - 10, 11), WireError::nospc);
  EXPECT_EQ(judge(test::kCmdZeroes, UINT64_MAX, UINT32_MAX), WireError::nospc);
}

TEST(NbdValidate, EmptyRequestsAreFineExceptBlockStatus) {
  for (const uint16_t command :
       {test::kCmdRead, test::kCmdWrite, test::kCmdTrim, test::kCmdCache, test::kCmdZeroes, test::kCmdFlush})
    EXPECT_EQ(judge(command, 0, 0), WireError::none) << command;
  EXPECT_EQ(judge(test::kCmdRead, 1 << 20, 0), WireError::none);
  EXPECT_EQ(judge(test::kCmdRead, (1 << 20) + 1, 0), WireError::inval);
  EXPECT_EQ(judge(test::kCmdStatus, 0, 0), WireError::inval);
}

TEST(NbdValidate, UnknownCommandsAndFlagsAreInvalid) {
  EXPECT_EQ(judge(8, 0, 0), WireError::inval);
  EXPECT_EQ(judge(0xffff, 0, 0), WireError::inval);
  EXPECT_EQ(judge(test::kCmdRead, 0, 1, test::kFlagNoHole), WireError::inval);
  EXPECT_EQ(judge(test::kCmdRead, 0, 1, test::kFlagReqOne), WireError::inval);
  EXPECT_EQ(judge(test::kCmdWrite, 0, 1, test::kFlagDf), WireError::inval);
  EXPECT_EQ(judge(test::kCmdTrim, 0, 1, test::kFlagFastZero), WireError::inval);
  EXPECT_EQ(judge(test::kCmdZeroes, 0, 1, test::kFlagFastZero | test::kFlagNoHole | test::kFlagFua),
            WireError::none);
  EXPECT_EQ(judge(test::kCmdZeroes, 0, 1, 32), WireError::inval);
  EXPECT_EQ(judge(test::kCmdStatus, 0, 1, test::kFlagReqOne), WireError::none);
  // The protocol has FUA accepted wherever it makes no sense.
  for (uint16_t command = 0; command < 8; ++command)
    EXPECT_EQ(judge(command, 0, command == test::kCmdFlush ? 0 : 1, test::kFlagFua), WireError::none)
        << command;
}

TEST(NbdValidate, WhatWasNotNegotiatedIsInvalid) {
  Terms plain = kDisk;
  plain.structured = plain.base_allocation = false;
  EXPECT_EQ(judge(test::kCmdRead, 0, 1, test::kFlagDf), WireError::none);
  EXPECT_EQ(judge(test::kCmdRead, 0, 1, test::kFlagDf, plain), WireError::inval);
  EXPECT_EQ(judge(test::kCmdStatus, 0, 1, 0, plain), WireError::inval);
}

TEST(NbdValidate, ReadOnlyExportsRefuseEveryChange) {
  Terms frozen = kDisk;
  frozen.read_only = true;
  for (const uint16_t command : {test::kCmdWrite, test::kCmdTrim, test::kCmdZeroes})
    EXPECT_EQ(judge(command, 0, 1, 0, frozen), WireError::perm) << command;
  for (const uint16_t command : {test::kCmdRead, test::kCmdCache, test::kCmdStatus})
    EXPECT_EQ(judge(command, 0, 1, 0, frozen), WireError::none) << command;
  EXPECT_EQ(judge(test::kCmdFlush, 0, 0, 0, frozen), WireError::none);
}

TEST(NbdValidate, PayloadsHaveAMaximumOthersDoNot) {
  Terms large = kDisk;
  large.size_bytes = 1ull << 42;
  for (const uint16_t command : {test::kCmdRead, test::kCmdWrite}) {
    EXPECT_EQ(judge(command, 0, 32 << 20, 0, large), WireError::none) << command;
    EXPECT_EQ(judge(command, 0, (32 << 20) + 1, 0, large), WireError::inval) << command;
  }
  for (const uint16_t command : {test::kCmdTrim, test::kCmdZeroes, test::kCmdCache, test::kCmdStatus})
    EXPECT_EQ(judge(command, 0, UINT32_MAX, 0, large), WireError::none) << command;
}

TEST(NbdValidate, AFlushHasNoRange) {
  EXPECT_EQ(judge(test::kCmdFlush, 4096, 0), WireError::inval);
  EXPECT_EQ(judge(test::kCmdFlush, 0, 4096), WireError::inval);
}

TEST(NbdWire, EveryErrorOfOursHasOneOfTheProtocols) {
  EXPECT_EQ(wire_error(ErrorCode::out_of_range, true), WireError::nospc);
  EXPECT_EQ(wire_error(ErrorCode::out_of_range, false), WireError::inval);
  EXPECT_EQ(wire_error(ErrorCode::no_space, true), WireError::nospc);
  EXPECT_EQ(wire_error(ErrorCode::read_only, true), WireError::perm);
  EXPECT_EQ(wire_error(ErrorCode::corruption, false), WireError::io);
  EXPECT_EQ(wire_error(ErrorCode::unavailable, false), WireError::shutdown);
  for (unsigned code = 0; code <= unsigned(ErrorCode::protocol); ++code)
    EXPECT_NE(wire_error(ErrorCode(code), false), WireError::none) << code;
}

}  // namespace
}  // namespace obraz::nbd
