#include "nbd/listen.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>

#include "client.h"

namespace obraz::nbd {
namespace {

class NbdListen : public testing::Test {
 protected:
  NbdListen() {
    std::string folder = (std::filesystem::temp_directory_path() / "nbd-listen.XXXXXX").string();
    EXPECT_NE(::mkdtemp(folder.data()), nullptr);
    folder_ = folder;
    path_ = folder + "/nbd.sock";
  }
  ~NbdListen() override { std::filesystem::remove_all(folder_); }
  Answer<Listening> listen(mode_t mode = 0600) {
    return listen_unix({.path = path_, .mode = mode, .group = {}});
  }

  std::string folder_, path_;
};

TEST_F(NbdListen, TheSocketFileHasItsModeAndIsRemoved) {
  const auto first = listen();
  ASSERT_TRUE(first);
  struct stat status {};
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_TRUE(S_ISSOCK(status.st_mode));
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  test::Client::to_unix(path_);
  remove_socket_file(*first);
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(NbdListen, AGroupMayBeLetIn) {
  const auto made = listen_unix({.path = path_, .mode = 0660, .group = ::getgid()});
  ASSERT_TRUE(made);
  struct stat status {};
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0660u);
  EXPECT_EQ(status.st_gid, ::getgid());
}

TEST_F(NbdListen, AServedSocketIsNotTakenOver) {
  const auto first = listen();
  ASSERT_TRUE(first);
  const auto second = listen();
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::already_exists);
  test::Client::to_unix(path_);  // the first still serves
}

TEST_F(NbdListen, ASocketNobodyServesIsReplaced) {
  {
    const auto dead = listen();  // closed without removing the file, as a killed daemon does
    ASSERT_TRUE(dead);
  }
  ASSERT_TRUE(std::filesystem::exists(path_));
  ASSERT_TRUE(listen());
}

TEST_F(NbdListen, WhatIsNotASocketIsLeftAlone) {
  const int file = ::open(path_.c_str(), O_CREAT | O_WRONLY, 0600);
  ASSERT_EQ(::write(file, "precious", 8), 8);
  ::close(file);
  ASSERT_FALSE(listen());
  EXPECT_EQ(std::filesystem::file_size(path_), 8u);
}

TEST_F(NbdListen, AnotherSocketInOurPlaceIsNotRemoved) {
  const auto first = listen();
  ASSERT_TRUE(first);
  std::filesystem::rename(path_, path_ + ".moved");
  const auto second = listen();
  ASSERT_TRUE(second);
  remove_socket_file(*first);
  EXPECT_TRUE(std::filesystem::exists(path_));
}

TEST_F(NbdListen, BadPathsAreRefused) {
  EXPECT_EQ(listen_unix({.path = "", .group = {}}).error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(listen_unix({.path = folder_ + "/" + std::string(200, 'x'), .group = {}}).error().code,
            ErrorCode::invalid_argument);
  EXPECT_EQ(listen_unix({.path = folder_ + "/none/nbd.sock", .group = {}}).error().code,
            ErrorCode::not_found);
}

TEST_F(NbdListen, TcpTellsThePortItWasGiven) {
  const auto made = listen_tcp({"127.0.0.1", 0});
  ASSERT_TRUE(made) << made.error().message;
  ASSERT_EQ(made->size(), 1u);
  const auto parsed = parse_host_port(made->front().address);
  ASSERT_TRUE(parsed);
  EXPECT_NE(parsed->port, 0);
  const auto again = listen_tcp(*parsed);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::already_exists);
}

TEST_F(NbdListen, HostsAndPorts) {
  EXPECT_EQ(*parse_host_port("192.0.2.1:10809"), (HostPort{"192.0.2.1", 10809}));
  EXPECT_EQ(*parse_host_port("[::1]:1"), (HostPort{"::1", 1}));
  EXPECT_EQ(*parse_host_port("storage.example:65535"), (HostPort{"storage.example", 65535}));
  EXPECT_EQ(*parse_host_port(":10809"), (HostPort{"127.0.0.1", 10809}));
  EXPECT_EQ(*parse_host_port("10809"), (HostPort{"127.0.0.1", 10809}));
  for (const char* bad : {"", ":", "host:", "host", "host:x", "host:65536", "host:-1", "::1:10809", "[::1]",
                          "[::1]10809", "[::1]:", "[]:1", "[::1", "host:1:2", "host:1 "})
    EXPECT_FALSE(parse_host_port(bad)) << bad;
}

TEST_F(NbdListen, UrisAreEscaped) {
  Listening unix_socket;
  unix_socket.address = "/run/my store/nbd.sock";
  EXPECT_EQ(uri_of(unix_socket, "disk/vm 1"), "nbd+unix:///disk/vm%201?socket=/run/my%20store/nbd.sock");
  Listening tcp;
  tcp.tcp = true;
  tcp.address = "[::1]:10809";
  EXPECT_EQ(uri_of(tcp, "disk/vm?1"), "nbd://[::1]:10809/disk/vm%3F1");
}

}  // namespace
}  // namespace obraz::nbd
