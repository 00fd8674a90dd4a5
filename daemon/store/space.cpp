#include "store/space.h"

#include <algorithm>
#include <bit>

#include "base/bytes.h"
#include "base/check.h"

namespace obraz {

Space::Space(uint64_t first, uint64_t end, uint64_t units_per_slab)
    : first_(first), end_(end), per_slab_(units_per_slab), cursor_(first) {
  OBRAZ_CHECK(first < end && units_per_slab > 0);
  words_.assign(divide_up(end, 64), 0);
  const uint64_t slabs = divide_up(end, per_slab_);
  slab_free_.assign(slabs, 0);
  slab_grown_.assign(slabs, false);
  for (uint64_t slab = 0; slab < slabs; ++slab) {
    const uint64_t units = slab_run(slab).count;
    ungrown_ += units;
    if (units == 0)
      slab_grown_[slab] = true;  // wholly below `first`
  }
}

Space::Run Space::slab_run(uint64_t slab) const {
  const uint64_t begin = std::max(slab * per_slab_, first_), end = std::min((slab + 1) * per_slab_, end_);
  return {begin, end > begin ? end - begin : 0};
}

std::optional<Space::Run> Space::next_slab() const {
  for (uint64_t slab = lowest_ungrown_; slab < slab_grown_.size(); ++slab)
    if (!slab_grown_[slab])
      return slab_run(slab);
  return {};
}

void Space::grown(const Run& run) {
  const uint64_t slab = run.first / per_slab_;
  OBRAZ_CHECK(!slab_grown_[slab]);
  slab_grown_[slab] = true;
  while (lowest_ungrown_ < slab_grown_.size() && slab_grown_[lowest_ungrown_])
    ++lowest_ungrown_;
  for (uint64_t unit = run.first; unit < run.first + run.count; ++unit)
    set(unit);
  slab_free_[slab] = run.count;
  free_ += run.count;
  ungrown_ -= run.count;
  ++grown_slabs_;
  ++empty_slabs_;
}

bool Space::claim(uint64_t unit) {
  OBRAZ_CHECK(unit >= first_ && unit < end_);
  const uint64_t slab = unit / per_slab_;
  if (!slab_grown_[slab])
    grown(slab_run(slab));
  if (!is_free(unit))
    return false;
  clear(unit);
  --free_;
  if (slab_free_[slab]-- == slab_run(slab).count)
    --empty_slabs_;
  return true;
}

uint64_t Space::find(uint64_t from, uint64_t end) const {
  for (uint64_t unit = from; unit < end;) {
    const uint64_t word = words_[unit / 64] >> (unit % 64);
    if (word != 0)
      return std::min(unit + uint64_t(std::countr_zero(word)), end);
    unit = (unit / 64 + 1) * 64;
    // Whole slabs without a free unit are skipped.
    while (unit < end && slab_free_[unit / per_slab_] == 0)
      unit = (unit / per_slab_ + 1) * per_slab_;
  }
  return end;
}

Space::Run Space::allocate(uint64_t want, uint64_t hint) {
  if (free_ == 0 || want == 0)
    return {};
  uint64_t at = hint >= first_ && hint < end_ && is_free(hint) ? hint : find(cursor_, end_);
  if (at == end_)
    at = find(first_, end_);
  OBRAZ_CHECK(at < end_);
  Run run{at, 0};
  while (run.count < want && at + run.count < end_ && is_free(at + run.count)) {
    const uint64_t unit = at + run.count;
    const uint64_t slab = unit / per_slab_;
    clear(unit);
    if (slab_free_[slab]-- == slab_run(slab).count)
      --empty_slabs_;
    ++run.count;
  }
  free_ -= run.count;
  cursor_ = at + run.count < end_ ? at + run.count : first_;
  return run;
}

void Space::release(uint64_t unit) {
  OBRAZ_CHECK(unit >= first_ && unit < end_ && !is_free(unit));
  const uint64_t slab = unit / per_slab_;
  OBRAZ_CHECK(slab_grown_[slab]);
  set(unit);
  ++free_;
  if (++slab_free_[slab] == slab_run(slab).count)
    ++empty_slabs_;
}

std::optional<Space::Run> Space::shrink(uint64_t keep) {
  if (empty_slabs_ <= keep)
    return {};
  for (uint64_t slab = slab_grown_.size(); slab-- > 0;) {
    const Run run = slab_run(slab);
    if (run.count == 0 || !slab_grown_[slab] || slab_free_[slab] != run.count)
      continue;
    for (uint64_t unit = run.first; unit < run.first + run.count; ++unit)
      clear(unit);
    slab_free_[slab] = 0;
    free_ -= run.count;
    --empty_slabs_;
    --grown_slabs_;
    return run;
  }
  return {};
}

void Space::shrunk(const Run& run) {
  const uint64_t slab = run.first / per_slab_;
  OBRAZ_CHECK(slab_grown_[slab] && slab_free_[slab] == 0);
  slab_grown_[slab] = false;
  lowest_ungrown_ = std::min(lowest_ungrown_, slab);
  ungrown_ += run.count;
}

}  // namespace obraz
