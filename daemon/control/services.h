// Services: every method of proto/, bound to the catalog, the jobs and the store.
//
// Thread: the control thread. What it is given outlives it.
#pragma once

#include <functional>
#include <string>

#include "catalog/catalog.h"
#include "catalog/store_access.h"
#include "control/audit.h"
#include "control/jobs.h"
#include "control/methods.h"
#include "obraz/v1/status_service.pb.h"

namespace obraz {

// What `status` says of the daemon that nobody below main knows.
struct DaemonFacts {
  std::string version;
  std::string store_path;       // absolute
  std::string nbd_unix_path;    // absolute
  std::string nbd_tcp_address;  // HOST:PORT; empty: not served
  std::string features;         // of the kernel, in use
};

// And what clients occupy of it at this instant.
struct DaemonLoad {
  uint64_t nbd_clients = 0, nbd_handshakes = 0, nbd_requests = 0;  // clients include handshakes
  uint64_t buffer_total_bytes = 0, buffer_used_bytes = 0;
  uint64_t control_connections = 0;
  uint64_t open_descriptors = 0;
};

class Services {
 public:
  using AskLoad = std::function<boost::asio::awaitable<DaemonLoad>()>;
  // Without `load`, status says that there is none.
  // `audit`, where there is one, is told of calls that are refused.
  Services(Catalog& catalog, Jobs& jobs, StoreAccess& store, DaemonFacts facts, AskLoad load = {},
           AuditLog* audit = nullptr);
  const MethodTable& methods() const { return methods_; }

 private:
  template <typename T>
  using awaitable = boost::asio::awaitable<T>;

  // Binds a call that changes something: recognises repeated calls, answers the operation.
  template <typename Request, typename Call>
  void add_mutating(std::string name, Call call);
  void add_images();
  void add_disks_and_snapshots();
  void add_folders();
  void add_trash();
  void add_schedules();
  void add_usage();
  void add_operations();
  // What the services of all kinds have: who may do what, and what was done.
  void add_common(const std::string& service, Kind kind);
  // What the call answers.
  awaitable<Answer<v1::Operation>> audited(SubjectRef subject, std::string method,
                                           awaitable<Answer<v1::Operation>> call);

  awaitable<Answer<OperationRef>> create_image(Caller caller, v1::CreateImageRequest request);
  awaitable<Answer<v1::DaemonStatus>> status(SubjectRef subject);
  awaitable<void> watch(SubjectRef subject, v1::WatchOperationRequest request, Responder& responder);
  awaitable<Answer<v1::Operation>> cancel(SubjectRef subject, v1::CancelOperationRequest request);
  Answer<OperationRef> find_operation(const Subject& subject, const std::string& id) const;

  Catalog& catalog_;
  Jobs& jobs_;
  StoreAccess& store_;
  const DaemonFacts facts_;
  const AskLoad load_;
  AuditLog* const audit_;
  MethodTable methods_;
};

}  // namespace obraz
