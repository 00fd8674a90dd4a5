#include "image/nbd_client.h"

#include <fmt/format.h>
#include <libnbd.h>
#include <poll.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "base/limits.h"

namespace obraz {
namespace {

constexpr uint64_t kMaxStatusLength = limits::GiB;         // of one question; the protocol has 32 bits for it
constexpr uint64_t kDefaultMaxRequest = 32 * limits::MiB;  // where the server states none
constexpr uint64_t kLeastMaxRequest = 4096;                // a block of ours
constexpr size_t kMaxWords = 500;                          // of an error, which may quote the server
constexpr uint32_t kStateZero = 2;                         // NBD_STATE_ZERO of base:allocation

// The last error of libnbd on this thread; its words begin with the function's name, which tells a user
// nothing.
std::unexpected<Refusal> refuse_nbd(const char* doing) {
  const char* words = ::nbd_get_error();
  const std::string text = words ? words : "unknown error";
  const size_t colon = text.starts_with("nbd_") ? text.find(": ") : text.npos;
  const int os_error = ::nbd_get_errno();
  const ErrorCode code = os_error == ENOSPC || os_error == EDQUOT ? ErrorCode::no_space
                         : os_error == ENOENT                     ? ErrorCode::not_found
                         : os_error == EINVAL                     ? ErrorCode::invalid_argument
                                                                  : ErrorCode::io;
  return refuse(
      code, "source",
      fmt::format("{}: {}", doing, printable(colon == text.npos ? text : text.substr(colon + 2), kMaxWords)));
}

}  // namespace

int NbdClient::on_transfer(void* user, int* error) {
  auto* transfer = static_cast<Transfer*>(user);
  transfer->done = true;
  transfer->os_error = *error;
  return 1;  // retired
}

int NbdClient::on_command(void* user, int* error) {
  auto* command = static_cast<Command*>(user);
  command->done = true;
  command->os_error = *error;
  return 1;
}

int NbdClient::on_status(void* user, const char* context, uint64_t, uint32_t* entries, size_t count, int*) {
  auto* client = static_cast<NbdClient*>(user);
  if (std::strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0)
    return 0;
  for (size_t i = 0; i + 1 < count && client->status_.size() < limits::kMaxSourceExtents; i += 2)
    client->status_.push_back({entries[i], entries[i + 1]});
  return 0;
}

Answer<std::unique_ptr<NbdClient>> NbdClient::create() {
  nbd_handle* handle = ::nbd_create();
  if (!handle)
    return refuse_nbd("cannot make an NBD client");
  std::unique_ptr<NbdClient> client(new NbdClient(handle));
  if (::nbd_add_meta_context(handle, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0 ||
      ::nbd_set_uri_allow_transports(handle, LIBNBD_ALLOW_TRANSPORT_TCP | LIBNBD_ALLOW_TRANSPORT_UNIX) < 0 ||
      ::nbd_set_uri_allow_local_file(handle, false) < 0)
    return refuse_nbd("cannot make an NBD client");
  return client;
}

Answer<std::unique_ptr<NbdClient>> NbdClient::connect(const std::string& uri, const StopSignal& stop) {
  auto client = create();
  if (!client)
    return client;
  if (uri.starts_with("nbds") && ::nbd_supports_tls((*client)->handle_) != 1)
    return refuse(ErrorCode::invalid_argument, "source",
                  "this build of libnbd has no TLS; use an nbd:// URI");
  if (::nbd_aio_connect_uri((*client)->handle_, uri.c_str()) < 0)
    return refuse_nbd("cannot connect to the NBD server");
  OBRAZ_ASK((*client)->greet(stop));
  return client;
}

Answer<std::unique_ptr<NbdClient>> NbdClient::adopt(OwnedFd socket, const StopSignal& stop) {
  auto client = create();
  if (!client)
    return client;
  if (::nbd_aio_connect_socket((*client)->handle_, socket.release()) < 0)
    return refuse_nbd("cannot talk to the NBD server");
  OBRAZ_ASK((*client)->greet(stop));
  return client;
}

NbdClient::~NbdClient() {
  ::nbd_close(handle_);
}

Answer<void> NbdClient::greet(const StopSignal& stop) {
  OBRAZ_ASK(turn_until(stop, [this] { return ::nbd_aio_is_ready(handle_) == 1; }));
  const int64_t size = ::nbd_get_size(handle_);
  if (size < 0)
    return refuse_nbd("the NBD server tells no size");
  size_bytes_ = uint64_t(size);
  const int64_t least = ::nbd_get_block_size(handle_, LIBNBD_SIZE_MINIMUM);
  const int64_t most = ::nbd_get_block_size(handle_, LIBNBD_SIZE_MAXIMUM);
  alignment_ = least > 0 ? uint64_t(least) : 1;
  max_request_ = most > 0 ? uint64_t(most) : kDefaultMaxRequest;
  if (!std::has_single_bit(alignment_) || alignment_ > limits::kImportRequestSize ||
      max_request_ < std::max(alignment_, kLeastMaxRequest))
    return refuse_source(
        fmt::format("the NBD server wants requests of {} to {} bytes", alignment_, max_request_));
  tells_status_ = ::nbd_can_meta_context(handle_, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1;
  return {};
}

// One wait for the server, and what it brings.
Answer<void> NbdClient::turn(const StopSignal& stop, int wake_fd) {
  if (stop.requested())
    return refuse_cancelled();
  if (::nbd_aio_is_dead(handle_) == 1 || ::nbd_aio_is_closed(handle_) == 1)
    return refuse(ErrorCode::io, "source", "the NBD server closed the connection");
  const unsigned direction = ::nbd_aio_get_direction(handle_);
  pollfd wanted[] = {{::nbd_aio_get_fd(handle_), 0, 0}, {stop.fd(), POLLIN, 0}, {wake_fd, POLLIN, 0}};
  if (direction & LIBNBD_AIO_DIRECTION_READ)
    wanted[0].events |= POLLIN;
  if (direction & LIBNBD_AIO_DIRECTION_WRITE)
    wanted[0].events |= POLLOUT;
  const int ready = ::poll(wanted, 3, int(limits::kImportStallSeconds) * 1000);
  if (ready < 0 && errno != EINTR)
    return refuse_os(errno, "source", "wait for the NBD server");
  if (ready == 0)
    return refuse(ErrorCode::io, "source",
                  fmt::format("the NBD server has not answered for {} seconds", limits::kImportStallSeconds));
  if (ready <= 0 || wanted[0].revents == 0)
    return {};
  const bool ended = wanted[0].revents & (POLLHUP | POLLERR | POLLNVAL);
  int result = 0;
  if ((direction & LIBNBD_AIO_DIRECTION_READ) && (ended || (wanted[0].revents & POLLIN)))
    result = ::nbd_aio_notify_read(handle_);
  else if ((direction & LIBNBD_AIO_DIRECTION_WRITE) && (ended || (wanted[0].revents & POLLOUT)))
    result = ::nbd_aio_notify_write(handle_);
  else if (ended)
    return refuse(ErrorCode::io, "source", "the NBD server closed the connection");
  if (result < 0)
    return refuse_nbd("the NBD server fails");
  return {};
}

template <typename Condition>
Answer<void> NbdClient::turn_until(const StopSignal& stop, Condition condition) {
  while (!condition())
    OBRAZ_ASK(turn(stop, -1));
  return {};
}

Answer<void> NbdClient::start_read(Transfer& transfer) {
  transfer.done = false;
  const nbd_completion_callback callback = {on_transfer, &transfer, nullptr};
  if (::nbd_aio_pread(handle_, transfer.bytes.data(), transfer.bytes.size(), transfer.offset, callback, 0) <
      0)
    return refuse_nbd("cannot read from the NBD server");
  return {};
}

Answer<void> NbdClient::start_write(Transfer& transfer) {
  transfer.done = false;
  const nbd_completion_callback callback = {on_transfer, &transfer, nullptr};
  if (::nbd_aio_pwrite(handle_, transfer.bytes.data(), transfer.bytes.size(), transfer.offset, callback, 0) <
      0)
    return refuse_nbd("cannot write to the NBD server");
  return {};
}

Answer<void> NbdClient::wait(const StopSignal& stop, int wake_fd) {
  return turn(stop, wake_fd);
}

Answer<void> NbdClient::run_to_end(Command& command, const StopSignal& stop) {
  OBRAZ_ASK(turn_until(stop, [&command] { return command.done; }));
  if (command.os_error != 0)
    return refuse_os(command.os_error, "source", "have a command done by the NBD server");
  return {};
}

Answer<void> NbdClient::extents(uint64_t offset, uint64_t length, std::vector<SourceExtent>& out,
                                const StopSignal& stop) {
  if (!tells_status_) {
    out.push_back({offset, length, false});
    return {};
  }
  command_ = {};
  status_.clear();
  const nbd_extent_callback on_extent = {on_status, this, nullptr};
  const nbd_completion_callback callback = {on_command, &command_, nullptr};
  if (::nbd_aio_block_status(handle_, std::min(length, kMaxStatusLength), offset, on_extent, callback, 0) < 0)
    return refuse_nbd("cannot ask the NBD server what is allocated");
  OBRAZ_ASK(run_to_end(command_, stop));
  const uint64_t end = offset + length;
  for (const StatusRun& run : status_) {
    const uint64_t covered = std::min<uint64_t>(run.length, end - offset);
    if (covered == 0)
      break;
    out.push_back({offset, covered, (run.flags & kStateZero) != 0});
    offset += covered;
  }
  if (offset == end - length)
    return refuse(ErrorCode::io, "source",
                  "the NBD server does not tell what is allocated, though it said it would");
  return {};
}

Answer<void> NbdClient::flush(const StopSignal& stop) {
  if (::nbd_can_flush(handle_) != 1)
    return {};
  command_ = {};
  const nbd_completion_callback callback = {on_command, &command_, nullptr};
  if (::nbd_aio_flush(handle_, callback, 0) < 0)
    return refuse_nbd("cannot flush");
  return run_to_end(command_, stop);
}

Answer<void> NbdClient::disconnect(const StopSignal& stop) {
  if (::nbd_aio_disconnect(handle_, 0) < 0)
    return refuse_nbd("cannot disconnect");
  return turn_until(stop,
                    [this] { return ::nbd_aio_is_closed(handle_) == 1 || ::nbd_aio_is_dead(handle_) == 1; });
}

}  // namespace obraz
