// VolumeWalk: the data of a volume from its beginning to its end, in chunks that are worth one read. What
// reads as zeros is passed over without being read.
//
// Invariants: chunks ascend and do not overlap; none crosses a multiple of kChunk. Every call may block on
// the reactor. Thread: the worker's.
#pragma once

#include <vector>

#include "base/limits.h"
#include "image/progress.h"
#include "image/volume_access.h"

namespace obraz {

class VolumeWalk {
 public:
  static constexpr uint64_t kChunk = limits::kImportRequestSize;

  explicit VolumeWalk(VolumeAccess& access) : access_(access) {}

  // First: asks for the size, which counts from now on, whatever becomes of the volume.
  Answer<void> begin();
  uint64_t size_bytes() const { return size_; }

  struct Chunk {
    uint64_t offset = 0, length = 0;  // length 0: the end
  };
  // Counts the zeros that it passes over as done.
  Answer<Chunk> next(Progress& progress, const StopSignal& stop);

 private:
  Answer<void> load_extents(const StopSignal& stop);

  VolumeAccess& access_;
  uint64_t size_ = 0;
  std::vector<Extent> extents_;
  size_t index_ = 0;
  uint64_t at_ = 0;  // everything before has been handed out or passed over
};

}  // namespace obraz
