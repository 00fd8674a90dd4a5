#include "nbd/wire.h"

#include <algorithm>

namespace obraz::nbd {
namespace {

template <typename T>
void append_be(std::string& out, T value) {
  std::byte bytes[sizeof(T)];
  store_be(bytes, value);
  out.append(reinterpret_cast<const char*>(bytes), sizeof bytes);
}

// Takes integers and strings off the front of an option's data; `good` turns false for ever at the first that
// is not wholly there.
struct Reader {
  ConstBytes rest;
  bool good = true;

  template <typename T>
  T integer() {
    if (rest.size() < sizeof(T)) {
      good = false;
      return 0;
    }
    const T value = load_be<T>(rest.data());
    rest = rest.subspan(sizeof(T));
    return value;
  }
  std::string text() {
    const auto length = integer<uint32_t>();
    if (!good || length > rest.size() || length > limits::kMaxExportName) {
      good = false;
      return {};
    }
    std::string value(reinterpret_cast<const char*>(rest.data()), length);
    rest = rest.subspan(length);
    return value;
  }
};

}  // namespace

// --- handshake ------------------------------------------------------------------------------------------

uint16_t transmission_flags(bool read_only, bool structured) {
  uint16_t flags = kHasFlags | kSendFlush | kCanMultiConn | kSendCache;
  flags |= read_only ? kReadOnly : kSendFua | kSendTrim | kSendWriteZeroes | kSendFastZero;
  if (structured)
    flags |= kSendDf;
  return flags;
}

Result<OptionHeader> decode_option_header(ConstBytes bytes) {
  OBRAZ_CHECK(bytes.size() == kOptionHeaderSize);
  if (load_be<uint64_t>(bytes.data()) != kOptionMagic)
    return fail(ErrorCode::protocol, "an option does not begin with IHAVEOPT");
  return OptionHeader{Option(load_be<uint32_t>(bytes.data() + 8)), load_be<uint32_t>(bytes.data() + 12)};
}

Result<ExportQuery> decode_export_query(ConstBytes bytes) {
  Reader reader{bytes};
  ExportQuery query;
  query.name = reader.text();
  const auto count = reader.integer<uint16_t>();
  if (!reader.good || reader.rest.size() != size_t(count) * 2)
    return fail(ErrorCode::invalid_argument, "lengths inside the option do not add up");
  for (unsigned i = 0; i < count; ++i)
    query.infos.push_back(Info(reader.integer<uint16_t>()));
  return query;
}

Result<ContextQuery> decode_context_query(ConstBytes bytes) {
  Reader reader{bytes};
  ContextQuery query;
  query.name = reader.text();
  const auto count = reader.integer<uint32_t>();
  // Every query takes four bytes at least, so a wrong count is found before memory is taken for it.
  if (!reader.good || count > reader.rest.size() / 4)
    return fail(ErrorCode::invalid_argument, "lengths inside the option do not add up");
  for (uint32_t i = 0; i < count && reader.good; ++i)
    query.queries.push_back(reader.text());
  if (!reader.good || !reader.rest.empty())
    return fail(ErrorCode::invalid_argument, "lengths inside the option do not add up");
  return query;
}

bool selects_base_allocation(std::string_view query, bool listing) {
  return query == kBaseAllocation || (listing && query == "base:");
}

void append_server_hello(std::string& out) {
  append_be<uint64_t>(out, kMagic);
  append_be<uint64_t>(out, kOptionMagic);
  append_be<uint16_t>(out, kFixedNewstyle | kNoZeroes);
}

void append_option_reply(std::string& out, Option option, OptionReply reply, std::string_view data) {
  append_be<uint64_t>(out, kOptionReplyMagic);
  append_be<uint32_t>(out, uint32_t(option));
  append_be<uint32_t>(out, uint32_t(reply));
  append_be<uint32_t>(out, uint32_t(data.size()));
  out += data;
}

void append_export_name_reply(std::string& out, uint64_t size_bytes, uint16_t flags, bool zeroes) {
  append_be<uint64_t>(out, size_bytes);
  append_be<uint16_t>(out, flags);
  if (zeroes)
    out.append(kExportNamePadding, '\0');
}

std::string info_export(uint64_t size_bytes, uint16_t flags) {
  std::string data;
  append_be<uint16_t>(data, uint16_t(Info::exported));
  append_be<uint64_t>(data, size_bytes);
  append_be<uint16_t>(data, flags);
  return data;
}

std::string info_block_size() {
  std::string data;
  append_be<uint16_t>(data, uint16_t(Info::block_size));
  append_be<uint32_t>(data, kMinBlock);
  append_be<uint32_t>(data, kPreferredBlock);
  append_be<uint32_t>(data, kMaxPayload);
  return data;
}

std::string info_text(Info info, std::string_view text) {
  std::string data;
  append_be<uint16_t>(data, uint16_t(info));
  data += text;
  return data;
}

std::string server_entry(std::string_view name, std::string_view description) {
  std::string data;
  append_be<uint32_t>(data, uint32_t(name.size()));
  data += name;
  data += description;
  return data;
}

std::string meta_context(uint32_t id, std::string_view name) {
  std::string data;
  append_be<uint32_t>(data, id);
  data += name;
  return data;
}

// --- transmission ---------------------------------------------------------------------------------------

Result<Request> decode_request(ConstBytes bytes) {
  OBRAZ_CHECK(bytes.size() == kRequestSize);
  const std::byte* at = bytes.data();
  if (load_be<uint32_t>(at) != kRequestMagic)
    return fail(ErrorCode::protocol, "a request has a wrong magic number");
  Request request;
  request.flags = load_be<uint16_t>(at + 4);
  request.command = Command(load_be<uint16_t>(at + 6));
  request.cookie = load_be<uint64_t>(at + 8);
  request.offset = load_be<uint64_t>(at + 16);
  request.length = load_be<uint32_t>(at + 24);
  return request;
}

namespace {

struct Rules {
  uint16_t flags = kFua;  // the protocol has FUA accepted with every command, meaningful or not
  bool writes = false;    // changes the volume
  bool payload = false;   // its length is that of bytes received or sent
  bool known = true;
};

Rules rules_of(Command command, const Terms& terms) {
  switch (command) {
    case Command::read:
      return {.flags = uint16_t(terms.structured ? kFua | kDf : kFua), .payload = true};
    case Command::write:
      return {.writes = true, .payload = true};
    case Command::trim:
      return {.writes = true};
    case Command::write_zeroes:
      return {.flags = kFua | kNoHole | kFastZero, .writes = true};
    case Command::block_status:
      return {.flags = kFua | kReqOne};
    case Command::flush:
    case Command::cache:
    case Command::disconnect:
      return {};
  }
  return {.known = false};
}

}  // namespace

Verdict validate(const Request& request, const Terms& terms) {
  const Rules rules = rules_of(request.command, terms);
  if (!rules.known)
    return {WireError::inval, "unknown command"};
  if (request.command == Command::disconnect)
    return {};
  if (request.flags & ~rules.flags)
    return {WireError::inval, "unknown flag, or one that does not belong to this command"};
  if (rules.writes && terms.read_only)
    return {WireError::perm, "the export is read-only"};
  if (request.command == Command::flush) {
    if (request.offset != 0 || request.length != 0)
      return {WireError::inval, "a flush has neither offset nor length"};
    return {};
  }
  if (request.command == Command::block_status) {
    if (!terms.base_allocation)
      return {WireError::inval, "block status without a negotiated meta context"};
    if (request.length == 0)
      return {WireError::inval, "block status of no bytes"};
  }
  if (rules.payload && request.length > kMaxPayload)
    return {WireError::inval, "longer than the maximum block size"};
  // Not `offset + length > size`, which a hostile offset makes overflow.
  if (request.offset > terms.size_bytes || request.length > terms.size_bytes - request.offset) {
    const bool space = request.command == Command::write || request.command == Command::write_zeroes;
    return {space ? WireError::nospc : WireError::inval, "beyond the end of the export"};
  }
  return {};
}

WireError wire_error(ErrorCode code, bool writing) {
  switch (code) {
    case ErrorCode::invalid_argument:
      return WireError::inval;
    case ErrorCode::out_of_range:
      return writing ? WireError::nospc : WireError::inval;
    case ErrorCode::not_found:
      return WireError::io;  // the volume was deleted under the session
    case ErrorCode::already_exists:
      return WireError::inval;
    case ErrorCode::failed_precondition:
      return WireError::inval;
    case ErrorCode::permission_denied:
      return WireError::perm;
    case ErrorCode::no_space:
      return WireError::nospc;
    case ErrorCode::resource_exhausted:
      return WireError::nomem;
    case ErrorCode::read_only:
      return WireError::perm;
    case ErrorCode::io:
      return WireError::io;
    case ErrorCode::corruption:
      return WireError::io;
    case ErrorCode::unsupported:
      return WireError::notsup;
    case ErrorCode::cancelled:
      return WireError::io;
    case ErrorCode::unavailable:
      return WireError::shutdown;
    case ErrorCode::disconnected:
      return WireError::io;
    case ErrorCode::protocol:
      return WireError::inval;
  }
  return WireError::io;
}

size_t encode_simple_reply(std::byte* at, uint64_t cookie, WireError error) {
  store_be<uint32_t>(at, kSimpleReplyMagic);
  store_be<uint32_t>(at + 4, uint32_t(error));
  store_be<uint64_t>(at + 8, cookie);
  return kSimpleReplySize;
}

size_t encode_chunk_header(std::byte* at, uint64_t cookie, Chunk type, uint16_t flags, uint32_t length) {
  store_be<uint32_t>(at, kChunkMagic);
  store_be<uint16_t>(at + 4, flags);
  store_be<uint16_t>(at + 6, uint16_t(type));
  store_be<uint64_t>(at + 8, cookie);
  store_be<uint32_t>(at + 16, length);
  return kChunkHeaderSize;
}

size_t encode_data_chunk(std::byte* at, uint64_t cookie, uint16_t flags, uint64_t offset, uint32_t length) {
  encode_chunk_header(at, cookie, Chunk::offset_data, flags, 8 + length);
  store_be<uint64_t>(at + kChunkHeaderSize, offset);
  return kChunkHeaderSize + 8;
}

size_t encode_hole_chunk(std::byte* at, uint64_t cookie, uint16_t flags, uint64_t offset, uint32_t length) {
  encode_chunk_header(at, cookie, Chunk::offset_hole, flags, 12);
  store_be<uint64_t>(at + kChunkHeaderSize, offset);
  store_be<uint32_t>(at + kChunkHeaderSize + 8, length);
  return kMaxChunkHead;
}

size_t encode_error_chunk(std::byte* at, uint64_t cookie, WireError error, std::string_view text) {
  text = text.substr(0, kMaxErrorText);
  encode_chunk_header(at, cookie, Chunk::error, kDone, uint32_t(6 + text.size()));
  store_be<uint32_t>(at + kChunkHeaderSize, uint32_t(error));
  store_be<uint16_t>(at + kChunkHeaderSize + 4, uint16_t(text.size()));
  std::memcpy(at + kChunkHeaderSize + 6, text.data(), text.size());
  return kChunkHeaderSize + 6 + text.size();
}

void encode_status(std::byte* at, uint32_t length, uint32_t flags) {
  store_be<uint32_t>(at, length);
  store_be<uint32_t>(at + 4, flags);
}

uint32_t status_flags(const Extent& extent) {
  return (extent.hole ? kStateHole | kStateZero : 0) | (extent.zero ? kStateZero : 0);
}

}  // namespace obraz::nbd
