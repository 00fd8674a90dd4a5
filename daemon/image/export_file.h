// ExportFile: a file that appears under its name only when it is whole. Until then it has no name
// (O_TMPFILE), or, where the file system cannot do so, the name FILE.partial; not committed, it is gone.
//
// Invariants: an existing file is never overwritten; after commit() file and name are durable. Thread: a
// worker's.
#pragma once

#include <string>

#include "base/file_identity.h"
#include "image/file_view.h"

namespace obraz {

class ExportFile {
 public:
  // With the rights of `as`, whose it is then. May be told not to use O_TMPFILE, so that tests walk the other
  // way.
  static Answer<ExportFile> create(const std::string& path, FileIdentityRef as = nullptr,
                                   bool nameless = true);
  ExportFile(ExportFile&&) noexcept = default;
  ~ExportFile();

  int fd() const { return file_.get(); }
  Answer<void> commit();

 private:
  ExportFile(FileIdentityRef as, OwnedFd directory, OwnedFd file, std::string path, std::string name,
             std::string partial)
      : as_(std::move(as)),
        directory_(std::move(directory)),
        file_(std::move(file)),
        path_(std::move(path)),
        name_(std::move(name)),
        partial_(std::move(partial)) {}
  int give_name() const;

  FileIdentityRef as_;
  OwnedFd directory_, file_;
  std::string path_, name_;
  std::string partial_;  // empty: the file has no name
};

}  // namespace obraz
