#include "image/layout.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <climits>

#include "image/confined_child.h"
#include "image/layout_wire.h"

namespace obraz {
namespace {

using Clock = std::chrono::steady_clock;
using layout_wire::kPage;

constexpr char kReader[] = "obraz-layout";
constexpr unsigned kExitSeconds = 10;  // for one that has closed its socket

std::unexpected<Refusal> refuse_look(ErrorCode code, const std::string& why) {
  return refuse(code, "", "cannot tell what is on the disk: " + why);
}

// Beside this program: what was built and installed together belongs together.
Answer<std::string> find_reader() {
  std::string path(PATH_MAX, '\0');
  const ssize_t n = ::readlink("/proc/self/exe", path.data(), path.size());
  if (n <= 0)
    return refuse_os(errno, "", "find " + std::string(kReader));
  path.resize(size_t(n));
  path.resize(path.rfind('/') + 1);
  return path + kReader;
}

// A sparse file of the disk's size. What is put into it is memory, and only we can: the other descriptor is
// for reading, and its holder cannot open it in another way.
struct DiskFile {
  OwnedFd ours, to_read;

  static Answer<DiskFile> make(uint64_t size_bytes) {
    DiskFile file;
    file.ours = OwnedFd(::memfd_create("obraz-layout-disk", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!file.ours || ::ftruncate(file.ours.get(), off_t(size_bytes)) != 0 ||
        ::fcntl(file.ours.get(), F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) != 0)
      return refuse_os(errno, "", "make a file in memory");
    file.to_read =
        OwnedFd(::open(fmt::format("/proc/self/fd/{}", file.ours.get()).c_str(), O_RDONLY | O_CLOEXEC));
    if (!file.to_read)
      return refuse_os(errno, "", "make a file in memory");
    return file;
  }
};

// One look at one disk, from the start of the child to its answer.
class Look {
 public:
  Look(const ReadDisk& read_disk, uint64_t size_bytes, std::stop_token stop, unsigned seconds)
      : read_disk_(read_disk),
        size_bytes_(size_bytes),
        stop_(std::move(stop)),
        seconds_(seconds),
        deadline_(Clock::now() + std::chrono::seconds(seconds)) {}

  Answer<DiskLayout> run(const std::string& program, const std::vector<std::string>& arguments) {
    OBRAZ_ASK(start(program, arguments));
    std::vector<std::byte> message(limits::kMaxLayoutAnswer);
    while (true) {
      auto length = receive(message);
      if (!length)
        return std::unexpected(std::move(length.error()));
      if (*length == 0)
        return explain_end();
      const ConstBytes received(message.data(), *length);
      if (received[0] == layout_wire::kLayout) {
        auto layout = layout_wire::decode_layout(received.subspan(1));
        if (!layout)
          return refuse_broken("its answer is none");
        return std::move(*layout);
      }
      if (received[0] != layout_wire::kRequest || received.size() != layout_wire::kRequestSize)
        return refuse_broken("it sent what is no message");
      OBRAZ_ASK(fetch(load_le<uint64_t>(&received[1]), load_le<uint32_t>(&received[9])));
    }
  }

 private:
  Answer<void> start(const std::string& program, const std::vector<std::string>& arguments) {
    auto file = DiskFile::make(size_bytes_);
    if (!file)
      return std::unexpected(std::move(file.error()));
    file_ = std::move(file->ours);
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
      return refuse_os(errno, "", "make a pair of sockets");
    socket_ = OwnedFd(ends[0]);
    const OwnedFd other(ends[1]);
    // The answer is one message.
    const int room = int(2 * limits::kMaxLayoutAnswer);
    ::setsockopt(other.get(), SOL_SOCKET, SO_SNDBUF, &room, sizeof room);

    ConfinedChild::Options options;
    options.program = program;
    options.arguments = arguments;
    options.descriptors = {other.get(), file->to_read.get()};
    static_assert(layout_wire::kSocket == ConfinedChild::kFirstFd &&
                  layout_wire::kFile == ConfinedChild::kFirstFd + 1);
    options.memory_bytes = limits::kLayoutMemory;
    options.cpu_seconds = limits::kLayoutCpuSeconds;
    auto child = ConfinedChild::start(options);
    if (!child)
      return std::unexpected(std::move(child.error()));
    child_ = std::move(*child);
    return {};
  }

  // The length of the next message; 0: there is none any more.
  Answer<size_t> receive(Bytes into) {
    while (true) {
      if (stop_.requested())
        return refuse_cancelled();
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline_ - Clock::now()).count();
      if (left <= 0)
        return refuse_look(ErrorCode::resource_exhausted,
                           fmt::format("it took more than {} seconds", seconds_));
      pollfd wanted[] = {{socket_.get(), POLLIN, 0}, {stop_.fd(), POLLIN, 0}};
      if (::poll(wanted, 2, int(left)) < 0 && errno != EINTR)
        return refuse_os(errno, "", "wait for " + std::string(kReader));
      const ssize_t n = ::recv(socket_.get(), into.data(), into.size(), MSG_DONTWAIT | MSG_TRUNC);
      if (n < 0 && (errno == EAGAIN || errno == EINTR))
        continue;
      if (n < 0)
        return errno == ECONNRESET ? Answer<size_t>(0)
                                   : refuse_os(errno, "", "hear from " + std::string(kReader));
      if (size_t(n) > into.size())
        return refuse_broken("it sent a message that is too long");
      return size_t(n);
    }
  }

  Answer<void> fetch(uint64_t offset, uint64_t length) {
    const uint64_t end = offset + length;
    if (offset % kPage != 0 || length == 0 || length > limits::kLayoutReadSize || offset >= size_bytes_ ||
        length > size_bytes_ - offset || (end % kPage != 0 && end != size_bytes_))
      return refuse_broken("it asked for what is no range of the disk");
    total_ += length;
    if (++reads_ > limits::kLayoutReads || total_ > limits::kLayoutReadTotal)
      return refuse_broken("it asked for more than it may");
    buffer_.resize(limits::kLayoutReadSize);
    const Bytes bytes = Bytes(buffer_).first(length);
    OBRAZ_ASK(read_disk_(offset, bytes));
    // What is zero is a hole of the file.
    for (uint64_t at = 0; at < length; at += kPage) {
      const ConstBytes page = bytes.subspan(at, std::min(kPage, length - at));
      const int os_error = is_zero(page) ? 0 : write_fully(file_.get(), page, offset + at);
      if (os_error != 0)
        return refuse_os(os_error, "", "keep a part of the disk in memory");
    }
    // One that asks and does not listen fills its socket.
    if (::send(socket_.get(), &layout_wire::kDone, 1, MSG_DONTWAIT | MSG_NOSIGNAL) != 1 && errno != EPIPE &&
        errno != ECONNRESET)
      return refuse_broken("it does not take what it asked for");
    return {};
  }

  std::unexpected<Refusal> refuse_broken(const std::string& what) {
    return refuse_look(ErrorCode::io, fmt::format("{} does not work as it should: {}", kReader, what));
  }

  std::unexpected<Refusal> explain_end() {
    const auto status = child_->wait(stop_, kExitSeconds);
    if (!status)
      return std::unexpected(status.error());
    if (*status == 128 + SIGXCPU || *status == 128 + SIGKILL)
      return refuse_look(ErrorCode::resource_exhausted,
                         fmt::format("{} was ended by a limit of its time or memory", kReader));
    const std::string complaint = child_->complaint();
    return refuse_look(ErrorCode::io, fmt::format("{} ended with status {}{}{}", kReader, *status,
                                                  complaint.empty() ? "" : ": ", complaint));
  }

  const ReadDisk& read_disk_;
  uint64_t size_bytes_;
  StopSignal stop_;
  unsigned seconds_;
  Clock::time_point deadline_;
  OwnedFd socket_, file_;
  std::unique_ptr<ConfinedChild> child_;
  std::vector<std::byte> buffer_;
  uint64_t total_ = 0;
  unsigned reads_ = 0;
};

}  // namespace

Answer<DiskLayout> probe_layout(const ReadDisk& read_disk, uint64_t size_bytes, std::stop_token stop,
                                const LayoutReader& reader) {
  if (size_bytes == 0 || size_bytes > limits::kMaxVolumeSize)
    return refuse_look(ErrorCode::invalid_argument, fmt::format("it has {} bytes", size_bytes));
  std::string program = reader.program;
  std::vector<std::string> arguments = reader.arguments;
  if (program.empty()) {
    auto found = find_reader();
    if (!found)
      return std::unexpected(std::move(found.error()));
    program = std::move(*found);
    arguments = {layout_wire::kVersion};
  }
  Look look(read_disk, size_bytes, std::move(stop), reader.seconds);
  return look.run(program, arguments);
}

const char* name_of(PartitionTable table) {
  switch (table) {
    case PartitionTable::none:
      return "none";
    case PartitionTable::dos:
      return "dos";
    case PartitionTable::gpt:
      return "gpt";
  }
  return "unknown";
}

const char* name_of(BootMethod boot) {
  switch (boot) {
    case BootMethod::none:
      return "none";
    case BootMethod::bios:
      return "bios";
    case BootMethod::uefi:
      return "uefi";
    case BootMethod::both:
      return "bios and uefi";
  }
  return "unknown";
}

const char* name_of(WindowsContent content) {
  switch (content) {
    case WindowsContent::none:
      return "none";
    case WindowsContent::data:
      return "data";
    case WindowsContent::boot:
      return "boot";
  }
  return "unknown";
}

std::string WindowsFinding::sentence() const {
  const std::string where =
      partition == 0 ? "the disk, which has no partitions," : fmt::format("partition {}", partition);
  switch (evidence) {
    case WindowsEvidence::none:
      return "";
    case WindowsEvidence::ntfs:
      return where + " has the file system NTFS; there are no files that start Windows";
    case WindowsEvidence::ntfs_beside_reserved:
      return where +
             " has the file system NTFS, beside a Microsoft reserved partition; there are no files that "
             "start "
             "Windows";
    case WindowsEvidence::refs:
      return where + " has the file system ReFS; there are no files that start Windows";
    case WindowsEvidence::bitlocker:
      return where + " is encrypted by BitLocker; there are no files that start Windows";
    case WindowsEvidence::dynamic_disk:
      return where + " is a part of a dynamic disk of Windows";
    case WindowsEvidence::efi_boot_manager:
      return where + " has the file EFI/Microsoft/Boot/bootmgfw.efi";
    case WindowsEvidence::boot_manager:
      return where + " has the file bootmgr";
    case WindowsEvidence::nt_loader:
      return where + " has the file ntldr";
    case WindowsEvidence::system_files:
      return where + " has the kernel of Windows, or its loader, in Windows/System32";
  }
  return "";
}

}  // namespace obraz
