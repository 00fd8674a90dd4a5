#include "wiring.h"

#include <charconv>
#include <future>

#include "base/limits.h"
#include "catalog/codes.h"
#include "image/copy.h"
#include "image/digest.h"
#include "image/export.h"
#include "image/layout.h"
#include "image/source.h"
#include "image/volume_access.h"

namespace obraz {
namespace {

constexpr size_t kMaxListed = 10'000;  // names in one answer to NBD's LIST; all others can still be asked for

// An Export's token: the resource, and a number of its own for each session.
struct Token {
  std::string_view resource_id;
  uint64_t session = 0;
};

std::string encode(const Token& token) {
  return std::string(token.resource_id) + "#" + std::to_string(token.session);
}

Token decode(std::string_view text) {
  const size_t mark = text.rfind('#');
  OBRAZ_CHECK(mark != std::string_view::npos);  // it is one of ours
  Token token{text.substr(0, mark), 0};
  std::from_chars(text.data() + mark + 1, text.data() + text.size(), token.session);
  return token;
}

class OpenedSource final : public ImageTransfer::Source {
 public:
  explicit OpenedSource(std::unique_ptr<ImportSource> source, bool is_file)
      : source_(std::move(source)), is_file_(is_file) {}
  uint64_t size_bytes() const override { return source_->size_bytes(); }
  std::string format() const override { return is_file_ ? name_of(source_->format()) : ""; }
  ImportSource& source() { return *source_; }

 private:
  std::unique_ptr<ImportSource> source_;
  bool is_file_;
};

void put(const FileSystem& from, v1::FileSystem& into) {
  into.set_type(from.type);
  into.set_label(from.label);
  into.set_uuid(from.uuid);
}

v1::Layout message_of(const DiskLayout& layout) {
  v1::Layout message;
  message.set_table(layout.table == PartitionTable::gpt   ? v1::Layout::GPT
                    : layout.table == PartitionTable::dos ? v1::Layout::DOS
                                                          : v1::Layout::NO_TABLE);
  message.set_table_id(layout.table_id);
  for (const Partition& partition : layout.partitions) {
    v1::Partition& into = *message.add_partitions();
    into.set_number(int32_t(partition.number));
    into.set_offset(int64_t(partition.offset));
    into.set_length(int64_t(partition.length));
    into.set_type(partition.type);
    into.set_name(partition.name);
    into.set_uuid(partition.uuid);
    into.set_active(partition.active);
    put(partition.file_system, *into.mutable_file_system());
  }
  put(layout.file_system, *message.mutable_file_system());
  message.set_boot(layout.boot == BootMethod::both   ? v1::Layout::BIOS_AND_UEFI
                   : layout.boot == BootMethod::bios ? v1::Layout::BIOS
                   : layout.boot == BootMethod::uefi ? v1::Layout::UEFI
                                                     : v1::Layout::NO_BOOT);
  message.set_windows(layout.windows.content == WindowsContent::boot   ? v1::Layout::WINDOWS_BOOT
                      : layout.windows.content == WindowsContent::data ? v1::Layout::WINDOWS_DATA
                                                                       : v1::Layout::NO_WINDOWS);
  message.set_windows_evidence(layout.windows.sentence());
  message.set_incomplete(layout.incomplete);
  return message;
}

}  // namespace

// --- exports
// ----------------------------------------------------------------------------------------------------------
// TCP knows nobody: whoever may reach its port is as good as the user that the daemon runs as.
SubjectRef CatalogExports::subject_of(const nbd::Peer& peer) {
  return peer.credentials ? subjects_.subject_of({peer.credentials->uid, peer.credentials->gid})
                          : subjects_.self();
}

boost::asio::awaitable<Answer<nbd::Export>> CatalogExports::find(std::string name, nbd::Peer peer) {
  const auto found = catalog_.find_export(*subject_of(peer), name);
  if (!found)
    co_return std::unexpected(found.error());
  nbd::Export exported;
  exported.volume = found->volume;
  exported.read_only = found->read_only;
  exported.size_bytes = found->size_bytes;
  exported.name = found->name;
  exported.description = found->description;
  exported.token = encode({found->resource_id, next_session_++});
  co_return exported;
}

boost::asio::awaitable<Answer<std::vector<nbd::ListedExport>>> CatalogExports::list(nbd::Peer peer) {
  std::vector<nbd::ListedExport> listed;
  for (ExportInfo& info : catalog_.list_exports(*subject_of(peer), kMaxListed))
    listed.push_back({std::move(info.name), std::move(info.description)});
  co_return listed;
}

boost::asio::awaitable<Answer<void>> CatalogExports::attach(nbd::Export exported, nbd::Peer peer) {
  const Token token = decode(exported.token);
  Attachment attachment{subject_of(peer)->name, std::move(peer.description), exported.read_only};
  co_return catalog_.attach(token.resource_id, token.session, std::move(attachment));
}

void CatalogExports::detach(const nbd::Export& exported) {
  const Token token = decode(exported.token);
  catalog_.detach(token.resource_id, token.session);
}

Traffic CatalogExports::traffic_of(const std::vector<nbd::SessionInfo>& sessions) {
  Traffic traffic;
  for (const nbd::SessionInfo& session : sessions)
    traffic[decode(session.token).session] = {session.bytes_read, session.bytes_written};
  return traffic;
}

// --- import and export
// ------------------------------------------------------------------------------------------------
Result<Volume> StoreTransfer::open_volume(VolumeId id) {
  auto promise = std::make_shared<std::promise<Result<Volume>>>();
  auto future = promise->get_future();
  reactor_.post([this, id, promise] { promise->set_value(store_.open_volume(id)); });
  return future.get();
}

Answer<std::unique_ptr<ImageTransfer::Source>> StoreTransfer::open(const SourceSpec& source,
                                                                   Progress& progress, std::stop_token stop) {
  ImportSpec spec{
      .location = source.location, .as = source.as, .sha256 = source.sha256, .progress = &progress};
  if (!source.format.empty()) {
    spec.format = parse_image_format(source.format);
    if (!spec.format)
      return refuse(ErrorCode::invalid_argument, "format", "there is no image format " + source.format);
  }
  auto opened = ImportSource::open(spec, stop);
  if (!opened)
    return std::unexpected(std::move(opened.error()));
  return std::make_unique<OpenedSource>(std::move(*opened), source.location.front() == '/');
}

Answer<void> StoreTransfer::import(Source& source, VolumeId into, Progress& progress, std::stop_token stop) {
  Result<Volume> volume = open_volume(into);
  if (!volume)
    return refuse(volume.error().code, "", "opening the new volume: " + describe(volume.error()));
  return copy_to_volume(static_cast<OpenedSource&>(source).source(), reactor_, std::move(*volume), progress,
                        stop);
}

Answer<v1::Layout> StoreTransfer::examine(VolumeId id, std::stop_token stop) {
  Result<Volume> volume = open_volume(id);
  if (!volume)
    return refuse(volume.error().code, "", "opening the volume: " + describe(volume.error()));
  const uint64_t size_bytes = volume->size_bytes();
  VolumeAccess access(reactor_, std::move(*volume));
  const ReadDisk read = [&access](uint64_t offset, Bytes into) -> Answer<void> {
    const Status status = access.run([offset, into](Volume& v) { return v.read(offset, into); });
    if (!status)
      return std::unexpected(refusal_of(status.error(), "reading the volume"));
    return {};
  };
  const auto layout = probe_layout(read, size_bytes, std::move(stop));
  if (!layout)
    return std::unexpected(layout.error());
  return message_of(*layout);
}

Answer<std::string> StoreTransfer::digest(VolumeId id, Pace pace, Progress& progress, std::stop_token stop) {
  Result<Volume> volume = open_volume(id);
  if (!volume)
    return refuse(volume.error().code, "", "opening the image: " + describe(volume.error()));
  return digest_of_volume(reactor_, std::move(*volume), pace == Pace::background ? digest_rate_ : 0, progress,
                          std::move(stop));
}

Answer<void> StoreTransfer::export_to(VolumeId from, const TargetSpec& target, Progress& progress,
                                      std::stop_token stop) {
  const auto known = parse_image_format(target.format);
  if (!known)
    return refuse(ErrorCode::invalid_argument, "format", "there is no image format " + target.format);
  Result<Volume> volume = open_volume(from);
  if (!volume)
    return refuse(volume.error().code, "", "opening the image: " + describe(volume.error()));
  return export_volume(reactor_, std::move(*volume), ExportTarget{target.path, *known, target.as}, progress,
                       stop);
}

}  // namespace obraz
