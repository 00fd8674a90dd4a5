#include "client/commands.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "base/size.h"
#include "client/json.h"
#include "client/output.h"
#include "client/progress.h"
#include "obraz/v1/operation_service.pb.h"
#include "obraz/v1/status_service.pb.h"
#include "obraz/v1/volume_service.pb.h"

namespace obraz::client {
namespace {

void print_json(const google::protobuf::Message& message) {
  fmt::print("{}\n", to_json(message));
}

template <typename Resource>
std::string title(const char* kind, const Resource& resource) {
  return fmt::format("{} {}", kind, resource.name().empty() ? resource.id() : resource.name());
}

// A list of anything into one list of that.
const auto kImages = [](auto& response) { return response.mutable_images(); };
const auto kDisks = [](auto& response) { return response.mutable_disks(); };
const auto kSnapshots = [](auto& response) { return response.mutable_snapshots(); };
const auto kFolders = [](auto& response) { return response.mutable_folders(); };
const auto kUsage = [](auto& response) { return response.mutable_rows(); };
const auto kTrash = [](auto& response) { return response.mutable_resources(); };
const auto kOperations = [](auto& response) { return response.mutable_operations(); };

const char* kind_of(const v1::Image&) {
  return "image";
}
const char* kind_of(const v1::Disk&) {
  return "disk";
}
const char* kind_of(const v1::Snapshot&) {
  return "snapshot";
}
const char* kind_of(const v1::Folder&) {
  return "folder";
}

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

int Commands::refused(const v1::Error& error) const {
  std::fflush(stdout);
  print_refusal(error, arguments_.json);
  return 1;
}

template <typename Request>
Request Commands::new_request() const {
  Request request;
  request.set_folder_id(arguments_.folder);
  return request;
}

template <typename Request>
void Commands::describe_new(Request& request) const {
  request.set_description(arguments_.description);
  request.mutable_labels()->insert(arguments_.labels.begin(), arguments_.labels.end());
}

template <typename Request>
void Commands::describe_system(Request& request) const {
  if (!arguments_.os.empty())
    request.mutable_os()->set_type(arguments_.os == "windows" ? v1::Os::WINDOWS : v1::Os::LINUX);
  request.mutable_product_ids()->Add(arguments_.product_ids.begin(), arguments_.product_ids.end());
  if (!arguments_.generation.empty())
    request.set_hardware_generation(arguments_.generation == "legacy" ? v1::LEGACY : v1::GENERATION_2);
}

template <typename Request>
void Commands::describe_update(Request& request) const {
  for (const std::string& field : arguments_.given)
    request.mutable_update_mask()->add_paths(field);
  request.set_name(arguments_.set_name);
  request.set_delete_protection(arguments_.protect);
  describe_new(request);
}

v1::Quota Commands::quota() const {
  v1::Quota quota;
  quota.set_images(arguments_.quota_images);
  quota.set_disks(arguments_.quota_disks);
  quota.set_snapshots(arguments_.quota_snapshots);
  quota.set_bytes(arguments_.quota_bytes);
  return quota;
}

template <typename Resource, typename Request>
int Commands::get(const std::string& method, const Request& request) {
  Resource resource;
  if (const auto called = call(method, request, resource); !called)
    return refused(called.error());
  if (arguments_.json) {
    print_json(resource);
    return 0;
  }
  if constexpr (requires { resource.id(); })
    if (arguments_.quiet) {
      fmt::print("{}\n", resource.id());
      return 0;
    }
  fmt::print("{}", details(resource));
  return 0;
}

template <typename Request, typename Response, typename Members>
int Commands::list(const std::string& method, Request request, Members members) {
  Response all;
  if constexpr (requires { request.page_size(); })
    request.set_page_size(1000);
  if constexpr (requires { request.filter(); }) {
    request.set_filter(arguments_.filter);
    request.set_order_by(arguments_.order_by);
  }
  do {
    Response page;
    request.set_page_token(all.next_page_token());
    if (const auto called = call(method, request, page); !called)
      return refused(called.error());
    members(all)->MergeFrom(*members(page));
    all.set_next_page_token(page.next_page_token());
  } while (!all.next_page_token().empty());
  if (arguments_.json) {
    print_json(all);
    return 0;
  }
  std::vector<Row> rows;
  for (const auto& member : *members(all)) {
    if (arguments_.quiet) {
      if constexpr (requires { member.id(); })
        fmt::print("{}\n", member.id());
      else
        fmt::print("{}\n", fmt::join(row(member), " "));
      continue;
    }
    if (rows.empty())
      rows.push_back(heading(member));
    rows.push_back(row(member));
  }
  fmt::print("{}", table(rows));
  return 0;
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

template <typename Request>
Outcome<v1::Operation> Commands::operate(const std::string& method, Request request) {
  request.set_idempotency_key(arguments_.idempotency_key);
  v1::Operation operation;
  if (const auto called = call(method, request, operation); !called)
    return std::unexpected(called.error());
  if (arguments_.async)
    return operation;
  auto ended = await(std::move(operation));
  if (ended && ended->has_error())
    return std::unexpected(ended->error());
  return ended;
}

int Commands::print_operation(const v1::Operation& operation) const {
  if (arguments_.json)
    print_json(operation);
  else if (arguments_.quiet)
    fmt::print("{}\n", operation.id());
  else
    fmt::print("{}", details(operation));
  return 0;
}

// A call whose outcome is a resource, or several.
template <typename Resource, typename Request, typename Members>
int Commands::change(const std::string& method, Request request, const char* verb, Members members) {
  auto operation = operate(method, std::move(request));
  if (!operation)
    return refused(operation.error());
  if (!operation->done())
    return print_operation(*operation);
  const auto& resources = *members(*operation->mutable_response());
  if (arguments_.quiet) {
    for (const Resource& resource : resources)
      fmt::print("{}\n", resource.id());
  } else if (!arguments_.json) {
    for (const Resource& resource : resources)
      fmt::print("{} {} ({})\n", title(kind_of(resource), resource), verb, resource.id());
  } else if (resources.size() == 1) {
    print_json(resources[0]);
  } else {
    v1::OperationResponse several;
    *members(several) = resources;
    std::string separator = "\n";
    fmt::print("{{\n  \"{}s\": [", kind_of(Resource()));
    for (const Resource& resource : resources) {
      fmt::print("{}    {}", separator, to_json(resource, 2));
      separator = ",\n";
    }
    fmt::print("{}]\n}}\n", resources.empty() ? "" : "\n  ");
  }
  return 0;
}

// A call that leaves no resource behind: its operation is its outcome.
template <typename Request>
int Commands::act(const std::string& method, Request request, const char* done) {
  const auto operation = operate(method, std::move(request));
  if (!operation)
    return refused(operation.error());
  if (arguments_.json || !operation->done())
    return print_operation(*operation);
  if (!arguments_.quiet)
    fmt::print("{} {}\n", arguments_.target, done);
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

// --- access
// -----------------------------------------------------------------------------------------------------------
Outcome<std::pair<std::string, std::string>> Commands::access_target() const {
  constexpr std::pair<const char*, const char*> kServices[] = {{"image/", "ImageService"},
                                                               {"disk/", "DiskService"},
                                                               {"snapshot/", "SnapshotService"},
                                                               {"folder/", "FolderService"}};
  for (const auto& [word, service] : kServices)
    if (arguments_.target.starts_with(word))
      return std::pair<std::string, std::string>(service, arguments_.target.substr(std::string(word).size()));
  v1::Error error;
  error.set_code(v1::Error::INVALID_ARGUMENT);
  error.set_field("resource_id");
  error.set_message("name image/NAME, disk/NAME, snapshot/NAME or folder/NAME, not " + arguments_.target);
  return std::unexpected(error);
}

int Commands::access_list() {
  const auto resource = access_target();
  if (!resource)
    return refused(resource.error());
  auto request = new_request<v1::ListAccessBindingsRequest>();
  request.set_resource_id(resource->second);
  return list<v1::ListAccessBindingsRequest, v1::ListAccessBindingsResponse>(
      resource->first + ".ListAccessBindings", std::move(request),
      [](auto& response) { return response.mutable_access_bindings(); });
}

int Commands::change_access(v1::AccessBindingDelta::Action action) {
  const auto resource = access_target();
  if (!resource)
    return refused(resource.error());
  auto request = new_request<v1::UpdateAccessBindingsRequest>();
  request.set_resource_id(resource->second);
  for (const std::string& subject : arguments_.subjects) {
    v1::AccessBindingDelta& delta = *request.add_access_binding_deltas();
    delta.set_action(action);
    delta.mutable_access_binding()->set_role_id(arguments_.role);
    delta.mutable_access_binding()->set_subject(subject);
  }
  return act(resource->first + ".UpdateAccessBindings", std::move(request),
             action == v1::AccessBindingDelta::ADD ? "access granted" : "access revoked");
}

int Commands::access_set() {
  const auto resource = access_target();
  if (!resource)
    return refused(resource.error());
  auto request = new_request<v1::SetAccessBindingsRequest>();
  request.set_resource_id(resource->second);
  for (const std::string& text : arguments_.bindings) {
    v1::AccessBinding& binding = *request.add_access_bindings();
    const size_t equals = std::min(text.find('='), text.size());
    binding.set_role_id(text.substr(0, equals));
    binding.set_subject(text.substr(std::min(equals + 1, text.size())));
  }
  return act(resource->first + ".SetAccessBindings", std::move(request), "access set");
}

int Commands::access_grant() {
  return change_access(v1::AccessBindingDelta::ADD);
}

int Commands::access_revoke() {
  return change_access(v1::AccessBindingDelta::REMOVE);
}

int Commands::image_share() {
  auto request = new_request<v1::UpdateAccessBindingsRequest>();
  request.set_resource_id(arguments_.target);
  v1::AccessBindingDelta& delta = *request.add_access_binding_deltas();
  delta.set_action(arguments_.is_public ? v1::AccessBindingDelta::ADD : v1::AccessBindingDelta::REMOVE);
  delta.mutable_access_binding()->set_role_id("images.user");
  delta.mutable_access_binding()->set_subject("allAuthenticatedUsers");
  return act("ImageService.UpdateAccessBindings", std::move(request),
             arguments_.is_public ? "is public now" : "is no longer public");
}

// --- folders
// ----------------------------------------------------------------------------------------------------------
int Commands::folder_create() {
  v1::CreateFolderRequest request;
  describe_new(request);
  request.set_name(arguments_.target);
  request.set_delete_protection(arguments_.protect);
  *request.mutable_quota() = quota();
  request.set_trash_seconds(arguments_.trash_seconds);
  return change<v1::Folder>("FolderService.Create", std::move(request), "created", kFolders);
}

int Commands::folder_list() {
  return list<v1::ListFoldersRequest, v1::ListFoldersResponse>("FolderService.List", v1::ListFoldersRequest(),
                                                               kFolders);
}

int Commands::folder_get() {
  v1::GetFolderRequest request;
  request.set_folder_id(arguments_.target);
  return get<v1::Folder>("FolderService.Get", request);
}

// A quota is replaced as a whole, so what was not given is kept from what there is.
int Commands::folder_update() {
  v1::UpdateFolderRequest request;
  request.set_folder_id(arguments_.target);
  describe_update(request);
  const auto gave = [this](const char* field) {
    return std::ranges::find(arguments_.given, field) != arguments_.given.end();
  };
  request.set_trash_seconds(arguments_.trash_seconds);
  request.mutable_update_mask()->clear_paths();
  for (const char* field : {"name", "description", "labels", "delete_protection", "trash_seconds"})
    if (gave(field))
      request.mutable_update_mask()->add_paths(field);
  if (gave("quota.images") || gave("quota.disks") || gave("quota.snapshots") || gave("quota.bytes")) {
    v1::GetFolderRequest asked;
    asked.set_folder_id(arguments_.target);
    v1::Folder folder;
    if (const auto called = call("FolderService.Get", asked, folder); !called)
      return refused(called.error());
    v1::Quota next = folder.quota();
    if (gave("quota.images"))
      next.set_images(arguments_.quota_images);
    if (gave("quota.disks"))
      next.set_disks(arguments_.quota_disks);
    if (gave("quota.snapshots"))
      next.set_snapshots(arguments_.quota_snapshots);
    if (gave("quota.bytes"))
      next.set_bytes(arguments_.quota_bytes);
    *request.mutable_quota() = next;
    request.mutable_update_mask()->add_paths("quota");
  }
  return change<v1::Folder>("FolderService.Update", std::move(request), "updated", kFolders);
}

int Commands::usage() {
  auto request = new_request<v1::GetUsageRequest>();
  request.set_from_month(arguments_.from_month);
  request.set_to_month(arguments_.to_month);
  return list<v1::GetUsageRequest, v1::GetUsageResponse>("UsageService.Get", request, kUsage);
}

int Commands::trash_list() {
  return list<v1::ListTrashRequest, v1::ListTrashResponse>("TrashService.List",
                                                           new_request<v1::ListTrashRequest>(), kTrash);
}

int Commands::trash_restore() {
  auto request = new_request<v1::RestoreRequest>();
  request.set_resource_id(arguments_.target);
  request.set_name(arguments_.name);
  return act("TrashService.Restore", std::move(request), "restored");
}

int Commands::trash_purge() {
  auto request = new_request<v1::PurgeRequest>();
  request.set_resource_id(arguments_.target);
  return act("TrashService.Purge", std::move(request), "deleted for good");
}

int Commands::folder_delete() {
  v1::DeleteFolderRequest request;
  request.set_folder_id(arguments_.target);
  return act("FolderService.Delete", std::move(request), "deleted");
}

// --- everything else
// --------------------------------------------------------------------------------------------------
// disk/NAME of another folder than the default one.
std::string Commands::in_folder(const std::string& name) const {
  const size_t slash = name.find('/');
  const bool local = slash != std::string::npos && name.find('/', slash + 1) == std::string::npos;
  if (!local || arguments_.folder.empty() || arguments_.folder == "default")
    return name;
  return name.substr(0, slash + 1) + arguments_.folder + name.substr(slash);
}

int Commands::diff() {
  v1::DiffRequest request;
  request.set_a(in_folder(arguments_.target));
  request.set_b(in_folder(arguments_.other));
  v1::DiffResponse page;
  uint64_t changed_bytes = 0;
  bool first = true;
  // Printed page by page: a difference has no limit.
  do {
    request.set_page_token(page.next_page_token());
    if (const auto called = call("VolumeService.Diff", request, page); !called)
      return refused(called.error());
    if (first)
      fmt::print("{}",
                 arguments_.json ? "{\n  \"ranges\": [" : fmt::format("{:>15} {:>15}\n", "OFFSET", "LENGTH"));
    for (const v1::ByteRange& range : page.ranges()) {
      if (arguments_.json)
        fmt::print("{}\n    {{\"offset\": {}, \"length\": {}}}", first ? "" : ",", range.offset(),
                   range.length());
      else
        fmt::print("{:>15} {:>15}\n", range.offset(), range.length());
      first = false;
      changed_bytes += uint64_t(range.length());
    }
    if (page.ranges().empty())
      break;
  } while (!page.next_page_token().empty());
  if (arguments_.json)
    fmt::print("{}],\n  \"changed_bytes\": {}\n}}\n", first ? "" : "\n  ", changed_bytes);
  else
    fmt::print("{} may differ\n", format_size(changed_bytes));
  return 0;
}

int Commands::space() {
  v1::SpaceRequest request;
  for (const std::string& name : arguments_.volumes)
    request.add_names(in_folder(name));
  v1::SpaceResponse response;
  if (const auto called = call("VolumeService.Space", request, response); !called)
    return refused(called.error());
  if (arguments_.json) {
    print_json(response);
    return 0;
  }
  const auto text = [](int64_t bytes) { return format_size(uint64_t(bytes)); };
  std::vector<Row> rows = {{"VOLUME", "SHOWN", "GIVEN BACK"}};
  for (const v1::VolumeSpace& volume : response.volumes())
    rows.push_back({volume.name(), text(volume.mapped_bytes()), text(volume.exclusive_bytes())});
  if (response.volumes_size() > 1)
    rows.push_back({"together", "", text(response.together_bytes())});
  fmt::print("{}", table(rows));
  return 0;
}

int Commands::operation_list() {
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

}  // namespace obraz::client
