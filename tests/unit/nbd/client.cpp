#include "client.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace obraz::test {
namespace {

constexpr time_t kDeadlineSeconds = 30;

}  // namespace

std::string be64(uint64_t value) {
  std::string bytes(8, '\0');
  for (int i = 7; i >= 0; --i, value >>= 8)
    bytes[size_t(i)] = char(value & 0xff);
  return bytes;
}
std::string be32(uint32_t value) {
  return be64(value).substr(4);
}
std::string be16(uint16_t value) {
  return be64(value).substr(6);
}

uint64_t from_be(std::string_view bytes) {
  uint64_t value = 0;
  for (const char c : bytes)
    value = value << 8 | uint8_t(c);
  return value;
}

std::string counted(std::string_view text) {
  return be32(uint32_t(text.size())) + std::string(text);
}

Client::Client(int socket) : socket_(socket) {
  const timeval deadline{kDeadlineSeconds, 0};
  ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof deadline);
  ::setsockopt(socket_, SOL_SOCKET, SO_SNDTIMEO, &deadline, sizeof deadline);
}

bool Client::connect_unix(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  return ::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

Client Client::to_unix(const std::string& path) {
  Client client(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_TRUE(client.connect_unix(path)) << std::strerror(errno);
  return client;
}

Client Client::to_tcp(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  EXPECT_EQ(::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0)
      << std::strerror(errno);
  return Client(socket);
}

Client::Client(Client&& other) noexcept
    : socket_(std::exchange(other.socket_, -1)), structured_(other.structured_), cookie_(other.cookie_) {}

Client::~Client() {
  close();
}

void Client::close() {
  if (socket_ >= 0)
    ::close(std::exchange(socket_, -1));
}

void Client::close_sending() {
  ::shutdown(socket_, SHUT_WR);
}

bool Client::try_send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0)
      return false;
    bytes.remove_prefix(size_t(n));
  }
  return true;
}

void Client::send(std::string_view bytes) {
  EXPECT_TRUE(try_send(bytes)) << std::strerror(errno);
}

std::string Client::receive(size_t size) {
  std::string bytes(size, '\0');
  size_t have = 0;
  while (have < size) {
    const ssize_t n = ::recv(socket_, bytes.data() + have, size - have, 0);
    if (n <= 0) {
      ADD_FAILURE() << "wanted " << size << " bytes, have " << have << ": "
                    << (n == 0 ? "end of stream" : std::strerror(errno));
      return bytes;
    }
    have += size_t(n);
  }
  return bytes;
}

bool Client::at_end() {
  char byte;
  const ssize_t n = ::recv(socket_, &byte, 1, 0);
  // A socket closed with unread bytes in it resets the connection.
  return n == 0 || (n < 0 && errno == ECONNRESET);
}

std::string Client::receive_all() {
  std::string bytes;
  char piece[65536];
  for (;;) {
    const ssize_t n = ::recv(socket_, piece, sizeof piece, 0);
    if (n < 0) {
      EXPECT_EQ(errno, ECONNRESET) << std::strerror(errno);
    }
    if (n <= 0)
      return bytes;
    bytes.append(piece, size_t(n));
  }
}

// --- handshake ------------------------------------------------------------------------------------------

void Client::greet(uint32_t flags) {
  const std::string hello = receive(18);
  EXPECT_EQ(hello.substr(0, 16), "NBDMAGICIHAVEOPT");
  EXPECT_EQ(from_be(hello.substr(16)), 3u);  // fixed newstyle, no zeroes
  send(be32(flags));
}

void Client::option(uint32_t option, std::string_view data) {
  send("IHAVEOPT" + be32(option) + be32(uint32_t(data.size())) + std::string(data));
}

OptionAnswer Client::answer() {
  const std::string header = receive(20);
  EXPECT_EQ(from_be(header.substr(0, 8)), 0x3e889045565a9u);
  OptionAnswer answer;
  answer.option = uint32_t(from_be(header.substr(8, 4)));
  answer.type = uint32_t(from_be(header.substr(12, 4)));
  answer.data = receive(from_be(header.substr(16, 4)));
  return answer;
}

std::vector<OptionAnswer> Client::answers() {
  std::vector<OptionAnswer> all;
  do
    all.push_back(answer());
  while (all.back().type != kRepAck && all.back().type < 0x80000000 && all.back().type != 0);
  return all;
}

uint32_t Client::ask(uint32_t number, std::string_view data) {
  option(number, data);
  const OptionAnswer last = answers().back();
  EXPECT_EQ(last.option, number);
  return last.type;
}

std::optional<Client::Go> Client::attach(const std::string& name, unsigned features) {
  greet();
  if (features & kStructured) {
    EXPECT_EQ(ask(kOptStructured), kRepAck);
    structured_ = true;
  }
  if (features == kStatus) {
    EXPECT_EQ(ask(kOptSetMeta, counted(name) + be32(1) + counted("base:allocation")), kRepAck);
  }
  option(kOptGo, counted(name) + be16(0));
  const std::vector<OptionAnswer> all = answers();
  if (all.back().type != kRepAck)
    return std::nullopt;
  EXPECT_EQ(all.front().type, kRepInfo);
  EXPECT_EQ(all.front().data.size(), 12u);
  return Go{from_be(std::string_view(all.front().data).substr(2, 8)),
            uint16_t(from_be(std::string_view(all.front().data).substr(10)))};
}

// --- transmission ---------------------------------------------------------------------------------------

std::string Client::request(uint16_t command, uint64_t cookie, uint64_t offset, uint32_t length,
                            uint16_t flags) {
  return be32(0x25609513) + be16(flags) + be16(command) + be64(cookie) + be64(offset) + be32(length);
}

SimpleReply Client::simple_reply() {
  const std::string bytes = receive(16);
  EXPECT_EQ(from_be(bytes.substr(0, 4)), 0x67446698u);
  return {uint32_t(from_be(bytes.substr(4, 4))), from_be(bytes.substr(8))};
}

ReplyChunk Client::chunk() {
  const std::string bytes = receive(20);
  EXPECT_EQ(from_be(bytes.substr(0, 4)), 0x668e33efu);
  ReplyChunk chunk;
  chunk.flags = uint16_t(from_be(bytes.substr(4, 2)));
  chunk.type = uint16_t(from_be(bytes.substr(6, 2)));
  chunk.cookie = from_be(bytes.substr(8, 8));
  chunk.data = receive(from_be(bytes.substr(16)));
  return chunk;
}

uint32_t Client::call(uint16_t command, uint64_t offset, uint32_t length, uint16_t flags,
                      std::string_view payload) {
  send(request(command, ++cookie_, offset, length, flags));
  send(payload);
  std::string magic(4, '\0');
  EXPECT_EQ(::recv(socket_, magic.data(), 4, MSG_PEEK | MSG_WAITALL), 4);
  if (from_be(magic) == 0x668e33ef) {
    const ReplyChunk reply = chunk();
    EXPECT_EQ(reply.cookie, cookie_);
    EXPECT_EQ(reply.flags, 1u);
    EXPECT_EQ(reply.type, 0x8001u);
    EXPECT_EQ(from_be(reply.data.substr(4, 2)), reply.data.size() - 6);
    return uint32_t(from_be(reply.data.substr(0, 4)));
  }
  const SimpleReply reply = simple_reply();
  EXPECT_EQ(reply.cookie, cookie_);
  return reply.error;
}

std::vector<ReplyChunk> Client::read_chunks(uint64_t offset, uint32_t length, uint16_t flags) {
  send(request(kCmdRead, ++cookie_, offset, length, flags));
  std::vector<ReplyChunk> all;
  do {
    all.push_back(chunk());
    EXPECT_EQ(all.back().cookie, cookie_);
  } while (!(all.back().flags & 1) && all.back().type != 0xffff && !testing::Test::HasFailure());
  return all;
}

std::string Client::read(uint64_t offset, uint32_t length, uint16_t flags) {
  if (!structured_) {
    send(request(kCmdRead, ++cookie_, offset, length, flags));
    const SimpleReply reply = simple_reply();
    EXPECT_EQ(reply.cookie, cookie_);
    return reply.error == 0 ? receive(length) : std::string();
  }
  std::string bytes;
  for (const ReplyChunk& chunk : read_chunks(offset, length, flags)) {
    const std::string_view data(chunk.data);
    if (chunk.type == 0 || chunk.type == 0x8001)
      return {};
    // Ours come in order and cover the request exactly.
    EXPECT_EQ(from_be(data.substr(0, 8)), offset + bytes.size());
    if (chunk.type == 1)
      bytes += data.substr(8);
    else
      bytes.append(from_be(data.substr(8)), '\0');
  }
  EXPECT_EQ(bytes.size(), length);
  return bytes;
}

std::vector<Client::Status> Client::block_status(uint64_t offset, uint32_t length, uint16_t flags) {
  send(request(kCmdStatus, ++cookie_, offset, length, flags));
  const ReplyChunk reply = chunk();
  EXPECT_EQ(reply.cookie, cookie_);
  EXPECT_EQ(reply.type, 5u);
  EXPECT_EQ(reply.flags, 1u);
  EXPECT_EQ(from_be(reply.data.substr(0, 4)), 1u);
  std::vector<Status> all;
  for (size_t at = 4; at + 8 <= reply.data.size(); at += 8)
    all.push_back(
        {uint32_t(from_be(reply.data.substr(at, 4))), uint32_t(from_be(reply.data.substr(at + 4, 4)))});
  return all;
}

std::string pattern(uint64_t offset, size_t length, uint64_t seed) {
  std::string bytes(length, '\0');
  for (size_t i = 0; i < length; ++i) {
    const uint64_t word = ((offset + i) / 8 + 1) * 0x9e3779b97f4a7c15ull + seed;
    bytes[i] = char(word >> (offset + i) % 8 * 8 & 0xff);
  }
  return bytes;
}

}  // namespace obraz::test
