// OperationTable: every operation that runs, and the finished ones that are kept (limits::kMaxOperations and
// kOperationDays; the oldest are forgotten first, with the end of another one).
//
// Invariants: an operation that was begun is finished exactly once; what watchers see as done is durable,
// unless it failed because the store did. A finished operation joins the transaction of what it did
// (append_finished), so that both are there after a crash, or neither. An idempotency key of a subject names
// at most one operation. Thread: the control thread.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/refusal.h"
#include "catalog/access.h"
#include "catalog/async_event.h"
#include "catalog/time.h"
#include "obraz/v1/operation.pb.h"
#include "obraz/v1/record.pb.h"
#include "store/types.h"

namespace obraz {

// Who calls, and how to recognise the same call again.
struct Caller {
  SubjectRef subject;
  std::string idempotency_key;  // empty: none
  uint64_t request_hash = 0;    // of method and request
  std::string method = {};      // DiskService.Create
};

struct OperationState {
  explicit OperationState(boost::asio::any_io_executor executor) : changed(std::move(executor)) {}
  v1::Operation message;  // without its response
  std::string idempotency_key;
  uint64_t request_hash = 0;
  std::string method;   // that began it
  AsyncEvent changed;   // after every change of message
  bool stored = false;  // the store has a record of it; whoever commits one says so
};
using OperationRef = std::shared_ptr<OperationState>;

class OperationTable {
 public:
  OperationTable(boost::asio::any_io_executor executor, Clock& clock)
      : executor_(std::move(executor)), clock_(clock) {}

  // The operation that this caller's key names already, null when there is none; refused when that was
  // another call.
  Answer<OperationRef> find_duplicate(const Caller& caller) const;

  // Called at the end of each, last.
  void on_finish(std::function<void(const OperationState&)> call) { on_finish_ = std::move(call); }

  // A new, running operation on those resources.
  OperationRef begin(const Caller& caller, std::string description, std::vector<std::string> resource_ids);
  // Publishes a change of the message that somebody made.
  void touch(OperationState& operation);
  // Appends to a transaction what the store must hold when the operation will have ended so (null: well), and
  // forgets the oldest beyond the limit. finish() with the same error follows when the commit has succeeded.
  void append_finished(const OperationState& operation, const Refusal* error, Transaction& transaction);
  // Appends the operation as it is, running; a restart will find and fail it.
  void append_running(const OperationState& operation, Transaction& transaction) const;
  void finish(const OperationRef& operation, const Refusal* error);

  OperationRef find(std::string_view id) const;  // null: none
  struct Page {
    std::vector<OperationRef> operations;
    std::string next_page_token;
  };
  using Visible = std::function<bool(const OperationState&)>;
  Answer<Page> list(unsigned page_size, std::string_view page_token,
                    const Visible& visible) const;  // the newest first
  size_t running() const { return running_; }

  // --- start
  // ----------------------------------------------------------------------------------------------------------
  void restore(const v1::ResourceRecord& record);
  std::vector<OperationRef> unfinished() const;

 private:
  static std::string key_of(const std::string& subject, const std::string& idempotency_key);
  std::string record_of(const OperationState& operation, const v1::Operation& message) const;
  void add(const OperationRef& operation);
  void forget(const OperationRef& operation);

  boost::asio::any_io_executor executor_;
  Clock& clock_;
  std::map<int64_t, OperationRef> by_time_;  // of creation, which is unique
  std::unordered_map<std::string, OperationRef> by_id_, by_key_;
  size_t running_ = 0;
  std::function<void(const OperationState&)> on_finish_;
};

}  // namespace obraz
