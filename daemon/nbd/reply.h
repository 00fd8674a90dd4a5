// Reply: the bytes that answer one request, as headers made here and payload that stays where it is. It lives
// in the frame of the request's coroutine, which sleeps until the sender is through with it, so that nothing
// is copied and, for all but very scattered reads, nothing is allocated.
//
// Invariant: once queued, a reply neither moves nor grows. Thread: the reactor's.
#pragma once

#include <sys/uio.h>

#include <array>
#include <coroutine>
#include <vector>

#include "base/bytes.h"
#include "nbd/wire.h"

namespace obraz::nbd {

class Reply {
 public:
  Reply() = default;
  Reply(const Reply&) = delete;

  // Room for this many chunks; without it there is room for kInlineChunks. Before anything is added.
  void reserve(size_t chunks) {
    if (chunks <= kInlineChunks)
      return;
    more_heads_.resize(chunks * kMaxChunkHead);
    more_parts_.resize(chunks * 2);
    heads_ = more_heads_;
    parts_ = more_parts_;
  }

  void add_simple(uint64_t cookie, WireError error) {
    add_head(encode_simple_reply(next_head(kSimpleReplySize), cookie, error));
  }
  void add_done(uint64_t cookie) {  // success without content, structured
    add_head(encode_chunk_header(next_head(kChunkHeaderSize), cookie, Chunk::none, kDone, 0));
  }
  void add_data(uint64_t cookie, uint16_t flags, uint64_t offset, ConstBytes data) {
    add_head(encode_data_chunk(next_head(kMaxChunkHead), cookie, flags, offset, uint32_t(data.size())));
    add_bytes(data);
  }
  void add_hole(uint64_t cookie, uint16_t flags, uint64_t offset, uint32_t length) {
    add_head(encode_hole_chunk(next_head(kMaxChunkHead), cookie, flags, offset, length));
  }
  void add_status_head(uint64_t cookie, uint32_t context, uint32_t descriptors_bytes) {
    std::byte* at = next_head(kMaxChunkHead);
    const size_t header = encode_chunk_header(at, cookie, Chunk::block_status, kDone, 4 + descriptors_bytes);
    store_be<uint32_t>(at + header, context);
    add_head(header + 4);
  }
  void add_error(uint64_t cookie, WireError error, std::string_view text) {
    more_heads_.resize(kChunkHeaderSize + 6 + kMaxErrorText);
    heads_ = more_heads_;
    add_head(encode_error_chunk(next_head(0), cookie, error, text));
  }
  // Bytes that stay in place until the reply is sent.
  void add_bytes(ConstBytes bytes) {
    if (!bytes.empty())
      add_part(const_cast<std::byte*>(bytes.data()), bytes.size());
  }

 private:
  friend class SendQueue;
  static constexpr size_t kInlineChunks = 4;

  std::byte* next_head(size_t most) {
    OBRAZ_CHECK(heads_used_ + most <= heads_.size());
    return heads_.data() + heads_used_;
  }
  void add_head(size_t size) {
    add_part(heads_.data() + heads_used_, size);
    heads_used_ += size;
  }
  void add_part(std::byte* data, size_t size) {
    OBRAZ_CHECK(count_ < parts_.size());
    parts_[count_++] = iovec{data, size};
  }

  std::array<std::byte, kInlineChunks * kMaxChunkHead> inline_heads_;
  std::array<iovec, kInlineChunks * 2> inline_parts_;
  std::vector<std::byte> more_heads_;
  std::vector<iovec> more_parts_;
  Bytes heads_{inline_heads_};
  std::span<iovec> parts_{inline_parts_};
  size_t heads_used_ = 0, count_ = 0;

  // The sender's.
  size_t first_ = 0;  // the part to send next; what was sent of it is cut off
  std::coroutine_handle<> waiter_;
  Reply* next_ = nullptr;
};

}  // namespace obraz::nbd
