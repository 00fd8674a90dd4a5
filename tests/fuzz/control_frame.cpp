// Fuzzes the control connection: the frames and the messages in them, down to the catalog, which works on a
// real store in memory. What an input has made is deleted after it, so that the next one finds (nearly) the
// same daemon.
//
// The first byte chooses. 0: the rest is what the client sends, as it is. Else it is a list of requests, each
// of a byte for the method, two for the length of the message, and the message; they are sent in right
// frames. All is sent at once, and then the client has nothing more to say.
//
// Beyond not crashing: the connection ends, every byte of it is a whole response, and each well-formed
// request has exactly one last response.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <google/protobuf/stubs/logging.h>

#include <algorithm>
#include <boost/asio/detached.hpp>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/log.h"
#include "control/jobs.h"
#include "control/server.h"
#include "control/services.h"
#include "obraz/v1/envelope.pb.h"
#include "proto/framing.h"
#include "unit/catalog/harness.h"

using namespace obraz;
using namespace obraz::test;

namespace {

constexpr size_t kMaxInput = 32 * 1024, kMaxRequests = 40;

// Answers at once, with nothing behind it.
class NoTransfer final : public ImageTransfer {
 public:
  class NoSource final : public Source {
   public:
    uint64_t size_bytes() const override { return 5 * limits::MiB; }
    std::string format() const override { return "raw"; }
  };
  Answer<std::unique_ptr<Source>> open(const SourceSpec& source, Progress&, std::stop_token) override {
    if (source.location.size() % 4 == 0)
      return refuse(ErrorCode::not_found, "source", "there is no such file");
    return std::make_unique<NoSource>();
  }
  Answer<void> import(Source&, VolumeId, Progress& progress, std::stop_token) override {
    progress.bytes_total = progress.bytes_done = 5 * limits::MiB;
    return {};
  }
  Answer<v1::Layout> examine(VolumeId, std::stop_token) override { return v1::Layout(); }
  Answer<std::string> digest(VolumeId volume, Pace, Progress&, std::stop_token) override {
    if (volume.value % 4 == 0)
      return refuse(ErrorCode::io, "", "it cannot be read");
    return "sha256-tree:" + std::to_string(volume.value % 3);
  }
  Answer<void> export_to(VolumeId, const TargetSpec&, Progress&, std::stop_token) override { return {}; }
};

class Daemon {
 public:
  Daemon() : directory_(std::filesystem::temp_directory_path() / "obraz-fuzz-XXXXXX") {
    OBRAZ_CHECK(::mkdtemp(directory_.data()));
    path_ = directory_ + "/control.sock";
    jobs_.emplace(base_.context().get_executor(), base_.catalog(), transfer_);
    services_.emplace(base_.catalog(), *jobs_, base_.store(),
                      DaemonFacts{"1", "/store", path_ + ".nbd", "127.0.0.1:10809", ""});
    auto listening = ControlServer::listen(base_.context().get_executor(), path_, services_->methods());
    OBRAZ_CHECK(listening.has_value());
    server_ = std::move(*listening);
    boost::asio::co_spawn(base_.context(), server_->run(), boost::asio::detached);
    for (const auto& name : services_->methods().names())
      methods_.push_back(name);
    base_.create_disk("d", 8 * limits::MiB);
    base_.create_image("i", "d", "family");
    base_.create_snapshot("s", "d");
    kept_ = state();
  }
  ~Daemon() {
    base_.run(stop());
    server_.reset();
    services_.reset();
    jobs_.reset();
    std::filesystem::remove_all(directory_);
  }

  const std::vector<std::string>& methods() const { return methods_; }

  // Sends all, and returns what came back until the server closed.
  std::string talk(const std::string& bytes) {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    OBRAZ_CHECK(fd >= 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof address.sun_path - 1);
    OBRAZ_CHECK(::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    std::string answer;
    char buffer[65536];
    size_t sent = 0;
    bool sending = true;
    for (;;) {
      if (sending) {
        const ssize_t n = ::send(fd, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
        sent += n > 0 ? size_t(n) : 0;
        // A server that has closed wants no more of it.
        if (sent == bytes.size() || (n < 0 && errno != EAGAIN)) {
          ::shutdown(fd, SHUT_WR);
          sending = false;
        }
      }
      const ssize_t n = ::recv(fd, buffer, sizeof buffer, 0);
      if (n > 0)
        answer.append(buffer, size_t(n));
      else if (n == 0 || errno != EAGAIN)
        break;
      else
        base_.context().run_one();  // the server, or the store's thread, has something to do next
    }
    ::close(fd);
    return answer;
  }

  // Deletes what was made, once nothing is under way.
  void tidy() {
    for (;;) {
      const auto operations = base_.catalog().list_operations(kRoot, {});
      OBRAZ_CHECK(operations.has_value());
      const auto& list = operations->operations();
      if (std::ranges::all_of(list, [](const auto& operation) { return operation.done(); }))
        break;
      base_.context().run_one();
    }
    if (state() == kept_)
      return;
    const auto snapshots = base_.catalog().list_snapshots(kRoot, {});
    const auto disks = base_.catalog().list_disks(kRoot, {});
    const auto images = base_.catalog().list_images(kRoot, {});
    for (const auto& snapshot : snapshots->snapshots()) {
      v1::DeleteSnapshotRequest request;
      request.set_snapshot_id(snapshot.id());
      static_cast<void>(base_.run(base_.catalog().delete_snapshot(kRoot, request)));
    }
    for (const auto& disk : disks->disks())
      base_.delete_disk(disk.id());
    for (const auto& image : images->images()) {
      v1::DeleteImageRequest request;
      request.set_image_id(image.id());
      static_cast<void>(base_.run(base_.catalog().delete_image(kRoot, request)));
    }
    base_.create_disk("d", 8 * limits::MiB);
    base_.create_image("i", "d", "family");
    base_.create_snapshot("s", "d");
    kept_ = state();
  }

 private:
  boost::asio::awaitable<void> stop() {
    server_->close();
    co_await jobs_->stop();
    co_await server_->drain();
  }
  // The resources of the folder, by what can be seen of them.
  std::string state() {
    const auto disks = base_.catalog().list_disks(kRoot, {});
    const auto snapshots = base_.catalog().list_snapshots(kRoot, {});
    const auto images = base_.catalog().list_images(kRoot, {});
    OBRAZ_CHECK(disks && snapshots && images);
    std::string out;
    for (const auto& disk : disks->disks())
      out += disk.id() + std::to_string(disk.size());
    for (const auto& snapshot : snapshots->snapshots())
      out += snapshot.id();
    for (const auto& image : images->images())
      out += image.id();
    return out;
  }

  Harness base_;
  NoTransfer transfer_;
  std::optional<Jobs> jobs_;
  std::optional<Services> services_;
  std::unique_ptr<ControlServer> server_;
  std::string directory_, path_, kept_;
  std::vector<std::string> methods_;
};

// Right frames, and how many.
std::string frames_of(const Daemon& daemon, const uint8_t* data, size_t size, uint64_t& requests) {
  std::string out;
  while (size >= 3 && requests < kMaxRequests) {
    v1::Request request;
    request.set_id(++requests);
    request.set_method(daemon.methods()[data[0] % daemon.methods().size()]);
    const size_t length = std::min<size_t>(data[1] | data[2] << 8, size - 3);
    request.set_message(data + 3, length);
    const auto frame = encode_frame(request, limits::kMaxControlRequest);
    OBRAZ_CHECK(frame.has_value());
    out += *frame;
    data += 3 + length;
    size -= 3 + length;
  }
  return out;
}

}  // namespace

// A reactor at rest is known to the kernel alone, and would pass for a leak while its thread waits.
extern "C" const char* __asan_default_options() {
  return "detect_leaks=0";
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0 || size > kMaxInput)
    return 0;
  log::set_level(log::Level(0));
  google::protobuf::SetLogHandler(nullptr);  // most of what comes does not decode
  static Daemon daemon;
  uint64_t requests = 0;
  const std::string bytes = data[0] == 0 ? std::string(reinterpret_cast<const char*>(data) + 1, size - 1)
                                         : frames_of(daemon, data + 1, size - 1, requests);
  const std::string answer = daemon.talk(bytes);
  std::map<uint64_t, unsigned> last;
  for (size_t at = 0; at < answer.size();) {
    FrameHeader header;
    OBRAZ_CHECK(answer.size() - at >= header.size());
    std::memcpy(header.data(), answer.data() + at, header.size());
    const auto length = decode_frame_header(header, limits::kMaxControlFrame);
    OBRAZ_CHECK(length && *length <= answer.size() - at - header.size());
    v1::Response response;
    OBRAZ_CHECK(decode_frame_body(answer.substr(at + header.size(), *length), response).has_value());
    if (!response.more())
      ++last[response.id()];
    OBRAZ_CHECK(!response.has_error() || !response.error().message().empty());
    at += header.size() + *length;
  }
  if (data[0] != 0) {
    OBRAZ_CHECK(last.size() == requests);
    for (uint64_t id = 1; id <= requests; ++id)
      OBRAZ_CHECK(last[id] == 1);
  }
  daemon.tidy();
  return 0;
}
