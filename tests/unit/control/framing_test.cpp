#include "proto/framing.h"

#include <gtest/gtest.h>

#include "base/limits.h"
#include "obraz/v1/envelope.pb.h"
#include "proto/text.h"

namespace obraz {
namespace {

FrameHeader header_of(uint32_t length) {
  FrameHeader header;
  store_le(header.data(), length);
  return header;
}

TEST(Framing, AFrameIsItsLengthAndItsMessage) {
  v1::Request request;
  request.set_id(7);
  request.set_method("StatusService.Get");
  const auto frame = encode_frame(request, limits::kMaxControlRequest);
  ASSERT_TRUE(frame);
  FrameHeader header;
  std::memcpy(header.data(), frame->data(), header.size());
  EXPECT_EQ(decode_frame_header(header, limits::kMaxControlRequest).value(),
            frame->size() - kFrameHeaderSize);
  v1::Request decoded;
  ASSERT_TRUE(decode_frame_body(frame->substr(kFrameHeaderSize), decoded));
  EXPECT_EQ(decoded.method(), "StatusService.Get");
}

TEST(Framing, LengthsBeyondTheLimitAndOfNothingAreErrors) {
  EXPECT_EQ(decode_frame_header(header_of(1), 100).value(), 1u);
  EXPECT_EQ(decode_frame_header(header_of(100), 100).value(), 100u);
  for (const uint32_t length : {0u, 101u, 0x7fffffffu, 0xffffffffu})
    EXPECT_EQ(decode_frame_header(header_of(length), 100).error().code, ErrorCode::protocol) << length;
}

TEST(Framing, WhatIsTooLargeIsNotSent) {
  v1::Request request;
  request.set_message(std::string(200, 'x'));
  EXPECT_EQ(encode_frame(request, 100).error().code, ErrorCode::resource_exhausted);
}

TEST(Framing, BytesThatAreNoMessageAreAnError) {
  v1::Request request;
  for (const std::string& body :
       std::vector<std::string>{"\xff", "\x08", "\x12\x7fshort", "\x12\x02\xff\xff"})
    EXPECT_FALSE(decode_frame_body(body, request)) << body.size();
}

TEST(Text, OnlyWholeCharactersAreKept) {
  EXPECT_TRUE(is_valid_utf8("plain"));
  EXPECT_TRUE(is_valid_utf8("\xc3\xbc \xe2\x82\xac \xf0\x9f\x92\xbe"));
  for (const std::string bad :
       {"\x80", "\xc3", "\xc0\x80", "\xe2\x82", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xff"})
    EXPECT_FALSE(is_valid_utf8(bad));
  EXPECT_EQ(valid_utf8("a\xc3"), "a?");
  EXPECT_EQ(valid_utf8("\xe2\x82z\xc3\xbc"), "??z\xc3\xbc");
}

}  // namespace
}  // namespace obraz
