#include "image/export_sink.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/check.h"
#include "base/limits.h"
#include "image/inspect.h"
#include "image/qemu_nbd.h"

namespace obraz {
namespace {

class RawSink final : public ExportSink {
 public:
  explicit RawSink(int fd) : fd_(fd) {}
  Answer<void> start_write(Transfer& transfer) override {
    transfer.os_error = write_fully(fd_, transfer.bytes, transfer.offset);
    transfer.done = true;
    return {};
  }
  Answer<void> wait(const StopSignal&, int) override {
    check_failed("a write to a raw file is done when it was started", __FILE__, __LINE__);
  }
  Answer<void> finish(const StopSignal&) override { return {}; }

 private:
  int fd_;
};

class Qcow2Sink final : public ExportSink {
 public:
  Qcow2Sink(int fd, uint64_t size_bytes, ServedFile served)
      : fd_(fd),
        size_bytes_(size_bytes),
        child_(std::move(served.child)),
        client_(std::move(served.client)) {}
  Answer<void> start_write(Transfer& transfer) override { return explain(client_->start_write(transfer)); }
  Answer<void> wait(const StopSignal& stop, int wake_fd) override {
    return explain(client_->wait(stop, wake_fd));
  }

  Answer<void> finish(const StopSignal& stop) override {
    OBRAZ_ASK(explain(client_->flush(stop)));
    OBRAZ_ASK(explain(client_->disconnect(stop)));
    const auto status = child_->wait(stop, limits::kImportStallSeconds);
    if (!status)
      return std::unexpected(status.error());
    if (*status != 0)
      return refuse(ErrorCode::io, "",
                    fmt::format("qemu-nbd ended with status {}: {}", *status, child_->complaint()));
    return verify(stop);
  }

 private:
  // What was written is read as any foreign file would be.
  Answer<void> verify(const StopSignal& stop) const {
    struct stat file_status {};
    if (::fstat(fd_, &file_status) != 0)
      return refuse_os(errno, "", "look at the exported file");
    const auto inspection = inspect_qcow2({fd_, uint64_t(file_status.st_size)}, stop.token());
    if (!inspection && inspection.error().code == ErrorCode::cancelled)
      return refuse_cancelled();
    if (!inspection)
      return refuse(ErrorCode::io, "",
                    fmt::format("qemu-nbd wrote a wrong file: {}", inspection.error().message));
    if (inspection->virtual_size != size_bytes_)
      return refuse(ErrorCode::io, "", "qemu-nbd wrote a file of another size");
    return {};
  }

  // Errors of the connection tell of the source elsewhere; here they tell of the program that writes the
  // file.
  Answer<void> explain(Answer<void> answer) const {
    if (answer)
      return answer;
    answer.error().field.clear();
    const std::string complaint = child_->complaint();
    if (answer.error().code != ErrorCode::cancelled && !complaint.empty())
      answer.error().message += fmt::format(" (qemu-nbd: {})", complaint);
    return answer;
  }

  int fd_;
  uint64_t size_bytes_;
  std::unique_ptr<ConfinedChild> child_;
  std::unique_ptr<NbdClient> client_;
};

}  // namespace

Answer<std::unique_ptr<ExportSink>> ExportSink::open(int fd, ImageFormat format, uint64_t size_bytes,
                                                     const StopSignal& stop) {
  if (format == ImageFormat::raw) {
    if (::ftruncate(fd, off_t(size_bytes)) != 0)
      return refuse_os(errno, "path", "set the size of the exported file");
    return std::make_unique<RawSink>(fd);
  }
  if (format != ImageFormat::qcow2)
    return refuse(ErrorCode::invalid_argument, "format",
                  fmt::format("an image is exported as raw or qcow2, not as {}", name_of(format)));
  OBRAZ_ASK(make_qcow2(fd, size_bytes, stop));
  auto served = serve_file(fd, {.format = format, .writable = true}, stop);
  if (!served)
    return std::unexpected(std::move(served.error()));
  return std::make_unique<Qcow2Sink>(fd, size_bytes, std::move(*served));
}

}  // namespace obraz
