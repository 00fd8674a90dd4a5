// obraz-layout: the program that looks at a disk for the daemon (layout.h). It is started confined, with a
// socket and a file in memory (layout_wire.h), and confines itself further before it reads the first byte.
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "image/layout_examine.h"
#include "image/layout_wire.h"
#include "image/syscall_filter.h"

namespace {

using namespace obraz;

// What the daemon's end of the socket says no to is not told: the daemon ends this program.
class AskedBytes final : public DiskBytes {
 public:
  using DiskBytes::DiskBytes;

 private:
  bool ask(uint64_t offset, uint64_t length) override {
    std::byte request[layout_wire::kRequestSize] = {layout_wire::kRequest};
    store_le<uint64_t>(&request[1], offset);
    store_le<uint32_t>(&request[9], uint32_t(length));
    std::byte reply{};
    if (::send(layout_wire::kSocket, request, sizeof request, MSG_NOSIGNAL) != ssize_t(sizeof request) ||
        ::recv(layout_wire::kSocket, &reply, 1, 0) != 1 || reply != layout_wire::kDone)
      ::_exit(1);
    return true;
  }
};

}  // namespace

int main(int argc, char** argv) {
  struct stat status {};
  if (argc != 2 || std::strcmp(argv[1], layout_wire::kVersion) != 0 ||
      ::fstat(layout_wire::kFile, &status) != 0 || status.st_size <= 0) {
    std::fprintf(stderr,
                 "obraz-layout is for obrazd of the same version, which starts it; this is version %s\n",
                 layout_wire::kVersion);
    return 2;
  }
  SyscallFilter filter = SyscallFilter::build_for_parsing();
  filter.finish(::getpid());
  if (const int os_error = filter.install(); os_error != 0) {
    std::fprintf(stderr, "cannot give up system calls: %s\n", std::strerror(os_error));
    return 1;
  }
  AskedBytes disk(layout_wire::kFile, uint64_t(status.st_size));
  std::vector<std::byte> answer = layout_wire::encode_layout(examine_disk(disk));
  answer.insert(answer.begin(), layout_wire::kLayout);
  return ::send(layout_wire::kSocket, answer.data(), answer.size(), MSG_NOSIGNAL) == ssize_t(answer.size())
             ? 0
             : 1;
}
