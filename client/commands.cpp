#include "client/commands.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "client/commands_calls.h"
#include "client/nearest.h"
#include "client/progress.h"
#include "obraz/v1/status_service.pb.h"

namespace obraz::client {
namespace {

bool is_uri(const std::string& source) {
  return source.starts_with("nbd") && source.find("://") != std::string::npos;
}

// The daemon has a working folder of its own.
std::string absolute(const std::string& path) {
  std::error_code error;
  const auto full = std::filesystem::absolute(path, error);
  return error ? path : full.lexically_normal().string();
}

}  // namespace

Outcome<Connection*> Commands::connect() {
  if (!connection_) {
    auto opened = Connection::open(control_path(arguments_.control));
    if (!opened)
      return std::unexpected(opened.error());
    connection_ = std::move(*opened);
  }
  return connection_.get();
}

Outcome<void> Commands::call(const std::string& method, const google::protobuf::MessageLite& request,
                             google::protobuf::MessageLite& response) {
  const auto connection = connect();
  if (!connection)
    return std::unexpected(connection.error());
  return (*connection)->call(method, request, response);
}

int Commands::refused(const v1::Error& error) {
  std::fflush(stdout);
  v1::Error shown = error;
  if (!arguments_.json)
    if (const std::string meant = meant_by(error); !meant.empty())
      shown.set_message(error.message() + "; did you mean " + meant + "?");
  print_refusal(shown, arguments_.json);
  return 1;
}

std::string Commands::meant_by(const v1::Error& error) {
  constexpr std::pair<std::string_view, const char*> kFields[] = {{"image_id", "IMAGE"},
                                                                  {"disk_id", "DISK"},
                                                                  {"disk_ids", "DISK"},
                                                                  {"snapshot_id", "SNAPSHOT"},
                                                                  {"folder_id", "FOLDER"},
                                                                  {"source_folder_id", "FOLDER"},
                                                                  {"family", "FAMILY"},
                                                                  {"names", "VOLUME"},
                                                                  {"snapshot_schedule_id", "SCHEDULE"},
                                                                  {"a", "VOLUME"},
                                                                  {"b", "VOLUME"}};
  const auto field = std::ranges::find(kFields, error.field(), [](const auto& pair) { return pair.first; });
  if (error.code() != v1::Error::NOT_FOUND || field == std::end(kFields))
    return {};
  // Of what was said, the word that the refusal is about.
  std::vector<std::string> said = {arguments_.target,        arguments_.image,     arguments_.disk,
                                   arguments_.snapshot,      arguments_.from_disk, arguments_.from_snapshot,
                                   arguments_.from_image,    arguments_.family,    arguments_.folder,
                                   arguments_.source_folder, arguments_.other};
  for (const auto* more : {&arguments_.disks, &arguments_.volumes})
    said.insert(said.end(), more->begin(), more->end());
  const auto wrong = std::ranges::find_if(said, [&](const std::string& word) {
    return !word.empty() && error.message().find(" " + word) != std::string::npos;
  });
  if (wrong == said.end())
    return {};
  std::vector<std::string> known;
  for (const Candidate& candidate : names_of(field->second))
    known.push_back(candidate.word);
  return nearest_word(*wrong, known);
}

Outcome<v1::Operation> Commands::await(v1::Operation operation) {
  if (operation.done())
    return operation;
  const auto connection = connect();
  if (!connection)
    return std::unexpected(connection.error());
  ProgressDisplay display(arguments_.json || arguments_.quiet ? ProgressDisplay::Mode::none
                                                              : ProgressDisplay::suitable_mode());
  v1::WatchOperationRequest request;
  request.set_operation_id(operation.id());
  const auto watched = (*connection)->call_stream("OperationService.Watch", request, operation, [&] {
    display.show(operation);
  });
  if (!watched)
    return std::unexpected(watched.error());
  return operation;
}

int Commands::print_operation(const v1::Operation& operation) const {
  if (arguments_.json)
    print_json(operation);
  else if (arguments_.quiet)
    fmt::print("{}\n", operation.id());
  else
    fmt::print("{}", fields(details(operation), style_of(stdout)));
  return 0;
}

// --- images
// ---------------------------------------------------------------------------------------------------------
int Commands::image_import() {
  auto request = new_request<v1::ImportImageRequest>();
  describe_new(request);
  request.set_name(arguments_.name);
  request.set_family(arguments_.family);
  request.set_min_disk_size(arguments_.min_disk_size);
  describe_system(request);
  request.set_delete_protection(arguments_.protect);
  request.set_source(is_uri(arguments_.target) ? arguments_.target : absolute(arguments_.target));
  request.set_format(arguments_.format);
  request.set_sha256(arguments_.sha256);
  return change<v1::Image>("ImageService.Import", std::move(request), "imported", kImages);
}

int Commands::image_create() {
  auto request = new_request<v1::CreateImageRequest>();
  describe_new(request);
  request.set_name(arguments_.name);
  request.set_family(arguments_.family);
  request.set_min_disk_size(arguments_.min_disk_size);
  describe_system(request);
  request.set_delete_protection(arguments_.protect);
  request.set_source_folder_id(arguments_.source_folder);
  if (!arguments_.from_disk.empty())
    request.set_disk_id(arguments_.from_disk);
  else if (!arguments_.from_snapshot.empty())
    request.set_snapshot_id(arguments_.from_snapshot);
  else
    request.set_image_id(arguments_.from_image);
  return change<v1::Image>("ImageService.Create", std::move(request), "created", kImages);
}

int Commands::image_list() {
  return list<v1::ListImagesRequest, v1::ListImagesResponse>("ImageService.List",
                                                             new_request<v1::ListImagesRequest>(), kImages);
}

int Commands::image_get() {
  auto request = new_request<v1::GetImageRequest>();
  request.set_image_id(arguments_.target);
  return get<v1::Image>("ImageService.Get", request);
}

int Commands::image_latest() {
  auto request = new_request<v1::GetImageLatestByFamilyRequest>();
  request.set_family(arguments_.family);
  return get<v1::Image>("ImageService.GetLatestByFamily", request);
}

int Commands::image_delete() {
  auto request = new_request<v1::DeleteImageRequest>();
  request.set_image_id(arguments_.target);
  request.set_permanently(arguments_.permanently);
  return act("ImageService.Delete", std::move(request), "deleted");
}

int Commands::image_verify() {
  auto request = new_request<v1::VerifyImageRequest>();
  request.set_image_id(arguments_.target);
  return change<v1::Image>("ImageService.Verify", std::move(request), "is what it was", kImages);
}

int Commands::image_export() {
  auto request = new_request<v1::ExportImageRequest>();
  request.set_image_id(arguments_.target);
  request.set_path(absolute(arguments_.other));
  request.set_format(arguments_.format);
  return act("ImageService.Export", std::move(request), "exported");
}

int Commands::image_update() {
  auto request = new_request<v1::UpdateImageRequest>();
  request.set_image_id(arguments_.target);
  describe_update(request);
  describe_system(request);
  request.set_family(arguments_.family);
  request.set_min_disk_size(arguments_.min_disk_size);
  return change<v1::Image>("ImageService.Update", std::move(request), "updated", kImages);
}

int Commands::mark_image(v1::Deprecation::State state, const char* done) {
  auto request = new_request<v1::UpdateImageRequest>();
  request.set_image_id(arguments_.target);
  request.mutable_update_mask()->add_paths("deprecation");
  request.mutable_deprecation()->set_state(state);
  request.mutable_deprecation()->set_replacement_id(arguments_.replacement);
  return change<v1::Image>("ImageService.Update", std::move(request), done, kImages);
}
int Commands::image_deprecate() {
  return mark_image(v1::Deprecation::DEPRECATED, "deprecated");
}
int Commands::image_obsolete() {
  return mark_image(v1::Deprecation::OBSOLETE, "made obsolete");
}
int Commands::image_restore() {
  return mark_image(v1::Deprecation::ACTIVE, "active again");
}

// --- disks
// ----------------------------------------------------------------------------------------------------------
int Commands::disk_create() {
  auto request = new_request<v1::CreateDiskRequest>();
  describe_new(request);
  request.set_name(arguments_.name);
  request.set_size(arguments_.size);
  describe_system(request);
  request.set_delete_protection(arguments_.protect);
  request.set_source_folder_id(arguments_.source_folder);
  if (!arguments_.image.empty())
    request.set_image_id(arguments_.image);
  else if (!arguments_.family.empty())
    request.set_family(arguments_.family);
  else if (!arguments_.snapshot.empty())
    request.set_snapshot_id(arguments_.snapshot);
  return change<v1::Disk>("DiskService.Create", std::move(request), "created", kDisks);
}

int Commands::disk_list() {
  return list<v1::ListDisksRequest, v1::ListDisksResponse>("DiskService.List",
                                                           new_request<v1::ListDisksRequest>(), kDisks);
}

int Commands::disk_get() {
  auto request = new_request<v1::GetDiskRequest>();
  request.set_disk_id(arguments_.target);
  return get<v1::Disk>("DiskService.Get", request);
}

int Commands::disk_update() {
  auto request = new_request<v1::UpdateDiskRequest>();
  request.set_disk_id(arguments_.target);
  describe_update(request);
  describe_system(request);
  return change<v1::Disk>("DiskService.Update", std::move(request), "updated", kDisks);
}

int Commands::disk_resize() {
  auto request = new_request<v1::ResizeDiskRequest>();
  request.set_disk_id(arguments_.target);
  request.set_size(arguments_.size);
  return change<v1::Disk>("DiskService.Resize", std::move(request), "resized", kDisks);
}

int Commands::disk_revert() {
  auto request = new_request<v1::RevertDiskRequest>();
  request.set_disk_id(arguments_.target);
  request.set_snapshot_id(arguments_.snapshot);
  return change<v1::Disk>("DiskService.Revert", std::move(request), "reverted", kDisks);
}

int Commands::disk_delete() {
  auto request = new_request<v1::DeleteDiskRequest>();
  request.set_disk_id(arguments_.target);
  request.set_permanently(arguments_.permanently);
  request.set_force(arguments_.force);
  return act("DiskService.Delete", std::move(request), "deleted");
}

Outcome<Commands::Export> Commands::find_export() {
  auto request = new_request<v1::GetDiskRequest>();
  request.set_disk_id(arguments_.target);
  v1::Disk disk;
  if (const auto called = call("DiskService.Get", request, disk); !called)
    return std::unexpected(called.error());
  v1::DaemonStatus status;
  if (const auto called = call("StatusService.Get", v1::GetStatusRequest(), status); !called)
    return std::unexpected(called.error());
  return Export{{status.nbd_unix_path(), status.nbd_tcp_address()},
                export_name("disk", disk.folder_id(), disk.name(), disk.id()),
                {disk.os().type() == v1::Os::WINDOWS, disk.hardware_generation() == v1::GENERATION_2}};
}

int Commands::disk_uri() {
  const auto found = find_export();
  if (!found)
    return refused(found.error());
  const std::string uri = nbd_uri(found->address, found->name);
  if (arguments_.json)
    fmt::print("{{\n  \"uri\": {}\n}}\n", json_string(uri));
  else
    fmt::print("{}\n", uri);
  return 0;
}

int Commands::disk_attach_args() {
  const auto found = find_export();
  if (!found)
    return refused(found.error());
  const Consumer consumer = arguments_.consumer == "qemu"      ? Consumer::qemu
                            : arguments_.consumer == "libvirt" ? Consumer::libvirt
                                                               : Consumer::nbd_client;
  const std::string args = attach_args(consumer, found->address, found->name, found->needs);
  if (arguments_.json)
    fmt::print("{{\n  \"for\": {},\n  \"args\": {}\n}}\n", json_string(arguments_.consumer),
               json_string(args));
  else
    fmt::print("{}\n", args);
  return 0;
}

// --- snapshots
// ------------------------------------------------------------------------------------------------------
int Commands::snapshot_create() {
  auto request = new_request<v1::CreateSnapshotsRequest>();
  describe_new(request);
  request.set_delete_protection(arguments_.protect);
  for (size_t i = 0; i < arguments_.disks.size(); ++i) {
    v1::SnapshotOfDisk& snapshot = *request.add_snapshots();
    snapshot.set_disk_id(arguments_.disks[i]);
    snapshot.set_name(arguments_.names[i]);
  }
  return change<v1::Snapshot>("SnapshotService.Create", std::move(request), "created", kSnapshots);
}

int Commands::snapshot_list() {
  return list<v1::ListSnapshotsRequest, v1::ListSnapshotsResponse>(
      "SnapshotService.List", new_request<v1::ListSnapshotsRequest>(), kSnapshots);
}

int Commands::snapshot_get() {
  auto request = new_request<v1::GetSnapshotRequest>();
  request.set_snapshot_id(arguments_.target);
  return get<v1::Snapshot>("SnapshotService.Get", request);
}

int Commands::snapshot_delete() {
  auto request = new_request<v1::DeleteSnapshotRequest>();
  request.set_snapshot_id(arguments_.target);
  request.set_permanently(arguments_.permanently);
  return act("SnapshotService.Delete", std::move(request), "deleted");
}

int Commands::snapshot_update() {
  auto request = new_request<v1::UpdateSnapshotRequest>();
  request.set_snapshot_id(arguments_.target);
  describe_update(request);
  return change<v1::Snapshot>("SnapshotService.Update", std::move(request), "updated", kSnapshots);
}

// --- everything else
// --------------------------------------------------------------------------------------------------
Commands::NamedResource Commands::named_resource() const {
  if (!arguments_.image.empty())
    return {"ImageService", arguments_.image, "image/" + arguments_.image};
  if (!arguments_.disk.empty())
    return {"DiskService", arguments_.disk, "disk/" + arguments_.disk};
  if (!arguments_.snapshot.empty())
    return {"SnapshotService", arguments_.snapshot, "snapshot/" + arguments_.snapshot};
  return {"FolderService", arguments_.folder, "folder/" + arguments_.folder};
}

int Commands::operation_list() {
  const bool of_one = !arguments_.image.empty() || !arguments_.disk.empty() || !arguments_.snapshot.empty() ||
                      !arguments_.folder.empty();
  if (of_one)
    return list<v1::ListResourceOperationsRequest, v1::ListOperationsResponse>(
        named_resource().service + ".ListOperations", resource_request<v1::ListResourceOperationsRequest>(),
        kOperations);
  return list<v1::ListOperationsRequest, v1::ListOperationsResponse>(
      "OperationService.List", v1::ListOperationsRequest(), kOperations);
}

int Commands::operation_get() {
  v1::GetOperationRequest request;
  request.set_operation_id(arguments_.target);
  return get<v1::Operation>("OperationService.Get", request);
}

int Commands::operation_watch() {
  v1::Operation operation;
  operation.set_id(arguments_.target);
  const auto ended = await(std::move(operation));
  if (!ended)
    return refused(ended.error());
  if (ended->has_error())
    return refused(ended->error());
  return print_operation(*ended);
}

int Commands::operation_cancel() {
  v1::CancelOperationRequest request;
  request.set_operation_id(arguments_.target);
  return get<v1::Operation>("OperationService.Cancel", request);
}

int Commands::status() {
  return get<v1::DaemonStatus>("StatusService.Get", v1::GetStatusRequest());
}

int Commands::completion() {
  fmt::print("{}", completion_script(arguments_.target));
  return 0;
}

}  // namespace obraz::client
