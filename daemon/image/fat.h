// FatVolume: which files a FAT12, FAT16 or FAT32 volume has, by their paths; nothing of what is in them.
//
// After Microsoft's "FAT: General Overview of On-Disk Format" 1.03. The volume is taken to be hostile: every
// place is checked, chains end after as many clusters as the longest directory can have, and each call reads
// a bounded number of bytes. What contradicts itself is ErrorCode::corruption. Thread: any, one at a time.
#pragma once

#include <optional>
#include <string_view>

#include "base/result.h"
#include "image/read_range.h"

namespace obraz {

class FatVolume {
 public:
  static constexpr size_t kMaxDirectory = 65536;  // entries, as the format allows
  static constexpr size_t kEntrySize = 32;

  struct Entry {
    uint32_t cluster = 0;  // the first
    bool directory = false;
  };

  static Result<FatVolume> open(ReadRange read, uint64_t size_bytes);
  unsigned bits() const { return bits_; }  // 12, 16 or 32

  // From the root, names separated by '/', of ASCII characters; capitals and small letters are the same, and
  // both names of a file count, the long and the short one. Nothing: there is none.
  Result<std::optional<Entry>> find_path(std::string_view path);

 private:
  FatVolume() = default;
  Status read_boot_sector(uint64_t size_bytes);
  Result<std::optional<Entry>> find(const Entry* directory, std::string_view name);  // null: the root
  // The place of the n-th piece of a directory; nothing: it has ended.
  struct Walk;
  Result<std::optional<uint64_t>> next_piece(Walk& walk);
  Result<uint32_t> following(uint32_t cluster);

  ReadRange read_;
  unsigned bits_ = 0;
  uint64_t piece_size_ = 0;  // of a directory that is read at once: a sector
  uint64_t table_ = 0;       // places in bytes
  uint64_t root_ = 0, root_size_ = 0;
  uint64_t data_ = 0;
  uint64_t cluster_size_ = 0;
  uint32_t clusters_ = 0;
  uint32_t root_cluster_ = 0;  // of FAT32
};

}  // namespace obraz
