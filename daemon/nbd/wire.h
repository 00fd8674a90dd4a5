// The NBD protocol as bytes: constants, encoding, decoding and the validation of requests (the protocol
// document of the NetworkBlockDevice project, doc/proto.md; all integers are big-endian). Everything here is
// pure: no socket, no store, no memory of earlier calls, so each rule can be tested and fuzzed by itself.
//
// Decoders take exactly the bytes named and never read beyond them. What a peer sends is input: a wrong
// message is a value, never a check. Thread: any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/result.h"
#include "store/types.h"

namespace obraz::nbd {

// --- handshake ------------------------------------------------------------------------------------------
constexpr uint64_t kMagic = 0x4e42444d41474943;             // "NBDMAGIC"
constexpr uint64_t kOptionMagic = 0x49484156454f5054;       // "IHAVEOPT"
constexpr uint64_t kOptionReplyMagic = 0x0003e889045565a9;  //

constexpr uint16_t kFixedNewstyle = 1 << 0, kNoZeroes = 1 << 1;              // the server's flags
constexpr uint32_t kClientFixedNewstyle = 1 << 0, kClientNoZeroes = 1 << 1;  // the client's answer

enum class Option : uint32_t {
  export_name = 1,
  abort = 2,
  list = 3,
  starttls = 5,
  info = 6,
  go = 7,
  structured_reply = 8,
  list_meta_context = 9,
  set_meta_context = 10,
  extended_headers = 11,
};

enum class OptionReply : uint32_t {
  ack = 1,
  server = 2,
  info = 3,
  meta_context = 4,
  unsupported = 0x80000001,
  policy = 0x80000002,
  invalid = 0x80000003,
  platform = 0x80000004,
  unknown = 0x80000006,
  shutdown = 0x80000007,
  too_big = 0x80000009,
};

enum class Info : uint16_t { exported = 0, name = 1, description = 2, block_size = 3 };

// What the export can do, sent with its size.
constexpr uint16_t kHasFlags = 1 << 0, kReadOnly = 1 << 1, kSendFlush = 1 << 2, kSendFua = 1 << 3,
                   kSendTrim = 1 << 5, kSendWriteZeroes = 1 << 6, kSendDf = 1 << 7, kCanMultiConn = 1 << 8,
                   kSendCache = 1 << 10, kSendFastZero = 1 << 11;
uint16_t transmission_flags(bool read_only, bool structured);

constexpr uint32_t kMinBlock = 1, kPreferredBlock = 4096, kMaxPayload = uint32_t(limits::kMaxRequestSize);

constexpr size_t kServerHelloSize = 18, kClientFlagsSize = 4, kOptionHeaderSize = 16,
                 kOptionReplyHeaderSize = 20, kExportNameReplySize = 10, kExportNamePadding = 124;

constexpr std::string_view kBaseAllocation = "base:allocation";
constexpr uint32_t kBaseAllocationId = 1;

struct OptionHeader {
  Option option;
  uint32_t length;
};
// 16 bytes. Error: protocol, when the magic is wrong.
Result<OptionHeader> decode_option_header(ConstBytes bytes);

struct ExportQuery {  // of INFO and GO
  std::string name;
  std::vector<Info> infos;
};
struct ContextQuery {  // of LIST_META_CONTEXT and SET_META_CONTEXT
  std::string name;
  std::vector<std::string> queries;
};
// The data of the option. Error: invalid_argument, when lengths inside do not add up or a string is too long.
Result<ExportQuery> decode_export_query(ConstBytes bytes);
Result<ContextQuery> decode_context_query(ConstBytes bytes);

// Whether a query asks for base:allocation. Only a listing understands the bare name space "base:".
bool selects_base_allocation(std::string_view query, bool listing);

// Appending to a message under construction.
void append_server_hello(std::string& out);
void append_option_reply(std::string& out, Option option, OptionReply reply, std::string_view data);
void append_export_name_reply(std::string& out, uint64_t size_bytes, uint16_t flags, bool zeroes);
std::string info_export(uint64_t size_bytes, uint16_t flags);
std::string info_block_size();
std::string info_text(Info info, std::string_view text);
std::string server_entry(std::string_view name, std::string_view description);
std::string meta_context(uint32_t id, std::string_view name);

// --- transmission ---------------------------------------------------------------------------------------
constexpr uint32_t kRequestMagic = 0x25609513, kSimpleReplyMagic = 0x67446698, kChunkMagic = 0x668e33ef;

enum class Command : uint16_t {
  read = 0,
  write = 1,
  disconnect = 2,
  flush = 3,
  trim = 4,
  cache = 5,
  write_zeroes = 6,
  block_status = 7,
};
constexpr uint16_t kFua = 1 << 0, kNoHole = 1 << 1, kDf = 1 << 2, kReqOne = 1 << 3, kFastZero = 1 << 4;

enum class Chunk : uint16_t {
  none = 0,
  offset_data = 1,
  offset_hole = 2,
  block_status = 5,
  error = 0x8001,
};
constexpr uint16_t kDone = 1 << 0;
constexpr uint32_t kStateHole = 1 << 0, kStateZero = 1 << 1;

// Errors as the protocol numbers them.
enum class WireError : uint32_t {
  none = 0,
  perm = 1,
  io = 5,
  nomem = 12,
  inval = 22,
  nospc = 28,
  overflow = 75,
  notsup = 95,
  shutdown = 108,
};

constexpr size_t kRequestSize = 28, kSimpleReplySize = 16, kChunkHeaderSize = 20, kMaxChunkHead = 32,
                 kStatusDescriptorSize = 8, kMaxErrorText = 256;

struct Request {
  uint16_t flags = 0;
  Command command = Command::read;  // any value a peer sent, known or not
  uint64_t cookie = 0;              // the client's; comes back with the reply
  uint64_t offset = 0;
  uint32_t length = 0;

  bool has(uint16_t flag) const { return (flags & flag) != 0; }
  // Whether `length` bytes follow the header. Known for every command, because unknown ones have none.
  bool has_payload() const { return command == Command::write; }
};
// 28 bytes. Error: protocol, when the magic is wrong: where the next request begins is then unknown.
Result<Request> decode_request(ConstBytes bytes);

// What a session has agreed on, and the size of its volume now.
struct Terms {
  uint64_t size_bytes = 0;
  bool read_only = false;
  bool structured = false;
  bool base_allocation = false;
};
struct Verdict {
  WireError error = WireError::none;
  const char* text = "";
};
// The one place where requests are judged. A request that passes has a range inside the volume, and a length
// of at most kMaxPayload when bytes go with it or come back for it.
Verdict validate(const Request& request, const Terms& terms);

// The one table from our errors to the protocol's. `writing`: of a write or write-zeroes, for which the
// protocol wants "no space" beyond the end and "invalid" of all others.
WireError wire_error(ErrorCode code, bool writing);

// Each writes its fixed number of bytes at `at` and returns it.
size_t encode_simple_reply(std::byte* at, uint64_t cookie, WireError error);
size_t encode_chunk_header(std::byte* at, uint64_t cookie, Chunk type, uint16_t flags, uint32_t length);
// The header and the fixed part of an OFFSET_DATA chunk (28 bytes; `length` bytes follow) or OFFSET_HOLE
// chunk (32).
size_t encode_data_chunk(std::byte* at, uint64_t cookie, uint16_t flags, uint64_t offset, uint32_t length);
size_t encode_hole_chunk(std::byte* at, uint64_t cookie, uint16_t flags, uint64_t offset, uint32_t length);
// An ERROR chunk that ends its reply; the text is cut to kMaxErrorText. At most 26 + kMaxErrorText bytes.
size_t encode_error_chunk(std::byte* at, uint64_t cookie, WireError error, std::string_view text);
// One descriptor of base:allocation (8 bytes).
void encode_status(std::byte* at, uint32_t length, uint32_t flags);
uint32_t status_flags(const Extent& extent);

}  // namespace obraz::nbd
