// Slot: where the 16 blocks of one virtual cluster are. Pure values and the pure functions that change them;
// no I/O, no counts. The rules are section 4 of docs/disk-format.md.
#pragma once

#include <bit>
#include <cstdint>

#include "store/types.h"

namespace obraz {

struct Slot {
  PhysicalCluster own, base;
  uint16_t own_mask = 0, zero_mask = 0;

  friend bool operator==(const Slot&, const Slot&) = default;
  bool empty() const { return !own && !base; }

  // The cluster that holds the block; none: the block reads as zeros.
  PhysicalCluster place(unsigned block) const {
    const uint16_t bit = uint16_t(1u << block);
    return own_mask & bit ? own : zero_mask & bit ? PhysicalCluster{} : base;
  }
  // Blocks that are read from the base.
  uint16_t shown_of_base() const { return base ? uint16_t(~own_mask & ~zero_mask) : uint16_t(0); }
  // Blocks that read as zeros.
  uint16_t zeros() const { return uint16_t(~own_mask & (base ? zero_mask : kAllBlocks)); }
  // Whether the rules of the format hold; `clusters` is the data device's count.
  bool valid(uint64_t clusters) const {
    return bool(own) == (own_mask != 0) && (base || zero_mask == 0) && (own_mask & zero_mask) == 0 &&
           own.value < clusters && base.value < clusters && (!own || own != base);
  }
};

// The ways a write can go (docs/architecture.md, "The write path").
enum class WriteKind : uint8_t {
  in_place,  // every block is own and unshared: no metadata
  first,     // own is there and unshared: write into it, set the bits
  allocate,  // no own: a new one
  to_base,   // own is shared, and nothing shows from under it after the write: it becomes the base, a new own
  copy,      // own is shared and partial over a base: a new own, and the own blocks not replaced are copied
};

// shared: another volume can reach this slot's own cluster.
inline WriteKind write_kind(const Slot& slot, uint16_t mask, bool shared) {
  if (!slot.own)
    return WriteKind::allocate;
  if (!shared)
    return (slot.own_mask & mask) == mask ? WriteKind::in_place : WriteKind::first;
  return slot.base && (slot.own_mask | mask) != kAllBlocks ? WriteKind::copy : WriteKind::to_base;
}

// Blocks a copying write must carry over.
inline uint16_t blocks_to_copy(const Slot& slot, uint16_t mask) {
  return uint16_t(slot.own_mask & ~mask);
}

// The slot after a write of `mask` has completed; `target` is the cluster written to (own for first).
inline Slot after_write(const Slot& slot, WriteKind kind, uint16_t mask, PhysicalCluster target) {
  Slot next = slot;
  next.own = target;
  switch (kind) {
    case WriteKind::in_place:
    case WriteKind::first:
    case WriteKind::copy:
      next.own_mask = uint16_t(slot.own_mask | mask);
      next.zero_mask = uint16_t(slot.zero_mask & ~mask);
      break;
    case WriteKind::allocate:
      next.own_mask = mask;
      next.zero_mask = uint16_t(slot.zero_mask & ~mask);
      break;
    case WriteKind::to_base:
      next.own_mask = mask;
      next.base = slot.own;
      // What the old own lacks read as zeros (had it a base, the write brings all that own lacks).
      next.zero_mask = uint16_t(~slot.own_mask & ~mask);
      break;
  }
  if (next.own_mask == kAllBlocks) {  // nothing shows through
    next.base = {};
    next.zero_mask = 0;
  }
  return next;
}

// The slot after the blocks of `mask` were given up.
inline Slot after_zero(const Slot& slot, uint16_t mask) {
  Slot next = slot;
  next.own_mask = uint16_t(slot.own_mask & ~mask);
  if (next.own_mask == 0)
    next.own = {};
  if (next.base) {
    next.zero_mask = uint16_t(slot.zero_mask | mask);
    if ((next.own_mask | next.zero_mask) == kAllBlocks) {  // the base shows nowhere any more
      next.base = {};
      next.zero_mask = 0;
    }
  }
  return next;
}

}  // namespace obraz
