#include "base/file_identity.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <latch>
#include <thread>

namespace obraz {
namespace {

constexpr uid_t kUser = 42001;
constexpr gid_t kGroup = 42002, kOther = 42003;

class FileIdentityTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!can_act_for_others())
      GTEST_SKIP() << "needs root";
    folder_ = testing::TempDir() + "obraz-identity-XXXXXX";
    ASSERT_NE(::mkdtemp(folder_.data()), nullptr);
    ASSERT_EQ(::chmod(folder_.c_str(), 0755), 0);
  }
  void TearDown() override {
    if (!folder_.empty())
      std::filesystem::remove_all(folder_);
  }
  std::string file(const std::string& name, uid_t uid, gid_t gid, mode_t mode) {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path) << "x";
    EXPECT_EQ(::chown(path.c_str(), uid, gid), 0);
    EXPECT_EQ(::chmod(path.c_str(), mode), 0);
    return path;
  }
  // 0, or the errno.
  static int opening(const ActingAs& acting, const std::string& path) {
    const int fd = acting.open(path, O_RDONLY);
    const int error = fd < 0 ? errno : 0;
    if (fd >= 0)
      ::close(fd);
    return error;
  }

  std::string folder_;
  const FileIdentityRef user_ =
      std::make_shared<const FileIdentity>(FileIdentity{kUser, kGroup, {kGroup, kOther}});
};

TEST_F(FileIdentityTest, HasTheRightsOfTheUserAndItsGroups) {
  const std::string root = file("root", 0, 0, 0600), own = file("own", kUser, 0, 0600),
                    groups = file("groups", 0, kOther, 0640), everybodys = file("everybodys", 0, 0, 0644);
  std::latch acting_now(1);
  std::thread other([&] {  // goes on as it was
    acting_now.wait();
    EXPECT_EQ(opening(ActingAs(nullptr), root), 0);
  });
  {
    const ActingAs acting(user_);
    EXPECT_EQ(opening(acting, root), EACCES);
    EXPECT_EQ(opening(acting, own), 0);
    EXPECT_EQ(opening(acting, groups), 0);
    EXPECT_EQ(opening(acting, everybodys), 0);
    // What is made is the user's.
    const int made = ::open((own + ".new").c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    EXPECT_EQ(made, -1);  // the folder is root's
    acting_now.count_down();
    other.join();
  }
  EXPECT_EQ(opening(ActingAs(nullptr), root), 0);
  struct stat status {};
  ASSERT_EQ(::stat(file("after", 0, 0, 0600).c_str(), &status), 0);
  EXPECT_EQ(status.st_uid, 0u);
}

TEST_F(FileIdentityTest, WhatTheDaemonHasOpenIsNoFileOfAnybody) {
  const int held = ::open(file("held", 0, 0, 0644).c_str(), O_RDONLY | O_CLOEXEC);
  const ActingAs acting(user_);
  EXPECT_EQ(opening(acting, "/proc/self/fd/" + std::to_string(held)), ELOOP);
  EXPECT_EQ(opening(acting, "/dev/fd/" + std::to_string(held)), ELOOP);
  EXPECT_EQ(opening(acting, "/proc/self/exe"), ELOOP);
  ::close(held);
}

}  // namespace
}  // namespace obraz
