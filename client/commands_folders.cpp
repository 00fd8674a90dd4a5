// Commands on folders, and on what they keep: access, the trash, usage.
#include <fmt/format.h>

#include <algorithm>

#include "client/commands_calls.h"

namespace obraz::client {

int Commands::access_list() {
  return list<v1::ListAccessBindingsRequest, v1::ListAccessBindingsResponse>(
      named_resource().service + ".ListAccessBindings", resource_request<v1::ListAccessBindingsRequest>(),
      [](auto& response) { return response.mutable_access_bindings(); });
}

int Commands::change_access(v1::AccessBindingDelta::Action action) {
  const NamedResource target = named_resource();
  auto request = resource_request<v1::UpdateAccessBindingsRequest>();
  for (const std::string& subject : arguments_.subjects) {
    v1::AccessBindingDelta& delta = *request.add_access_binding_deltas();
    delta.set_action(action);
    delta.mutable_access_binding()->set_role_id(arguments_.role);
    delta.mutable_access_binding()->set_subject(subject);
  }
  return act(target.service + ".UpdateAccessBindings", std::move(request), target.title,
             action == v1::AccessBindingDelta::ADD ? "access granted" : "access revoked");
}

int Commands::access_set() {
  const NamedResource target = named_resource();
  auto request = resource_request<v1::SetAccessBindingsRequest>();
  for (const std::string& text : arguments_.bindings) {
    v1::AccessBinding& binding = *request.add_access_bindings();
    const size_t equals = std::min(text.find('='), text.size());
    binding.set_role_id(text.substr(0, equals));
    binding.set_subject(text.substr(std::min(equals + 1, text.size())));
  }
  return act(target.service + ".SetAccessBindings", std::move(request), target.title, "access set");
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
  request.set_name(arguments_.name);
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

v1::Quota Commands::quota() const {
  v1::Quota quota;
  quota.set_images(arguments_.quota_images);
  quota.set_disks(arguments_.quota_disks);
  quota.set_snapshots(arguments_.quota_snapshots);
  quota.set_bytes(arguments_.quota_bytes);
  return quota;
}

}  // namespace obraz::client
