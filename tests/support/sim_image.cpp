#include "support/sim_image.h"

#include <algorithm>

namespace obraz::test {

void SimImage::read(uint64_t offset, Bytes into) const {
  while (!into.empty()) {
    const uint64_t at = offset % kPageSize;
    const size_t n = std::min<size_t>(into.size(), kPageSize - at);
    if (const auto found = pages_.find(offset / kPageSize); found != pages_.end())
      std::memcpy(into.data(), found->second->data() + at, n);
    else
      std::memset(into.data(), 0, n);
    into = into.subspan(n);
    offset += n;
  }
}

void SimImage::write(uint64_t offset, ConstBytes from) {
  while (!from.empty()) {
    const uint64_t at = offset % kPageSize;
    const size_t n = std::min<size_t>(from.size(), kPageSize - at);
    auto& page = pages_[offset / kPageSize];
    if (!page)
      page = std::make_shared<Page>();
    else if (page.use_count() > 1)
      page = std::make_shared<Page>(*page);
    std::memcpy(page->data() + at, from.data(), n);
    from = from.subspan(n);
    offset += n;
  }
}

void SimImage::clear(uint64_t offset, uint64_t length) {
  static constexpr Page kZeros{};
  while (length > 0) {
    const uint64_t at = offset % kPageSize, n = std::min(length, kPageSize - at);
    if (n == kPageSize)
      pages_.erase(offset / kPageSize);
    else if (has_page(offset / kPageSize))
      write(offset, ConstBytes(kZeros).first(n));
    offset += n;
    length -= n;
  }
}

bool SimImage::covers(const SimImage& other) const {
  for (const auto& [index, page] : other.pages_) {
    const auto found = pages_.find(index);
    if (found == pages_.end() ? !is_zero(*page) : found->second != page && *found->second != *page)
      return false;
  }
  return true;
}

bool operator==(const SimImage& a, const SimImage& b) {
  return a.covers(b) && b.covers(a);
}

}  // namespace obraz::test
