// Volume: what a session reads and writes. A cheap handle; the store keeps what stands behind it for as long
// as a handle exists, also when the volume is deleted meanwhile (its requests then fail with not_found).
//
// Any alignment is accepted. A write whose buffer address is congruent with its offset modulo 4 KiB goes to
// the device from that buffer; only partial blocks at its ends are read, changed and written (under the
// volume's range order). Requests that overlap are ordered among themselves; a completed write is seen by
// every later read. Durability: after flush() every write that had completed when it was called is durable,
// on all volumes. Errors: out_of_range, read_only (frozen volume or failed store), no_space, io, corruption
// (this range's metadata is damaged), not_found (deleted). None of them loses what was there. Thread: the
// store's executor.
#pragma once

#include <memory>
#include <vector>

#include "base/result.h"
#include "io/task.h"
#include "store/types.h"

namespace obraz {

class Store;
struct VolumeState;

class Volume {
 public:
  Volume() = default;
  explicit operator bool() const { return state_ != nullptr; }
  VolumeId id() const;
  VolumeKind kind() const;
  uint64_t size_bytes() const;  // as of now; grows with a resize

  // Fills `into`. With `extents`, the ranges that read as zeros without a device read are left untouched in
  // `into` and listed (hole or zero set) among the data ranges, in order, covering the request exactly.
  Task<Status> read(uint64_t offset, Bytes into, std::vector<Extent>* extents = nullptr);
  // The same, and what the cache of clones has does not count: for who wants to know what the device holds.
  Task<Status> read_stored(uint64_t offset, Bytes into);
  // fua: durable when it completes.
  Task<Status> write(uint64_t offset, ConstBytes from, bool fua = false);
  struct ZeroOptions {
    bool fua = false;
    bool keep_allocated =
        false;  // NO_HOLE: clusters stay where there are some and are taken where there are none
  };
  // Reads as zeros afterwards. Never slower than a write by more than the partial blocks at its ends.
  Task<Status> zero(uint64_t offset, uint64_t length, ZeroOptions options);
  Task<Status> zero(uint64_t offset, uint64_t length) { return zero(offset, length, ZeroOptions{}); }
  // Gives up the whole blocks inside the range; they read as zeros afterwards. Partial blocks at the ends are
  // kept.
  Task<Status> discard(uint64_t offset, uint64_t length, bool fua = false);
  Task<Status> flush();
  // Loads the mapping (not the data) of the range; a hint.
  Task<Status> cache(uint64_t offset, uint64_t length);
  // Appends at most max_extents runs that cover a prefix of the range, neighbours of one kind merged.
  Task<Status> block_status(uint64_t offset, uint64_t length, size_t max_extents, std::vector<Extent>& out);

 private:
  friend class Store;
  Volume(Store* store, std::shared_ptr<VolumeState> state) : store_(store), state_(std::move(state)) {}
  Store* store_ = nullptr;
  std::shared_ptr<VolumeState> state_;
};

}  // namespace obraz
