// FreeRuns: the free cells of a table, as runs that touch no other. The smallest run that is large enough is
// taken, of several the first, so that large ones stay and looking costs the logarithm of their number.
//
// In memory only; recovery makes it anew from the table. Thread: the reactor's.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "base/check.h"

namespace obraz {

class FreeRuns {
 public:
  // Cells that are not free yet, at least one.
  void add(uint64_t first, uint64_t count) {
    OBRAZ_CHECK(count > 0);
    auto next = by_place_.lower_bound(first);
    OBRAZ_CHECK(next == by_place_.end() || next->first >= first + count);
    if (next != by_place_.end() && next->first == first + count) {
      count += next->second;
      next = erase(next);
    }
    if (next != by_place_.begin()) {
      const auto previous = std::prev(next);
      OBRAZ_CHECK(previous->first + previous->second <= first);
      if (previous->first + previous->second == first) {
        first = previous->first;
        count += previous->second;
        erase(previous);
      }
    }
    insert(first, count);
  }

  // The first of so many cells, which are free no longer; nothing when no run is as long.
  std::optional<uint64_t> take(uint64_t count) {
    OBRAZ_CHECK(count > 0);
    const auto run = by_length_.lower_bound({count, 0});
    if (run == by_length_.end())
      return std::nullopt;
    const auto [length, first] = *run;
    erase(by_place_.find(first));
    if (length > count)
      insert(first + count, length - count);
    return first;
  }

  size_t runs() const { return by_place_.size(); }

 private:
  using ByPlace = std::map<uint64_t, uint64_t>;  // first → count

  void insert(uint64_t first, uint64_t count) {
    by_place_.emplace(first, count);
    by_length_.emplace(count, first);
  }
  ByPlace::iterator erase(ByPlace::iterator run) {
    by_length_.erase({run->second, run->first});
    return by_place_.erase(run);
  }

  ByPlace by_place_;
  std::set<std::pair<uint64_t, uint64_t>> by_length_;  // count, first
};

}  // namespace obraz
