#include "client/output.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <ranges>

#include "base/duration.h"
#include "base/size.h"
#include "client/json.h"

namespace obraz::client {
namespace {

std::string size_text(int64_t bytes) {
  return format_size(uint64_t(std::max<int64_t>(bytes, 0)));
}
std::string size_and_bytes(int64_t bytes) {
  return bytes < 1024 ? size_text(bytes) : fmt::format("{} ({} bytes)", size_text(bytes), bytes);
}
// 0: not counted yet.
std::string storage_text(int64_t bytes) {
  return bytes == 0 ? "-" : size_text(bytes);
}

template <typename Labels>
std::string labels_text(const Labels& labels) {
  const std::map<std::string, std::string> sorted(labels.begin(), labels.end());
  std::string text;
  for (const auto& [key, value] : sorted)
    text += (text.empty() ? "" : ", ") + key + "=" + value;
  return text;
}

std::string source_text(const v1::ImageSource& source) {
  switch (source.kind()) {
    case v1::ImageSource::DISK:
      return "disk " + source.id();
    case v1::ImageSource::SNAPSHOT:
      return "snapshot " + source.id();
    case v1::ImageSource::IMAGE:
      return "image " + source.id();
    case v1::ImageSource::FILE:
      return source.location() + (source.format().empty() ? "" : " (" + source.format() + ")");
    case v1::ImageSource::NBD:
      return source.location();
    default:
      return "";
  }
}

template <typename Resource>
std::vector<Row> common(const Resource& resource) {
  std::string folder;
  if constexpr (requires { resource.folder_id(); })
    folder = resource.folder_id();
  return {{"id", resource.id()},
          {"name", resource.name()},
          {"folder", folder},
          {"description", resource.description()},
          {"labels", labels_text(resource.labels())},
          {"status", v1::ResourceStatus_Name(resource.status())},
          {"protected", resource.delete_protection() ? "from deletion" : ""},
          {"created", resource.created_by().empty()
                          ? ""
                          : short_time(resource.created_at()) + " UTC by " + resource.created_by()}};
}

// What disks, snapshots and images have of the system on them.
template <typename Resource>
std::vector<Row> system_rows(const Resource& resource) {
  std::string products;
  for (const std::string& id : resource.product_ids())
    products += (products.empty() ? "" : ", ") + id;
  return {{"os", v1::Os::Type_Name(resource.os().type())},
          {"products", products},
          {"generation", resource.hardware_generation() == v1::HARDWARE_GENERATION_UNSPECIFIED
                             ? ""
                             : v1::HardwareGeneration_Name(resource.hardware_generation())}};
}

std::string deprecation_text(const v1::Deprecation& deprecation) {
  if (deprecation.state() == v1::Deprecation::ACTIVE)
    return "";
  return v1::Deprecation::State_Name(deprecation.state()) +
         (deprecation.replacement_id().empty() ? "" : ", replaced by " + deprecation.replacement_id());
}

std::string file_system_text(const v1::FileSystem& file_system) {
  if (file_system.type().empty())
    return "no file system known";
  return file_system.type() + (file_system.label().empty() ? "" : " \"" + file_system.label() + "\"");
}

// What was found on an image: a row for the whole, one for each partition.
std::vector<Row> layout_rows(const v1::Image& image) {
  if (!image.has_layout())
    return {};
  const v1::Layout& layout = image.layout();
  std::string whole = layout.table() == v1::Layout::GPT   ? "GPT"
                      : layout.table() == v1::Layout::DOS ? "DOS partition table"
                                                          : file_system_text(layout.file_system());
  switch (layout.boot()) {
    case v1::Layout::BIOS:
      whole += ", boots by BIOS";
      break;
    case v1::Layout::UEFI:
      whole += ", boots by UEFI";
      break;
    case v1::Layout::BIOS_AND_UEFI:
      whole += ", boots by BIOS and UEFI";
      break;
    default:
      break;
  }
  if (layout.incomplete())
    whole += ", and more that is not shown";
  std::vector<Row> rows = {{"layout", whole}};
  for (const v1::Partition& partition : layout.partitions())
    rows.push_back({fmt::format("partition {}", partition.number()),
                    fmt::format("{}, {} at {}{}", file_system_text(partition.file_system()),
                                size_text(partition.length()), size_text(partition.offset()),
                                partition.name().empty() ? "" : ", named " + partition.name())});
  if (layout.windows() != v1::Layout::NO_WINDOWS)
    rows.push_back({"windows", layout.windows_evidence()});
  return rows;
}

std::string quota_text(int64_t used, int64_t most) {
  return most == 0 ? fmt::to_string(used) : fmt::format("{} of {}", used, most);
}

std::vector<Row> with(std::vector<Row> rows, std::vector<Row> more) {
  rows.insert(rows.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
  return rows;
}

constexpr size_t kGap = 2;         // columns between two cells
constexpr size_t kLeastShown = 8;  // of a column that is shortened

std::vector<size_t> column_widths(const std::vector<Row>& rows) {
  std::vector<size_t> widths;
  for (const Row& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i)
      widths[i] = std::max(widths[i], width_of(row[i]));
  }
  return widths;
}

// Takes from the widest column that may be shortened, again and again, until the line fits or nothing can
// give.
void fit(std::vector<size_t>& widths, const Row& heading, size_t columns) {
  const auto least = [&](size_t i) {
    return heading[i] == "ID" ? widths[i] : std::max(kLeastShown, width_of(heading[i]));
  };
  size_t line = kGap * (widths.size() - 1);
  for (const size_t width : widths)
    line += width;
  while (line > columns) {
    size_t widest = widths.size();
    for (size_t i = 0; i < widths.size() && i < heading.size(); ++i)
      if (widths[i] > least(i) && (widest == widths.size() || widths[i] > widths[widest]))
        widest = i;
    if (widest == widths.size())
      return;
    --widths[widest];
    --line;
  }
}

std::string line_of(const Row& row, const std::vector<size_t>& widths, const Style& style,
                    const std::function<Colour(size_t)>& colour) {
  std::string line;
  for (size_t i = 0; i < row.size(); ++i) {
    const std::string cell = shortened(row[i], std::max<size_t>(widths[i], 1));
    line += coloured(cell, colour(i), style);
    if (i + 1 < row.size())
      line += std::string(widths[i] + kGap - width_of(cell), ' ');
  }
  line.erase(line.find_last_not_of(' ') + 1);
  return line + "\n";
}

}  // namespace

std::string table(const std::vector<Row>& rows, const Style& style) {
  if (rows.empty())
    return {};
  std::vector<size_t> widths = column_widths(rows);
  const Row& heading = rows.front();
  if (style.columns > 0)
    fit(widths, heading, style.columns);
  std::string text = line_of(heading, widths, style, [](size_t) { return Colour::bold; });
  for (const Row& row : rows | std::views::drop(1))
    text += line_of(row, widths, style, [&](size_t i) {
      const bool is_state = i < heading.size() && (heading[i] == "STATUS" || heading[i] == "STATE");
      return is_state ? colour_of_state(row[i]) : Colour::none;
    });
  return text;
}

std::string fields(const std::vector<Row>& rows, const Style& style) {
  std::vector<Row> shown;
  for (const Row& row : rows) {
    if (!row[1].empty())
      shown.push_back({row[0] + ":", row[1]});
  }
  const std::vector<size_t> widths = column_widths(shown);
  std::string text;
  for (const Row& row : shown) {
    const bool is_state =
        row[0] == "status:" || row[0] == "state:" || row[0] == "health:" || row[0] == "deprecation:";
    text += line_of(row, widths, style,
                    [&](size_t i) { return is_state && i == 1 ? colour_of_state(row[i]) : Colour::none; });
  }
  return text;
}

std::string short_time(const google::protobuf::Timestamp& time) {
  std::string text = rfc3339(time).substr(0, 19);
  text[10] = ' ';
  return text;
}

std::string short_duration(int64_t seconds) {
  const int64_t minutes = seconds / 60;
  if (minutes < 60)
    return fmt::format("{}:{:02}", minutes, seconds % 60);
  return fmt::format("{}:{:02}:{:02}", minutes / 60, minutes % 60, seconds % 60);
}

std::string state_of(const v1::Operation& operation) {
  if (!operation.done())
    return operation.metadata().phase().empty() ? "running" : operation.metadata().phase();
  return operation.has_error() ? v1::Error::Code_Name(operation.error().code()) : "done";
}

Row heading(const v1::Image&) {
  return {"NAME", "ID", "STATUS", "FAMILY", "SIZE", "STORED", "CREATED"};
}
Row row(const v1::Image& image) {
  return {image.name(),
          image.id(),
          v1::ResourceStatus_Name(image.status()),
          image.family().empty() ? "-" : image.family(),
          size_text(image.size()),
          storage_text(image.storage_size()),
          short_time(image.created_at())};
}
Row heading(const v1::Disk&) {
  return {"NAME", "ID", "STATUS", "SIZE", "ATTACHED", "CREATED"};
}
Row row(const v1::Disk& disk) {
  return {disk.name(),
          disk.id(),
          v1::ResourceStatus_Name(disk.status()),
          size_text(disk.size()),
          disk.attachments().empty() ? "-" : fmt::to_string(disk.attachments_size()),
          short_time(disk.created_at())};
}
Row heading(const v1::Snapshot&) {
  return {"NAME", "ID", "STATUS", "DISK", "SIZE", "CREATED"};
}
Row row(const v1::Snapshot& snapshot) {
  return {snapshot.name(),
          snapshot.id(),
          v1::ResourceStatus_Name(snapshot.status()),
          snapshot.source_disk_id(),
          size_text(snapshot.disk_size()),
          short_time(snapshot.created_at())};
}
Row heading(const v1::AccessBinding&) {
  return {"ROLE", "SUBJECT"};
}
Row row(const v1::AccessBinding& binding) {
  return {binding.role_id(), binding.subject()};
}
Row heading(const v1::TrashedResource&) {
  return {"KIND/NAME", "ID", "SIZE", "DELETED", "BY", "GONE AT"};
}
Row row(const v1::TrashedResource& resource) {
  return {resource.kind() + "/" + resource.name(), resource.id(),         size_text(resource.size()),
          short_time(resource.deleted_at()),       resource.deleted_by(), short_time(resource.purge_at())};
}
Row heading(const v1::UsageRow&) {
  return {"MONTH", "FOLDER", "KIND", "OS", "HOURS", "SIZE GiBh", "EXCLUSIVE GiBh", "SHARED GiBh"};
}
Row row(const v1::UsageRow& usage) {
  const auto gib_hours = [](int64_t mib_seconds) {
    return fmt::format("{:.3f}", double(mib_seconds) / 1024 / 3600);
  };
  const v1::UsageAmounts& amounts = usage.amounts();
  return {usage.month(),
          usage.folder_name(),
          usage.kind(),
          v1::Os::Type_Name(usage.os().type()),
          fmt::format("{:.3f}", double(amounts.resource_seconds()) / 3600),
          gib_hours(amounts.virtual_mib_seconds()),
          gib_hours(amounts.exclusive_mib_seconds()),
          gib_hours(amounts.shared_mib_seconds())};
}
Row heading(const v1::Operation&) {
  return {"ID", "STATE", "CREATED", "BY", "DESCRIPTION"};
}
Row row(const v1::Operation& operation) {
  return {operation.id(), state_of(operation), short_time(operation.created_at()), operation.created_by(),
          operation.description()};
}

std::vector<Row> details(const v1::Image& image) {
  std::vector<Row> more = {{"family", image.family()},
                           {"deprecation", deprecation_text(image.deprecation())},
                           {"size", size_and_bytes(image.size())},
                           {"stored", size_and_bytes(image.storage_size())},
                           {"smallest disk", size_and_bytes(image.min_disk_size())},
                           {"source", source_text(image.source())},
                           {"source's sha256", image.source().sha256()},
                           {"digest", image.digest()}};
  std::ranges::copy(system_rows(image), std::back_inserter(more));
  std::ranges::copy(layout_rows(image), std::back_inserter(more));
  return with(common(image), std::move(more));
}

std::vector<Row> details(const v1::Disk& disk) {
  std::string source;
  if (disk.source_case() == v1::Disk::kSourceImageId)
    source = "image " + disk.source_image_id();
  else if (disk.source_case() == v1::Disk::kSourceSnapshotId)
    source = "snapshot " + disk.source_snapshot_id();
  std::vector<Row> more = {{"size", size_and_bytes(disk.size())}, {"source", source}};
  std::ranges::copy(system_rows(disk), std::back_inserter(more));
  for (const auto& attachment : disk.attachments())
    more.push_back({"attached by",
                    fmt::format("{} since {} UTC{}{}", attachment.client(), short_time(attachment.since()),
                                attachment.read_only() ? ", read-only" : "",
                                attachment.has_bytes_read()
                                    ? fmt::format(", {} read, {} written", size_text(attachment.bytes_read()),
                                                  size_text(attachment.bytes_written()))
                                    : "")});
  return with(common(disk), std::move(more));
}

std::vector<Row> details(const v1::Snapshot& snapshot) {
  std::vector<Row> more = {{"disk", snapshot.source_disk_id()},
                           {"size", size_and_bytes(snapshot.disk_size())},
                           {"held alone", size_and_bytes(snapshot.storage_size())}};
  std::ranges::copy(system_rows(snapshot), std::back_inserter(more));
  return with(common(snapshot), std::move(more));
}

Row heading(const v1::Folder&) {
  return {"NAME", "ID", "IMAGES", "DISKS", "SNAPSHOTS", "BYTES"};
}
Row row(const v1::Folder& folder) {
  const v1::Quota &used = folder.used(), &quota = folder.quota();
  return {folder.name(),
          folder.id(),
          quota_text(used.images(), quota.images()),
          quota_text(used.disks(), quota.disks()),
          quota_text(used.snapshots(), quota.snapshots()),
          size_text(used.bytes()) + (quota.bytes() == 0 ? "" : " of " + size_text(quota.bytes()))};
}
std::vector<Row> details(const v1::Folder& folder) {
  const Row shown = row(folder);
  return with(common(folder), {{"images", shown[2]},
                               {"disks", shown[3]},
                               {"snapshots", shown[4]},
                               {"bytes", shown[5]},
                               {"trash", folder.trash_seconds() == 0 && folder.trashed() == 0
                                             ? ""
                                             : fmt::format("{} in it, kept for {}", folder.trashed(),
                                                           format_duration(folder.trash_seconds()))}});
}

namespace {

std::string retention_text(const v1::SnapshotSchedule& schedule) {
  switch (schedule.retention_policy_case()) {
    case v1::SnapshotSchedule::kRetentionSeconds:
      return format_duration(schedule.retention_seconds());
    case v1::SnapshotSchedule::kSnapshotCount:
      return fmt::format("{} of each disk", schedule.snapshot_count());
    default:
      return "all";
  }
}
std::string instant_text(bool known, const google::protobuf::Timestamp& time) {
  return known ? short_time(time) : "-";
}

}  // namespace

Row heading(const v1::SnapshotSchedule&) {
  return {"NAME", "ID", "EVERY", "KEEPS", "DISKS", "LAST", "NEXT"};
}
Row row(const v1::SnapshotSchedule& schedule) {
  return {
      schedule.name(),
      schedule.id(),
      schedule.schedule_policy().expression(),
      retention_text(schedule),
      fmt::to_string(schedule.disk_ids_size()),
      instant_text(schedule.has_last_run_at(), schedule.last_run_at()),
      schedule.disabled() ? "disabled" : instant_text(schedule.has_next_run_at(), schedule.next_run_at())};
}
std::vector<Row> details(const v1::SnapshotSchedule& schedule) {
  std::string disks;
  for (const std::string& id : schedule.disk_ids())
    disks += (disks.empty() ? "" : ", ") + id;
  return with(
      common(schedule),
      {{"every", schedule.schedule_policy().expression() + " (UTC)"},
       {"not before",
        schedule.schedule_policy().has_start_at() ? short_time(schedule.schedule_policy().start_at()) : ""},
       {"keeps", retention_text(schedule)},
       {"disks", disks},
       {"snapshots", schedule.snapshot_spec().description()},
       {"their labels", labels_text(schedule.snapshot_spec().labels())},
       {"last run", instant_text(schedule.has_last_run_at(), schedule.last_run_at())},
       {"next run",
        schedule.disabled() ? "disabled" : instant_text(schedule.has_next_run_at(), schedule.next_run_at())},
       {"trouble", schedule.last_error()}});
}

std::vector<Row> details(const v1::Operation& operation) {
  const v1::OperationMetadata& metadata = operation.metadata();
  std::string resources;
  for (const std::string& id : metadata.resource_ids())
    resources += (resources.empty() ? "" : ", ") + id;
  std::string progress;
  if (metadata.bytes_total() > 0)
    progress = fmt::format("{} of {}", size_text(metadata.bytes_done()), size_text(metadata.bytes_total()));
  return {{"id", operation.id()},
          {"description", operation.description()},
          {"state", state_of(operation)},
          {"error", operation.error().message()},
          {"progress", progress},
          {"resources", resources},
          {"created", short_time(operation.created_at()) + " UTC by " + operation.created_by()},
          {"modified", short_time(operation.modified_at()) + " UTC"}};
}

std::vector<Row> details(const v1::DaemonStatus& status) {
  const v1::SpaceStatus& space = status.space();
  const v1::ResourceCounts& counts = status.resources();
  const v1::LoadStatus& load = status.load();
  std::string nbd = status.nbd_unix_path();
  if (!status.nbd_tcp_address().empty())
    nbd += (nbd.empty() ? "" : ", ") + status.nbd_tcp_address();
  const v1::IntegrityStatus& integrity = status.integrity();
  const v1::CloneCacheStatus& cache = status.clone_cache();
  std::string damage;
  for (const v1::DataDamage& place : integrity.damage())
    damage += fmt::format("{}{}: {} bytes at offset {}", damage.empty() ? "" : ", ", place.resource(),
                          place.length_bytes(), place.offset());
  return {
      {"health", status.health() + (status.health_reason().empty() ? "" : ": " + status.health_reason())},
      {"store", status.store_path()},
      {"space", fmt::format("{} of {} used, {} of that shared, {} being given back",
                            size_text(space.used_bytes()), size_text(space.total_bytes()),
                            size_text(space.shared_bytes()), size_text(space.reclaimable_bytes()))},
      {"metadata", fmt::format("{} of {} used", size_text(space.metadata_used_bytes()),
                               size_text(space.metadata_total_bytes()))},
      {"checksums", fmt::format("{} of snapshots and images, {} waiting; {} scrubbed in {} whole passes",
                                size_text(integrity.checksummed_bytes()), integrity.volumes_waiting(),
                                size_text(integrity.scrubbed_bytes()), integrity.scrub_passes())},
      {"damage", damage},
      {"stuck",
       integrity.stuck_blocks() == 0
           ? ""
           : fmt::format("{} blocks of data that the device does not take, in memory and in the journal",
                         integrity.stuck_blocks())},
      {"clone cache",
       cache.size_bytes() == 0
           ? "off"
           : fmt::format("{} of {} used, {} blocks read from it, {} not there", size_text(cache.used_bytes()),
                         size_text(cache.size_bytes()), cache.hits(), cache.misses())},
      {"resources",
       fmt::format("{} images, {} disks, {} snapshots{}", counts.images(), counts.disks(), counts.snapshots(),
                   counts.trashed() == 0 ? "" : fmt::format(", {} more in the trash", counts.trashed()))},
      {"operations", fmt::format("{} running", counts.running_operations())},
      {"sessions", fmt::to_string(status.sessions())},
      {"load",
       fmt::format("{} requests in flight, {} of {} for payloads used, {} clients, {} descriptors open",
                   load.nbd_requests(), size_text(load.buffer_used_bytes()),
                   size_text(load.buffer_total_bytes()), load.nbd_clients(), load.open_descriptors())},
      {"nbd", nbd},
      {"version", status.version()}};
}

void print_refusal(const v1::Error& error, bool json) {
  if (json)
    fmt::print(stderr, "{{\n  \"error\": {}\n}}\n", to_json(error, 1));
  else
    fmt::print(stderr, "{} {}\n", coloured("obraz:", Colour::red, style_of(stderr)), error.message());
}

}  // namespace obraz::client
