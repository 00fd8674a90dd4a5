// bench_control SOCKET [--in-flight N]: a kept connection to the daemon's control socket, driven by lines on
// standard input, so that what calls it measures calls and not the start of a program. Each line is one call:
//
//   disk-create NAME IMAGE      disk-delete NAME
//   snapshot-create NAME DISK   snapshot-delete NAME
//   image-create NAME DISK      image-delete NAME
//
// Its answer is one line: "ok MICROSECONDS" (from the call to the end of its operation) or "error SENTENCE".
// At most N calls (1) are in flight: so many lines are read before the first has its answer. Answers come in
// the order of the lines, whatever the order in which the daemon gives them.
#include <fmt/core.h>
#include <poll.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <deque>
#include <memory>
#include <optional>
#include <sstream>
#include <string>

#include "base/limits.h"
#include "client/connection.h"
#include "obraz/v1/disk_service.pb.h"
#include "obraz/v1/image_service.pb.h"
#include "obraz/v1/operation.pb.h"
#include "obraz/v1/snapshot_service.pb.h"

namespace obraz::bench {
namespace {

using client::Connection;
using client::Outcome;

Outcome<uint64_t> begin(Connection& connection, const std::string& verb, const std::string& name,
                        const std::string& source) {
  if (verb == "disk-create") {
    v1::CreateDiskRequest request;
    request.set_name(name);
    request.set_image_id(source);
    return connection.begin("DiskService.Create", request);
  }
  if (verb == "disk-delete") {
    v1::DeleteDiskRequest request;
    request.set_disk_id(name);
    return connection.begin("DiskService.Delete", request);
  }
  if (verb == "snapshot-create") {
    v1::CreateSnapshotsRequest request;
    v1::SnapshotOfDisk* snapshot = request.add_snapshots();
    snapshot->set_name(name);
    snapshot->set_disk_id(source);
    return connection.begin("SnapshotService.Create", request);
  }
  if (verb == "snapshot-delete") {
    v1::DeleteSnapshotRequest request;
    request.set_snapshot_id(name);
    return connection.begin("SnapshotService.Delete", request);
  }
  if (verb == "image-create") {
    v1::CreateImageRequest request;
    request.set_name(name);
    request.set_disk_id(source);
    return connection.begin("ImageService.Create", request);
  }
  if (verb == "image-delete") {
    v1::DeleteImageRequest request;
    request.set_image_id(name);
    return connection.begin("ImageService.Delete", request);
  }
  return client::failed(v1::Error::INVALID_ARGUMENT, "there is no call " + verb);
}

Outcome<void> ended(const v1::Response& response) {
  if (response.has_error())
    return std::unexpected(response.error());
  v1::Operation operation;
  if (!operation.ParseFromString(response.message()))
    return client::failed(v1::Error::INTERNAL, "an answer does not decode");
  if (operation.has_error())
    return std::unexpected(operation.error());
  if (!operation.done())  // only imports and exports take time, and none is among these
    return client::failed(v1::Error::INTERNAL, "a call is not done when it is answered");
  return {};
}

class Driver {
 public:
  Driver(Connection& connection, size_t in_flight) : connection_(connection), at_most_(in_flight) {}

  // Until standard input has ended and every line has its answer.
  bool run() {
    while (!input_ended_ || !unread_.empty() || !calls_.empty()) {
      while (in_flight_ < at_most_ && start_line()) {
      }
      print_answers();
      const bool reads = !input_ended_ && in_flight_ < at_most_;
      pollfd fds[] = {{reads ? STDIN_FILENO : -1, POLLIN, 0},
                      {in_flight_ > 0 ? connection_.descriptor() : -1, POLLIN, 0}};
      if (!reads && in_flight_ == 0)
        continue;
      if (::poll(fds, std::size(fds), -1) < 0 && errno != EINTR)
        return false;
      if (fds[0].revents != 0)
        read_input();
      if (fds[1].revents != 0 && !take_answer())
        return false;
    }
    return true;
  }

 private:
  using Clock = std::chrono::steady_clock;
  struct Call {
    uint64_t id;  // 0: it was never sent
    Clock::time_point begun;
    std::string answer;  // empty: none yet
  };

  void read_input() {
    char bytes[65536];
    const ssize_t n = ::read(STDIN_FILENO, bytes, sizeof bytes);
    if (n > 0)
      unread_.append(bytes, size_t(n));
    else if (n == 0 || errno != EINTR)
      input_ended_ = true;
  }

  bool start_line() {
    const size_t end = unread_.find('\n');
    if (end == std::string::npos) {
      if (input_ended_)
        unread_.clear();
      return false;
    }
    std::istringstream words(unread_.substr(0, end));
    unread_.erase(0, end + 1);
    std::string verb, name, source;
    words >> verb >> name >> source;
    Call call{0, Clock::now(), ""};
    if (const auto id = begin(connection_, verb, name, source)) {
      call.id = *id;
      ++in_flight_;
    } else {
      call.answer = "error " + id.error().message();
    }
    calls_.push_back(std::move(call));
    return true;
  }

  bool take_answer() {
    const auto response = connection_.next();
    const auto now = Clock::now();
    const auto call = std::ranges::find_if(
        calls_, [&](const Call& call) { return response && call.id != 0 && call.id == response->id(); });
    if (call == calls_.end()) {
      const std::string& why = response ? response->error().message() : response.error().message();
      fmt::print(stderr, "bench_control: {}\n", why);
      return false;
    }
    --in_flight_;
    const std::chrono::duration<double, std::micro> took = now - call->begun;
    const auto good = ended(*response);
    call->answer = good ? fmt::format("ok {:.1f}", took.count()) : "error " + good.error().message();
    return true;
  }

  void print_answers() {
    for (; !calls_.empty() && !calls_.front().answer.empty(); calls_.pop_front())
      fmt::print("{}\n", calls_.front().answer);
    std::fflush(stdout);
  }

  Connection& connection_;
  const size_t at_most_;
  size_t in_flight_ = 0;
  std::string unread_;
  bool input_ended_ = false;
  std::deque<Call> calls_;  // whose answer has not been printed
};

}  // namespace
}  // namespace obraz::bench

int main(int argc, char** argv) {
  using namespace obraz;
  CLI::App app{"calls to obrazd, one for each line of standard input"};
  std::string socket;
  size_t in_flight = 1;
  app.add_option("SOCKET", socket, "the daemon's control socket")->required();
  app.add_option("--in-flight", in_flight, "calls under way at a time")
      ->check(CLI::Range(size_t(1), size_t(limits::kMaxControlInFlight)));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const auto connection = client::Connection::open(socket);
  if (!connection) {
    fmt::print(stderr, "bench_control: {}\n", connection.error().message());
    return 1;
  }
  return bench::Driver(**connection, in_flight).run() ? 0 : 1;
}
