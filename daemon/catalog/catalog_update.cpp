// Catalog: deciding what changes the fields of a resource, and what makes, changes and deletes folders. As in
// catalog_plan.cpp, nothing here suspends.
#include <fmt/core.h>

#include "base/limits.h"
#include "base/size.h"
#include "catalog/catalog.h"
#include "catalog/rules.h"
#include "catalog/update_fields.h"

namespace obraz {
namespace {

// What disks and images have beside: of the system on them.
template <typename Resource, typename Request>
Answer<void> take_system(const Fields& fields, const Request& request, Resource& resource) {
  if (fields.contains("os")) {
    if (request.os().type() != v1::Os::LINUX && request.os().type() != v1::Os::WINDOWS)
      return refuse(ErrorCode::invalid_argument, "os", "os.type must be LINUX or WINDOWS");
    *resource.mutable_os() = request.os();
  }
  if (fields.contains("product_ids")) {
    if (const auto legal = rules::check_product_ids(request.product_ids()); !legal)
      return legal;
    *resource.mutable_product_ids() = request.product_ids();
  }
  if (fields.contains("hardware_generation")) {
    if (const auto legal = rules::check_hardware_generation(request.hardware_generation()); !legal)
      return legal;
    if (request.hardware_generation() == v1::HARDWARE_GENERATION_UNSPECIFIED)
      return refuse(ErrorCode::invalid_argument, "hardware_generation",
                    "hardware_generation must be LEGACY or GENERATION_2");
    resource.set_hardware_generation(request.hardware_generation());
  }
  return {};
}

}  // namespace

Answer<Catalog::Plan> Catalog::plan_update(const Caller& caller, const EntryRef& entry,
                                           v1::ResourceRecord after) {
  if (const auto idle = check_idle(*entry, ""); !idle)
    return std::unexpected(idle.error());
  const std::string name = visit_resource(std::as_const(after), [](const auto& r) { return r.name(); });
  const std::string folder = entry->folder();
  Plan plan;
  const bool renamed = !name.empty() && name != entry->name();
  if (renamed)
    if (const auto free = check_free(entry->kind, folder, name, "name"); !free)
      return std::unexpected(free.error());
  plan.operation = operations_.begin(caller, "Update " + entry->title(), {entry->id()});
  reserve_change(plan, entry, std::move(after));
  if (renamed) {
    plan.changed.back().new_name = name;
    index_.reserve(entry->kind, folder, name);
  }
  return plan;
}

Answer<Catalog::Plan> Catalog::plan_update_disk(const Caller& caller, const v1::UpdateDiskRequest& request) {
  const auto folder = folder_of(*caller.subject, request.folder_id());
  if (!folder)
    return std::unexpected(folder.error());
  const auto entry = find(*caller.subject, Right::change, Kind::disk, *folder, request.disk_id(), "disk_id");
  if (!entry)
    return std::unexpected(entry.error());
  const auto fields = rules::update_mask(
      request.update_mask(),
      {"name", "description", "labels", "delete_protection", "os", "product_ids", "hardware_generation"});
  if (!fields)
    return std::unexpected(fields.error());
  v1::ResourceRecord after = (*entry)->record;
  if (const auto taken = take_common(*fields, request, *after.mutable_disk()); !taken)
    return std::unexpected(taken.error());
  if (const auto taken = take_system(*fields, request, *after.mutable_disk()); !taken)
    return std::unexpected(taken.error());
  return plan_update(caller, *entry, std::move(after));
}

Answer<Catalog::Plan> Catalog::plan_update_snapshot(const Caller& caller,
                                                    const v1::UpdateSnapshotRequest& request) {
  const auto folder = folder_of(*caller.subject, request.folder_id());
  if (!folder)
    return std::unexpected(folder.error());
  const auto entry =
      find(*caller.subject, Right::change, Kind::snapshot, *folder, request.snapshot_id(), "snapshot_id");
  if (!entry)
    return std::unexpected(entry.error());
  const auto fields =
      rules::update_mask(request.update_mask(), {"name", "description", "labels", "delete_protection"});
  if (!fields)
    return std::unexpected(fields.error());
  v1::ResourceRecord after = (*entry)->record;
  if (const auto taken = take_common(*fields, request, *after.mutable_snapshot()); !taken)
    return std::unexpected(taken.error());
  return plan_update(caller, *entry, std::move(after));
}

Answer<Catalog::Plan> Catalog::plan_update_image(const Caller& caller,
                                                 const v1::UpdateImageRequest& request) {
  const auto folder = folder_of(*caller.subject, request.folder_id());
  if (!folder)
    return std::unexpected(folder.error());
  const auto entry =
      find(*caller.subject, Right::change, Kind::image, *folder, request.image_id(), "image_id");
  if (!entry)
    return std::unexpected(entry.error());
  const auto fields = rules::update_mask(
      request.update_mask(), {"name", "description", "labels", "delete_protection", "family", "min_disk_size",
                              "deprecation", "os", "product_ids", "hardware_generation"});
  if (!fields)
    return std::unexpected(fields.error());
  v1::ResourceRecord after = (*entry)->record;
  v1::Image& image = *after.mutable_image();
  if (const auto taken = take_common(*fields, request, image); !taken)
    return std::unexpected(taken.error());
  if (const auto taken = take_system(*fields, request, image); !taken)
    return std::unexpected(taken.error());
  if (fields->contains("family")) {
    if (const auto legal = rules::check_family(request.family()); !legal)
      return std::unexpected(legal.error());
    image.set_family(request.family());
  }
  if (fields->contains("min_disk_size")) {
    const auto least = rules::min_disk_size(request.min_disk_size(), (*entry)->size_bytes());
    if (!least)
      return std::unexpected(least.error());
    image.set_min_disk_size(int64_t(*least));
  }
  if (fields->contains("deprecation")) {
    const v1::Deprecation& asked = request.deprecation();
    if (!v1::Deprecation::State_IsValid(asked.state()))
      return refuse(ErrorCode::invalid_argument, "deprecation",
                    "deprecation.state must be ACTIVE, DEPRECATED or OBSOLETE");
    if (asked.state() == v1::Deprecation::ACTIVE && !asked.replacement_id().empty())
      return refuse(ErrorCode::invalid_argument, "deprecation", "an ACTIVE image has no replacement");
    v1::Deprecation deprecation = asked;
    if (!asked.replacement_id().empty()) {
      const auto replacement = find(*caller.subject, Right::see, Kind::image, (*entry)->folder(),
                                    asked.replacement_id(), "deprecation");
      if (!replacement)
        return std::unexpected(replacement.error());
      if (*replacement == *entry)
        return refuse(ErrorCode::invalid_argument, "deprecation", "an image does not replace itself");
      deprecation.set_replacement_id((*replacement)->id());
    }
    *image.mutable_deprecation() = deprecation;
  }
  return plan_update(caller, *entry, std::move(after));
}

// --- folders
// ----------------------------------------------------------------------------------------------------------
void Catalog::insert_default_folder() {
  auto entry = std::make_shared<Entry>();
  entry->kind = Kind::folder;
  v1::Folder& folder = *entry->record.mutable_folder();
  folder.set_id(std::string(kDefaultFolder));
  folder.set_name(std::string(kDefaultFolder));
  folder.set_status(v1::READY);
  index_.insert(std::move(entry));
}

Answer<Catalog::Plan> Catalog::plan_create_folder(const Caller& caller,
                                                  const v1::CreateFolderRequest& request) {
  if (const auto allowed = check_superuser(*caller.subject, "", "make folders"); !allowed)
    return std::unexpected(allowed.error());
  v1::Folder folder;
  if (request.name().empty())
    return refuse(ErrorCode::invalid_argument, "name", "a folder needs a name");
  const Fields all = {"name", "description", "labels", "delete_protection"};
  if (const auto taken = take_common(all, request, folder); !taken)
    return std::unexpected(taken.error());
  if (const auto legal = rules::check_quota(request.quota()); !legal)
    return std::unexpected(legal.error());
  *folder.mutable_quota() = request.quota();
  if (const auto legal = rules::check_trash_seconds(request.trash_seconds()); !legal)
    return std::unexpected(legal.error());
  folder.set_trash_seconds(request.trash_seconds());
  if (const auto free = check_free(Kind::folder, "", request.name(), "name"); !free)
    return std::unexpected(free.error());
  if (index_.count(Kind::folder) >= limits::kMaxFolders)
    return refuse(
        ErrorCode::resource_exhausted, "",
        fmt::format("there are {} folders, and that is as many as there can be", limits::kMaxFolders));
  Plan plan;
  plan.created.push_back(new_entry(Kind::folder, caller, std::move(folder)));
  plan.operation = operations_.begin(caller, "Create " + plan.created[0]->title(), {plan.created[0]->id()});
  return plan;
}

Answer<Catalog::Plan> Catalog::plan_update_folder(const Caller& caller,
                                                  const v1::UpdateFolderRequest& request) {
  const auto entry = find_folder(*caller.subject, Right::administer, request.folder_id(), "folder_id");
  if (!entry)
    return std::unexpected(entry.error());
  const auto fields =
      rules::update_mask(request.update_mask(),
                         {"name", "description", "labels", "delete_protection", "quota", "trash_seconds"});
  if (!fields)
    return std::unexpected(fields.error());
  v1::ResourceRecord after = (*entry)->record;
  v1::Folder& folder = *after.mutable_folder();
  if (const auto taken = take_common(*fields, request, folder); !taken)
    return std::unexpected(taken.error());
  if (folder.name().empty())
    return refuse(ErrorCode::invalid_argument, "name", "a folder needs a name");
  if ((*entry)->id() == kDefaultFolder && folder.name() != kDefaultFolder)
    return refuse(ErrorCode::failed_precondition, "name", "the folder default keeps its name");
  if (fields->contains("quota")) {
    if (const auto allowed = check_superuser(*caller.subject, "quota", "set quotas"); !allowed)
      return std::unexpected(allowed.error());
    if (const auto legal = rules::check_quota(request.quota()); !legal)
      return std::unexpected(legal.error());
    *folder.mutable_quota() = request.quota();
  }
  if (fields->contains("trash_seconds")) {
    if (const auto legal = rules::check_trash_seconds(request.trash_seconds()); !legal)
      return std::unexpected(legal.error());
    folder.set_trash_seconds(request.trash_seconds());
  }
  return plan_update(caller, *entry, std::move(after));
}

Answer<Catalog::Plan> Catalog::plan_delete_folder(const Caller& caller,
                                                  const v1::DeleteFolderRequest& request) {
  if (request.folder_id().empty())
    return refuse(ErrorCode::invalid_argument, "folder_id", "the name or id of the folder is missing");
  const auto entry = find_folder(*caller.subject, Right::administer, request.folder_id(), "folder_id");
  if (!entry)
    return std::unexpected(entry.error());
  if (const auto allowed = check_superuser(*caller.subject, "folder_id", "delete folders"); !allowed)
    return std::unexpected(allowed.error());
  if ((*entry)->id() == kDefaultFolder)
    return refuse(ErrorCode::failed_precondition, "folder_id", "the folder default cannot be deleted");
  if (const auto idle = check_idle(**entry, "folder_id"); !idle)
    return std::unexpected(idle.error());
  if (const auto allowed = check_unprotected(**entry, "folder_id"); !allowed)
    return std::unexpected(allowed.error());
  if (const Index::Contents contents = index_.contents((*entry)->id()); !contents.empty())
    return refuse(ErrorCode::failed_precondition, "folder_id",
                  fmt::format("{} is not empty: it has {} images, {} disks, {} snapshots and {} schedules{}",
                              (*entry)->title(), contents.counts[size_t(Kind::image)],
                              contents.counts[size_t(Kind::disk)], contents.counts[size_t(Kind::snapshot)],
                              contents.counts[size_t(Kind::schedule)], in_trash(contents)));
  Plan plan;
  plan.operation = operations_.begin(caller, "Delete " + (*entry)->title(), {(*entry)->id()});
  (*entry)->busy = (*entry)->deleting = true;
  plan.removed.push_back(*entry);
  return plan;
}

}  // namespace obraz
