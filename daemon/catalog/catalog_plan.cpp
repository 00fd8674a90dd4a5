// Catalog: deciding what each changing call does. Nothing here suspends, so what is checked still holds when
// it is reserved at the end of each function.
#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/limits.h"
#include "base/size.h"
#include "catalog/catalog.h"
#include "catalog/rules.h"
#include "io/device.h"

namespace obraz {
namespace {

// Rules of what every request to create says about itself.
template <typename Request>
Answer<void> check_common(const Request& request) {
  if (const auto legal = rules::check_description(request.description()); !legal)
    return legal;
  if constexpr (requires { request.product_ids(); }) {
    if (const auto legal = rules::check_product_ids(request.product_ids()); !legal)
      return legal;
    if (const auto legal = rules::check_hardware_generation(request.hardware_generation()); !legal)
      return legal;
  }
  return rules::check_labels(
      std::map<std::string, std::string>(request.labels().begin(), request.labels().end()));
}

v1::Os linux_os() {
  v1::Os os;
  os.set_type(v1::Os::LINUX);
  return os;
}

// What a disk, snapshot or image hands on to what is made of it.
struct System {
  v1::Os os = linux_os();
  google::protobuf::RepeatedPtrField<std::string> product_ids;
  v1::HardwareGeneration hardware_generation = v1::LEGACY;

  template <typename Resource>
  void put_into(Resource& resource) const {
    *resource.mutable_os() = os;
    *resource.mutable_product_ids() = product_ids;
    resource.set_hardware_generation(hardware_generation);
  }
};

template <typename Resource>
System system_from(const Resource& resource) {
  System system;
  if (resource.has_os())
    system.os = resource.os();
  system.product_ids = resource.product_ids();
  if (resource.hardware_generation() != v1::HARDWARE_GENERATION_UNSPECIFIED)
    system.hardware_generation = resource.hardware_generation();
  return system;
}

System system_of(const Entry& entry) {
  switch (entry.kind) {
    case Kind::disk:
      return system_from(entry.record.disk());
    case Kind::snapshot:
      return system_from(entry.record.snapshot());
    case Kind::image:
      return system_from(entry.record.image());
    case Kind::folder:
    case Kind::schedule:
      break;
  }
  OBRAZ_CHECK(!"a kind with a volume");
}

// As asked for, else as inherited.
template <typename Request>
Answer<System> choose_system(const Request& request, System inherited) {
  if (request.has_os() && request.os().type() != v1::Os::TYPE_UNSPECIFIED) {
    if (!v1::Os::Type_IsValid(request.os().type()))
      return refuse(ErrorCode::invalid_argument, "os", "os.type must be LINUX or WINDOWS");
    inherited.os = request.os();
  }
  if (!request.product_ids().empty())
    inherited.product_ids = request.product_ids();
  if (request.hardware_generation() != v1::HARDWARE_GENERATION_UNSPECIFIED)
    inherited.hardware_generation = request.hardware_generation();
  return inherited;
}

v1::ImageSource::Kind source_kind(Kind kind) {
  switch (kind) {
    case Kind::disk:
      return v1::ImageSource::DISK;
    case Kind::snapshot:
      return v1::ImageSource::SNAPSHOT;
    case Kind::image:
      return v1::ImageSource::IMAGE;
    case Kind::folder:
    case Kind::schedule:
      break;
  }
  OBRAZ_CHECK(!"a kind with a volume");
}

}  // namespace

// The caller has found the name free. From here on it is taken.
template <typename Resource>
EntryRef Catalog::new_entry(Kind kind, const Caller& caller, Resource resource) {
  do
    resource.set_id(new_resource_id(kind));
  while (index_.find_id(resource.id()) || index_.find_trashed(resource.id()));
  *resource.mutable_created_at() = clock_.next();
  resource.set_created_by(caller.subject->name);
  resource.set_status(v1::CREATING);
  auto entry = std::make_shared<Entry>();
  entry->kind = kind;
  if constexpr (std::is_same_v<Resource, v1::Disk>)
    *entry->record.mutable_disk() = std::move(resource);
  else if constexpr (std::is_same_v<Resource, v1::Image>)
    *entry->record.mutable_image() = std::move(resource);
  else if constexpr (std::is_same_v<Resource, v1::Folder>)
    *entry->record.mutable_folder() = std::move(resource);
  else if constexpr (std::is_same_v<Resource, v1::SnapshotSchedule>)
    *entry->record.mutable_schedule() = std::move(resource);
  else
    *entry->record.mutable_snapshot() = std::move(resource);
  index_.insert(entry);
  return entry;
}

template EntryRef Catalog::new_entry(Kind kind, const Caller& caller, v1::Folder resource);
template EntryRef Catalog::new_entry(Kind kind, const Caller& caller, v1::SnapshotSchedule resource);

void Catalog::reserve_change(Plan& plan, const EntryRef& entry, v1::ResourceRecord after) {
  entry->busy = true;
  plan.changed.push_back({entry, std::move(after), {}, 0, {}});
}

Answer<Catalog::Plan> Catalog::plan_create_disk(const Caller& caller, const v1::CreateDiskRequest& request) {
  const auto folder = folder_for_new(*caller.subject, request.folder_id());
  if (!folder)
    return std::unexpected(folder.error());
  const auto from = source_folder(*caller.subject, *folder, request.source_folder_id());
  if (!from)
    return std::unexpected(from.error());
  if (const auto legal = rules::check_name(request.name()); !legal)
    return std::unexpected(legal.error());
  if (const auto legal = check_common(request); !legal)
    return std::unexpected(legal.error());

  v1::Disk disk;
  EntryRef source;
  uint64_t least = 0;  // bytes
  switch (request.source_case()) {
    case v1::CreateDiskRequest::kImageId:
    case v1::CreateDiskRequest::kFamily: {
      Answer<EntryRef> image = nullptr;
      if (request.source_case() == v1::CreateDiskRequest::kImageId) {
        image = find_source(*caller.subject, Right::use, Kind::image, *from, request.image_id(), "image_id");
      } else if (const auto legal = rules::check_family(request.family()); !legal) {
        return std::unexpected(legal.error());
      } else if (image = latest_of_family(*caller.subject, Right::use, *from, request.family()); !*image) {
        return refuse(ErrorCode::not_found, "family",
                      fmt::format("there is no image of the family {}{} that is not deprecated",
                                  request.family(), in_folder(*from)));
      }
      if (!image)
        return std::unexpected(image.error());
      source = *image;
      if (const auto allowed = check_not_obsolete(*caller.subject, *source); !allowed)
        return std::unexpected(allowed.error());
      least = std::max(source->size_bytes(), uint64_t(source->record.image().min_disk_size()));
      disk.set_source_image_id(source->id());
      break;
    }
    case v1::CreateDiskRequest::kSnapshotId: {
      const auto snapshot = find_source(*caller.subject, Right::use, Kind::snapshot, *from,
                                        request.snapshot_id(), "snapshot_id");
      if (!snapshot)
        return std::unexpected(snapshot.error());
      source = *snapshot;
      least = source->size_bytes();
      disk.set_source_snapshot_id(source->id());
      break;
    }
    case v1::CreateDiskRequest::SOURCE_NOT_SET:
      break;
  }
  const auto system = choose_system(request, source ? system_of(*source) : System());
  if (!system)
    return std::unexpected(system.error());
  system->put_into(disk);
  uint64_t size = least;
  if (!source || request.size() != 0) {
    const auto asked = rules::disk_size(request.size());
    if (!asked)
      return std::unexpected(asked.error());
    size = *asked;
  }
  if (size < least)
    return refuse(ErrorCode::invalid_argument, "size",
                  fmt::format("a disk from {} has at least {}, not {}", source->title(), exact_size(least),
                              exact_size(size)));
  if (const auto free = check_free(Kind::disk, *folder, request.name(), "name"); !free)
    return std::unexpected(free.error());
  if (const auto room = check_room(1); !room)
    return std::unexpected(room.error());
  if (const auto quota = check_quota(*folder, Kind::disk, 1, size); !quota)
    return std::unexpected(quota.error());

  disk.set_folder_id(*folder);
  disk.set_name(request.name());
  disk.set_description(request.description());
  *disk.mutable_labels() = request.labels();
  disk.set_delete_protection(request.delete_protection());
  disk.set_size(int64_t(size));
  disk.set_block_size(int64_t(kBlockSize));
  Plan plan;
  plan.created.push_back(new_entry(Kind::disk, caller, std::move(disk)));
  plan.operation = operations_.begin(caller, "Create " + plan.created[0]->title(), {plan.created[0]->id()});
  plan.volumes = [size, from = source ? source->volume() : VolumeId{}](const std::vector<EntryRef>& created,
                                                                       Transaction& transaction) {
    if (from)
      transaction.push_back(CloneVolume{created[0]->volume(), from, VolumeKind::disk, size});
    else
      transaction.push_back(CreateVolume{created[0]->volume(), size});
  };
  return plan;
}

Answer<Catalog::Plan> Catalog::plan_create_image(const Caller& caller,
                                                 const v1::CreateImageRequest& request) {
  const auto folder = folder_for_new(*caller.subject, request.folder_id());
  if (!folder)
    return std::unexpected(folder.error());
  const auto from = source_folder(*caller.subject, *folder, request.source_folder_id());
  if (!from)
    return std::unexpected(from.error());
  if (const auto legal = rules::check_name(request.name()); !legal)
    return std::unexpected(legal.error());
  if (const auto legal = rules::check_family(request.family()); !legal)
    return std::unexpected(legal.error());
  if (const auto legal = check_common(request); !legal)
    return std::unexpected(legal.error());
  Answer<EntryRef> source = nullptr;
  switch (request.source_case()) {
    case v1::CreateImageRequest::kDiskId:
      source = find_source(*caller.subject, Right::use, Kind::disk, *from, request.disk_id(), "disk_id");
      break;
    case v1::CreateImageRequest::kSnapshotId:
      source = find_source(*caller.subject, Right::use, Kind::snapshot, *from, request.snapshot_id(),
                           "snapshot_id");
      break;
    case v1::CreateImageRequest::kImageId:
      source = find_source(*caller.subject, Right::use, Kind::image, *from, request.image_id(), "image_id");
      break;
    case v1::CreateImageRequest::SOURCE_NOT_SET:
      return refuse(ErrorCode::invalid_argument, "source",
                    "an image is made from a disk, a snapshot or another image; name one, or import a file");
  }
  if (!source)
    return std::unexpected(source.error());
  const uint64_t size = (*source)->size_bytes();
  // An image that asks for larger disks than its content needs hands that on.
  const uint64_t least =
      (*source)->kind == Kind::image ? uint64_t((*source)->record.image().min_disk_size()) : size;
  const auto min_disk_size = request.min_disk_size() == 0
                                 ? Answer<uint64_t>(std::max(least, size))
                                 : rules::min_disk_size(request.min_disk_size(), size);
  if (!min_disk_size)
    return std::unexpected(min_disk_size.error());
  const auto system = choose_system(request, system_of(**source));
  if (!system)
    return std::unexpected(system.error());
  if (const auto free = check_free(Kind::image, *folder, request.name(), "name"); !free)
    return std::unexpected(free.error());
  if (const auto room = check_room(1); !room)
    return std::unexpected(room.error());
  if (const auto quota = check_quota(*folder, Kind::image, 1, size); !quota)
    return std::unexpected(quota.error());

  v1::Image image;
  image.set_folder_id(*folder);
  image.set_name(request.name());
  image.set_description(request.description());
  *image.mutable_labels() = request.labels();
  image.set_family(request.family());
  image.set_size(int64_t(size));
  image.set_min_disk_size(int64_t(*min_disk_size));
  system->put_into(image);
  image.set_delete_protection(request.delete_protection());
  image.mutable_source()->set_kind(source_kind((*source)->kind));
  image.mutable_source()->set_id((*source)->id());
  Plan plan;
  plan.created.push_back(new_entry(Kind::image, caller, std::move(image)));
  if ((*source)->has_content()) {  // the same bytes
    Entry& entry = *plan.created[0];
    entry.content = (*source)->content;
    entry.content.set_image_id(entry.id());
  }
  plan.operation = operations_.begin(
      caller, fmt::format("Create {} from {}", plan.created[0]->title(), (*source)->title()),
      {plan.created[0]->id()});
  plan.volumes = [size, from = (*source)->volume()](const std::vector<EntryRef>& created,
                                                    Transaction& transaction) {
    transaction.push_back(CloneVolume{created[0]->volume(), from, VolumeKind::frozen, size});
  };
  return plan;
}

Answer<Catalog::Plan> Catalog::plan_create_snapshots(const Caller& caller,
                                                     const v1::CreateSnapshotsRequest& request) {
  const auto folder = folder_for_new(*caller.subject, request.folder_id());
  if (!folder)
    return std::unexpected(folder.error());
  if (const auto legal = check_common(request); !legal)
    return std::unexpected(legal.error());
  if (request.snapshots().empty() || size_t(request.snapshots_size()) > limits::kMaxSnapshotsPerCall)
    return refuse(ErrorCode::invalid_argument, "snapshots",
                  fmt::format("one call makes 1 to {} snapshots", limits::kMaxSnapshotsPerCall));
  std::vector<v1::Snapshot> snapshots;
  std::vector<VolumeId> sources;
  std::set<std::string> names;
  uint64_t bytes = 0, volume_bytes = 0;
  for (const auto& asked : request.snapshots()) {
    if (const auto legal = rules::check_name(asked.name()); !legal)
      return std::unexpected(legal.error());
    const auto disk =
        find_source(*caller.subject, Right::use, Kind::disk, *folder, asked.disk_id(), "disk_id");
    if (!disk)
      return std::unexpected(disk.error());
    if (const auto free = check_free(Kind::snapshot, *folder, asked.name(), "name"); !free)
      return std::unexpected(free.error());
    if (!asked.name().empty() && !names.insert(asked.name()).second)
      return refuse(ErrorCode::invalid_argument, "name",
                    fmt::format("the name {} is there twice", asked.name()));
    v1::Snapshot& snapshot = snapshots.emplace_back();
    snapshot.set_folder_id(*folder);
    snapshot.set_name(asked.name());
    snapshot.set_description(request.description());
    *snapshot.mutable_labels() = request.labels();
    snapshot.set_disk_size(int64_t((*disk)->size_bytes()));
    snapshot.set_source_disk_id((*disk)->id());
    system_of(**disk).put_into(snapshot);
    snapshot.set_delete_protection(request.delete_protection());
    volume_bytes += (*disk)->size_bytes();
    bytes += snapshot.ByteSizeLong();
    sources.push_back((*disk)->volume());
  }
  if (bytes > limits::kMaxTransactionBytes)
    return refuse(
        ErrorCode::resource_exhausted, "labels",
        "so many snapshots with so many labels are too much for one instant; use fewer labels or snapshots");
  if (const auto room = check_room(snapshots.size()); !room)
    return std::unexpected(room.error());
  if (const auto quota = check_quota(*folder, Kind::snapshot, snapshots.size(), volume_bytes); !quota)
    return std::unexpected(quota.error());

  Plan plan;
  std::vector<std::string> ids;
  for (auto& snapshot : snapshots) {
    plan.created.push_back(new_entry(Kind::snapshot, caller, std::move(snapshot)));
    ids.push_back(plan.created.back()->id());
  }
  std::string description = "Create " + plan.created[0]->title();
  if (ids.size() > 1)
    description += fmt::format(" and {} more", ids.size() - 1);
  plan.operation = operations_.begin(caller, std::move(description), std::move(ids));
  plan.volumes = [sources](const std::vector<EntryRef>& created, Transaction& transaction) {
    for (size_t i = 0; i < created.size(); ++i)
      transaction.push_back(
          CloneVolume{created[i]->volume(), sources[i], VolumeKind::frozen, created[i]->size_bytes()});
  };
  return plan;
}

Answer<Catalog::Plan> Catalog::plan_resize_disk(const Caller& caller, const v1::ResizeDiskRequest& request) {
  const auto folder = folder_of(*caller.subject, request.folder_id());
  if (!folder)
    return std::unexpected(folder.error());
  const auto disk =
      find_source(*caller.subject, Right::change, Kind::disk, *folder, request.disk_id(), "disk_id");
  if (!disk)
    return std::unexpected(disk.error());
  const auto size = rules::disk_size(request.size());
  if (!size)
    return std::unexpected(size.error());
  if (*size < (*disk)->size_bytes())
    return refuse(ErrorCode::invalid_argument, "size",
                  fmt::format("{} has {} and cannot become smaller; a disk only grows", (*disk)->title(),
                              exact_size((*disk)->size_bytes())));
  const uint64_t more = *size - (*disk)->size_bytes();
  if (const auto quota = check_quota((*disk)->folder(), Kind::disk, 0, more); !quota)
    return std::unexpected(quota.error());
  Plan plan;
  plan.operation = operations_.begin(
      caller, fmt::format("Resize {} to {}", (*disk)->title(), exact_size(*size)), {(*disk)->id()});
  v1::ResourceRecord after = (*disk)->record;
  after.mutable_disk()->set_size(int64_t(*size));
  plan.volumes = [volume = (*disk)->volume(), size = *size](const auto&, Transaction& transaction) {
    transaction.push_back(ResizeVolume{volume, size});
  };
  reserve_change(plan, *disk, std::move(after));
  plan.changed.back().more_bytes = int64_t(more);
  index_.reserve_bytes((*disk)->folder(), int64_t(more));
  return plan;
}

Answer<Catalog::Plan> Catalog::plan_revert_disk(const Caller& caller, const v1::RevertDiskRequest& request) {
  const auto folder = folder_of(*caller.subject, request.folder_id());
  if (!folder)
    return std::unexpected(folder.error());
  const auto disk =
      find_source(*caller.subject, Right::change, Kind::disk, *folder, request.disk_id(), "disk_id");
  if (!disk)
    return std::unexpected(disk.error());
  const auto snapshot =
      find_source(*caller.subject, Right::use, Kind::snapshot, *folder, request.snapshot_id(), "snapshot_id");
  if (!snapshot)
    return std::unexpected(snapshot.error());
  if ((*snapshot)->record.snapshot().source_disk_id() != (*disk)->id())
    return refuse(ErrorCode::failed_precondition, "snapshot_id",
                  fmt::format("{} is not one of {}", (*snapshot)->title(), (*disk)->title()));
  if (const auto unused = check_unused(**disk, "reverted", "disk_id"); !unused)
    return std::unexpected(unused.error());
  Plan plan;
  plan.operation = operations_.begin(
      caller, fmt::format("Revert {} to {}", (*disk)->title(), (*snapshot)->title()), {(*disk)->id()});
  v1::ResourceRecord after = (*disk)->record;
  after.mutable_disk()->set_size((*snapshot)->record.snapshot().disk_size());
  plan.volumes = [disk = (*disk)->volume(), from = (*snapshot)->volume()](const auto&,
                                                                          Transaction& transaction) {
    transaction.push_back(RevertVolume{disk, from});
  };
  reserve_change(plan, *disk, std::move(after));
  return plan;
}

Answer<Catalog::Plan> Catalog::plan_delete(const Caller& caller, const Deletion& deletion) {
  const auto folder = folder_of(*caller.subject, deletion.folder_id);
  if (!folder)
    return std::unexpected(folder.error());
  const auto entry =
      find(*caller.subject, Right::change, deletion.kind, *folder, deletion.id, deletion.field);
  if (!entry)
    return std::unexpected(entry.error());
  // One whose volume is missing may be deleted, though nothing else may be done with it.
  const bool orphan = (*entry)->status() == v1::ERROR && !(*entry)->volume() && !(*entry)->busy;
  if (const auto idle = check_idle(**entry, deletion.field); !idle && !orphan)
    return std::unexpected(idle.error());
  if (const auto unused = check_unused(**entry, "deleted", deletion.field); !unused)
    return std::unexpected(unused.error());
  if (const auto allowed = check_unprotected(**entry, deletion.field); !allowed)
    return std::unexpected(allowed.error());
  const EntryRef in = index_.find_id((*entry)->folder());
  const int64_t trash_seconds = in ? in->record.folder().trash_seconds() : 0;
  if (trash_seconds > 0 && !deletion.permanently && !orphan)
    return plan_trash(caller, *entry, trash_seconds);
  return plan_removal(caller, *entry, "Delete " + (*entry)->title());
}

Answer<Catalog::Plan> Catalog::plan_removal(const Caller& caller, const EntryRef& entry,
                                            std::string description) {
  Plan plan;
  plan.operation = operations_.begin(caller, std::move(description), {entry->id()});
  entry->busy = entry->deleting = true;
  plan.removed.push_back(entry);
  plan.volumes = [volume = entry->volume()](const auto&, Transaction& transaction) {
    if (volume)
      transaction.push_back(DeleteVolume{volume});
  };
  return plan;
}

Answer<ImportTicket> Catalog::begin_import(const Caller& caller, const v1::ImportImageRequest& request) {
  const auto folder = folder_for_new(*caller.subject, request.folder_id());
  if (!folder)
    return std::unexpected(folder.error());
  if (const auto legal = rules::check_name(request.name()); !legal)
    return std::unexpected(legal.error());
  if (const auto legal = rules::check_family(request.family()); !legal)
    return std::unexpected(legal.error());
  if (const auto legal = check_common(request); !legal)
    return std::unexpected(legal.error());
  if (const auto legal = rules::check_import_source(request.source()); !legal)
    return std::unexpected(legal.error());
  if (const auto allowed = rules::is_nbd_uri(request.source())
                               ? check_superuser(*caller.subject, "source", "have the daemon call servers")
                               : check_files(*caller.subject, "source");
      !allowed)
    return std::unexpected(allowed.error());
  if (const auto legal = rules::check_import_format(request.format()); !legal)
    return std::unexpected(legal.error());
  const auto sha256 = rules::sha256(request.sha256());
  if (!sha256)
    return std::unexpected(sha256.error());
  // Against the source's size once that is known.
  if (const auto legal = rules::min_disk_size(request.min_disk_size(), 0); !legal)
    return std::unexpected(legal.error());
  const auto system = choose_system(request, System());
  if (!system)
    return std::unexpected(system.error());
  if (const auto free = check_free(Kind::image, *folder, request.name(), "name"); !free)
    return std::unexpected(free.error());
  if (const auto room = check_room(2); !room)
    return std::unexpected(room.error());
  if (const auto quota = check_quota(*folder, Kind::image, 1, 0); !quota)
    return std::unexpected(quota.error());

  v1::Image image;
  image.set_folder_id(*folder);
  image.set_name(request.name());
  image.set_description(request.description());
  *image.mutable_labels() = request.labels();
  image.set_family(request.family());
  system->put_into(image);
  image.set_delete_protection(request.delete_protection());
  image.mutable_source()->set_kind(rules::is_nbd_uri(request.source()) ? v1::ImageSource::NBD
                                                                       : v1::ImageSource::FILE);
  image.mutable_source()->set_location(request.source());
  image.mutable_source()->set_format(request.format());
  image.mutable_source()->set_sha256(*sha256);
  ImportTicket ticket;
  ticket.min_disk_size = request.min_disk_size();
  ticket.image = new_entry(Kind::image, caller, std::move(image));
  ticket.operation =
      operations_.begin(caller, fmt::format("Import {} from {}", ticket.image->title(), request.source()),
                        {ticket.image->id()});
  return ticket;
}

Answer<ReadTicket> Catalog::begin_export(const Caller& caller, const v1::ExportImageRequest& request) {
  const auto folder = folder_of(*caller.subject, request.folder_id());
  if (!folder)
    return std::unexpected(folder.error());
  const auto image =
      find_source(*caller.subject, Right::use, Kind::image, *folder, request.image_id(), "image_id");
  if (!image)
    return std::unexpected(image.error());
  if (const auto legal = rules::check_path(request.path(), "path"); !legal)
    return std::unexpected(legal.error());
  if (const auto allowed = check_files(*caller.subject, "path"); !allowed)
    return std::unexpected(allowed.error());
  if (const auto legal = rules::check_export_format(request.format()); !legal)
    return std::unexpected(legal.error());
  ++(*image)->readers;
  return ReadTicket{
      operations_.begin(caller, fmt::format("Export {} to {}", (*image)->title(), request.path()),
                        {(*image)->id()}),
      *image};
}

Answer<ReadTicket> Catalog::begin_verify(const Caller& caller, const v1::VerifyImageRequest& request) {
  const auto folder = folder_of(*caller.subject, request.folder_id());
  if (!folder)
    return std::unexpected(folder.error());
  const auto image =
      find_source(*caller.subject, Right::use, Kind::image, *folder, request.image_id(), "image_id");
  if (!image)
    return std::unexpected(image.error());
  ++(*image)->readers;
  return ReadTicket{operations_.begin(caller, fmt::format("Verify {}", (*image)->title()), {(*image)->id()}),
                    *image};
}

}  // namespace obraz
