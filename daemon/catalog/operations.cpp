#include "catalog/operations.h"

#include <charconv>

#include "base/check.h"
#include "base/limits.h"
#include "catalog/codes.h"
#include "catalog/kind.h"

namespace obraz {
namespace {

std::string store_key(std::string_view id) {
  return std::string("operation/").append(id);
}

// What the ended operation says; its progress, which no longer means anything, is dropped.
void set_result(v1::Operation& message, const Refusal* error) {
  message.set_done(true);
  message.mutable_metadata()->clear_phase();
  message.mutable_metadata()->clear_eta_seconds();
  if (error)
    *message.mutable_error() = to_message(*error);
  else
    message.mutable_response();
}

}  // namespace

std::string OperationTable::key_of(const std::string& subject, const std::string& idempotency_key) {
  return subject + '\n' + idempotency_key;  // neither has a line end
}

Answer<OperationRef> OperationTable::find_duplicate(const Caller& caller) const {
  if (caller.idempotency_key.empty())
    return nullptr;
  const auto found = by_key_.find(key_of(caller.subject->name, caller.idempotency_key));
  if (found == by_key_.end())
    return nullptr;
  if (found->second->request_hash != caller.request_hash)
    return refuse(
        ErrorCode::invalid_argument, "idempotency_key",
        "this idempotency key was used for a different request, operation " + found->second->message.id());
  return found->second;
}

OperationRef OperationTable::begin(const Caller& caller, std::string description,
                                   std::vector<std::string> resource_ids) {
  auto operation = std::make_shared<OperationState>(executor_);
  operation->idempotency_key = caller.idempotency_key;
  operation->request_hash = caller.request_hash;
  operation->method = caller.method;
  v1::Operation& message = operation->message;
  do
    message.set_id(new_operation_id());
  while (by_id_.contains(message.id()));
  message.set_description(std::move(description));
  *message.mutable_created_at() = clock_.next();
  *message.mutable_modified_at() = message.created_at();
  message.set_created_by(caller.subject->name);
  if (!resource_ids.empty())
    message.mutable_metadata()->set_resource_id(resource_ids.front());
  for (auto& id : resource_ids)
    message.mutable_metadata()->add_resource_ids(std::move(id));
  add(operation);
  return operation;
}

void OperationTable::add(const OperationRef& operation) {
  const bool is_new = by_id_.emplace(operation->message.id(), operation).second;
  OBRAZ_CHECK(is_new);
  by_time_.emplace(to_nanoseconds(operation->message.created_at()), operation);
  if (!operation->idempotency_key.empty())
    by_key_.insert_or_assign(key_of(operation->message.created_by(), operation->idempotency_key), operation);
  if (!operation->message.done())
    ++running_;
}

void OperationTable::forget(const OperationRef& operation) {
  by_id_.erase(operation->message.id());
  by_time_.erase(to_nanoseconds(operation->message.created_at()));
  const auto key = by_key_.find(key_of(operation->message.created_by(), operation->idempotency_key));
  if (key != by_key_.end() && key->second == operation)
    by_key_.erase(key);
}

void OperationTable::touch(OperationState& operation) {
  *operation.message.mutable_modified_at() = clock_.next();
  operation.changed.notify_all();
}

std::string OperationTable::record_of(const OperationState& operation, const v1::Operation& message) const {
  v1::ResourceRecord record;
  *record.mutable_operation() = message;
  record.mutable_operation()->clear_response();
  record.set_idempotency_key(operation.idempotency_key);
  record.set_request_hash(operation.request_hash);
  record.set_method(operation.method);
  return record.SerializeAsString();
}

void OperationTable::append_running(const OperationState& operation, Transaction& transaction) const {
  transaction.push_back(
      PutResource{store_key(operation.message.id()), record_of(operation, operation.message)});
}

void OperationTable::append_finished(const OperationState& operation, const Refusal* error,
                                     Transaction& transaction) {
  v1::Operation message = operation.message;
  *message.mutable_modified_at() = clock_.next();
  set_result(message, error);
  transaction.push_back(PutResource{store_key(message.id()), record_of(operation, message)});

  // If this commit fails, those forgotten here come back with the next start, which forgets them again.
  const int64_t expired =
      to_nanoseconds(message.modified_at()) - limits::kOperationDays * 24 * 3600 * kNanosecondsPerSecond;
  unsigned forgotten = 0;
  auto oldest = by_time_.begin();
  while (oldest != by_time_.end() &&
         (by_time_.size() - running_ >= limits::kMaxOperations ||
          (oldest->first < expired && forgotten < limits::kMaxExpiredOperations))) {
    const OperationRef candidate = (oldest++)->second;
    if (!candidate->message.done())
      continue;
    ++forgotten;
    if (candidate->stored)
      transaction.push_back(RemoveResource{store_key(candidate->message.id())});
    forget(candidate);
  }
}

void OperationTable::finish(const OperationRef& operation, const Refusal* error) {
  OBRAZ_CHECK(!operation->message.done());
  set_result(operation->message, error);
  --running_;
  touch(*operation);
  if (on_finish_)
    on_finish_(*operation);
}

OperationRef OperationTable::find(std::string_view id) const {
  const auto found = by_id_.find(std::string(id));
  return found == by_id_.end() ? nullptr : found->second;
}

Answer<OperationTable::Page> OperationTable::list(unsigned page_size, std::string_view page_token,
                                                  const Visible& visible) const {
  auto at = by_time_.end();
  if (!page_token.empty()) {
    int64_t before = 0;
    const char* end = page_token.data() + page_token.size();
    if (const auto parsed = std::from_chars(page_token.data(), end, before);
        parsed.ec != std::errc() || parsed.ptr != end)
      return refuse(ErrorCode::invalid_argument, "page_token",
                    "page_token must be one that an earlier page answered");
    at = by_time_.lower_bound(before);
  }
  Page page;
  uint64_t bytes = 0;
  while (at != by_time_.begin() && page.operations.size() < page_size && bytes < limits::kMaxListBytes) {
    --at;
    if (!visible(*at->second))
      continue;
    page.operations.push_back(at->second);
    bytes += at->second->message.ByteSizeLong();
  }
  if (at != by_time_.begin() && !page.operations.empty())
    page.next_page_token = std::to_string(at->first);
  return page;
}

void OperationTable::restore(const v1::ResourceRecord& record) {
  auto operation = std::make_shared<OperationState>(executor_);
  operation->message = record.operation();
  operation->idempotency_key = record.idempotency_key();
  operation->request_hash = record.request_hash();
  operation->method = record.method();
  operation->stored = true;
  clock_.advance_past(operation->message.created_at());
  clock_.advance_past(operation->message.modified_at());
  if (operation->message.done() && !operation->message.has_error())
    operation->message.mutable_response();
  add(operation);
}

std::vector<OperationRef> OperationTable::unfinished() const {
  std::vector<OperationRef> operations;
  for (const auto& [time, operation] : by_time_) {
    if (!operation->message.done())
      operations.push_back(operation);
  }
  return operations;
}

}  // namespace obraz
