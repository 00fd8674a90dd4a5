// Space: which units (clusters of `data`, node pages of `meta`) can be handed out. A bitmap over slabs that
// are grown (preallocated on the device) one at a time, lowest first.
//
// Invariants: a unit is free (bit set), handed out, or in a slab that is not grown or about to shrink; "free"
// says nothing about counts: who hands units back decides when they may be reused. Thread: the store's. Does
// no I/O: the core preallocates a slab, then calls grown().
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace obraz {

class Space {
 public:
  // Units first … end-1 exist; slabs are aligned to multiples of units_per_slab from unit 0.
  Space(uint64_t first, uint64_t end, uint64_t units_per_slab);

  struct Run {
    uint64_t first = 0, count = 0;
  };
  // A run of 1 … want units, starting at the hint when it is free, otherwise as long as can be found without
  // a long search. Empty count: nothing free in the grown slabs.
  Run allocate(uint64_t want, uint64_t hint = 0);
  void release(uint64_t unit);
  // Marks a unit as handed out; its slab counts as grown. For opening. False: it was handed out before.
  bool claim(uint64_t unit);

  uint64_t free_units() const { return free_; }  // in grown slabs
  uint64_t ungrown_units() const { return ungrown_; }
  bool is_free(uint64_t unit) const { return words_[unit / 64] >> (unit % 64) & 1; }

  // The next slab to grow, as a run of units; none when all are grown.
  std::optional<Run> next_slab() const;
  void grown(const Run& slab);
  uint64_t grown_slabs() const { return grown_slabs_; }
  // Takes a grown slab with nothing handed out, if there are more than `keep` of them: nothing is handed out
  // of it until it is given back to the device, shrunk() says so, and it is grown again.
  std::optional<Run> shrink(uint64_t keep);
  void shrunk(const Run& slab);

 private:
  Run slab_run(uint64_t slab) const;
  void set(uint64_t unit) { words_[unit / 64] |= uint64_t(1) << (unit % 64); }
  void clear(uint64_t unit) { words_[unit / 64] &= ~(uint64_t(1) << (unit % 64)); }
  // The first free unit at or after `from`, before `end`; end when none.
  uint64_t find(uint64_t from, uint64_t end) const;

  uint64_t first_, end_, per_slab_;
  uint64_t free_ = 0, ungrown_ = 0, cursor_ = 0;
  std::vector<uint64_t> words_;
  std::vector<uint64_t> slab_free_;  // free units per slab
  std::vector<bool> slab_grown_;
  uint64_t lowest_ungrown_ = 0, empty_slabs_ = 0, grown_slabs_ = 0;
};

}  // namespace obraz
