#include "control/audit.h"

#include <fcntl.h>
#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/time_util.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "base/check.h"
#include "base/log.h"
#include "catalog/codes.h"

namespace obraz {

Answer<std::unique_ptr<AuditLog>> AuditLog::open(const std::string& path) {
  if (path.empty())
    return std::unique_ptr<AuditLog>(new AuditLog(path, -1));
  const int fd = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
  if (fd < 0)
    return refuse(ErrorCode::failed_precondition, "audit-log",
                  "cannot open the audit log " + path + ": " + std::generic_category().message(errno));
  return std::unique_ptr<AuditLog>(new AuditLog(path, fd));
}

AuditLog::~AuditLog() {
  if (fd_ >= 0)
    ::close(fd_);
}

void AuditLog::operation_ended(const OperationState& operation) {
  const v1::Operation& message = operation.message;
  v1::AuditRecord record;
  record.set_subject(message.created_by());
  record.set_method(operation.method);
  record.set_operation_id(message.id());
  record.set_description(message.description());
  *record.mutable_resource_ids() = message.metadata().resource_ids();
  record.set_outcome(message.has_error() ? v1::Error::Code_Name(message.error().code()) : "OK");
  record.set_field(message.error().field());
  record.set_message(message.error().message());
  write(std::move(record));
}

void AuditLog::refused(const Subject& subject, const std::string& method, const Refusal& refusal) {
  const v1::Error error = to_message(refusal);
  v1::AuditRecord record;
  record.set_subject(subject.name);
  record.set_method(method);
  record.set_outcome(v1::Error::Code_Name(error.code()));
  record.set_field(error.field());
  record.set_message(error.message());
  write(std::move(record));
}

void AuditLog::attached(const Entry& entry, const Attachment& attachment, bool comes) {
  v1::AuditRecord record;
  record.set_subject(attachment.subject);
  record.set_method(comes ? "NBD.Attach" : "NBD.Detach");
  record.set_description(entry.title());
  record.add_resource_ids(entry.id());
  record.set_outcome("OK");
  record.set_client(attachment.client);
  record.set_read_only(attachment.read_only);
  write(std::move(record));
}

void AuditLog::write(v1::AuditRecord record) {
  *record.mutable_time() = google::protobuf::util::TimeUtil::GetCurrentTime();
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string line;
  const auto printed = google::protobuf::util::MessageToJsonString(record, &line, options);
  OBRAZ_CHECK(printed.ok());  // whatever text is in it is UTF-8: it came in messages, or is ours
  if (fd_ < 0) {
    log::info("audit: {}", line);
    return;
  }
  line += '\n';
  const bool good = ::write(fd_, line.data(), line.size()) == ssize_t(line.size());
  const int os_error = errno;
  if (!good && !failing_)
    log::error("audit: cannot write to {}, lines are lost: {}", path_,
               std::generic_category().message(os_error));
  failing_ = !good;
}

}  // namespace obraz
