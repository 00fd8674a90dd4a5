#include "cost_client.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace obraz::bench {
namespace {

constexpr uint64_t kLeap = 7919;  // a prime, so that a power of two of places are all visited

[[noreturn]] void give_up(const char* what) {
  std::fprintf(stderr, "bench_cost_server: client: %s\n", what);
  std::_Exit(1);
}

void must(bool good, const char* what) {
  if (!good)
    give_up(what);
}

template <typename T>
void append_be(std::vector<std::byte>& out, T value) {
  out.resize(out.size() + sizeof value);
  store_be<T>(out.data() + out.size() - sizeof value, value);
}

}  // namespace

uint64_t word_at(uint64_t offset) {
  return (offset / 4096 + 1) * 0x9e3779b97f4a7c15ull;
}

CostClient::CostClient(int socket, const Load& load, uint64_t warm_up_rounds, uint64_t rounds,
                       std::function<void()> begin, std::function<void()> end)
    : socket_(socket),
      load_(load),
      warm_up_rounds_(warm_up_rounds),
      rounds_(rounds),
      begin_(std::move(begin)),
      end_(std::move(end)) {}

CostClient::~CostClient() {
  close();
}

void CostClient::close() {
  if (socket_ >= 0)
    ::close(std::exchange(socket_, -1));
}

bool CostClient::send(int flags) {
  bool any = false;
  while (sent_ < sending_.size()) {
    const ssize_t n = ::send(socket_, sending_.data() + sent_, sending_.size() - sent_, flags | MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN)
      break;
    must(n > 0, "cannot send");
    sent_ += size_t(n);
    any = true;
  }
  return any;
}

bool CostClient::receive(int flags) {
  bool any = false;
  while (received_ < expected_) {
    const ssize_t n = ::recv(socket_, receiving_.data() + received_, expected_ - received_, flags);
    if (n < 0 && errno == EAGAIN)
      break;
    must(n > 0, "cannot receive");
    received_ += size_t(n);
    any = true;
  }
  return any;
}

bool CostClient::step() {
  if (socket_ < 0)
    return false;
  bool any = receive(MSG_DONTWAIT);
  if (received_ == expected_ && sent_ == sending_.size()) {
    any = true;
    if (!next()) {
      close();
      return true;
    }
  }
  return send(MSG_DONTWAIT) || any;
}

void CostClient::run() {
  while (next()) {
    send(0);
    receive(MSG_WAITALL);
  }
  close();
}

bool CostClient::next() {
  if (expected_ > 0)
    check_replies();
  if (!flushing_ && load_.flush_after && expected_ > 0) {
    begin_flush();
    return true;
  }
  flushing_ = false;
  // What the warm-up has left to be committed is, before the counting.
  if (round_ == warm_up_rounds_ && load_.command != nbd::Command::read &&
      !std::exchange(flush_warm_up_, true)) {
    begin_flush();
    return true;
  }
  if (round_ == warm_up_rounds_)
    begin_();
  if (round_ == warm_up_rounds_ + rounds_) {
    end_();
    return false;
  }
  ++round_;
  begin_round();
  return true;
}

uint64_t CostClient::reply_size() const {
  if (flushing_ || load_.command != nbd::Command::read)
    return nbd::kSimpleReplySize;
  return load_.length + (load_.structured ? nbd::kChunkHeaderSize + 8 : nbd::kSimpleReplySize);
}

void CostClient::append_request(nbd::Command command, uint64_t offset, uint32_t length) {
  append_be<uint32_t>(sending_, nbd::kRequestMagic);
  append_be<uint16_t>(sending_, 0);
  append_be<uint16_t>(sending_, uint16_t(command));
  append_be<uint64_t>(sending_, offsets_.size());
  append_be<uint64_t>(sending_, offset);
  append_be<uint32_t>(sending_, length);
  offsets_.push_back(offset);
}

void CostClient::begin_round() {
  sending_.clear();
  offsets_.clear();
  for (uint64_t i = 0; i < load_.depth; ++i) {
    const uint64_t offset = (place_++ * kLeap) % load_.places * load_.stride + load_.shift;
    append_request(load_.command, offset, load_.length);
    if (load_.command != nbd::Command::write)
      continue;
    const size_t payload = sending_.size();
    sending_.resize(payload + load_.length);
    for (uint64_t at = 0; at < load_.length && offset % 4096 == 0; at += 4096)
      store_le<uint64_t>(sending_.data() + payload + at, word_at(offset + at));
  }
  sent_ = received_ = 0;
  expected_ = size_t(load_.depth * reply_size());
  receiving_.resize(expected_);
}

void CostClient::begin_flush() {
  flushing_ = true;
  sending_.clear();
  offsets_.clear();
  append_request(nbd::Command::flush, 0, 0);
  sent_ = received_ = 0;
  expected_ = size_t(reply_size());
  receiving_.resize(expected_);
}

// All replies of a round have one size, in whatever order they come.
void CostClient::check_replies() const {
  const bool reading = load_.command == nbd::Command::read && !flushing_;
  const bool chunks = reading && load_.structured;
  std::vector<bool> answered(offsets_.size());
  for (size_t i = 0; i < offsets_.size(); ++i) {
    const std::byte* at = receiving_.data() + i * reply_size();
    must(load_be<uint32_t>(at) == (chunks ? nbd::kChunkMagic : nbd::kSimpleReplyMagic), "not a reply");
    if (chunks)
      must(load_be<uint16_t>(at + 4) == nbd::kDone &&
               load_be<uint16_t>(at + 6) == uint16_t(nbd::Chunk::offset_data),
           "not the one chunk of data that was expected");
    else
      must(load_be<uint32_t>(at + 4) == 0, "an error");
    const auto cookie = load_be<uint64_t>(at + 8);
    must(cookie < answered.size() && !answered[cookie], "a reply to nothing");
    answered[cookie] = true;
    const std::byte* data = at + (chunks ? nbd::kChunkHeaderSize + 8 : nbd::kSimpleReplySize);
    for (uint64_t block = 0; reading && load_.shift % 4096 == 0 && block < load_.length; block += 4096)
      must(load_le<uint64_t>(data + block) == word_at(offsets_[cookie] + block), "wrong data");
  }
}

}  // namespace obraz::bench
