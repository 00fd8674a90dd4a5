#include "image/digest.h"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <list>

#include "base/limits.h"
#include "image/block_runs.h"
#include "image/volume_access.h"
#include "image/volume_walk.h"

namespace obraz {
namespace {

constexpr uint64_t kWindow = VolumeWalk::kChunk;
// Without a limit of rate, long reads and several of them. With one, a short one now and then: a guest's
// request that comes behind it waits for no more than that.
struct Reading {
  size_t in_flight;
  uint64_t length_bytes;
};
constexpr Reading kAtOnce = {4, kWindow}, kPaced = {1, 128 * limits::KiB};
static_assert(kWindow % kPaced.length_bytes == 0 && kPaced.length_bytes % ContentDigest::kLeafSize == 0);

// What a hash is of, so that no leaf can be taken for a node.
constexpr std::byte kLeaf{0}, kNode{1}, kRoot{2};

}  // namespace

ContentDigest::ContentDigest(uint64_t size_bytes) : size_bytes_(size_bytes) {
  OBRAZ_CHECK(size_bytes > 0 && size_bytes % kLeafSize == 0);
  const std::vector<std::byte> zeros(kLeafSize);
  zeros_.push_back(leaf_hash(zeros));
  while (kLeafSize << zeros_.size() <= size_bytes)
    zeros_.push_back(node_hash(zeros_.back(), zeros_.back()));
}

Sha256::Value ContentDigest::leaf_hash(ConstBytes leaf) {
  sha256_.add({&kLeaf, 1});
  sha256_.add(leaf);
  return sha256_.finish();
}

Sha256::Value ContentDigest::node_hash(const Sha256::Value& left, const Sha256::Value& right) {
  sha256_.add({&kNode, 1});
  sha256_.add(left);
  sha256_.add(right);
  return sha256_.finish();
}

// Two of one level are one of the next.
void ContentDigest::push(Node node) {
  leaves_ += uint64_t(1) << node.level;
  while (!nodes_.empty() && nodes_.back().level == node.level) {
    node = {node_hash(nodes_.back().hash, node.hash), node.level + 1};
    nodes_.pop_back();
  }
  nodes_.push_back(node);
}

void ContentDigest::add(ConstBytes content) {
  OBRAZ_CHECK(content.size() % kLeafSize == 0);
  for (; !content.empty(); content = content.subspan(kLeafSize))
    push({leaf_hash(content.first(kLeafSize)), 0});
}

void ContentDigest::add_zeros(uint64_t length) {
  OBRAZ_CHECK(length % kLeafSize == 0);
  for (uint64_t left = length / kLeafSize; left > 0;) {
    // The largest subtree that begins here and is all zeros.
    const auto most = unsigned(std::bit_width(left)) - 1;
    const unsigned level =
        leaves_ == 0 ? most : std::min<unsigned>(most, unsigned(std::countr_zero(leaves_)));
    push({zeros_[level], level});
    left -= uint64_t(1) << level;
  }
}

std::string ContentDigest::finish() {
  OBRAZ_CHECK(leaves_ * kLeafSize == size_bytes_);
  Sha256::Value root = nodes_.back().hash;
  for (auto left = nodes_.rbegin() + 1; left != nodes_.rend(); ++left)
    root = node_hash(left->hash, root);
  std::array<std::byte, 8> size;
  store_be(size.data(), size_bytes_);
  sha256_.add({&kRoot, 1});
  sha256_.add(size);
  sha256_.add(root);
  return "sha256-tree:" + hex(sha256_.finish());
}

namespace {

// Several reads under way, hashed in their order.
class VolumeDigester {
 public:
  VolumeDigester(VolumeAccess& access, uint64_t bytes_per_s, Progress& progress, const StopSignal& stop)
      : access_(access),
        walk_(access),
        bytes_per_s_(bytes_per_s),
        reading_(bytes_per_s == 0 ? kAtOnce : kPaced),
        progress_(progress),
        stop_(stop),
        memory_(reading_.length_bytes * reading_.in_flight) {
    for (size_t i = 0; i < reading_.in_flight; ++i)
      free_.push_back({.buffer = memory_.bytes().subspan(i * reading_.length_bytes, reading_.length_bytes),
                       .offset = 0,
                       .length = 0,
                       .read = {}});
  }

  Answer<std::string> run() {
    OBRAZ_ASK(walk_.begin());
    progress_.bytes_total = walk_.size_bytes();
    progress_.phase = CopyPhase::copying;
    ContentDigest digest(walk_.size_bytes());
    const auto answer = read_all(digest);
    access_.drain();
    if (!answer)
      return std::unexpected(answer.error());
    digest.add_zeros(walk_.size_bytes() - hashed_);
    progress_.phase = CopyPhase::done;
    return digest.finish();
  }

 private:
  using Clock = std::chrono::steady_clock;

  struct Slot {
    Bytes buffer;
    uint64_t offset = 0, length = 0;
    VolumeAccess::Operation read;
  };

  Answer<void> read_all(ContentDigest& digest) {
    for (;;) {
      OBRAZ_ASK(start_reads());
      if (under_way_.empty())
        return {};
      Slot& slot = under_way_.front();
      for (access_.collect(); !slot.read.done; access_.collect())
        OBRAZ_ASK(access_.wait(stop_));
      if (!slot.read.status)
        return refuse_error(slot.read.status.error(), fmt::format("read the image at byte {}", slot.offset));
      digest.add_zeros(slot.offset - hashed_);
      digest.add(slot.buffer.first(slot.length));
      hashed_ = slot.offset + slot.length;
      free_.splice(free_.end(), under_way_, under_way_.begin());
    }
  }

  Answer<void> start_reads() {
    while (!free_.empty()) {
      if (stop_.requested())
        return refuse_cancelled();
      if (wanted_.length == 0)
        OBRAZ_ASK(next_window());
      if (wanted_.length == 0)
        return {};
      OBRAZ_ASK(keep_pace());
      Slot& slot = free_.front();
      slot.offset = wanted_.offset;
      slot.length = std::min(reading_.length_bytes, wanted_.length);
      wanted_ = {wanted_.offset + slot.length, wanted_.length - slot.length};
      read_ += slot.length;
      slot.read.start = [&slot](Volume& volume) {
        return volume.read_stored(slot.offset, slot.buffer.first(slot.length));
      };
      access_.start(slot.read);
      under_way_.splice(under_way_.end(), free_, free_.begin());
    }
    return {};
  }

  // A whole window in which there is data, for long reads; of no length at the end.
  Answer<void> next_window() {
    while (!ended_) {
      const auto chunk = walk_.next(progress_, stop_);
      if (!chunk)
        return std::unexpected(chunk.error());
      progress_.bytes_done += chunk->length;
      ended_ = chunk->length == 0;
      if (ended_ || chunk->offset < wanted_.offset)
        continue;
      const uint64_t offset = chunk->offset / kWindow * kWindow;
      wanted_ = {offset, std::min(kWindow, walk_.size_bytes() - offset)};
      return {};
    }
    return {};
  }

  Answer<void> keep_pace() {
    if (bytes_per_s_ == 0)
      return {};
    const auto due = began_ + std::chrono::duration<double>(double(read_) / double(bytes_per_s_));
    for (;;) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(due - Clock::now()).count();
      if (left <= 0)
        return {};
      pollfd wanted = {stop_.fd(), POLLIN, 0};
      ::poll(&wanted, 1, int(std::min<int64_t>(left, 1000)));
      if (stop_.requested())
        return refuse_cancelled();
    }
  }

  VolumeAccess& access_;
  VolumeWalk walk_;
  const uint64_t bytes_per_s_;
  const Reading reading_;
  Progress& progress_;
  const StopSignal& stop_;
  AlignedBytes memory_;
  std::list<Slot> free_, under_way_;
  bool ended_ = false;
  Extent wanted_ = {};   // what is left to be read of a window
  uint64_t read_ = 0;    // bytes
  uint64_t hashed_ = 0;  // everything before
  const Clock::time_point began_ = Clock::now();
};

}  // namespace

Answer<std::string> digest_of_volume(Reactor& reactor, Volume volume, uint64_t bytes_per_s,
                                     Progress& progress, std::stop_token token) {
  const StopSignal stop(std::move(token));
  VolumeAccess access(reactor, std::move(volume));
  return VolumeDigester(access, bytes_per_s, progress, stop).run();
}

}  // namespace obraz
