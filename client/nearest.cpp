#include "client/nearest.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace obraz::client {
namespace {

// How many letters have to be put in, taken out or replaced (Levenshtein) to make one of the other.
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t(0));
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replaced = diagonal + (a[i] != b[j]);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

}  // namespace

std::string nearest_word(std::string_view word, const std::vector<std::string>& known) {
  std::string best;
  size_t least = word.size() / 3 + 1;
  for (const std::string& one : known)
    if (const size_t d = distance(word, one); d <= least && (best.empty() || d < least)) {
      best = one;
      least = d;
    }
  return best;
}

}  // namespace obraz::client
