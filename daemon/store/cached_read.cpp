#include "store/cached_read.h"

#include <bit>
#include <utility>

#include "store/marks.h"

namespace obraz {
namespace {

// Of the blocks between two that must be read, so few are read along rather than cut one device read in two:
// 16 KiB more cost a device less than one more operation.
constexpr unsigned kBridgedBlocks = 4;

uint16_t bridged(uint16_t mask) {
  for (unsigned last = kBlocksPerCluster, block = 0; block < kBlocksPerCluster; ++block) {
    if (!(mask >> block & 1))
      continue;
    if (last < block && block - last - 1 <= kBridgedBlocks)
      mask |= uint16_t((1u << block) - (1u << last));
    last = block;
  }
  return mask;
}

}  // namespace

void StoreCore::CachedRead::add(const BlockRun& run, uint64_t at, Segments& segments,
                                ToVerifyList& to_verify) {
  const uint16_t wanted = run.mask();
  const CloneCache::Found found = cache_.look(run.cluster);
  const auto absent = uint16_t(wanted & ~found.valid);
  // What is large costs the device little per byte: all of the cluster or nothing, and no waiting.
  const auto to_read =
      reader_.scan ? (absent ? wanted : uint16_t(0)) : bridged(uint16_t(absent & ~found.filling));
  if (const auto copied = uint16_t(wanted & ~absent & ~to_read)) {
    marks::hit(Mark::cache_hit);
    cache_.copy(found, copied, run);
  }
  if (const auto awaited = uint16_t(absent & ~to_read))
    waits_.push_back({run, at, awaited});
  if (!to_read)
    return;
  cache_.count_misses(unsigned(std::popcount(uint16_t(to_read & absent))));
  // While a snapshot waits for writes that began before it, what they write is shared already.
  const bool still = core_.landing == 0 || core_.state.is_summed(run.cluster);
  if (!still)
    marks::hit(Mark::cache_not_filled_while_landing);
  if (const auto kept = uint16_t(to_read & absent & ~found.filling); kept && still)
    if (CloneCache::Fill* fill = cache_.begin(run, kept, reader_)) {
      fill->next = fills_;
      fills_ = fill;
    }
  read(run, at, to_read, segments, to_verify);
}

void StoreCore::CachedRead::read(const BlockRun& run, uint64_t at, uint16_t mask, Segments& segments,
                                 ToVerifyList& to_verify) {
  const bool summed = core_.state.is_summed(run.cluster);
  for (uint32_t left = mask; left;) {
    const auto first = unsigned(std::countr_zero(left));
    const auto count = unsigned(std::countr_one(left >> first));
    left &= ~(((1u << count) - 1) << first);
    const uint64_t skipped = (first - run.first) * kBlockSize;
    const Bytes bytes = run.bytes.subspan(skipped, count * kBlockSize);
    append(segments, {run.cluster.value * kClusterSize + first * kBlockSize, bytes, false});
    if (summed)
      to_verify.push_back({run.cluster, at + skipped, bytes});
  }
}

void StoreCore::CachedRead::end_fills(bool good) {
  while (CloneCache::Fill* fill = fills_) {
    fills_ = fill->next;
    cache_.end(fill, good);
  }
}

Task<Status> StoreCore::CachedRead::finish(VolumeState& volume, Status status) {
  end_fills(status.has_value());
  if (!status)
    co_return status;
  Segments segments;
  ToVerifyList to_verify;
  for (size_t i = 0; i < waits_.size(); ++i) {
    const Wait wait = waits_[i];
    // For each block at most once, whatever becomes of it and whoever reads it next.
    for (uint16_t left = wait.mask; left;) {
      CloneCache::Fill* fill = cache_.filling(wait.run.cluster, left);
      if (!fill)
        break;
      marks::hit(Mark::cache_waited_for_fill);
      left &= uint16_t(~fill->mask());
      co_await CloneCache::ended(*fill);
    }
    const CloneCache::Found found = cache_.look(wait.run.cluster);
    if (const auto copied = uint16_t(wait.mask & found.valid))
      cache_.copy(found, copied, wait.run);
    if (const auto absent = uint16_t(wait.mask & ~found.valid)) {
      marks::hit(Mark::cache_waited_in_vain);
      cache_.count_misses(unsigned(std::popcount(absent)));
      read(wait.run, wait.at, absent, segments, to_verify);
    }
  }
  if (!segments.empty())
    status = co_await core_.transfer(segments);
  if (status && !to_verify.empty())
    status = co_await core_.verify(volume, to_verify);
  co_return status;
}

}  // namespace obraz
