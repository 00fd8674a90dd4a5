#include "nbd/handshake.h"

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include "base/limits.h"

namespace obraz::nbd {
namespace {

namespace asio = boost::asio;
using asio::awaitable;
constexpr auto kUse = asio::as_tuple(asio::use_awaitable);

constexpr size_t kWriteAhead = 64 * limits::KiB;  // a listing is sent in pieces of about this size

OptionReply reply_for(ErrorCode code) {
  switch (code) {
    case ErrorCode::not_found:
      return OptionReply::unknown;
    case ErrorCode::permission_denied:
      return OptionReply::policy;
    case ErrorCode::unavailable:
      return OptionReply::shutdown;
    case ErrorCode::invalid_argument:
      return OptionReply::unknown;  // a name that breaks the rules names nothing
    default:
      return OptionReply::platform;
  }
}

class Handshake {
 public:
  Handshake(Stream& stream, ExportSource& source, Peer peer)
      : stream_(stream), source_(source), peer_(std::move(peer)) {}

  awaitable<Result<Negotiated>> run();

 private:
  awaitable<Status> greet();
  awaitable<Status> serve_option();  // sets done_ when it was the last
  awaitable<Status> export_name();
  awaitable<Status> info(bool go);
  awaitable<Status> list();
  awaitable<Status> meta_context(bool set);
  awaitable<Status> refuse_long(uint32_t length);

  awaitable<Answer<Export>> find(std::string name);
  Negotiated agree(Export exported) const;

  awaitable<Status> read(void* into, size_t length);
  awaitable<Status> send(std::string message);
  awaitable<Status> answer(OptionReply reply, std::string text = {});
  std::string with_ack(std::string message) const {
    append_option_reply(message, option_, OptionReply::ack, {});
    return message;
  }

  Stream& stream_;
  ExportSource& source_;
  Peer peer_;
  bool fixed_ = false, no_zeroes_ = false;

  Option option_{};   // the one being served
  std::string data_;  // and its data

  bool structured_ = false;
  VolumeId context_volume_;  // the export for which SET_META_CONTEXT chose base:allocation, if any
  std::optional<Negotiated> done_;
};

ConstBytes bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

awaitable<Status> Handshake::read(void* into, size_t length) {
  const auto result = co_await asio::async_read(stream_, asio::buffer(into, length), kUse);
  if (std::get<0>(result))
    co_return fail(ErrorCode::disconnected, "the client left during the handshake");
  co_return Status();
}

awaitable<Status> Handshake::send(std::string message) {
  const auto result = co_await asio::async_write(stream_, asio::buffer(message), kUse);
  if (std::get<0>(result))
    co_return fail(ErrorCode::disconnected, "the client left during the handshake");
  co_return Status();
}

awaitable<Status> Handshake::answer(OptionReply reply, std::string text) {
  std::string message;
  append_option_reply(message, option_, reply, std::string_view(text).substr(0, limits::kMaxExportName));
  co_return co_await send(std::move(message));
}

awaitable<Result<Negotiated>> Handshake::run() {
  Status status = co_await greet();
  OBRAZ_CO_TRY(status);
  for (unsigned count = 0; count < limits::kMaxOptions; ++count) {
    status = co_await serve_option();
    OBRAZ_CO_TRY(status);
    if (done_)
      co_return std::move(*done_);
  }
  co_return fail(ErrorCode::resource_exhausted, "too many options in one handshake");
}

awaitable<Status> Handshake::greet() {
  std::string hello;
  append_server_hello(hello);
  Status status = co_await send(std::move(hello));
  OBRAZ_CO_TRY(status);
  std::array<std::byte, kClientFlagsSize> bytes;
  status = co_await read(bytes.data(), bytes.size());
  OBRAZ_CO_TRY(status);
  const auto flags = load_be<uint32_t>(bytes.data());
  if (flags & ~(kClientFixedNewstyle | kClientNoZeroes))
    co_return fail(ErrorCode::protocol, "the client sent unknown handshake flags");
  fixed_ = flags & kClientFixedNewstyle;
  no_zeroes_ = flags & kClientNoZeroes;
  co_return Status();
}

awaitable<Status> Handshake::serve_option() {
  std::array<std::byte, kOptionHeaderSize> bytes;
  Status status = co_await read(bytes.data(), bytes.size());
  OBRAZ_CO_TRY(status);
  const auto header = decode_option_header(bytes);
  OBRAZ_CO_TRY(header);
  option_ = header->option;
  if (!fixed_ && option_ != Option::export_name)
    co_return fail(ErrorCode::protocol, "the client sent an option without having agreed to fixed newstyle");
  if (header->length > limits::kMaxOptionLength) {
    status = co_await refuse_long(header->length);
    co_return status;
  }
  data_.resize(header->length);
  status = co_await read(data_.data(), data_.size());
  OBRAZ_CO_TRY(status);

  switch (option_) {
    case Option::export_name:
      status = co_await export_name();
      break;
    case Option::abort:
      // The answer is a courtesy: many clients do not wait for it.
      status = co_await answer(OptionReply::ack);
      status = fail(ErrorCode::disconnected, "the client ended the handshake");
      break;
    case Option::list:
      status = co_await list();
      break;
    case Option::info:
    case Option::go:
      status = co_await info(option_ == Option::go);
      break;
    case Option::structured_reply:
      if (!data_.empty()) {
        status = co_await answer(OptionReply::invalid, "STRUCTURED_REPLY has no data");
        break;
      }
      structured_ = true;
      status = co_await answer(OptionReply::ack);
      break;
    case Option::list_meta_context:
    case Option::set_meta_context:
      status = co_await meta_context(option_ == Option::set_meta_context);
      break;
    default:
      status = co_await answer(OptionReply::unsupported, "this server does not have that option");
      break;
  }
  co_return status;
}

// The data is thrown away piece by piece, so that the next option is found; beyond kMaxOptionDrain it is not
// worth it.
awaitable<Status> Handshake::refuse_long(uint32_t length) {
  if (option_ == Option::export_name || length > limits::kMaxOptionDrain)
    co_return fail(ErrorCode::resource_exhausted, "an option is too long");
  data_.resize(limits::kMaxOptionLength);
  while (length > 0) {
    const auto piece = std::min<size_t>(length, data_.size());
    const Status status = co_await read(data_.data(), piece);
    OBRAZ_CO_TRY(status);
    length -= uint32_t(piece);
  }
  const Status status = co_await answer(OptionReply::too_big, "the data of this option is too long");
  co_return status;
}

awaitable<Answer<Export>> Handshake::find(std::string name) {
  if (name.empty())
    co_return refuse(ErrorCode::not_found, "", "there is no default export; name one, such as disk/NAME");
  // A name from a peer ends up in logs and messages.
  if (std::any_of(name.begin(), name.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }))
    co_return refuse(ErrorCode::not_found, "", "the export name holds control characters");
  Answer<Export> found = co_await source_.find(std::move(name), peer_);
  co_return found;
}

Negotiated Handshake::agree(Export exported) const {
  Negotiated result;
  // A context chosen for one export does not carry over to another.
  result.base_allocation = structured_ && context_volume_ && context_volume_ == exported.volume;
  result.structured = structured_;
  result.exported = std::move(exported);
  return result;
}

// This option has no error reply: closing is the answer.
awaitable<Status> Handshake::export_name() {
  if (data_.size() > limits::kMaxExportName)
    co_return fail(ErrorCode::protocol, "the export name is too long");
  const Answer<Export> found = co_await find(data_);
  if (!found)
    co_return fail(ErrorCode::disconnected, "the client asked for an export it cannot have");
  const Answer<void> attached = co_await source_.attach(*found, peer_);
  if (!attached)
    co_return fail(ErrorCode::disconnected, "the client asked for an export it cannot have");
  std::string message;
  append_export_name_reply(message, found->size_bytes, transmission_flags(found->read_only, structured_),
                           !no_zeroes_);
  const Status status = co_await send(std::move(message));
  if (!status) {
    source_.detach(*found);
    co_return status;
  }
  done_ = agree(*found);
  co_return Status();
}

awaitable<Status> Handshake::info(bool go) {
  const Result<ExportQuery> query = decode_export_query(bytes_of(data_));
  Status status;
  if (!query) {
    status = co_await answer(OptionReply::invalid, query.error().text);
    co_return status;
  }
  Answer<Export> found = co_await find(query->name);
  if (found && go) {
    const Answer<void> attached = co_await source_.attach(*found, peer_);
    if (!attached)
      found = std::unexpected(attached.error());
  }
  if (!found) {
    status = co_await answer(reply_for(found.error().code), found.error().message);
    co_return status;
  }
  const auto asked = [&query](Info info) {
    return std::find(query->infos.begin(), query->infos.end(), info) != query->infos.end();
  };
  const uint16_t flags = transmission_flags(found->read_only, structured_);
  std::string message;
  append_option_reply(message, option_, OptionReply::info, info_export(found->size_bytes, flags));
  if (asked(Info::name))
    append_option_reply(message, option_, OptionReply::info, info_text(Info::name, found->name));
  if (asked(Info::description) && !found->description.empty())
    append_option_reply(message, option_, OptionReply::info,
                        info_text(Info::description, found->description));
  if (asked(Info::block_size))
    append_option_reply(message, option_, OptionReply::info, info_block_size());
  status = co_await send(with_ack(std::move(message)));
  if (!go)
    co_return status;
  if (!status) {
    source_.detach(*found);
    co_return status;
  }
  done_ = agree(std::move(*found));
  co_return Status();
}

awaitable<Status> Handshake::list() {
  Status status;
  if (!data_.empty()) {
    status = co_await answer(OptionReply::invalid, "LIST has no data");
    co_return status;
  }
  const Answer<std::vector<ListedExport>> listed = co_await source_.list(peer_);
  if (!listed) {
    status = co_await answer(reply_for(listed.error().code), listed.error().message);
    co_return status;
  }
  std::string message;
  for (const ListedExport& entry : *listed) {
    append_option_reply(message, option_, OptionReply::server, server_entry(entry.name, entry.description));
    if (message.size() < kWriteAhead)
      continue;
    status = co_await send(std::move(message));
    OBRAZ_CO_TRY(status);
    message.clear();
  }
  status = co_await send(with_ack(std::move(message)));
  co_return status;
}

awaitable<Status> Handshake::meta_context(bool set) {
  // Whatever becomes of this option, what an earlier one chose no longer holds.
  if (set)
    context_volume_ = VolumeId{};
  Status status;
  const Result<ContextQuery> query = decode_context_query(bytes_of(data_));
  if (!query || !structured_) {
    const char* text = structured_ ? query.error().text : "meta contexts need structured replies first";
    status = co_await answer(OptionReply::invalid, text);
    co_return status;
  }
  const Answer<Export> found = co_await find(query->name);
  if (!found) {
    status = co_await answer(reply_for(found.error().code), found.error().message);
    co_return status;
  }
  const bool selected =
      std::any_of(query->queries.begin(), query->queries.end(),
                  [set](const std::string& text) { return selects_base_allocation(text, !set); });
  std::string message;
  // A listing without queries asks for everything.
  if (selected || (!set && query->queries.empty())) {
    const uint32_t id = set ? kBaseAllocationId : 0;
    append_option_reply(message, option_, OptionReply::meta_context, nbd::meta_context(id, kBaseAllocation));
    if (set)
      context_volume_ = found->volume;
  }
  status = co_await send(with_ack(std::move(message)));
  co_return status;
}

}  // namespace

awaitable<Result<Negotiated>> negotiate(Stream& stream, ExportSource& source, Peer peer) {
  Handshake handshake(stream, source, std::move(peer));
  Result<Negotiated> result = co_await handshake.run();
  co_return result;
}

}  // namespace obraz::nbd
