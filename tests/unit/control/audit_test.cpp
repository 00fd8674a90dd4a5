// The audit log: what is in its lines, and that every end has one.
#include "control/audit.h"

#include <gtest/gtest.h>

#include <fstream>

#include "unit/control/harness.h"

namespace obraz::test {
namespace {

class AuditTest : public testing::Test {
 protected:
  std::string path = testing::TempDir() + "/obraz-audit-" + std::to_string(::getpid());
  void SetUp() override { std::filesystem::remove(path); }
  void TearDown() override { std::filesystem::remove(path); }

  std::vector<std::string> lines() const {
    std::ifstream file(path);
    std::vector<std::string> lines;
    for (std::string line; std::getline(file, line);)
      lines.push_back(line);
    return lines;
  }
  static bool has(const std::string& line, const std::string& part) {
    return line.find(part) != std::string::npos;
  }
};

TEST_F(AuditTest, AnOperationLeavesALineWhenItHasEnded) {
  Harness harness;
  const auto log = AuditLog::open(path);
  ASSERT_TRUE(log);
  harness.catalog().operations().on_finish(
      [&](const OperationState& operation) { (*log)->operation_ended(operation); });
  Caller caller = kRoot;
  caller.method = "DiskService.Create";
  v1::CreateDiskRequest request;
  request.set_name("vm1");
  request.set_size(4 * limits::MiB);
  const auto made = harness.run(harness.catalog().create_disk(caller, request));
  ASSERT_TRUE(made);
  ASSERT_EQ(lines().size(), 1u);
  const std::string line = lines()[0];
  EXPECT_TRUE(line.starts_with("{\"time\":\"2")) << line;
  EXPECT_TRUE(has(line, "\"subject\":\"user:root\"")) << line;
  EXPECT_TRUE(has(line, "\"method\":\"DiskService.Create\"")) << line;
  EXPECT_TRUE(has(line, "\"operation_id\":\"" + (*made)->message.id())) << line;
  EXPECT_TRUE(has(line, "\"description\":\"Create disk vm1\"")) << line;
  EXPECT_TRUE(has(line, "\"outcome\":\"OK\"")) << line;
  EXPECT_TRUE(line.ends_with("}"));
}

TEST_F(AuditTest, ClientsComeAndGo) {
  Harness harness;
  const auto log = AuditLog::open(path);
  harness.catalog().on_attach([&](const Entry& entry, const Attachment& attachment, bool comes) {
    (*log)->attached(entry, attachment, comes);
  });
  ASSERT_TRUE(harness.create_disk("vm1", 4 * limits::MiB));
  const auto found = harness.catalog().find_export(*kRoot.subject, "disk/vm1");
  ASSERT_TRUE(harness.catalog().attach(found->resource_id, 1, {"user:bob", "unix pid 7"}));
  harness.catalog().detach(found->resource_id, 1);
  ASSERT_EQ(lines().size(), 2u);
  EXPECT_TRUE(has(lines()[0], "\"method\":\"NBD.Attach\"")) << lines()[0];
  EXPECT_TRUE(has(lines()[0], "\"subject\":\"user:bob\"")) << lines()[0];
  EXPECT_TRUE(has(lines()[0], "\"client\":\"unix pid 7\"")) << lines()[0];
  EXPECT_TRUE(has(lines()[1], "\"method\":\"NBD.Detach\"")) << lines()[1];
}

// Whatever a caller wrote: one line, and JSON.
TEST_F(AuditTest, WhatIsRefusedLeavesALine) {
  const auto log = AuditLog::open(path);
  (*log)->refused(Subject{"user:eve", {}, false}, "DiskService.Delete",
                  Refusal{ErrorCode::permission_denied, "disk_id", "no \"quotes\"\n or lines\xc3\xa4"});
  ASSERT_EQ(lines().size(), 1u);
  EXPECT_TRUE(has(lines()[0], "\"outcome\":\"PERMISSION_DENIED\"")) << lines()[0];
  EXPECT_TRUE(has(lines()[0], "\"field\":\"disk_id\"")) << lines()[0];
  EXPECT_TRUE(has(lines()[0], "no \\\"quotes\\\"\\n or lines\xc3\xa4")) << lines()[0];
}

TEST_F(AuditTest, LinesAreAppendedAndAPathThatCannotBeOpenedIsRefused) {
  const Subject eve{"user:eve", {}, false};
  const Refusal refusal{ErrorCode::not_found, "", "no"};
  (*AuditLog::open(path))->refused(eve, "a", refusal);
  (*AuditLog::open(path))->refused(eve, "b", refusal);
  EXPECT_EQ(lines().size(), 2u);
  const auto refused = AuditLog::open("/nonexistent/audit.log");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().field, "audit-log");
}

}  // namespace
}  // namespace obraz::test
