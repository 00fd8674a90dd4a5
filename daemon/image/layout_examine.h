// What obraz-layout does in its confinement: looks at the bytes of a disk and says what is on it. libblkid
// knows partition tables and file systems; ntfs.h and fat.h find the files of Windows.
//
// Invariants: whatever the bytes are, there is an answer that keeps to the invariants of layout.h, after at
// most limits::kLayoutReads requests for limits::kLayoutReadTotal bytes. Thread: any, one at a time.
#pragma once

#include <vector>

#include "image/layout.h"

namespace obraz {

// The bytes of the disk, in a sparse file of its size that fills as they are asked for. What was not asked
// for reads as zeros to who reads the file by itself, as libblkid does.
class DiskBytes {
 public:
  DiskBytes(int file, uint64_t size_bytes);
  virtual ~DiskBytes() = default;
  DiskBytes(const DiskBytes&) = delete;

  int file() const { return file_; }
  uint64_t size_bytes() const { return size_bytes_; }
  // What of the range lies on the disk is in the file then. False: not all of it, for a limit was reached.
  bool fetch(uint64_t offset, uint64_t length);
  // Fetches and reads it. False, too, when the range reaches beyond the disk.
  bool read(uint64_t offset, Bytes into);
  bool limit_reached() const { return limit_reached_; }

 protected:
  // Puts a range of whole pages, or up to the end, into the file. At most limits::kLayoutReadSize.
  virtual bool ask(uint64_t offset, uint64_t length) = 0;

 private:
  bool has_page(uint64_t page) const;

  int file_;
  uint64_t size_bytes_;
  std::vector<std::pair<uint64_t, uint64_t>>
      pages_;  // that are there: [first, end), sorted, apart from each other
  uint64_t total_ = 0;
  unsigned asked_ = 0;
  bool limit_reached_ = false;
};

DiskLayout examine_disk(DiskBytes& disk);

}  // namespace obraz
