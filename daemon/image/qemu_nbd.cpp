#include "image/qemu_nbd.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/limits.h"

namespace obraz {
namespace {

constexpr unsigned kExitSeconds = 10;    // for a child that has told us, by closing its socket, that it ends
constexpr unsigned kCreateSeconds = 60;  // for qemu-img to write an empty image

struct SocketPair {
  OwnedFd listener, client;
};

// A listening Unix socket and our connection to it, already in its queue. The name lives in a private
// directory for the moment between bind and connect only.
Answer<SocketPair> make_socket_pair() {
  const char* base = std::getenv("TMPDIR");
  std::string directory = std::string(base && *base == '/' ? base : "/tmp") + "/obraz-XXXXXX";
  if (!::mkdtemp(directory.data()))
    return refuse_os(errno, "", "make a temporary directory");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = directory + "/s";
  SocketPair pair;
  int os_error = path.size() < sizeof address.sun_path ? 0 : ENAMETOOLONG;
  if (os_error == 0) {
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    const auto* generic = reinterpret_cast<const sockaddr*>(&address);
    pair.listener = OwnedFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    pair.client = OwnedFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!pair.listener || !pair.client || ::bind(pair.listener.get(), generic, sizeof address) != 0 ||
        ::listen(pair.listener.get(), 1) != 0 || ::connect(pair.client.get(), generic, sizeof address) != 0)
      os_error = errno;
    ::unlink(path.c_str());
  }
  ::rmdir(directory.c_str());
  if (os_error != 0)
    return refuse_os(os_error, "", "make a private socket");
  return pair;
}

std::string driver_options(const ServeOptions& options) {
  const int file = ConfinedChild::kFirstFd + 1;
  std::string format_options;
  if (options.format == ImageFormat::vpc)
    format_options =
        fmt::format(R"(,"force_size_calc":"{}")", options.size_from_geometry ? "chs" : "current_size");
  return fmt::format(R"(json:{{"driver":"{}","read-only":{},"backing":null{},)"
                     R"("file":{{"driver":"{}","filename":"/proc/self/fd/{}"}}}})",
                     name_of(options.format), !options.writable, format_options,
                     options.block_device ? "host_device" : "file", file);
}

}  // namespace

Answer<ServedFile> serve_file(int fd, const ServeOptions& options, const StopSignal& stop) {
  auto sockets = make_socket_pair();
  if (!sockets)
    return std::unexpected(std::move(sockets.error()));
  ConfinedChild::Options child;
  child.program = "qemu-nbd";
  if (!options.writable)
    child.arguments.push_back("--read-only");
  child.arguments.insert(child.arguments.end(), {"--shared=1", "--cache=writeback", driver_options(options)});
  child.descriptors = {sockets->listener.get(), fd};
  child.files = {1};
  child.may_write = options.writable;
  child.listens = true;
  auto started = ConfinedChild::start(child);
  if (!started)
    return std::unexpected(std::move(started.error()));
  sockets->listener.reset();  // the child's is the only one now: its end is the end of our connection

  ServedFile served{std::move(*started), nullptr};
  auto client = NbdClient::adopt(std::move(sockets->client), stop);
  if (!client) {
    if (client.error().code == ErrorCode::cancelled)
      return std::unexpected(std::move(client.error()));
    const auto status = served.child->wait(stop, kExitSeconds);
    const std::string complaint = served.child->complaint();
    if (!complaint.empty())
      return refuse_source(
          fmt::format("qemu-nbd cannot open the {} image: {}", name_of(options.format), complaint));
    return refuse(ErrorCode::io, "source",
                  fmt::format("qemu-nbd does not serve the {} image (status {}): {}", name_of(options.format),
                              status.value_or(-1), client.error().message));
  }
  served.client = std::move(*client);
  return served;
}

Answer<void> make_qcow2(int fd, uint64_t size_bytes, const StopSignal& stop) {
  ConfinedChild::Options child;
  child.program = "qemu-img";
  child.arguments = {"create",
                     "-q",
                     "-f",
                     "qcow2",
                     fmt::format("/proc/self/fd/{}", ConfinedChild::kFirstFd),
                     std::to_string(size_bytes)};
  child.descriptors = {fd};
  child.files = {0};
  child.may_write = true;
  auto started = ConfinedChild::start(child);
  if (!started)
    return std::unexpected(std::move(started.error()));
  const auto status = (*started)->wait(stop, kCreateSeconds);
  if (!status)
    return std::unexpected(status.error());
  if (*status != 0)
    return refuse(
        ErrorCode::io, "",
        fmt::format("qemu-img cannot make a qcow2 image (status {}): {}", *status, (*started)->complaint()));
  return {};
}

}  // namespace obraz
