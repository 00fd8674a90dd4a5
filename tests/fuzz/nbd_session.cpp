// Fuzzes transmission: a live server with a store in memory, one session for each input. The handshake is
// right; the input is what follows it. What an input has written is still there when the next one comes: none
// of the judgements below depends on it.
//
// The first byte chooses: bit 0, structured replies; bit 1, block status, too; bit 2, the frozen export; bit
// 3, the rest is sent as it is. Else it is a list of requests: a byte for the command, one for the flags,
// three for the offset in units of 128 bytes, two for the length, and the payload of a write, a byte that is
// repeated. All is sent at once, then the sending side is closed.
//
// Beyond not crashing: the session ends; what it sent are whole replies; and of right frames, each request
// that has a reply has exactly one, or one last chunk.
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <map>
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/log.h"
#include "nbd/wire.h"
#include "unit/nbd/harness.h"

using namespace obraz;
using namespace obraz::test;

namespace {

constexpr size_t kMaxInput = 4096, kMaxRequests = 64;
constexpr uint64_t kSize = 8 << 20;

struct Daemon {
  Daemon() { harness.add_frozen("frozen", harness.add_disk("disk", kSize)); }
  Harness harness;
};

uint64_t big(std::string_view bytes) {
  uint64_t value = 0;
  for (const char c : bytes)
    value = value << 8 | uint8_t(c);
  return value;
}

// Sends all of it, takes all that comes, until the server closes.
std::string talk(int socket, std::string_view bytes) {
  std::string answer;
  char buffer[65536];
  bool sending = true;
  for (;;) {
    pollfd ready{socket, short(POLLIN | (sending ? POLLOUT : 0)), 0};
    OBRAZ_CHECK(::poll(&ready, 1, 20'000) == 1);  // else it hangs
    if (sending && (ready.revents & (POLLOUT | POLLERR | POLLHUP))) {
      const ssize_t n = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n > 0)
        bytes.remove_prefix(size_t(n));
      if (bytes.empty() || (n < 0 && errno != EAGAIN)) {
        ::shutdown(socket, SHUT_WR);
        sending = false;
      }
    }
    const ssize_t n = ::recv(socket, buffer, sizeof buffer, MSG_DONTWAIT);
    if (n > 0)
      answer.append(buffer, size_t(n));
    else if (n == 0 || errno != EAGAIN)
      return answer;
  }
}

struct Requests {
  std::string bytes;
  std::map<uint64_t, uint32_t> reads;  // cookie → length, of those whose data a simple reply carries
  unsigned replies = 0;                // to be expected
};

Requests requests_of(const uint8_t* data, size_t size) {
  Requests out;
  uint64_t cookie = 0;
  while (size >= 7 && cookie < kMaxRequests) {
    const uint16_t command = data[0] % 10;  // two of them do not exist
    const uint64_t offset = uint64_t(data[2] | data[3] << 8 | data[4] << 16) * 128;
    const uint32_t length = data[5] | uint32_t(data[6]) << 8;
    data += 7;
    size -= 7;
    ++cookie;
    out.bytes += Client::request(command, cookie, offset, length, data[-6] % 32);
    if (command == kCmdWrite) {
      out.bytes.append(length, size > 0 ? char(*data) : 'x');
      if (size > 0)
        ++data, --size;
    }
    if (command == kCmdDisc)
      break;  // nothing is read after it
    if (command == kCmdRead)
      out.reads[cookie] = length;
    ++out.replies;
  }
  return out;
}

// Takes the replies apart; answers how many were the last of their request. Without `requests` the stream may
// have been broken by the client, and then the server hangs up in the midst of a reply.
unsigned judge(std::string_view answer, bool structured, const Requests* requests) {
  std::map<uint64_t, unsigned> last;
  const auto take = [&](size_t size) {
    OBRAZ_CHECK(size <= answer.size());
    const std::string_view taken = answer.substr(0, size);
    answer.remove_prefix(size);
    return taken;
  };
  while (!answer.empty()) {
    if (!requests && (answer.size() < nbd::kSimpleReplySize ||
                      (big(answer.substr(0, 4)) == nbd::kChunkMagic &&
                       (answer.size() < nbd::kChunkHeaderSize ||
                        answer.size() - nbd::kChunkHeaderSize < big(answer.substr(16, 4))))))
      break;
    const uint64_t magic = big(take(4));
    if (magic == nbd::kSimpleReplyMagic) {
      const uint64_t error = big(take(4)), cookie = big(take(8));
      ++last[cookie];
      if (requests) {
        const auto read = requests->reads.find(cookie);
        OBRAZ_CHECK(read == requests->reads.end() || !structured);
        if (read != requests->reads.end() && error == 0)
          take(read->second);
      }
    } else {
      OBRAZ_CHECK(magic == nbd::kChunkMagic && structured);
      const uint64_t flags = big(take(2));
      take(2);
      const uint64_t cookie = big(take(8));
      take(big(take(4)));
      if (flags & 1)
        ++last[cookie];
      OBRAZ_CHECK(flags <= 1);
    }
  }
  OBRAZ_CHECK(!requests || std::ranges::all_of(last, [](const auto& entry) { return entry.second == 1; }));
  return unsigned(last.size());
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
  static Daemon daemon;
  // The fuzzer's clock would interrupt the calls on the socket; poll() has a limit of its own.
  sigset_t clock;
  sigemptyset(&clock);
  sigaddset(&clock, SIGALRM);
  pthread_sigmask(SIG_BLOCK, &clock, nullptr);
  const unsigned choice = data[0];
  const bool structured = (choice & 3) != 0;
  Client client = daemon.harness.attach(choice & 4 ? "frozen" : "disk", choice & 2   ? Client::kStatus
                                                                        : choice & 1 ? Client::kStructured
                                                                                     : Client::kSimple);
  if (choice & 8) {
    const std::string answer = talk(client.socket(), {reinterpret_cast<const char*>(data) + 1, size - 1});
    // A simple reply to a read has no length of its own: only structured ones can be taken apart.
    if (structured)
      judge(answer, structured, nullptr);
    return 0;
  }
  const Requests requests = requests_of(data + 1, size - 1);
  const std::string answer = talk(client.socket(), requests.bytes);
  OBRAZ_CHECK(judge(answer, structured, &requests) == requests.replies);
  return 0;
}
