// An NBD client of bytes and blocking calls, written from the protocol and not from daemon/nbd/wire.h, so
// that a wrong constant there is found here. Every call has a deadline far beyond what it needs: a server
// that does not answer fails the test instead of hanging it. Thread: the test's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace obraz::test {

// Big-endian integers, as strings to be joined.
std::string be16(uint16_t value);
std::string be32(uint32_t value);
std::string be64(uint64_t value);
uint64_t from_be(std::string_view bytes);
// "length, bytes", as the protocol writes strings.
std::string counted(std::string_view text);

enum : uint32_t {
  kOptExportName = 1,
  kOptAbort = 2,
  kOptList = 3,
  kOptStartTls = 5,
  kOptInfo = 6,
  kOptGo = 7,
  kOptStructured = 8,
  kOptListMeta = 9,
  kOptSetMeta = 10,
  kOptExtended = 11
};
enum : uint32_t {
  kRepAck = 1,
  kRepServer = 2,
  kRepInfo = 3,
  kRepMeta = 4,
  kRepUnsupported = 0x80000001,
  kRepPolicy = 0x80000002,
  kRepInvalid = 0x80000003,
  kRepUnknown = 0x80000006,
  kRepShutdown = 0x80000007,
  kRepTooBig = 0x80000009
};
enum : uint16_t { kCmdRead, kCmdWrite, kCmdDisc, kCmdFlush, kCmdTrim, kCmdCache, kCmdZeroes, kCmdStatus };
enum : uint16_t { kFlagFua = 1, kFlagNoHole = 2, kFlagDf = 4, kFlagReqOne = 8, kFlagFastZero = 16 };
enum : uint32_t { kEperm = 1, kEio = 5, kEinval = 22, kEnospc = 28, kEshutdown = 108 };

struct OptionAnswer {
  uint32_t option = 0, type = 0;
  std::string data;
};
struct SimpleReply {
  uint32_t error = ~0u;
  uint64_t cookie = 0;
};
struct ReplyChunk {
  uint16_t flags = 0, type = 0xffff;
  uint64_t cookie = 0;
  std::string data;
};

class Client {
 public:
  explicit Client(int socket);
  static Client to_unix(const std::string& path);
  static Client to_tcp(uint16_t port);         // at 127.0.0.1
  bool connect_unix(const std::string& path);  // of a socket that is not connected yet
  Client(Client&& other) noexcept;
  ~Client();

  // --- bytes --------------------------------------------------------------------------------------------
  void send(std::string_view bytes);
  // Whether the peer took them; for tests in which it may hang up.
  bool try_send(std::string_view bytes);
  std::string receive(size_t size);  // exactly; fails the test otherwise
  bool at_end();                     // waits for the end of the stream; false when bytes come instead
  std::string receive_all();         // until the end
  void close_sending();
  void close();
  int socket() const { return socket_; }

  // --- handshake ----------------------------------------------------------------------------------------
  void greet(uint32_t flags = 3);  // reads the server's greeting, answers with the flags
  void option(uint32_t option, std::string_view data = {});
  OptionAnswer answer();
  // All answers to one option, the last included.
  std::vector<OptionAnswer> answers();
  uint32_t ask(uint32_t number, std::string_view data = {});  // the type of the last answer
  struct Go {
    uint64_t size = 0;
    uint16_t flags = 0;
  };
  enum Features : unsigned { kSimple = 0, kStructured = 1, kStatus = 3 };
  // The whole handshake; nothing when the export is refused.
  std::optional<Go> attach(const std::string& name, unsigned features = kSimple);

  // --- transmission -------------------------------------------------------------------------------------
  static std::string request(uint16_t command, uint64_t cookie, uint64_t offset, uint32_t length,
                             uint16_t flags = 0);
  SimpleReply simple_reply();
  ReplyChunk chunk();
  // Sends one request and waits for its reply; the error, from whichever kind of reply.
  uint32_t call(uint16_t command, uint64_t offset, uint32_t length, uint16_t flags = 0,
                std::string_view payload = {});
  uint32_t write(uint64_t offset, std::string_view bytes, uint16_t flags = 0) {
    return call(kCmdWrite, offset, uint32_t(bytes.size()), flags, bytes);
  }
  // The bytes, whatever chunks they come in; structured and simple alike. Empty when refused.
  std::string read(uint64_t offset, uint32_t length, uint16_t flags = 0);
  std::vector<ReplyChunk> read_chunks(uint64_t offset, uint32_t length, uint16_t flags = 0);
  struct Status {
    uint32_t length, flags;
    friend bool operator==(const Status&, const Status&) = default;
  };
  std::vector<Status> block_status(uint64_t offset, uint32_t length, uint16_t flags = 0);

 private:
  int socket_ = -1;
  bool structured_ = false;
  uint64_t cookie_ = 0x1122334455667788;
};

// Bytes that tell where they belong: every 8 of them name their own place and the seed.
std::string pattern(uint64_t offset, size_t length, uint64_t seed = 1);

}  // namespace obraz::test
