#include "image/volume_walk.h"

#include <fmt/format.h>

#include <algorithm>

namespace obraz {
namespace {

Task<Status> tell_size(Volume& volume, uint64_t& size_bytes) {
  size_bytes = volume.size_bytes();
  co_return Status();
}

}  // namespace

Answer<void> VolumeWalk::begin() {
  const Status told = access_.run([this](Volume& volume) { return tell_size(volume, size_); });
  if (!told)
    return refuse_error(told.error(), "find the size of the volume");
  return {};
}

Answer<VolumeWalk::Chunk> VolumeWalk::next(Progress& progress, const StopSignal& stop) {
  while (at_ < size_) {
    if (index_ == extents_.size())
      OBRAZ_ASK(load_extents(stop));
    const Extent extent = extents_[index_];
    const uint64_t end = std::min(extent.offset + extent.length, size_);
    if (end <= at_) {
      ++index_;
      continue;
    }
    if (extent.zero) {
      progress.bytes_done += end - at_;
      at_ = end;
      continue;
    }
    const Chunk chunk{at_, std::min(end, at_ / kChunk * kChunk + kChunk) - at_};
    at_ += chunk.length;
    return chunk;
  }
  return Chunk{size_, 0};
}

Answer<void> VolumeWalk::load_extents(const StopSignal& stop) {
  if (stop.requested())
    return refuse_cancelled();
  extents_.clear();
  index_ = 0;
  const Status status = access_.run([this](Volume& volume) {
    return volume.block_status(at_, size_ - at_, limits::kMaxSourceExtents, extents_);
  });
  if (!status)
    return refuse_error(status.error(), fmt::format("find the data of the volume from byte {} on", at_));
  OBRAZ_CHECK(!extents_.empty());
  return {};
}

}  // namespace obraz
