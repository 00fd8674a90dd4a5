// What the tests of layouts share: disks made by the programs of the system (sfdisk, mkfs.*, mtools,
// ntfs-3g), and ways to have them examined: by obraz-layout, as the daemon does it, or in this process, where
// a sanitizer and a debugger see it.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "image/file_view.h"
#include "image/layout.h"
#include "image/layout_examine.h"
#include "image_support.h"

namespace obraz::test {

// shell(), with what it prints thrown away and the programs of the administrator in the path.
void quiet(const std::string& command);

// Sparse files in a directory of their own.
class DiskMaker {
 public:
  std::string path(const std::string& name) const { return work_ / name; }
  // An empty file of that many MiB.
  std::string blank(const std::string& name, uint64_t mib);
  // An empty disk with the partitions of a script of sfdisk.
  std::string partitioned(const std::string& name, uint64_t mib, const std::string& script);
  // Copies a file into a disk.
  void put(const std::string& disk, uint64_t at_mib, const std::string& file);
  // Some code in a boot record, as a boot loader has it there.
  void put_boot_code(const std::string& disk, const std::string& text = "loader");

  // Volumes; the tools need no mounting.
  std::string ext4(uint64_t mib, const std::string& label);
  std::string fat(uint64_t mib, unsigned bits, const std::string& label,
                  const std::vector<std::string>& files);
  std::string ntfs(uint64_t mib, const std::string& label, const std::vector<std::string>& paths);

  // --- the disks of the tests, by name
  static const std::vector<std::string>& names();
  std::string make(const std::string& name);

 private:
  WorkDirectory work_;
  unsigned made_ = 0;
};

// Reads a file as if it were a disk, for probe_layout().
class FileDisk {
 public:
  explicit FileDisk(const std::string& path);
  ReadDisk reader();
  uint64_t size_bytes() const { return view_.size_bytes; }
  const FileView& view() const { return view_; }
  uint64_t bytes_read() const { return bytes_read_; }
  // Bytes that are read instead of the file's, page by page.
  std::map<uint64_t, std::vector<std::byte>>& changes() { return changes_; }
  bool read(uint64_t offset, Bytes into);

 private:
  OwnedFd fd_;
  FileView view_;
  uint64_t bytes_read_ = 0;
  std::map<uint64_t, std::vector<std::byte>> changes_;
};

// The same disk examined in this process.
class FileBytes final : public DiskBytes {
 public:
  explicit FileBytes(FileDisk& disk);
  struct Range {
    uint64_t offset, length;
  };
  const std::vector<Range>& asked() const { return asked_; }

 private:
  FileBytes(FileDisk& disk, int file);
  bool ask(uint64_t offset, uint64_t length) override;

  FileDisk& disk_;
  OwnedFd owner_;
  std::vector<Range> asked_;
};

DiskLayout examine(FileDisk& disk);
// By obraz-layout; fails the test when it is refused.
DiskLayout probe(const std::string& path);

// All of it in lines, for messages and comparisons.
std::string describe(const DiskLayout& layout);

}  // namespace obraz::test
