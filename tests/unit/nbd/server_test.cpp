#include "nbd/server.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "harness.h"

namespace obraz::nbd {
namespace {

using test::be16;
using test::be32;
using test::Client;
using test::counted;
using test::eventually;
using test::Harness;
using test::pattern;

TEST(NbdServer, ManyExportsOnOneSocket) {
  Harness server;
  server.add_disk("a");
  server.add_disk("b", 8 << 20);
  Client a = server.connect(), b = server.connect();
  EXPECT_EQ(a.attach("a")->size, 64u << 20);
  EXPECT_EQ(b.attach("b")->size, 8u << 20);
  ASSERT_EQ(a.write(0, pattern(0, 4096, 1)), 0u);
  ASSERT_EQ(b.write(0, pattern(0, 4096, 2)), 0u);
  EXPECT_EQ(a.read(0, 4096), pattern(0, 4096, 1));
  EXPECT_EQ(b.read(0, 4096), pattern(0, 4096, 2));
}

TEST(NbdServer, ManyClientsOfOneExportSeeEachOthersWrites) {
  Harness server;
  server.add_disk("a");
  Client one = server.connect(), two = server.connect();
  const auto go = one.attach("a");
  ASSERT_TRUE(go && two.attach("a"));
  EXPECT_TRUE(go->flags & 0x100);  // multi-conn
  ASSERT_EQ(one.write(4096, pattern(4096, 4096)), 0u);
  EXPECT_EQ(two.read(4096, 4096), pattern(4096, 4096));
  EXPECT_EQ(two.call(test::kCmdFlush, 0, 0), 0u);
}

TEST(NbdServer, RequestsSentWithTheLastOptionAreServed) {
  Harness server;
  server.add_disk("a");
  Client client = server.connect();
  client.receive(18);
  const std::string go = counted("a") + be16(0);
  client.send(be32(3) + "IHAVEOPT" + be32(7) + be32(uint32_t(go.size())) + go +
              Client::request(test::kCmdWrite, 5, 0, 5000) + pattern(0, 5000));
  client.answers();
  EXPECT_EQ(client.simple_reply().cookie, 5u);
  EXPECT_EQ(client.read(0, 5000), pattern(0, 5000));
}

TEST(NbdServer, TcpIsServedLikeUnix) {
  Harness server({.tcp = true});
  server.add_disk("a");
  Client client = Client::to_tcp(server.tcp_port());
  ASSERT_TRUE(client.attach("a", Client::kStructured));
  ASSERT_EQ(client.write(100, pattern(100, 1 << 20)), 0u);
  EXPECT_EQ(client.read(100, 1 << 20), pattern(100, 1 << 20));
  EXPECT_TRUE(server.sessions().front().peer.starts_with("127.0.0.1:"));
}

TEST(NbdServer, ClientsBeyondTheLimitAreTurnedAwayAndPlacesComeBack) {
  Harness server({.max_sessions = 2});
  server.add_disk("a");
  Client one = server.attach("a");
  {
    Client two = server.connect();  // a handshake counts as well
    two.receive(18);
    EXPECT_TRUE(server.connect().at_end());
    EXPECT_EQ(server.stats().turned_away, 1u);
  }
  EXPECT_TRUE(eventually([&] { return server.stats().clients == 1; }));
  Client three = server.attach("a");
  EXPECT_EQ(three.call(test::kCmdFlush, 0, 0), 0u);
  EXPECT_EQ(one.call(test::kCmdFlush, 0, 0), 0u);
}

TEST(NbdServer, AHandshakeHasADeadline) {
  Harness server({.handshake_ms = 50});
  server.add_disk("a");
  Client silent = server.connect();
  silent.receive(18);
  EXPECT_TRUE(silent.at_end());
  Client slow = server.connect();
  slow.greet();
  slow.send("IHAVE");
  EXPECT_TRUE(slow.at_end());
  EXPECT_TRUE(eventually([&] { return server.stats().clients == 0; }));
  EXPECT_EQ(server.stats().handshakes_failed, 2u);
}

TEST(NbdServer, ASessionHasNone) {
  Harness server({.handshake_ms = 50});
  server.add_disk("a");
  Client client = server.attach("a");
  Client silent = server.connect();
  silent.receive(18);
  EXPECT_TRUE(silent.at_end());  // its deadline has passed, and so has that of the other's handshake
  EXPECT_EQ(client.call(test::kCmdFlush, 0, 0), 0u);
}

TEST(NbdServer, StopBreaksOffHandshakesAndRemovesTheSocket) {
  Harness server;
  server.add_disk("a");
  Client silent = server.connect(), session = server.attach("a");
  silent.receive(18);
  ASSERT_EQ(session.call(test::kCmdFlush, 0, 0), 0u);  // it has been handed over
  server.stop_server();
  EXPECT_TRUE(silent.at_end());
  EXPECT_FALSE(std::filesystem::exists(server.path()));
  EXPECT_EQ(session.call(test::kCmdFlush, 0, 0), 0u);  // sessions are not its business
}

TEST(NbdServer, EveryRefusedHandshakeIsDetached) {
  Harness server;
  server.add_disk("a");
  for (unsigned i = 0; i < 20; ++i) {
    Client client = server.connect();
    client.greet();
    client.option(test::kOptGo, counted("a") + be16(0));
    client.close();  // before, during or after the answer
  }
  EXPECT_TRUE(eventually([&] {
    const Server::Stats stats = server.stats();
    return stats.accepted == 20 && stats.clients == 0;
  }));
  EXPECT_EQ(server.source.attached("a"), 0u);
}

TEST(NbdServer, RunningOutOfDescriptorsIsSurvived) {
  Harness server;
  server.add_disk("a");
  rlimit old{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &old), 0);
  Client client(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  // The lowest free descriptor is beyond the limit from here on.
  const int lowest = ::fcntl(client.socket(), F_DUPFD_CLOEXEC, 0);
  ::close(lowest);
  rlimit tight = old;
  tight.rlim_cur = rlim_t(lowest);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &tight), 0) << std::strerror(errno);
  ASSERT_EQ(::fcntl(client.socket(), F_DUPFD_CLOEXEC, 0), -1) << "the limit does not bind";
  ASSERT_TRUE(client.connect_unix(server.path())) << std::strerror(errno);
  EXPECT_TRUE(eventually([&] { return server.stats().accept_errors > 0; }));
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &old), 0) << std::strerror(errno);
  EXPECT_TRUE(client.attach("a"));
}

}  // namespace
}  // namespace obraz::nbd
