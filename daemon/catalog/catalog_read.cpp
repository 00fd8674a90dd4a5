// Catalog: answering without changing anything.
#include <fmt/core.h>

#include <algorithm>

#include "base/limits.h"
#include "catalog/catalog.h"
#include "catalog/codes.h"
#include "catalog/rules.h"

namespace obraz {
namespace {

// The status as callers see it: a deletion that has been decided shows.
template <typename Resource>
Resource with_status(Resource resource, const Entry& entry) {
  resource.set_status(entry.status());
  return resource;
}
v1::Image image_view(const Entry& entry) {
  v1::Image image = with_status(entry.record.image(), entry);
  if (entry.content.has_layout())
    *image.mutable_layout() = entry.content.layout();
  image.set_digest(entry.content.digest());
  return image;
}
v1::Snapshot snapshot_view(const Entry& entry) {
  return with_status(entry.record.snapshot(), entry);
}

}  // namespace

v1::Disk Catalog::disk_view(const Entry& entry, const Traffic& traffic) {
  v1::Disk disk = with_status(entry.record.disk(), entry);
  for (const auto& [session, attachment] : entry.attachments) {
    v1::Attachment& shown = *disk.add_attachments();
    shown.set_client(attachment.client);
    *shown.mutable_since() = attachment.since;
    shown.set_read_only(attachment.read_only);
    if (const auto bytes = traffic.find(session); bytes != traffic.end()) {
      shown.set_bytes_read(int64_t(bytes->second.read));
      shown.set_bytes_written(int64_t(bytes->second.written));
    }
  }
  return disk;
}

v1::Folder Catalog::folder_view(const Entry& entry) const {
  v1::Folder folder = with_status(entry.record.folder(), entry);
  const Index::Contents contents = index_.contents(entry.id());
  v1::Quota& used = *folder.mutable_used();
  used.set_images(int64_t(contents.counts[size_t(Kind::image)]));
  used.set_disks(int64_t(contents.counts[size_t(Kind::disk)]));
  used.set_snapshots(int64_t(contents.counts[size_t(Kind::snapshot)]));
  used.set_bytes(contents.bytes);
  folder.set_trashed(int64_t(contents.trashed));
  return folder;
}

Answer<v1::Folder> Catalog::get_folder(const Caller& caller, const v1::GetFolderRequest& request) const {
  const auto entry = find_folder(*caller.subject, Right::see, request.folder_id(), "folder_id");
  if (!entry)
    return std::unexpected(entry.error());
  return folder_view(**entry);
}

Answer<v1::ListFoldersResponse> Catalog::list_folders(const Caller& caller,
                                                      const v1::ListFoldersRequest& request) const {
  const auto query = ListQuery::of(request);
  if (!query)
    return std::unexpected(query.error());
  Index::Page page = index_.list(Kind::folder, "", *query, visible_to(*caller.subject));
  v1::ListFoldersResponse response;
  for (const EntryRef& entry : page.entries)
    *response.add_folders() = folder_view(*entry);
  response.set_next_page_token(std::move(page.next_page_token));
  return response;
}

std::string Catalog::name_of(VolumeId volume) const {
  for (const EntryRef& entry : index_.all())
    if (has_volume(entry->kind) && entry->volume() == volume)
      return fmt::format("{}/{}", word_for(entry->kind), entry->name().empty() ? entry->id() : entry->name());
  return {};
}

boost::asio::awaitable<Answer<v1::Image>> Catalog::get_image(Caller caller, v1::GetImageRequest request) {
  const auto folder = folder_of(*caller.subject, request.folder_id());
  if (!folder)
    co_return std::unexpected(folder.error());
  const auto entry = find(*caller.subject, Right::see, Kind::image, *folder, request.image_id(), "image_id");
  if (!entry)
    co_return std::unexpected(entry.error());
  const EntryRef image = *entry;
  if (!image->measured)
    co_await measure(image);
  co_return image_view(*image);
}

boost::asio::awaitable<Answer<v1::Image>> Catalog::get_latest(Caller caller,
                                                              v1::GetImageLatestByFamilyRequest request) {
  const auto folder = folder_of(*caller.subject, request.folder_id());
  if (!folder)
    co_return std::unexpected(folder.error());
  if (request.family().empty())
    co_return refuse(ErrorCode::invalid_argument, "family", "the family is missing");
  if (const auto legal = rules::check_family(request.family()); !legal)
    co_return std::unexpected(legal.error());
  const EntryRef image = latest_of_family(*caller.subject, Right::see, *folder, request.family());
  if (!image)
    co_return refuse(
        ErrorCode::not_found, "family",
        fmt::format("there is no image of the family {}{}", request.family(), in_folder(*folder)));
  if (!image->measured)
    co_await measure(image);
  co_return image_view(*image);
}

boost::asio::awaitable<Answer<v1::Snapshot>> Catalog::get_snapshot(Caller caller,
                                                                   v1::GetSnapshotRequest request) {
  const auto folder = folder_of(*caller.subject, request.folder_id());
  if (!folder)
    co_return std::unexpected(folder.error());
  const auto entry =
      find(*caller.subject, Right::see, Kind::snapshot, *folder, request.snapshot_id(), "snapshot_id");
  if (!entry)
    co_return std::unexpected(entry.error());
  const EntryRef snapshot = *entry;
  co_await measure(snapshot);  // each time: what it alone holds grows as others are written or deleted
  co_return snapshot_view(*snapshot);
}

boost::asio::awaitable<Answer<v1::Disk>> Catalog::get_disk(Caller caller, v1::GetDiskRequest request) {
  const auto folder = folder_of(*caller.subject, request.folder_id());
  if (!folder)
    co_return std::unexpected(folder.error());
  const auto entry = find(*caller.subject, Right::see, Kind::disk, *folder, request.disk_id(), "disk_id");
  if (!entry)
    co_return std::unexpected(entry.error());
  const EntryRef disk = *entry;
  Traffic traffic;
  if (ask_traffic_ && !disk->attachments.empty())
    traffic = co_await ask_traffic_(disk->volume());
  co_return disk_view(*disk, traffic);
}

template <typename Response, typename Request, typename Append>
Answer<Response> Catalog::list(const Subject& subject, Kind kind, const Request& request,
                               Append append) const {
  const auto folder = folder_of(subject, request.folder_id());
  if (!folder)
    return std::unexpected(folder.error());
  const auto query = ListQuery::of(request);
  if (!query)
    return std::unexpected(query.error());
  Index::Page page = index_.list(kind, *folder, *query, visible_to(subject));
  Response response;
  for (const EntryRef& entry : page.entries)
    append(response, entry);
  response.set_next_page_token(std::move(page.next_page_token));
  return response;
}

Answer<v1::ListImagesResponse> Catalog::list_images(const Caller& caller,
                                                    const v1::ListImagesRequest& request) {
  return list<v1::ListImagesResponse>(*caller.subject, Kind::image, request,
                                      [this](auto& response, const EntryRef& entry) {
                                        measure_later(entry);
                                        *response.add_images() = image_view(*entry);
                                      });
}

Answer<v1::ListDisksResponse> Catalog::list_disks(const Caller& caller,
                                                  const v1::ListDisksRequest& request) const {
  return list<v1::ListDisksResponse>(
      *caller.subject, Kind::disk, request,
      [](auto& response, const EntryRef& entry) { *response.add_disks() = disk_view(*entry); });
}

Answer<v1::ListSnapshotsResponse> Catalog::list_snapshots(const Caller& caller,
                                                          const v1::ListSnapshotsRequest& request) {
  return list<v1::ListSnapshotsResponse>(*caller.subject, Kind::snapshot, request,
                                         [this](auto& response, const EntryRef& entry) {
                                           measure_later(entry);
                                           *response.add_snapshots() = snapshot_view(*entry);
                                         });
}

Answer<v1::ListSnapshotSchedulesResponse> Catalog::list_schedules(
    const Caller& caller, const v1::ListSnapshotSchedulesRequest& request) const {
  return list<v1::ListSnapshotSchedulesResponse>(*caller.subject, Kind::schedule, request,
                                                 [this](auto& response, const EntryRef& entry) {
                                                   *response.add_snapshot_schedules() = schedule_view(*entry);
                                                 });
}

Answer<VolumeId> Catalog::find_volume(const Subject& subject, Right right, const std::string& folder_id,
                                      const std::string& name, std::string_view field) const {
  constexpr const char* kForms = "name a disk/NAME, snapshot/NAME, image/NAME, or an id";
  if (name.empty())
    return refuse(ErrorCode::invalid_argument, std::string(field), kForms);
  const auto sees = [&](const EntryRef& entry) {
    return entry && rights_of(subject, *entry).has(Right::see);
  };
  EntryRef entry;
  const size_t slash = name.find('/');
  const std::string word = slash == std::string::npos ? "" : name.substr(0, slash);
  if (is_id(name) || (slash != std::string::npos && name.find('/', slash + 1) != std::string::npos)) {
    entry = index_.find_export(name);  // whatever the folder
  } else {
    const auto folder = folder_of(subject, folder_id);
    if (!folder)
      return std::unexpected(folder.error());
    for (const Kind kind : kVolumeKinds) {
      if (!word.empty() && word != word_for(kind))
        continue;
      const EntryRef found = index_.find_name(kind, *folder, name.substr(slash + 1));  // npos + 1 is 0
      if (!sees(found))
        continue;
      if (entry)
        return refuse(ErrorCode::invalid_argument, std::string(field),
                      fmt::format("{} may be {}/{} or {}/{}; say which", name, word_for(entry->kind), name,
                                  word_for(kind), name));
      entry = found;
    }
  }
  if (!sees(entry))
    return refuse(ErrorCode::not_found, std::string(field),
                  fmt::format("there is no {}; {}", name.substr(0, 2 * limits::kMaxNameLength), kForms));
  if (const auto allowed = check_right(subject, right, *entry, field); !allowed)
    return std::unexpected(allowed.error());
  if (const auto idle = check_idle(*entry, field); !idle)
    return std::unexpected(idle.error());
  return entry->volume();
}

boost::asio::awaitable<Answer<v1::SpaceResponse>> Catalog::space(Caller caller, v1::SpaceRequest request) {
  if (request.names().empty() || uint64_t(request.names_size()) > limits::kMaxSpaceNames)
    co_return refuse(ErrorCode::invalid_argument, "names",
                     fmt::format("name 1 to {} disks, snapshots and images", limits::kMaxSpaceNames));
  std::vector<VolumeId> all;
  for (const std::string& name : request.names()) {
    const Answer<VolumeId> volume =
        find_volume(*caller.subject, Right::see, request.folder_id(), name, "names");
    if (!volume)
      co_return std::unexpected(volume.error());
    all.push_back(*volume);
  }
  v1::SpaceResponse response;
  for (size_t i = 0; i < all.size(); ++i) {
    std::vector<VolumeId> alone = {all[i]};
    Result<Store::Usage> usage = co_await store_.usage(all[i]);
    if (!usage)
      co_return std::unexpected(refusal_of(usage.error(), "counting space"));
    Result<uint64_t> freed = co_await store_.freed_by_deleting(std::move(alone));
    if (!freed)
      co_return std::unexpected(refusal_of(freed.error(), "counting space"));
    v1::VolumeSpace& shown = *response.add_volumes();
    shown.set_name(request.names(int(i)));
    shown.set_mapped_bytes(int64_t(usage->mapped_bytes));
    shown.set_exclusive_bytes(int64_t(*freed));
  }
  if (all.size() == 1) {
    response.set_freed_bytes(response.volumes(0).exclusive_bytes());
    co_return response;
  }
  Result<uint64_t> together = co_await store_.freed_by_deleting(std::move(all));
  if (!together)
    co_return std::unexpected(refusal_of(together.error(), "counting space"));
  response.set_freed_bytes(int64_t(*together));
  co_return response;
}

boost::asio::awaitable<Answer<v1::DiffResponse>> Catalog::diff(Caller caller, v1::DiffRequest request) {
  const auto find_one = [&](const std::string& name, std::string_view field) {
    return find_volume(*caller.subject, Right::use, request.folder_id(), name, field);
  };
  const Answer<VolumeId> a = find_one(request.a(), "a"), b = find_one(request.b(), "b");
  if (!a)
    co_return std::unexpected(a.error());
  if (!b)
    co_return std::unexpected(b.error());
  const auto from = rules::page_position(request.page_token(), limits::kMaxVolumeSize);
  if (!from)
    co_return std::unexpected(from.error());
  Result<StoreAccess::Difference> difference = co_await store_.diff(*a, *b, *from, limits::kMaxDiffRanges);
  if (!difference)
    co_return std::unexpected(refusal_of(difference.error(), "comparing the two"));
  v1::DiffResponse response;
  for (const Extent& range : difference->ranges) {
    v1::ByteRange& shown = *response.add_ranges();
    shown.set_offset(int64_t(range.offset));
    shown.set_length(int64_t(range.length));
  }
  if (!difference->complete)
    response.set_next_page_token(
        std::to_string(difference->ranges.back().offset + difference->ranges.back().length));
  co_return response;
}

v1::Operation Catalog::view(const Subject& subject, const OperationState& operation) const {
  v1::Operation message = operation.message;
  if (!message.done() || message.has_error())
    return message;
  v1::OperationResponse& response = *message.mutable_response();
  for (const std::string& id : message.metadata().resource_ids()) {
    const EntryRef entry = index_.find_id(id);
    if (!entry || !rights_of(subject, *entry).has(Right::see))
      continue;
    switch (entry->kind) {
      case Kind::disk:
        *response.add_disks() = disk_view(*entry);
        break;
      case Kind::snapshot:
        *response.add_snapshots() = snapshot_view(*entry);
        break;
      case Kind::image:
        *response.add_images() = image_view(*entry);
        break;
      case Kind::folder:
        *response.add_folders() = folder_view(*entry);
        break;
      case Kind::schedule:
        *response.add_snapshot_schedules() = schedule_view(*entry);
        break;
    }
  }
  return message;
}

Answer<v1::ListOperationsResponse> Catalog::list_operations(const Caller& caller,
                                                            const v1::ListOperationsRequest& request) const {
  return page_of_operations(request.page_size(), request.page_token(), [&](const OperationState& operation) {
    return may_see(*caller.subject, operation);
  });
}

Answer<v1::ListOperationsResponse> Catalog::list_operations_of(
    const Caller& caller, Kind kind, const v1::ListResourceOperationsRequest& request) const {
  const auto entry = find_resource(caller, Right::see, kind, request);
  if (!entry)
    return std::unexpected(entry.error());
  const auto concerned = [this, id = (*entry)->id(), kind](const std::string& one) {
    if (one == id)
      return true;
    const EntryRef other = kind == Kind::folder ? index_.find_id(one) : nullptr;
    return other && other->folder() == id;
  };
  return page_of_operations(request.page_size(), request.page_token(), [&](const OperationState& operation) {
    return std::ranges::any_of(operation.message.metadata().resource_ids(), concerned) &&
           may_see(*caller.subject, operation);
  });
}

Answer<v1::ListOperationsResponse> Catalog::page_of_operations(int64_t page_size,
                                                               const std::string& page_token,
                                                               const OperationTable::Visible& visible) const {
  const auto size = rules::page_size(page_size);
  if (!size)
    return std::unexpected(size.error());
  auto page = operations_.list(*size, page_token, visible);
  if (!page)
    return std::unexpected(page.error());
  v1::ListOperationsResponse response;
  for (const OperationRef& operation : page->operations)
    *response.add_operations() = operation->message;  // with the response of each, pages would have no bound
  response.set_next_page_token(std::move(page->next_page_token));
  return response;
}

}  // namespace obraz
