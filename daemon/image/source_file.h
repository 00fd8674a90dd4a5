// SourceFile: the file a source is in, opened once for reading; all that follows uses its descriptor, never
// its name again. Only regular files and block devices; a file that somebody has locked for writing (a
// virtual machine's disk) is refused. Thread: a worker's.
#pragma once

#include <sys/stat.h>

#include <string>

#include "base/file_identity.h"
#include "image/file_view.h"

namespace obraz {

class SourceFile {
 public:
  // With the rights of `as`.
  static Answer<SourceFile> open(const std::string& path, const FileIdentityRef& as = nullptr);

  FileView view() const { return {fd_.get(), size_bytes_}; }
  int fd() const { return fd_.get(); }
  uint64_t size_bytes() const { return size_bytes_; }
  bool block_device() const { return S_ISBLK(status_.st_mode); }
  // Refuses when the file has another size or time of change than when it was opened.
  Answer<void> check_unchanged() const;

 private:
  SourceFile(OwnedFd fd, uint64_t size_bytes, const struct stat& status)
      : fd_(std::move(fd)), size_bytes_(size_bytes), status_(status) {}
  OwnedFd fd_;
  uint64_t size_bytes_;
  struct stat status_;
};

}  // namespace obraz
