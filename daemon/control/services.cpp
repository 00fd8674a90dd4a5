#include "control/services.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>
#include <span>

#include "catalog/codes.h"
#include "catalog/rules.h"

namespace obraz {
namespace {

// FNV-1a, 64 bits: tells a repeated call from another one that took the same key by mistake.
uint64_t hash_of(std::string_view bytes, uint64_t hash = 0xcbf29ce484222325) {
  for (const char c : bytes)
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

uint64_t hash_of_call(std::string_view method, const google::protobuf::MessageLite& request) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);  // labels are a map
    request.SerializeToCodedStream(&coded);
  }
  return hash_of(bytes, hash_of(method));
}

template <typename Call, typename Request>
boost::asio::awaitable<Answer<v1::Operation>> run_mutating(Catalog& catalog, const Call& call, Caller caller,
                                                           Request request) {
  if (const auto legal = rules::check_idempotency_key(caller.idempotency_key); !legal)
    co_return std::unexpected(legal.error());
  const auto known = catalog.operations().find_duplicate(caller);
  if (!known)
    co_return std::unexpected(known.error());
  const SubjectRef subject = caller.subject;
  if (*known)
    co_return catalog.view(*subject, **known);
  Answer<OperationRef> operation = co_await call(std::move(caller), std::move(request));
  if (!operation)
    co_return std::unexpected(operation.error());
  co_return catalog.view(*subject, **operation);
}

// One who changes nothing.
Caller reader(SubjectRef subject) {
  return Caller{std::move(subject), {}, 0};
}

template <typename T>
boost::asio::awaitable<Answer<T>> ready(Answer<T> answer) {
  co_return answer;
}

}  // namespace

Services::Services(Catalog& catalog, Jobs& jobs, StoreAccess& store, DaemonFacts facts, AskLoad load,
                   AuditLog* audit)
    : catalog_(catalog),
      jobs_(jobs),
      store_(store),
      facts_(std::move(facts)),
      load_(std::move(load)),
      audit_(audit) {
  add_images();
  add_disks_and_snapshots();
  add_folders();
  add_trash();
  add_schedules();
  add_usage();
  add_operations();
  add_common("ImageService", Kind::image);
  add_common("DiskService", Kind::disk);
  add_common("SnapshotService", Kind::snapshot);
  add_common("FolderService", Kind::folder);
  methods_.add_unary<v1::DiffRequest>("VolumeService.Diff",
                                      [this](SubjectRef subject, v1::DiffRequest request) {
                                        return catalog_.diff(reader(std::move(subject)), std::move(request));
                                      });
  methods_.add_unary<v1::SpaceRequest>(
      "VolumeService.Space", [this](SubjectRef subject, v1::SpaceRequest request) {
        return catalog_.space(reader(std::move(subject)), std::move(request));
      });
  methods_.add_unary<v1::GetStatusRequest>(
      "StatusService.Get",
      [this](SubjectRef subject, v1::GetStatusRequest) { return status(std::move(subject)); });
}

template <typename Request, typename Call>
void Services::add_mutating(std::string name, Call call) {
  methods_.add_unary<Request>(
      name, [this, name, call = std::move(call)](SubjectRef subject, Request request) {
        const SubjectRef who = subject;
        Caller caller{std::move(subject), request.idempotency_key(), hash_of_call(name, request), name};
        return audited(who, name, run_mutating(catalog_, call, std::move(caller), std::move(request)));
      });
}

boost::asio::awaitable<Answer<v1::Operation>> Services::audited(SubjectRef subject, std::string method,
                                                                awaitable<Answer<v1::Operation>> call) {
  Answer<v1::Operation> answer = co_await std::move(call);
  if (!answer && audit_)
    audit_->refused(*subject, method, answer.error());
  co_return answer;
}

void Services::add_images() {
  methods_.add_unary<v1::GetImageRequest>(
      "ImageService.Get", [this](SubjectRef subject, v1::GetImageRequest request) {
        return catalog_.get_image(reader(std::move(subject)), std::move(request));
      });
  methods_.add_unary<v1::GetImageLatestByFamilyRequest>(
      "ImageService.GetLatestByFamily",
      [this](SubjectRef subject, v1::GetImageLatestByFamilyRequest request) {
        return catalog_.get_latest(reader(std::move(subject)), std::move(request));
      });
  methods_.add_unary<v1::ListImagesRequest>(
      "ImageService.List", [this](SubjectRef subject, v1::ListImagesRequest request) {
        return ready(catalog_.list_images(reader(std::move(subject)), request));
      });
  add_mutating<v1::CreateImageRequest>("ImageService.Create",
                                       [this](Caller caller, v1::CreateImageRequest request) {
                                         return create_image(std::move(caller), std::move(request));
                                       });
  add_mutating<v1::ImportImageRequest>(
      "ImageService.Import",
      [this](Caller caller, v1::ImportImageRequest request) { return ready(jobs_.import(caller, request)); });
  add_mutating<v1::ExportImageRequest>("ImageService.Export",
                                       [this](Caller caller, v1::ExportImageRequest request) {
                                         return ready(jobs_.export_image(caller, request));
                                       });
  add_mutating<v1::VerifyImageRequest>(
      "ImageService.Verify",
      [this](Caller caller, v1::VerifyImageRequest request) { return ready(jobs_.verify(caller, request)); });
  add_mutating<v1::UpdateImageRequest>("ImageService.Update",
                                       [this](Caller caller, v1::UpdateImageRequest request) {
                                         return catalog_.update_image(std::move(caller), std::move(request));
                                       });
  add_mutating<v1::DeleteImageRequest>("ImageService.Delete",
                                       [this](Caller caller, v1::DeleteImageRequest request) {
                                         return catalog_.delete_image(std::move(caller), std::move(request));
                                       });
}

boost::asio::awaitable<Answer<OperationRef>> Services::create_image(Caller caller,
                                                                    v1::CreateImageRequest request) {
  Answer<OperationRef> operation = co_await catalog_.create_image(std::move(caller), std::move(request));
  jobs_.examine_images();
  co_return operation;
}

void Services::add_disks_and_snapshots() {
  methods_.add_unary<v1::GetDiskRequest>(
      "DiskService.Get", [this](SubjectRef subject, v1::GetDiskRequest request) {
        return catalog_.get_disk(reader(std::move(subject)), std::move(request));
      });
  methods_.add_unary<v1::ListDisksRequest>(
      "DiskService.List", [this](SubjectRef subject, v1::ListDisksRequest request) {
        return ready(catalog_.list_disks(reader(std::move(subject)), request));
      });
  add_mutating<v1::CreateDiskRequest>("DiskService.Create",
                                      [this](Caller caller, v1::CreateDiskRequest request) {
                                        return catalog_.create_disk(std::move(caller), std::move(request));
                                      });
  add_mutating<v1::UpdateDiskRequest>("DiskService.Update",
                                      [this](Caller caller, v1::UpdateDiskRequest request) {
                                        return catalog_.update_disk(std::move(caller), std::move(request));
                                      });
  add_mutating<v1::ResizeDiskRequest>("DiskService.Resize",
                                      [this](Caller caller, v1::ResizeDiskRequest request) {
                                        return catalog_.resize_disk(std::move(caller), std::move(request));
                                      });
  add_mutating<v1::RevertDiskRequest>("DiskService.Revert",
                                      [this](Caller caller, v1::RevertDiskRequest request) {
                                        return catalog_.revert_disk(std::move(caller), std::move(request));
                                      });
  add_mutating<v1::DeleteDiskRequest>("DiskService.Delete",
                                      [this](Caller caller, v1::DeleteDiskRequest request) {
                                        return catalog_.delete_disk(std::move(caller), std::move(request));
                                      });
  methods_.add_unary<v1::GetSnapshotRequest>(
      "SnapshotService.Get", [this](SubjectRef subject, v1::GetSnapshotRequest request) {
        return catalog_.get_snapshot(reader(std::move(subject)), std::move(request));
      });
  methods_.add_unary<v1::ListSnapshotsRequest>(
      "SnapshotService.List", [this](SubjectRef subject, v1::ListSnapshotsRequest request) {
        return ready(catalog_.list_snapshots(reader(std::move(subject)), request));
      });
  add_mutating<v1::CreateSnapshotsRequest>(
      "SnapshotService.Create", [this](Caller caller, v1::CreateSnapshotsRequest request) {
        return catalog_.create_snapshots(std::move(caller), std::move(request));
      });
  add_mutating<v1::UpdateSnapshotRequest>(
      "SnapshotService.Update", [this](Caller caller, v1::UpdateSnapshotRequest request) {
        return catalog_.update_snapshot(std::move(caller), std::move(request));
      });
  add_mutating<v1::DeleteSnapshotRequest>(
      "SnapshotService.Delete", [this](Caller caller, v1::DeleteSnapshotRequest request) {
        return catalog_.delete_snapshot(std::move(caller), std::move(request));
      });
}

void Services::add_folders() {
  methods_.add_unary<v1::GetFolderRequest>(
      "FolderService.Get", [this](SubjectRef subject, v1::GetFolderRequest request) {
        return ready(catalog_.get_folder(reader(std::move(subject)), request));
      });
  methods_.add_unary<v1::ListFoldersRequest>(
      "FolderService.List", [this](SubjectRef subject, v1::ListFoldersRequest request) {
        return ready(catalog_.list_folders(reader(std::move(subject)), request));
      });
  add_mutating<v1::CreateFolderRequest>(
      "FolderService.Create", [this](Caller caller, v1::CreateFolderRequest request) {
        return catalog_.create_folder(std::move(caller), std::move(request));
      });
  add_mutating<v1::UpdateFolderRequest>(
      "FolderService.Update", [this](Caller caller, v1::UpdateFolderRequest request) {
        return catalog_.update_folder(std::move(caller), std::move(request));
      });
  add_mutating<v1::DeleteFolderRequest>(
      "FolderService.Delete", [this](Caller caller, v1::DeleteFolderRequest request) {
        return catalog_.delete_folder(std::move(caller), std::move(request));
      });
}

void Services::add_trash() {
  methods_.add_unary<v1::ListTrashRequest>(
      "TrashService.List", [this](SubjectRef subject, v1::ListTrashRequest request) {
        return ready(catalog_.list_trash(reader(std::move(subject)), request));
      });
  add_mutating<v1::RestoreRequest>("TrashService.Restore", [this](Caller caller, v1::RestoreRequest request) {
    return catalog_.restore(std::move(caller), std::move(request));
  });
  add_mutating<v1::PurgeRequest>("TrashService.Purge", [this](Caller caller, v1::PurgeRequest request) {
    return catalog_.purge(std::move(caller), std::move(request));
  });
}

void Services::add_schedules() {
  methods_.add_unary<v1::GetSnapshotScheduleRequest>(
      "SnapshotScheduleService.Get", [this](SubjectRef subject, v1::GetSnapshotScheduleRequest request) {
        return ready(catalog_.get_schedule(reader(std::move(subject)), request));
      });
  methods_.add_unary<v1::ListSnapshotSchedulesRequest>(
      "SnapshotScheduleService.List", [this](SubjectRef subject, v1::ListSnapshotSchedulesRequest request) {
        return ready(catalog_.list_schedules(reader(std::move(subject)), request));
      });
  add_mutating<v1::CreateSnapshotScheduleRequest>(
      "SnapshotScheduleService.Create", [this](Caller caller, v1::CreateSnapshotScheduleRequest request) {
        return catalog_.create_schedule(std::move(caller), std::move(request));
      });
  add_mutating<v1::UpdateSnapshotScheduleRequest>(
      "SnapshotScheduleService.Update", [this](Caller caller, v1::UpdateSnapshotScheduleRequest request) {
        return catalog_.update_schedule(std::move(caller), std::move(request));
      });
  add_mutating<v1::DeleteSnapshotScheduleRequest>(
      "SnapshotScheduleService.Delete", [this](Caller caller, v1::DeleteSnapshotScheduleRequest request) {
        return catalog_.delete_schedule(std::move(caller), std::move(request));
      });
  add_mutating<v1::RunSnapshotScheduleRequest>(
      "SnapshotScheduleService.Run", [this](Caller caller, v1::RunSnapshotScheduleRequest request) {
        return catalog_.run_schedule(std::move(caller), std::move(request));
      });
}

void Services::add_usage() {
  methods_.add_unary<v1::GetUsageRequest>(
      "UsageService.Get", [this](SubjectRef subject, v1::GetUsageRequest request) {
        return ready(catalog_.get_usage(reader(std::move(subject)), request));
      });
}

void Services::add_common(const std::string& service, Kind kind) {
  methods_.add_unary<v1::ListResourceOperationsRequest>(
      service + ".ListOperations",
      [this, kind](SubjectRef subject, v1::ListResourceOperationsRequest request) {
        return ready(catalog_.list_operations_of(reader(std::move(subject)), kind, request));
      });
  methods_.add_unary<v1::ListAccessBindingsRequest>(
      service + ".ListAccessBindings",
      [this, kind](SubjectRef subject, v1::ListAccessBindingsRequest request) {
        return ready(catalog_.list_access(reader(std::move(subject)), kind, request));
      });
  add_mutating<v1::SetAccessBindingsRequest>(
      service + ".SetAccessBindings", [this, kind](Caller caller, v1::SetAccessBindingsRequest request) {
        return catalog_.set_access(std::move(caller), kind, std::move(request));
      });
  add_mutating<v1::UpdateAccessBindingsRequest>(
      service + ".UpdateAccessBindings",
      [this, kind](Caller caller, v1::UpdateAccessBindingsRequest request) {
        return catalog_.update_access(std::move(caller), kind, std::move(request));
      });
}

void Services::add_operations() {
  methods_.add_unary<v1::GetOperationRequest>(
      "OperationService.Get", [this](SubjectRef subject, v1::GetOperationRequest request) {
        const auto operation = find_operation(*subject, request.operation_id());
        return ready(operation ? Answer<v1::Operation>(catalog_.view(*subject, **operation))
                               : std::unexpected(operation.error()));
      });
  methods_.add_unary<v1::ListOperationsRequest>(
      "OperationService.List", [this](SubjectRef subject, v1::ListOperationsRequest request) {
        return ready(catalog_.list_operations(reader(std::move(subject)), request));
      });
  methods_.add_stream<v1::WatchOperationRequest>(
      "OperationService.Watch",
      [this](SubjectRef subject, v1::WatchOperationRequest request, Responder& responder) {
        return watch(std::move(subject), std::move(request), responder);
      });
  methods_.add_unary<v1::CancelOperationRequest>(
      "OperationService.Cancel", [this](SubjectRef subject, v1::CancelOperationRequest request) {
        return cancel(std::move(subject), std::move(request));
      });
}

Answer<OperationRef> Services::find_operation(const Subject& subject, const std::string& id) const {
  if (id.empty())
    return refuse(ErrorCode::invalid_argument, "operation_id", "the operation's id is missing");
  if (const OperationRef operation = catalog_.operations().find(id);
      operation && catalog_.may_see(subject, *operation))
    return operation;
  return refuse(ErrorCode::not_found, "operation_id",
                "there is no such operation; finished ones are forgotten after a while");
}

boost::asio::awaitable<void> Services::watch(SubjectRef subject, v1::WatchOperationRequest request,
                                             Responder& responder) {
  const auto found = find_operation(*subject, request.operation_id());
  if (!found) {
    co_await responder.send(found.error());
    co_return;
  }
  const OperationRef operation = *found;
  for (;;) {
    const v1::Operation message = catalog_.view(*subject, *operation);
    const bool sent = co_await responder.send(message, !message.done());
    if (!sent || message.done())
      co_return;
    // What changed while the client took its time is sent as one.
    if (to_nanoseconds(operation->message.modified_at()) == to_nanoseconds(message.modified_at()))
      co_await operation->changed.wait();
  }
}

boost::asio::awaitable<Answer<v1::Operation>> Services::cancel(SubjectRef subject,
                                                               v1::CancelOperationRequest request) {
  const auto found = find_operation(*subject, request.operation_id());
  if (!found)
    co_return std::unexpected(found.error());
  const OperationRef operation = *found;
  if (!catalog_.may_cancel(*subject, *operation))
    co_return refuse(ErrorCode::permission_denied, "operation_id",
                     subject->name + " may see this operation and not cancel it");
  jobs_.cancel(operation, subject->name);
  while (!operation->message.done())
    co_await operation->changed.wait();
  co_return catalog_.view(*subject, *operation);
}

boost::asio::awaitable<Answer<v1::DaemonStatus>> Services::status(SubjectRef subject) {
  Result<StoreAccess::State> state = co_await store_.state();
  if (!state)
    co_return std::unexpected(refusal_of(state.error(), "asking the store"));
  DaemonLoad load;
  if (load_)
    load = co_await load_();
  v1::DaemonStatus status;
  status.set_version(facts_.version);
  if (subject->superuser)
    status.set_store_path(facts_.store_path);
  status.set_store_uuid(state->uuid.to_string());
  switch (state->health) {
    case StoreHealth::ok:
      status.set_health("ok");
      break;
    case StoreHealth::damaged:
      status.set_health("damaged");
      break;
    case StoreHealth::failed:
      status.set_health("failed");
      break;
  }
  status.set_health_reason(state->health_reason);
  v1::SpaceStatus& space = *status.mutable_space();
  space.set_total_bytes(int64_t(state->space.total_bytes));
  space.set_used_bytes(int64_t(state->space.used_bytes));
  space.set_shared_bytes(int64_t(state->space.shared_bytes));
  space.set_reclaimable_bytes(int64_t(state->space.reclaimable_bytes));
  space.set_metadata_total_bytes(int64_t(state->space.meta_total_bytes));
  space.set_metadata_used_bytes(int64_t(state->space.meta_used_bytes));
  v1::IntegrityStatus& integrity = *status.mutable_integrity();
  integrity.set_checksummed_bytes(int64_t(state->stats.summed_bytes));
  integrity.set_volumes_waiting(int64_t(state->stats.volumes_to_sum));
  integrity.set_scrub_passes(int64_t(state->stats.scrub_passes));
  integrity.set_scrubbed_bytes(int64_t(state->stats.scrubbed_bytes));
  integrity.set_checksum_errors(int64_t(state->stats.checksum_errors));
  integrity.set_stuck_blocks(int64_t(state->stats.stuck_blocks));
  for (const DataDamage& damage :
       std::span(state->damage).first(std::min<size_t>(state->damage.size(), limits::kShownDamage))) {
    if (!subject->superuser)
      break;  // names that it may not see
    v1::DataDamage& shown = *integrity.add_damage();
    shown.set_resource(catalog_.name_of(damage.volume));
    shown.set_offset(int64_t(damage.offset));
    shown.set_length_bytes(int64_t(damage.length_bytes));
  }
  v1::CloneCacheStatus& cache = *status.mutable_clone_cache();
  cache.set_size_bytes(int64_t(state->stats.clone_cache_bytes));
  cache.set_used_bytes(int64_t(state->stats.clone_cache_used_bytes));
  cache.set_hits(int64_t(state->stats.clone_cache_hits));
  cache.set_misses(int64_t(state->stats.clone_cache_misses));
  status.set_sessions(int64_t(catalog_.attachments()));
  v1::ResourceCounts& counts = *status.mutable_resources();
  counts.set_images(int64_t(catalog_.count(Kind::image)));
  counts.set_disks(int64_t(catalog_.count(Kind::disk)));
  counts.set_snapshots(int64_t(catalog_.count(Kind::snapshot)));
  counts.set_trashed(int64_t(catalog_.trashed()));
  counts.set_running_operations(int64_t(catalog_.operations().running()));
  status.set_nbd_unix_path(facts_.nbd_unix_path);
  status.set_nbd_tcp_address(facts_.nbd_tcp_address);
  status.set_features(facts_.features);
  v1::LoadStatus& occupied = *status.mutable_load();
  occupied.set_nbd_clients(int64_t(load.nbd_clients));
  occupied.set_nbd_handshakes(int64_t(load.nbd_handshakes));
  occupied.set_nbd_requests(int64_t(load.nbd_requests));
  occupied.set_buffer_total_bytes(int64_t(load.buffer_total_bytes));
  occupied.set_buffer_used_bytes(int64_t(load.buffer_used_bytes));
  occupied.set_control_connections(int64_t(load.control_connections));
  occupied.set_open_descriptors(int64_t(load.open_descriptors));
  co_return status;
}

}  // namespace obraz
