#include "store/table.h"

#include <algorithm>
#include <array>

#include "base/check.h"

namespace obraz {

using disk::kPageSize;
using disk::kSlotsPerNode;
using disk::PageRef;

void Table::resize(uint64_t length_bytes) {
  if (length_bytes == length_)
    return;
  const bool shrinks = length_bytes < length_;
  length_ = length_bytes;
  bytes_.resize(round_up(length_bytes, kPageSize));
  root_dirty_ = true;
  reshape();
  if (shrinks && length_bytes < bytes_.size()) {  // what lies beyond the end is zero, on disk too
    std::fill(bytes_.begin() + ptrdiff_t(length_bytes), bytes_.end(), std::byte{0});
    mark_dirty(length_bytes / kPageSize);
  }
}

// Brings the levels to the number of pages. Pages that fall away are remembered; index pages are cheap to
// make anew, so a change of shape rewrites all of them.
void Table::reshape() {
  const uint64_t pages = bytes_.size() / kPageSize;
  for (uint64_t i = pages; i < refs_[0].size(); ++i)
    if (refs_[0][i])
      forgotten_.push_back(refs_[0][i].page);
  refs_[0].resize(pages);
  dirty_.resize(pages, false);
  std::erase_if(dirty_list_, [&](uint64_t index) { return index >= pages; });
  for (unsigned level = 1; level < refs_.size(); ++level)
    for (const PageRef& ref : refs_[level])
      if (ref)
        forgotten_.push_back(ref.page);
  refs_.resize(1);
  while (refs_.back().size() > 1)
    refs_.emplace_back(divide_up(refs_.back().size(), kSlotsPerNode));
}

std::byte* Table::edit(uint64_t offset, uint64_t length) {
  OBRAZ_CHECK(length > 0 && offset + length <= bytes_.size() &&
              offset / kPageSize == (offset + length - 1) / kPageSize);
  mark_dirty(offset / kPageSize);
  return &bytes_[offset];
}

void Table::mark_dirty(uint64_t page_index) {
  if (dirty_[page_index])
    return;
  dirty_[page_index] = true;
  dirty_list_.push_back(page_index);
}

uint64_t Table::worst_case_pages() const {
  uint64_t pages = 0;
  for (const auto& level : refs_)
    pages += level.size();
  return pages;
}

disk::TableRoot Table::freeze(const Freeze& freeze) {
  const auto retire = [&](Page page) {
    freeze.retire(page);
    --stored_pages_;
  };
  const auto allocate = [&] {
    ++stored_pages_;
    return freeze.allocate();
  };
  for (Page page : forgotten_)
    retire(page);
  forgotten_.clear();
  std::vector<uint64_t> changed;
  alignas(kPageSize) std::array<std::byte, kPageSize> copy;
  std::ranges::sort(dirty_list_);
  for (uint64_t index : dirty_list_) {
    dirty_[index] = false;
    std::copy_n(&bytes_[index * kPageSize], kPageSize, copy.data());
    freeze.adjust(index, copy);
    PageRef& ref = refs_[0][index];
    if (ref)
      retire(ref.page);
    if (is_zero(copy)) {
      ref = {};
    } else {
      ref.page = allocate();
      ref.checksum = freeze.emit(ref.page, disk::kTypeTablePage, copy);
    }
    changed.push_back(index);
  }
  dirty_list_.clear();
  for (unsigned level = 1; level < refs_.size(); ++level) {
    auto& above = refs_[level];
    const auto& below = refs_[level - 1];
    std::vector<uint64_t> changed_above;
    size_t next = 0;  // of `changed`, which is ascending
    for (uint64_t index = 0; index < above.size(); ++index) {
      // An index page is written when something below it changed, or when it was never written (a new shape).
      bool touched = false;
      for (; next < changed.size() && changed[next] / kSlotsPerNode == index; ++next)
        touched = true;
      if (!touched && above[index])
        continue;
      copy.fill(std::byte{0});
      bool any = false;
      for (uint64_t i = 0; i < kSlotsPerNode && index * kSlotsPerNode + i < below.size(); ++i) {
        const PageRef& ref = below[index * kSlotsPerNode + i];
        disk::store_page_ref(&copy[i * disk::kSlotSize], ref);
        any |= bool(ref);
      }
      if (above[index])
        retire(above[index].page);
      above[index] = {};
      if (any) {
        above[index].page = allocate();
        above[index].checksum = freeze.emit(above[index].page, disk::type_of_index(level - 1), copy);
      }
      changed_above.push_back(index);
    }
    changed.swap(changed_above);
  }
  root_dirty_ = false;
  return {refs_.back().empty() ? PageRef{} : refs_.back()[0], length_, uint8_t(refs_.size() - 1)};
}

bool Table::prepare(const disk::TableRoot& root, uint64_t max_length_bytes) {
  if (root.length_bytes > max_length_bytes)
    return false;
  resize(root.length_bytes);
  if (root.levels != refs_.size() - 1 || (refs_.back().empty() && root.root))
    return false;
  if (!refs_.back().empty())
    refs_.back()[0] = root.root;
  stored_pages_ = root.root ? 1 : 0;
  forgotten_.clear();
  root_dirty_ = false;
  return true;
}

bool Table::set_page(unsigned level, uint64_t index, ConstBytes content) {
  if (level == 0) {
    std::ranges::copy(content, &bytes_[index * kPageSize]);
    return index + 1 < refs_[0].size() || is_zero(content.subspan(length_ - index * kPageSize));
  }
  auto& below = refs_[level - 1];
  for (uint64_t i = 0; i < kSlotsPerNode; ++i) {
    const std::byte* slot = &content[i * disk::kSlotSize];
    if (load_le<uint32_t>(slot + 12) != 0)
      return false;
    const uint64_t at = index * kSlotsPerNode + i;
    if (at < below.size()) {
      below[at] = disk::load_page_ref(slot);
      stored_pages_ += bool(below[at]);
    } else if (!is_zero({slot, disk::kSlotSize})) {
      return false;
    }
  }
  return true;
}

}  // namespace obraz
