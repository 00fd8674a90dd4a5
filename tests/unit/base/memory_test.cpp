#include "base/memory.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace obraz {
namespace {

struct MemoryTest : testing::Test {
  MemoryTest() { make("proc/self/cgroup", "1:name=systemd:/old\n0::/system.slice/obrazd.service\n"); }
  ~MemoryTest() override { std::filesystem::remove_all(root); }
  void make(const std::string& path, const std::string& text) {
    const std::filesystem::path file = root + "/" + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  void limit(const std::string& group, const std::string& text) {
    make("sys/fs/cgroup/" + group + "memory.max", text + "\n");
  }
  const std::string root = testing::TempDir() + "memory_test." + std::to_string(::getpid());
};

TEST_F(MemoryTest, IsTheMachinesWithoutALimit) {
  const uint64_t all = usable_memory(root);
  EXPECT_GT(all, 16u << 20);
  limit("system.slice/obrazd.service/", "max");
  EXPECT_EQ(usable_memory(root), all);
  EXPECT_EQ(usable_memory(root + "/nowhere"), all);
}

TEST_F(MemoryTest, IsTheLowestLimitOnTheWayUp) {
  limit("system.slice/obrazd.service/", "8388608");
  EXPECT_EQ(usable_memory(root), 8388608u);
  limit("system.slice/", "4194304");
  EXPECT_EQ(usable_memory(root), 4194304u);
  limit("", "1048576");
  EXPECT_EQ(usable_memory(root), 1048576u);
}

}  // namespace
}  // namespace obraz
