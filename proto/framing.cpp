#include "proto/framing.h"

#include <google/protobuf/message_lite.h>

namespace obraz {

Result<std::string> encode_frame(const google::protobuf::MessageLite& message, uint64_t limit) {
  const size_t length = message.ByteSizeLong();
  if (length > limit)
    return fail(ErrorCode::resource_exhausted, "the message is larger than a frame may be");
  std::string frame(kFrameHeaderSize, '\0');
  store_le(reinterpret_cast<std::byte*>(frame.data()), uint32_t(length));
  if (!message.AppendToString(&frame))
    return fail(ErrorCode::invalid_argument, "the message cannot be encoded");
  return frame;
}

Result<uint32_t> decode_frame_header(const FrameHeader& header, uint64_t limit) {
  const auto length = load_le<uint32_t>(header.data());
  if (length == 0)
    return fail(ErrorCode::protocol, "the frame is empty");
  if (length > limit)
    return fail(ErrorCode::protocol, "the frame is longer than the limit");
  return length;
}

Status decode_frame_body(const std::string& body, google::protobuf::MessageLite& into) {
  if (!into.ParseFromString(body))
    return fail(ErrorCode::protocol, "the frame does not hold the message it should");
  return {};
}

}  // namespace obraz
