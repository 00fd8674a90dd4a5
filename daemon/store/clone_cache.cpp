#include "store/clone_cache.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"
#include "store/marks.h"

namespace obraz {
namespace {

static_assert(limits::kMaxDataSize / kClusterSize <= UINT32_MAX,
              "an entry has 32 bits for a cluster's number");

constexpr uint64_t kFramesPerFill = 16;
constexpr uint64_t kBucketsPerSeen = 4;
constexpr uint64_t kLeastFrames = 2 * kBlocksPerCluster;  // so that one cluster can enter while another stays

unsigned blocks_of(uint16_t mask) {
  return unsigned(std::popcount(mask));
}

}  // namespace

CloneCache::CloneCache(Executor& executor, uint64_t bytes) : executor_(executor) {
  // An entry for each frame, since a cluster may have one block here; tables of a power of two, so up to
  // twice as many buckets and ghosts.
  constexpr uint64_t kPerFrame = kBlockSize + sizeof(Entry) +
                                 2 * (sizeof(uint32_t) + sizeof(Ghost) + sizeof(Seen) / kBucketsPerSeen) +
                                 (sizeof(Fill) + 2 * sizeof(Fill*)) / kFramesPerFill + 1;
  const uint64_t frames = std::min<uint64_t>(bytes / kPerFrame, UINT32_MAX - 1);
  if (frames < kLeastFrames)
    return;
  const uint64_t buckets = std::bit_ceil(frames);
  const uint64_t entries_at = frames * kBlockSize, buckets_at = entries_at + (frames + 1) * sizeof(Entry);
  const uint64_t ghosts_at = buckets_at + buckets * sizeof(uint32_t);
  const uint64_t seen_at = ghosts_at + buckets * sizeof(Ghost);
  mapped_bytes_ = round_up(seen_at + buckets / kBucketsPerSeen * sizeof(Seen), kBlockSize);
  void* memory = ::mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    log::warning("store: there is no memory for a cache of clones of {} bytes; it is off", mapped_bytes_);
    mapped_bytes_ = 0;
    return;
  }
  memory_ = static_cast<std::byte*>(memory);
  frames_ = memory_;
  entries_ = reinterpret_cast<Entry*>(memory_ + entries_at);
  buckets_ = reinterpret_cast<uint32_t*>(memory_ + buckets_at);
  ghosts_ = reinterpret_cast<Ghost*>(memory_ + ghosts_at);
  seen_ = reinterpret_cast<Seen*>(memory_ + seen_at);
  bucket_mask_ = buckets - 1;
  seen_mask_ = buckets / kBucketsPerSeen - 1;
  frame_count_ = frames;
  const uint64_t fills = std::min<uint64_t>(limits::kMaxCloneFills, frames / kFramesPerFill);
  fills_ = std::make_unique<Fill[]>(fills);
  fill_mask_ = std::bit_ceil(fills) - 1;
  fill_buckets_ = std::make_unique<Fill*[]>(fill_mask_ + 1);
  for (uint64_t i = 0; i < fills; ++i) {
    fills_[i].chain_ = free_fill_;
    free_fill_ = &fills_[i];
  }
}

CloneCache::~CloneCache() {
  OBRAZ_CHECK(fills_under_way_ == 0);
  if (memory_)
    ::munmap(memory_, mapped_bytes_);
}

// --- looking
// ---------------------------------------------------------------------------------------------------------

uint32_t CloneCache::find(PhysicalCluster cluster) const {
  uint32_t index = *bucket(cluster);
  while (index && entries_[index].cluster != cluster.value)
    index = entries_[index].chain;
  return index;
}

CloneCache::Found CloneCache::look(PhysicalCluster cluster) const {
  Found found;
  found.entry = find(cluster);
  if (found.entry)
    found.valid = entries_[found.entry].valid;
  if (fills_under_way_ > 0)
    for (const Fill* fill = *fill_bucket(cluster); fill; fill = fill->chain_)
      if (fill->run_.cluster == cluster)
        found.filling |= fill->mask_;
  return found;
}

void CloneCache::copy(const Found& found, uint16_t mask, const BlockRun& into) {
  Entry& entry = entries_[found.entry];
  OBRAZ_CHECK(entry.cluster == into.cluster.value && (mask & ~(entry.valid & into.mask())) == 0);
  entry.uses = std::min<uint8_t>(uint8_t(entry.uses + 1), kMostUses);
  hits_ += blocks_of(mask);
  for (uint32_t left = mask; left; left &= left - 1) {
    const auto block = unsigned(std::countr_zero(left));
    std::memcpy(into.block(block).data(), frame(entry.frames[block]), kBlockSize);
  }
}

// --- filling
// ---------------------------------------------------------------------------------------------------------

// Whether somebody else may want what the volume is about to read.
bool CloneCache::is_for_others(PhysicalCluster cluster, VolumeId volume, unsigned blocks) {
  if (volume != last_reader_) {
    last_reader_ = volume;
    read_alone_ = 0;
  }
  if (read_alone_ < blocks_for_one_) {
    read_alone_ += blocks;
    return true;
  }
  const Seen now{uint32_t(cluster.value), uint32_t(volume.value)};
  const Seen before = std::exchange(seen_[hash(cluster) & seen_mask_], now);
  if (before.cluster == now.cluster && before.volume != now.volume) {
    marks::hit(Mark::cache_wanted_by_another);
    return true;
  }
  marks::hit(Mark::cache_not_filled_for_one);
  return false;
}

CloneCache::Fill* CloneCache::begin(const BlockRun& run, uint16_t mask, const Reader& reader) {
  if (reader.scan ? !is_ghost(run.cluster)
                  : !is_for_others(run.cluster, reader.volume, blocks_of(mask)) && !is_ghost(run.cluster))
    return nullptr;
  Fill* fill = free_fill_;
  if (!fill) {
    marks::hit(Mark::cache_fills_exhausted);
    return nullptr;
  }
  OBRAZ_CHECK(mask != 0 && (mask & ~run.mask()) == 0);
  free_fill_ = fill->chain_;
  fill->run_ = run;
  fill->mask_ = mask;
  fill->pending_ = true;
  fill->next = nullptr;
  Fill** first = fill_bucket(run.cluster);
  fill->chain_ = *first;
  *first = fill;
  ++fills_under_way_;
  return fill;
}

CloneCache::Fill* CloneCache::filling(PhysicalCluster cluster, uint16_t mask) const {
  Fill* fill = *fill_bucket(cluster);
  while (fill && (fill->run_.cluster != cluster || (fill->mask_ & mask) == 0))
    fill = fill->chain_;
  return fill;
}

void CloneCache::settle(Fill* fill) {
  fill->pending_ = false;
  Fill** at = fill_bucket(fill->run_.cluster);
  while (*at != fill)
    at = &(*at)->chain_;
  *at = fill->chain_;
  while (!fill->waiters_.empty())
    executor_.enqueue(fill->waiters_.pop()->waiter);
}

void CloneCache::end(Fill* fill, bool good) {
  if (fill->pending_) {
    settle(fill);
    if (good)
      keep(*fill);
  }
  fill->chain_ = free_fill_;
  free_fill_ = fill;
  --fills_under_way_;
}

void CloneCache::keep(const Fill& fill) {
  // Before the entry is looked up, for it may itself be evicted.
  while (frame_count_ - used_frames_ < blocks_of(fill.mask_))
    evict_one();
  const PhysicalCluster cluster = fill.run_.cluster;
  uint32_t index = find(cluster);
  if (!index) {
    index = take_entry();
    Entry& entry = entries_[index];
    entry.cluster = uint32_t(cluster.value);
    entry.valid = 0;
    entry.uses = 0;
    entry.is_main = is_ghost(cluster);
    if (entry.is_main) {
      marks::hit(Mark::cache_remembered);
      ghosts_[hash(cluster) & bucket_mask_] = {};
    }
    entry.chain = *bucket(cluster);
    *bucket(cluster) = index;
    push(index);
  }
  Entry& entry = entries_[index];
  const auto added = uint16_t(fill.mask_ & ~entry.valid);
  for (uint32_t left = added; left; left &= left - 1) {
    const auto block = unsigned(std::countr_zero(left));
    entry.frames[block] = take_frame();
    std::memcpy(frame(entry.frames[block]), fill.run_.block(block).data(), kBlockSize);
  }
  entry.valid |= added;
  queue_of(entry).frames += blocks_of(added);
}

void CloneCache::drop(PhysicalCluster cluster) {
  if (const uint32_t index = find(cluster)) {
    marks::hit(Mark::cache_dropped);
    remove(index);
  }
  while (Fill* fill = fills_under_way_ > 0 ? filling(cluster, kAllBlocks) : nullptr) {
    marks::hit(Mark::cache_fill_voided);
    settle(fill);
  }
}

// --- eviction
// --------------------------------------------------------------------------------------------------------

bool CloneCache::is_ghost(PhysicalCluster cluster) const {
  const Ghost& ghost = ghosts_[hash(cluster) & bucket_mask_];
  return ghost.cluster == cluster.value && evicted_frames_ - ghost.evicted_at < frame_count_;
}

// The oldest of a queue: gone, or given another chance. Whoever is given one too many has used it up, so the
// loop ends.
void CloneCache::evict_one() {
  for (;;) {
    if (main_.oldest == 0 || small_.frames > frame_count_ / 10) {
      const uint32_t index = small_.oldest;
      OBRAZ_CHECK(index != 0);
      Entry& entry = entries_[index];
      if (entry.uses <= 1) {
        marks::hit(Mark::cache_evicted);
        evicted_frames_ += blocks_of(entry.valid);
        const PhysicalCluster cluster{entry.cluster};
        ghosts_[hash(cluster) & bucket_mask_] = {entry.cluster, evicted_frames_};
        return remove(index);
      }
      unlink(index);
      entry.uses = 0;
      entry.is_main = true;
      push(index);
    } else {
      const uint32_t index = main_.oldest;
      Entry& entry = entries_[index];
      if (entry.uses == 0) {
        evicted_frames_ += blocks_of(entry.valid);
        return remove(index);
      }
      unlink(index);
      --entry.uses;
      push(index);
    }
  }
}

void CloneCache::push(uint32_t index) {
  Entry& entry = entries_[index];
  Queue& queue = queue_of(entry);
  entry.newer = 0;
  entry.older = queue.newest;
  (queue.newest ? entries_[queue.newest].newer : queue.oldest) = index;
  queue.newest = index;
  queue.frames += blocks_of(entry.valid);
}

void CloneCache::unlink(uint32_t index) {
  const Entry& entry = entries_[index];
  Queue& queue = queue_of(entry);
  (entry.newer ? entries_[entry.newer].older : queue.newest) = entry.older;
  (entry.older ? entries_[entry.older].newer : queue.oldest) = entry.newer;
  queue.frames -= blocks_of(entry.valid);
}

void CloneCache::remove(uint32_t index) {
  unlink(index);
  Entry& entry = entries_[index];
  uint32_t* at = bucket({entry.cluster});
  while (*at != index)
    at = &entries_[*at].chain;
  *at = entry.chain;
  for (uint32_t left = entry.valid; left; left &= left - 1) {
    const uint32_t number = entry.frames[std::countr_zero(left)];
    std::memcpy(frame(number), &free_frame_, sizeof free_frame_);
    free_frame_ = number;
  }
  used_frames_ -= blocks_of(entry.valid);
  entry.cluster = 0;
  entry.valid = 0;
  entry.chain = free_entry_;
  free_entry_ = index;
}

// There is one whenever there is a frame: an entry has at least one.
uint32_t CloneCache::take_entry() {
  const uint32_t index = free_entry_;
  if (!index)
    return ++fresh_entries_;
  free_entry_ = entries_[index].chain;
  return index;
}

uint32_t CloneCache::take_frame() {
  ++used_frames_;
  const uint32_t number = free_frame_;
  if (!number)
    return ++fresh_frames_;
  std::memcpy(&free_frame_, frame(number), sizeof free_frame_);
  return number;
}

}  // namespace obraz
