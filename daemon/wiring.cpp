#include "wiring.h"

#include <charconv>
#include <future>

#include "base/limits.h"
#include "image/copy.h"
#include "image/export.h"
#include "image/source.h"

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

}  // namespace

// --- exports
// ----------------------------------------------------------------------------------------------------------
boost::asio::awaitable<Answer<nbd::Export>> CatalogExports::find(std::string name, nbd::Peer) {
  const auto found = catalog_.find_export(name);
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

boost::asio::awaitable<Answer<std::vector<nbd::ListedExport>>> CatalogExports::list(nbd::Peer) {
  std::vector<nbd::ListedExport> listed;
  for (ExportInfo& info : catalog_.list_exports(kMaxListed))
    listed.push_back({std::move(info.name), std::move(info.description)});
  co_return listed;
}

boost::asio::awaitable<Answer<void>> CatalogExports::attach(nbd::Export exported, nbd::Peer peer) {
  const Token token = decode(exported.token);
  co_return catalog_.attach(token.resource_id, token.session, std::move(peer.description),
                            exported.read_only);
}

void CatalogExports::detach(const nbd::Export& exported) {
  const Token token = decode(exported.token);
  catalog_.detach(token.resource_id, token.session);
}

// --- import and export
// ------------------------------------------------------------------------------------------------
Result<Volume> StoreTransfer::open_volume(VolumeId id) {
  auto promise = std::make_shared<std::promise<Result<Volume>>>();
  auto future = promise->get_future();
  reactor_.post([this, id, promise] { promise->set_value(store_.open_volume(id)); });
  return future.get();
}

Answer<std::unique_ptr<ImageTransfer::Source>> StoreTransfer::open(const std::string& source,
                                                                   const std::string& format,
                                                                   std::stop_token stop) {
  ImportSpec spec{source, std::nullopt};
  if (!format.empty()) {
    spec.format = parse_image_format(format);
    if (!spec.format)
      return refuse(ErrorCode::invalid_argument, "format", "there is no image format " + format);
  }
  auto opened = ImportSource::open(spec, stop);
  if (!opened)
    return std::unexpected(std::move(opened.error()));
  return std::make_unique<OpenedSource>(std::move(*opened), source.front() == '/');
}

Answer<void> StoreTransfer::import(Source& source, VolumeId into, Progress& progress, std::stop_token stop) {
  Result<Volume> volume = open_volume(into);
  if (!volume)
    return refuse(volume.error().code, "", "opening the new volume: " + describe(volume.error()));
  return copy_to_volume(static_cast<OpenedSource&>(source).source(), reactor_, std::move(*volume), progress,
                        stop);
}

Answer<void> StoreTransfer::export_to(VolumeId from, const std::string& path, const std::string& format,
                                      Progress& progress, std::stop_token stop) {
  const auto known = parse_image_format(format);
  if (!known)
    return refuse(ErrorCode::invalid_argument, "format", "there is no image format " + format);
  Result<Volume> volume = open_volume(from);
  if (!volume)
    return refuse(volume.error().code, "", "opening the image: " + describe(volume.error()));
  return export_volume(reactor_, std::move(*volume), ExportTarget{path, *known}, progress, stop);
}

}  // namespace obraz
