// CachedRead: the part of one read that goes through the cache of clones. Takes runs of clusters that other
// volumes show, too: copies what the cache has in the instant in which the slot was looked up, and adds the
// rest to the segments that the caller reads from the device, but for what somebody else is reading already.
//
// The caller's request is in flight (IoTracker) from before the first look at a slot until finish() has
// returned; so what it has looked up stays named until then, and reading it late, after a wait, is as good as
// a device read that takes long. Thread: the store's.
#pragma once

#include <vector>

#include "store/core.h"

namespace obraz {

class StoreCore::CachedRead {
 public:
  // length_bytes: of the whole request.
  CachedRead(StoreCore& core, VolumeId volume, uint64_t length_bytes)
      : core_(core), cache_(core.clone_cache), reader_{volume, length_bytes > limits::kMaxCachedRead} {}
  CachedRead(const CachedRead&) = delete;
  ~CachedRead() {
    if (fills_)
      end_fills(false);
  }

  // at: of the run in the volume.
  void add(const BlockRun& run, uint64_t at, Segments& segments, ToVerifyList& to_verify);
  bool used() const { return fills_ || !waits_.empty(); }
  // status: of the device reads and their verification. Keeps what was read, wakes who waits for it, and only
  // then waits for others; reads itself what they did not bring.
  Task<Status> finish(VolumeState& volume, Status status);

 private:
  struct Wait {
    BlockRun run;
    uint64_t at;
    uint16_t mask;
  };
  void end_fills(bool good);
  void read(const BlockRun& run, uint64_t at, uint16_t mask, Segments& segments, ToVerifyList& to_verify);

  StoreCore& core_;
  CloneCache& cache_;
  const CloneCache::Reader reader_;
  CloneCache::Fill* fills_ = nullptr;
  std::vector<Wait> waits_;
};

}  // namespace obraz
