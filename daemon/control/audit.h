// AuditLog: one line of JSON (audit.proto) for each call that changes something or was refused, when it has
// ended, and for each client of NBD that comes and goes.
//
// A line is written at once, before the caller has its answer, and whole: with O_APPEND in one write. What
// cannot be written is told to the daemon's log and lost; calls go on. Thread: the control thread.
#pragma once

#include <memory>
#include <string>

#include "base/refusal.h"
#include "catalog/entry.h"
#include "catalog/operations.h"
#include "obraz/v1/audit.pb.h"

namespace obraz {

class AuditLog {
 public:
  // A file, made when it is not there, that lines are appended to; empty: the daemon's own log. Refuses a
  // path that cannot be opened.
  static Answer<std::unique_ptr<AuditLog>> open(const std::string& path);
  ~AuditLog();

  void operation_ended(const OperationState& operation);
  // Before it became an operation.
  void refused(const Subject& subject, const std::string& method, const Refusal& refusal);
  void attached(const Entry& entry, const Attachment& attachment, bool comes);

 private:
  void write(v1::AuditRecord record);
  AuditLog(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  const std::string path_;
  const int fd_;
  bool failing_ = false;
};

}  // namespace obraz
