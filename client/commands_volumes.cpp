// Commands on volumes of any kind: what differs, what they hold, what was made of what; and the names that
// there are, for completion.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "base/size.h"
#include "client/commands_calls.h"
#include "client/tree.h"
#include "obraz/v1/volume_service.pb.h"

namespace obraz::client {

int Commands::diff() {
  auto request = new_request<v1::DiffRequest>();
  request.set_a(arguments_.target);
  request.set_b(arguments_.other);
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
  auto request = new_request<v1::SpaceRequest>();
  request.mutable_names()->Add(arguments_.volumes.begin(), arguments_.volumes.end());
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
    rows.push_back({"together", "", text(response.freed_bytes())});
  fmt::print("{}", table(rows, style_of(stdout)));
  return 0;
}

namespace {

v1::TreeVolume tree_volume(const v1::Disk& disk) {
  v1::TreeVolume volume;
  volume.set_size(disk.size());
  if (disk.source_case() == v1::Disk::kSourceImageId) {
    volume.set_source_kind("image");
    volume.set_source_id(disk.source_image_id());
  } else if (disk.source_case() == v1::Disk::kSourceSnapshotId) {
    volume.set_source_kind("snapshot");
    volume.set_source_id(disk.source_snapshot_id());
  }
  return volume;
}
v1::TreeVolume tree_volume(const v1::Snapshot& snapshot) {
  v1::TreeVolume volume;
  volume.set_size(snapshot.disk_size());
  volume.set_source_kind("disk");
  volume.set_source_id(snapshot.source_disk_id());
  return volume;
}
v1::TreeVolume tree_volume(const v1::Image& image) {
  v1::TreeVolume volume;
  volume.set_size(image.size());
  std::string kind = v1::ImageSource::Kind_Name(image.source().kind());
  std::ranges::transform(kind, kind.begin(), [](unsigned char c) { return char(std::tolower(c)); });
  if (image.source().kind() != v1::ImageSource::KIND_UNSPECIFIED)
    volume.set_source_kind(kind);
  volume.set_source_id(image.source().id());
  return volume;
}

}  // namespace

// Every disk, snapshot and image of the folder, without their bytes.
Outcome<std::vector<v1::TreeVolume>> Commands::volumes() {
  std::vector<v1::TreeVolume> all;
  const auto add = [&](const auto& collected, auto members) -> Outcome<void> {
    if (!collected)
      return std::unexpected(collected.error());
    auto response = *collected;
    for (const auto& resource : *members(response)) {
      v1::TreeVolume& volume = all.emplace_back(tree_volume(resource));
      volume.set_kind(kind_of(resource));
      volume.set_id(resource.id());
      volume.set_name(resource.name());
      volume.set_status(resource.status());
      *volume.mutable_created_at() = resource.created_at();
    }
    return {};
  };
  Outcome<void> added = add(collect<v1::ListImagesRequest, v1::ListImagesResponse>(
                                "ImageService.List", new_request<v1::ListImagesRequest>(), kImages),
                            kImages);
  if (added)
    added = add(collect<v1::ListDisksRequest, v1::ListDisksResponse>(
                    "DiskService.List", new_request<v1::ListDisksRequest>(), kDisks),
                kDisks);
  if (added)
    added = add(collect<v1::ListSnapshotsRequest, v1::ListSnapshotsResponse>(
                    "SnapshotService.List", new_request<v1::ListSnapshotsRequest>(), kSnapshots),
                kSnapshots);
  if (!added)
    return std::unexpected(added.error());
  return all;
}

int Commands::tree() {
  auto found = volumes();
  if (!found)
    return refused(found.error());
  for (v1::TreeVolume& volume : *found) {
    if (arguments_.quiet)
      break;
    auto request = new_request<v1::SpaceRequest>();
    request.add_names(volume.id());
    v1::SpaceResponse space;
    const auto called = call("VolumeService.Space", request, space);
    if (!called && called.error().code() == v1::Error::UNAVAILABLE)
      return refused(called.error());
    if (!called || space.volumes_size() != 1)
      continue;  // it has been deleted meanwhile, or is being changed
    volume.set_exclusive_bytes(space.freed_bytes());
    volume.set_shared_bytes(std::max<int64_t>(space.volumes(0).mapped_bytes() - space.freed_bytes(), 0));
  }
  const v1::Tree tree = tree_of(std::move(*found));
  if (arguments_.json) {
    print_json(tree);
  } else if (arguments_.quiet) {
    for (const v1::TreeVolume& volume : tree.volumes())
      fmt::print("{}\n", volume.id());
  } else if (!tree.volumes().empty()) {
    fmt::print("{}", table(tree_rows(tree), style_of(stdout)));
  }
  return 0;
}

std::vector<Candidate> Commands::names_of(const std::string& metavariable) {
  std::vector<Candidate> names;
  // A page of them: what a menu can show.
  const auto add = [&](const std::string& method, auto request, auto response, auto members, auto candidate) {
    if constexpr (requires { request.page_size(); })
      request.set_page_size(1000);
    if (!call(method, request, response))
      return;
    for (const auto& resource : *members(response))
      names.push_back(candidate(resource));
  };
  const auto named = [](const auto& resource) {
    const auto bytes = [&] {
      if constexpr (requires { resource.disk_size(); })
        return resource.disk_size();
      else
        return resource.size();
    };
    return Candidate{resource.name().empty() ? resource.id() : resource.name(),
                     format_size(uint64_t(bytes()))};
  };
  const auto of_kind = [&](bool with_kind) {
    return [&, with_kind](const auto& resource) {
      Candidate candidate = named(resource);
      if (with_kind)
        candidate.word = std::string(kind_of(resource)) + "/" + candidate.word;
      return candidate;
    };
  };
  const bool any = metavariable == "VOLUME" || metavariable == "A" || metavariable == "B";
  if (any || metavariable == "DISK")
    add("DiskService.List", new_request<v1::ListDisksRequest>(), v1::ListDisksResponse(), kDisks,
        of_kind(any));
  if (any || metavariable == "SNAPSHOT")
    add("SnapshotService.List", new_request<v1::ListSnapshotsRequest>(), v1::ListSnapshotsResponse(),
        kSnapshots, of_kind(any));
  if (any || metavariable == "IMAGE")
    add("ImageService.List", new_request<v1::ListImagesRequest>(), v1::ListImagesResponse(), kImages,
        of_kind(any));
  if (metavariable == "FAMILY")
    add("ImageService.List", new_request<v1::ListImagesRequest>(), v1::ListImagesResponse(), kImages,
        [](const v1::Image& image) {
          return Candidate{image.family(), ""};
        });
  if (metavariable == "FOLDER")
    add("FolderService.List", v1::ListFoldersRequest(), v1::ListFoldersResponse(), kFolders,
        [](const v1::Folder& folder) {
          return Candidate{folder.name(), folder.description()};
        });
  if (metavariable == "SCHEDULE")
    add("SnapshotScheduleService.List", new_request<v1::ListSnapshotSchedulesRequest>(),
        v1::ListSnapshotSchedulesResponse(), kSchedules, [](const v1::SnapshotSchedule& schedule) {
          return Candidate{schedule.name(), schedule.schedule_policy().expression()};
        });
  if (metavariable == "OPERATION")
    add("OperationService.List", v1::ListOperationsRequest(), v1::ListOperationsResponse(), kOperations,
        [](const v1::Operation& operation) {
          return Candidate{operation.id(), operation.description()};
        });
  if (metavariable == "RESOURCE")
    add("TrashService.List", new_request<v1::ListTrashRequest>(), v1::ListTrashResponse(), kTrash,
        [](const v1::TrashedResource& resource) {
          return Candidate{resource.kind() + "/" + resource.name(),
                           "deleted " + short_time(resource.deleted_at())};
        });
  std::ranges::sort(names, {}, &Candidate::word);
  const auto repeated = std::ranges::unique(names, {}, &Candidate::word);
  names.erase(repeated.begin(), repeated.end());
  if (!names.empty() && names.front().word.empty())
    names.erase(names.begin());  // images of no family
  return names;
}

}  // namespace obraz::client
