// Framing of the control socket: a 4-byte little-endian length, then that many bytes of one envelope.
//
// Invariants: a frame is 1 … limit bytes; what does not fit or does not parse is a value, and the stream is
// then lost, for nobody knows where the next frame would begin. Pure; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace google::protobuf {
class MessageLite;
}

namespace obraz {

constexpr size_t kFrameHeaderSize = 4;
using FrameHeader = std::array<std::byte, kFrameHeaderSize>;

// Header and body in one string. resource_exhausted: the message is larger than `limit` bytes.
Result<std::string> encode_frame(const google::protobuf::MessageLite& message, uint64_t limit);

// The length of the body that follows. protocol: empty, or above `limit` bytes.
Result<uint32_t> decode_frame_header(const FrameHeader& header, uint64_t limit);

// protocol: the body is not such a message.
Status decode_frame_body(const std::string& body, google::protobuf::MessageLite& into);

}  // namespace obraz
