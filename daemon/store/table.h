// Table: one of the five flat arrays of a checkpoint (docs/disk-format.md, section 5), resident in memory.
//
// Invariants: `refs` of level 0 name the table pages of the last freeze, level n the index pages above them;
// a page is written once, to a free page, and never changed. Changes mark table pages dirty; freeze() turns
// the dirty ones into copies with new page numbers. What a crash leaves behind: the pages of the last durable
// superblock, untouched. Thread: the store's. Does no I/O itself.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/bytes.h"
#include "store/disk_format.h"

namespace obraz {

class Table {
 public:
  // length_bytes: current length, multiple of the element size.
  explicit Table(uint64_t length_bytes = 0) { resize(length_bytes); }

  uint64_t length_bytes() const { return length_; }
  // Grows with zeros; shrinking forgets.
  void resize(uint64_t length_bytes);
  const std::byte* at(uint64_t offset) const { return &bytes_[offset]; }
  // Access for change: marks the page of [offset, offset + length) dirty; the range lies within one page.
  std::byte* edit(uint64_t offset, uint64_t length);

  uint32_t u32(uint64_t index) const { return load_le<uint32_t>(&bytes_[index * 4]); }
  void set_u32(uint64_t index, uint32_t value) { store_le<uint32_t>(edit(index * 4, 4), value); }

  uint64_t table_pages() const { return refs_[0].size(); }
  // Table and index pages a freeze writes at most.
  uint64_t worst_case_pages() const;
  // Pages of the device that the last freeze left to it.
  uint64_t stored_pages() const { return stored_pages_; }
  bool dirty() const { return !dirty_list_.empty() || root_dirty_; }

  // Writes: allocate() gives a free page; retire(page) is told of each page the new version no longer names;
  // emit(page, type, content) receives each new page and returns its checksum. `adjust` may change the copy
  // of a table page (its index, its bytes) before it is emitted; it does not change the resident one.
  struct Freeze {
    std::function<Page()> allocate;
    std::function<void(Page)> retire;
    std::function<uint32_t(Page, uint32_t type, ConstBytes content)> emit;
    std::function<void(uint64_t page_index, Bytes content)> adjust;
  };
  void mark_dirty(uint64_t page_index);
  disk::TableRoot freeze(const Freeze& freeze);

  // Loading, level by level from the top: prepare(root) sets the shape; then for each level from the topmost
  // down, for every page of refs(level), set_page(level, index, content). Level 0 are the table pages. False
  // when the root's shape is impossible.
  bool prepare(const disk::TableRoot& root, uint64_t max_length_bytes);
  unsigned levels() const { return unsigned(refs_.size()); }
  const std::vector<disk::PageRef>& refs(unsigned level) const { return refs_[level]; }
  // False when reserved bytes are not zero.
  bool set_page(unsigned level, uint64_t index, ConstBytes content);

 private:
  void reshape();
  std::vector<std::byte> bytes_;  // whole pages
  uint64_t length_ = 0;
  std::vector<std::vector<disk::PageRef>> refs_{
      {}};  // [0] table pages, [1…] index pages; the last has ≤ 1 entry
  std::vector<bool> dirty_;
  std::vector<uint64_t> dirty_list_;
  std::vector<Page> forgotten_;  // pages of shrunk or reshaped levels, to retire at the next freeze
  uint64_t stored_pages_ = 0;
  bool root_dirty_ = false;
};

}  // namespace obraz
