#include "image/block_runs.h"

#include <algorithm>

namespace obraz {

std::vector<BlockRun> data_runs(ConstBytes bytes) {
  std::vector<BlockRun> runs;
  for (size_t at = 0; at < bytes.size(); at += kBlockSize) {
    const size_t length = std::min<size_t>(kBlockSize, bytes.size() - at);
    if (is_zero(bytes.subspan(at, length)))
      continue;
    if (!runs.empty() && runs.back().offset + runs.back().length == at)
      runs.back().length += length;
    else
      runs.push_back({at, length});
  }
  return runs;
}

}  // namespace obraz
