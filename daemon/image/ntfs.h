// NtfsVolume: which files an NTFS volume has, by their paths; nothing of what is in them.
//
// After the documentation of the Linux-NTFS project. The volume is taken to be hostile: every place, length
// and count is checked, multi-sector fixups are applied and must hold, and each call reads a bounded number
// of bytes (limits below) and needs bounded memory, whatever the volume says. What contradicts itself, or is
// of no kind that the system's own directories have (compressed, encrypted), is ErrorCode::corruption or
// unsupported.
//
// Directories are searched along their tree, not listed. Thread: any, one at a time.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "image/read_range.h"

namespace obraz {

class NtfsVolume {
 public:
  static constexpr uint64_t kRootDirectory = 5;  // the number of its record
  static constexpr size_t kMaxRecord = 64 * 1024, kMaxIndexBlock = 64 * 1024, kMaxCluster = 2 * 1024 * 1024;
  static constexpr size_t kMaxRuns = 16384;           // of one file's bytes
  static constexpr size_t kMaxAttributeList = 65536;  // bytes
  static constexpr size_t kMaxListedRecords = 64;     // that one attribute is spread over
  static constexpr unsigned kMaxTreeDepth = 16;

  struct Entry {
    uint64_t record = 0;
    bool directory = false;
  };

  static bool has_signature(ConstBytes first_sector);  // of at least 512 bytes
  static Result<NtfsVolume> open(ReadRange read, uint64_t size_bytes);

  // The entry of that name in a directory. The name has ASCII characters only; capitals and small letters are
  // the same. Nothing: there is none.
  Result<std::optional<Entry>> find(uint64_t directory, std::string_view name);
  // From the root, names separated by '/'.
  Result<std::optional<Entry>> find_path(std::string_view path);

  // Where the first records of the table of all files lie, for who wants to look at them himself.
  uint64_t table_offset() const { return table_offset_; }
  size_t record_size() const { return record_size_; }

 private:
  struct Run {
    uint64_t first = 0, length = 0;  // clusters of the file
    std::optional<uint64_t> place;   // cluster of the volume; none: a hole
  };
  struct Content {  // of an attribute
    std::vector<std::byte> resident;
    std::vector<Run> runs;
    uint64_t size_bytes = 0;  // of the runs
    bool is_resident = false;
  };
  struct Attribute;

  NtfsVolume() = default;
  Status read_boot_sector(uint64_t size_bytes);
  Status read_table();
  Result<std::vector<std::byte>> read_record(uint64_t number);
  Status read_content(const Content& content, uint64_t offset, Bytes into);
  Status add_runs(const Attribute& attribute, Content& content) const;
  Status add_attribute(const Attribute& attribute, Content& content) const;
  Result<std::optional<Content>> load(uint64_t number, uint32_t type, std::u16string_view name);
  Status load_listed(uint64_t number, ConstBytes record, const Content& list, uint32_t type,
                     std::u16string_view name, Content& content);
  static Result<std::optional<Attribute>> find_attribute(ConstBytes record, uint32_t type,
                                                         std::u16string_view name, uint64_t first_cluster);

  ReadRange read_;
  uint64_t cluster_size_ = 0, clusters_ = 0, table_offset_ = 0;
  size_t record_size_ = 0;
  Content table_;  // of all files: their records
};

}  // namespace obraz
