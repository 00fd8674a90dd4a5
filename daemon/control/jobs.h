// Jobs: imports, exports and verifications under way. Each has a worker thread for what blocks and a
// coroutine on the control thread that decides, and both have ended when its operation has.
//
// Invariants: at most limits::kMaxRunningOperations at once; a job that fails or is cancelled leaves nothing
// but its operation. Thread: the control thread, but for what worker threads run.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <functional>
#include <map>
#include <memory>
#include <stop_token>
#include <string>

#include "catalog/catalog.h"
#include "control/transfer.h"

namespace obraz {

struct JobsOptions {
  bool digest_images = true;  // in the background
};

class Jobs {
 public:
  Jobs(boost::asio::any_io_executor executor, Catalog& catalog, ImageTransfer& transfer,
       const JobsOptions& options = {});
  ~Jobs();

  // Answer once the work has begun; the operation tells the rest.
  Answer<OperationRef> import(const Caller& caller, const v1::ImportImageRequest& request);
  Answer<OperationRef> export_image(const Caller& caller, const v1::ExportImageRequest& request);
  Answer<OperationRef> verify(const Caller& caller, const v1::VerifyImageRequest& request);

  // Finds out what is on the images that nobody has looked at, and the digests of those that have none, in
  // the background, one after the other. After every call that may have made one, and at the start.
  void examine_images();

  // Asks for an early end; nothing when the operation is not a job's or has ended.
  void cancel(const OperationRef& operation, const std::string& subject);
  // Refuses new jobs, cancels those under way and waits for their end.
  boost::asio::awaitable<void> stop();

 private:
  class Job;
  using JobRef = std::shared_ptr<Job>;

  Answer<void> check_room() const;
  JobRef begin(const OperationRef& operation);
  boost::asio::awaitable<void> run_import(JobRef job, ImportTicket ticket, v1::ImportImageRequest request,
                                          FileIdentityRef files);
  boost::asio::awaitable<void> run_export(JobRef job, ReadTicket ticket, v1::ExportImageRequest request,
                                          FileIdentityRef files);
  boost::asio::awaitable<void> run_verify(JobRef job, ReadTicket ticket);
  void end(const JobRef& job);
  enum class Urgency : uint8_t { soon, idle };  // idle: when nobody else wants the processor
  template <typename Found>
  boost::asio::awaitable<void> find_out(bool& running, Urgency urgency, std::function<EntryRef()> next,
                                        std::function<Answer<Found>(VolumeId, std::stop_token)> find,
                                        std::function<boost::asio::awaitable<void>(EntryRef, Found)> keep);

  boost::asio::any_io_executor executor_;
  Catalog& catalog_;
  ImageTransfer& transfer_;
  std::map<OperationState*, JobRef> jobs_;
  const JobsOptions options_;
  bool stopping_ = false, examining_ = false, digesting_ = false;
  std::stop_source stop_examining_;
  AsyncEvent ended_;
};

}  // namespace obraz
