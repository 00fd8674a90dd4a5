#include "image/source.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/limits.h"
#include "image/block_runs.h"
#include "image/inspect.h"
#include "image/qemu_nbd.h"
#include "image/sha256.h"
#include "image/source_file.h"

namespace obraz {
namespace {

class RawSource final : public ImportSource {
 public:
  explicit RawSource(SourceFile file)
      : ImportSource(ImageFormat::raw, file.size_bytes()), file_(std::move(file)) {}

  Answer<void> extents(uint64_t offset, uint64_t length, std::vector<SourceExtent>& out,
                       const StopSignal& stop) override {
    const uint64_t end = offset + length;
    for (size_t count = 0; offset < end && count < limits::kMaxSourceExtents; ++count) {
      if (stop.requested())
        return refuse_cancelled();
      const bool zero = !is_data(offset);
      const uint64_t next = std::min(end, end_of_run(offset, zero));
      out.push_back({offset, next - offset, zero});
      offset = next;
    }
    return {};
  }

  Answer<void> start_read(Transfer& transfer) override {
    transfer.os_error = read_fully(file_.fd(), transfer.bytes, transfer.offset);
    transfer.done = true;
    return {};
  }

  Answer<void> wait(const StopSignal& stop, int wake_fd) override {
    pollfd wanted[] = {{stop.fd(), POLLIN, 0}, {wake_fd, POLLIN, 0}};
    if (::poll(wanted, 2, -1) < 0 && errno != EINTR)
      return refuse_os(errno, "source", "wait");
    if (stop.requested())
      return refuse_cancelled();
    return {};
  }

  Answer<void> finish() override { return file_.check_unchanged(); }

 private:
  // File systems without holes, and block devices, answer EINVAL: all is data then.
  bool is_data(uint64_t offset) const {
    const off_t data = ::lseek(file_.fd(), off_t(offset), SEEK_DATA);
    return data < 0 ? errno != ENXIO : uint64_t(data) <= offset;
  }
  uint64_t end_of_run(uint64_t offset, bool zero) const {
    const off_t next = ::lseek(file_.fd(), off_t(offset), zero ? SEEK_DATA : SEEK_HOLE);
    return next < 0 || uint64_t(next) <= offset ? size_bytes() : std::min(size_bytes(), uint64_t(next));
  }

  SourceFile file_;
};

// A server's export, or a foreign file behind our own server.
class NbdSource final : public ImportSource {
 public:
  NbdSource(std::unique_ptr<NbdClient> client, std::optional<ImageFormat> given)
      : ImportSource(ImageFormat::raw, client->size_bytes()), given_(given), client_(std::move(client)) {}
  NbdSource(ImageFormat format, SourceFile file, ServedFile served)
      : ImportSource(format, served.client->size_bytes()),
        file_(std::move(file)),
        child_(std::move(served.child)),
        client_(std::move(served.client)) {}
  ~NbdSource() override { abandon(); }

  uint64_t alignment() const override { return client_->alignment(); }
  uint64_t max_request() const override { return client_->max_request(); }
  Answer<void> extents(uint64_t offset, uint64_t length, std::vector<SourceExtent>& out,
                       const StopSignal& stop) override {
    return explain(client_->extents(offset, length, out, stop));
  }
  Answer<void> start_read(Transfer& transfer) override { return explain(client_->start_read(transfer)); }
  Refusal explain_failed(const Transfer& transfer) const override {
    Answer<void> answer = std::unexpected(ImportSource::explain_failed(transfer));
    return explain(std::move(answer)).error();
  }
  Answer<void> wait(const StopSignal& stop, int wake_fd) override {
    return explain(client_->wait(stop, wake_fd));
  }
  // A foreign file inside an export would be taken for a disk. A server may take its time for a first read:
  // this is looked at when it comes.
  Answer<void> check_beginning(ConstBytes bytes) const override {
    if (file_)
      return {};
    const char* text = reinterpret_cast<const char*>(bytes.data());
    const auto format = settle_format({{text, text + std::min<size_t>(bytes.size(), 512)}, ""}, given_, "");
    if (!format)
      return std::unexpected(format.error());
    if (*format != ImageFormat::raw)
      return refuse_source(
          fmt::format("the NBD export holds a {0} file, not a disk; serve what is inside instead "
                      "(qemu-nbd --format={0})",
                      name_of(*format)));
    return {};
  }
  Answer<void> finish() override { return file_ ? file_->check_unchanged() : Answer<void>(); }
  void abandon() override {
    client_.reset();
    child_.reset();
  }

 private:
  // qemu-nbd leaves when it cannot read, so a broken connection is all that the client learns of a damaged
  // image. What it said last tells more.
  Answer<void> explain(Answer<void> answer) const {
    if (answer || !child_ || answer.error().code == ErrorCode::cancelled)
      return answer;
    const std::string complaint = child_->complaint();
    if (complaint.empty())
      return answer;
    return refuse_source(fmt::format(
        "the {} image cannot be read: it is damaged, or the device it lies on fails (qemu-nbd: {})",
        name_of(format()), complaint));
  }

  const std::optional<ImageFormat> given_;
  std::optional<SourceFile> file_;  // absent: an export
  std::unique_ptr<ConfinedChild> child_;
  std::unique_ptr<NbdClient> client_;
};

using SourceAnswer = Answer<std::unique_ptr<ImportSource>>;

Answer<void> check_sha256(const SourceFile& file, const ImportSpec& spec, const StopSignal& stop) {
  const AlignedBytes memory(limits::kImportRequestSize);
  Sha256 sha256;
  if (spec.progress)
    spec.progress->bytes_total = file.size_bytes();
  for (uint64_t at = 0; at < file.size_bytes();) {
    if (stop.requested())
      return refuse_cancelled();
    const Bytes bytes = memory.bytes().first(std::min(memory.bytes().size(), file.size_bytes() - at));
    const int error = read_fully(file.fd(), bytes, at);
    if (error == EPIPE)
      return refuse(ErrorCode::failed_precondition, "source", "the source was shortened while it was read");
    if (error != 0)
      return refuse_os(error, "source", fmt::format("read the source at byte {}", at));
    sha256.add(bytes);
    at += bytes.size();
    if (spec.progress)
      spec.progress->bytes_done = at;
  }
  const std::string found = hex(sha256.finish());
  if (found == spec.sha256)
    return {};
  return refuse(ErrorCode::corruption, "sha256",
                fmt::format("{} is not the file that was asked for: its SHA-256 is {}, not {}", spec.location,
                            found, spec.sha256));
}

SourceAnswer open_file(const ImportSpec& spec, const StopSignal& stop) {
  auto file = SourceFile::open(spec.location, spec.as);
  if (!file)
    return std::unexpected(std::move(file.error()));
  if (!spec.sha256.empty())
    OBRAZ_ASK(check_sha256(*file, spec, stop));
  const auto ends = FileEnds::read(file->view());
  if (!ends)
    return std::unexpected(ends.error());
  const std::string name = spec.location.substr(spec.location.rfind('/') + 1);
  const auto format = settle_format(*ends, spec.format, name);
  if (!format)
    return std::unexpected(format.error());
  if (*format == ImageFormat::raw) {
    OBRAZ_ASK(check_virtual_size(file->size_bytes()));
    return std::make_unique<RawSource>(std::move(*file));
  }

  const auto inspection = inspect(*format, file->view(), stop.token());
  if (!inspection)
    return std::unexpected(inspection.error());
  const ServeOptions options{.format = *format,
                             .block_device = file->block_device(),
                             .writable = false,
                             .size_from_geometry = inspection->size_from_geometry};
  auto served = serve_file(file->fd(), options, stop);
  if (!served)
    return std::unexpected(std::move(served.error()));
  const uint64_t served_size = served->client->size_bytes();
  if (served_size != round_up(inspection->virtual_size, 512))
    return refuse_damaged(*format, fmt::format("its header tells of {} bytes, its reader of {}",
                                               inspection->virtual_size, served_size));
  return std::make_unique<NbdSource>(*format, std::move(*file), std::move(*served));
}

SourceAnswer open_export(const ImportSpec& spec, const StopSignal& stop) {
  if (spec.format && *spec.format != ImageFormat::raw)
    return refuse(ErrorCode::invalid_argument, "format",
                  "what an NBD server offers is a disk: the format can only be raw");
  if (!spec.sha256.empty())
    return refuse(
        ErrorCode::invalid_argument, "sha256",
        "a SHA-256 is of a file; what an NBD server offers has none that is known before it is read");
  auto client = NbdClient::connect(spec.location, stop);
  if (!client)
    return std::unexpected(std::move(client.error()));
  OBRAZ_ASK(check_virtual_size((*client)->size_bytes()));
  return std::make_unique<NbdSource>(std::move(*client), spec.format);
}

}  // namespace

Refusal ImportSource::explain_failed(const Transfer& transfer) const {
  return refuse_os(transfer.os_error, "source", fmt::format("read the source at byte {}", transfer.offset))
      .error();
}

SourceAnswer ImportSource::open(const ImportSpec& spec, std::stop_token token) {
  const StopSignal stop(std::move(token));
  if (stop.requested())
    return refuse_cancelled();
  const std::string& location = spec.location;
  if (location.empty() || location.find('\0') != location.npos || location.size() > limits::kMaxSourceLength)
    return refuse_source("the source is neither a path nor an NBD URI");
  const size_t scheme_end = location.find("://");
  if (scheme_end == location.npos || location.find('/') < scheme_end)
    return open_file(spec, stop);
  const std::string scheme = location.substr(0, scheme_end);
  for (const char* known : {"nbd", "nbds", "nbd+unix", "nbds+unix"})
    if (scheme == known)
      return open_export(spec, stop);
  return refuse_source(
      fmt::format("the source {} has the unknown scheme {}; give a file or an NBD URI", location, scheme));
}

}  // namespace obraz
