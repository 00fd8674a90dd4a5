#include "image/confined_child.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/landlock.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "image_support.h"

namespace obraz::test {
namespace {

bool kernel_has_landlock() {
  return ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION) >= 1;
}

struct Ended {
  int status = -1;
  std::string complaint;
};

// Runs a script in a confined shell whose descriptor 3 is `file`.
Ended run(const std::string& script, int file, bool may_open, bool may_write = false) {
  ConfinedChild::Options options;
  options.program = "sh";
  options.arguments = {"-c", script};
  options.descriptors = {file};
  if (may_open)
    options.files = {0};
  options.may_write = may_write;
  auto child = ConfinedChild::start(options);
  EXPECT_TRUE(child.has_value()) << child.error().message;
  const StopSignal stop({});
  const auto status = (*child)->wait(stop, 60);
  EXPECT_TRUE(status.has_value());
  return {status.value_or(-1), (*child)->complaint()};
}

class ConfinedChildTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string text = "content";
    write_file(work_ / "file", std::as_bytes(std::span(text)));
    file_ = OwnedFd(::open((work_ / "file").c_str(), O_RDWR | O_CLOEXEC));
  }
  WorkDirectory work_;
  OwnedFd file_;
};

TEST_F(ConfinedChildTest, ExitStatusAndComplaintAreTold) {
  const Ended ended = run("echo 'sh: it hurts\n\033[31m' >&2; exit 3", file_.get(), true);
  EXPECT_EQ(ended.status, 3);
  EXPECT_NE(ended.complaint.find("it hurts"), std::string::npos);
  EXPECT_EQ(ended.complaint.find('\033'), std::string::npos);
  EXPECT_EQ(ended.complaint.find('\n'), std::string::npos);
  EXPECT_EQ(run("kill -9 $$", file_.get(), true).status, 128 + 9);
}

TEST_F(ConfinedChildTest, EndlessComplaintIsCutOff) {
  const Ended ended = run("i=0; while [ $i -lt 2000 ]; do echo 0123456789 >&2 || exit 7; i=$((i+1)); done",
                          file_.get(), true);
  EXPECT_LE(ended.complaint.size(), 8192u);
  EXPECT_GE(ended.complaint.size(), 8000u);
}

TEST_F(ConfinedChildTest, LimitsAndPrivilegesAreSet) {
  const Ended limits = run("exec >&2; ulimit -c; ulimit -n; ulimit -d", file_.get(), true);
  EXPECT_EQ(limits.complaint, "0 64 1048576");
}

TEST_F(ConfinedChildTest, GivenFileCanBeReadAndNotWritten) {
  EXPECT_EQ(run("read text </proc/self/fd/3; [ \"$text\" = content ]", file_.get(), true).status, 0);
  const int status = run("echo x >/proc/self/fd/3", file_.get(), true).status;
  EXPECT_TRUE(status != 0 || !kernel_has_landlock());
  EXPECT_EQ(run("echo other >/proc/self/fd/3", file_.get(), true, true).status, 0);
  EXPECT_EQ(read_file(work_ / "file").size(), 6u);
}

TEST_F(ConfinedChildTest, OtherFilesAreOutOfReach) {
  if (!kernel_has_landlock())
    GTEST_SKIP() << "this kernel has no Landlock";
  EXPECT_NE(run("read x </etc/passwd", file_.get(), true).status, 0);
  EXPECT_NE(run("read x <" + (work_ / "file"), file_.get(), false).status, 0);
  EXPECT_NE(run("echo x >" + (work_ / "new"), file_.get(), true, true).status, 0);
  EXPECT_EQ(work_.entries().size(), 1u);
}

// One that lies where neither the child's user nor Landlock lets it go.
TEST_F(ConfinedChildTest, ProgramIsRunByItsPath) {
  shell(fmt::format("mkdir {0} && cp /bin/sleep {0}/program && chmod 0755 {0}/program && chmod 0700 {0}",
                    work_ / "private"));
  ConfinedChild::Options options;
  options.program = work_ / "private/program";
  options.arguments = {"0"};
  const StopSignal stop({});
  auto child = ConfinedChild::start(options);
  ASSERT_TRUE(child.has_value()) << child.error().message;
  EXPECT_EQ((*child)->wait(stop, 60).value_or(-1), 0) << (*child)->complaint();
  // One that only its owner may run is run by its owner.
  shell(fmt::format("chmod 0700 {}", options.program));
  child = ConfinedChild::start(options);
  ASSERT_TRUE(child.has_value()) << child.error().message;
  EXPECT_EQ((*child)->wait(stop, 60).value_or(-1), 0) << (*child)->complaint();
  shell(fmt::format("chmod 0600 {}", options.program));
  EXPECT_FALSE(ConfinedChild::start(options).has_value());
  options.program = work_ / "private/other";
  child = ConfinedChild::start(options);
  ASSERT_FALSE(child.has_value());
  EXPECT_EQ(child.error().code, ErrorCode::not_found);
}

TEST_F(ConfinedChildTest, LimitsMayBeNarrower) {
  ConfinedChild::Options options;
  options.program = "sh";
  options.arguments = {"-c", "exec >&2; ulimit -d; ulimit -t"};
  options.memory_bytes = limits::kLayoutMemory;
  options.cpu_seconds = 7;
  auto child = ConfinedChild::start(options);
  ASSERT_TRUE(child.has_value()) << child.error().message;
  const StopSignal stop({});
  EXPECT_TRUE((*child)->wait(stop, 60).has_value());
  EXPECT_EQ((*child)->complaint(), "131072 7");
}

TEST_F(ConfinedChildTest, WaitEndsWhenStopped) {
  ConfinedChild::Options options;
  options.program = "sleep";
  options.arguments = {"1000"};
  auto child = ConfinedChild::start(options);
  ASSERT_TRUE(child.has_value());
  std::stop_source stop;
  stop.request_stop();
  const StopSignal signal(stop.get_token());
  const auto status = (*child)->wait(signal, 60);
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, ErrorCode::cancelled);
  EXPECT_EQ(children().size(), 1u);
  child->reset();
  EXPECT_TRUE(children().empty());
}

TEST_F(ConfinedChildTest, DiesWithTheThreadThatStartedIt) {
  std::unique_ptr<ConfinedChild> child;
  std::thread([&child] {
    ConfinedChild::Options options;
    options.program = "sleep";
    options.arguments = {"1000"};
    auto started = ConfinedChild::start(options);
    ASSERT_TRUE(started.has_value());
    child = std::move(*started);
  }).join();
  const StopSignal stop({});
  const auto status = child->wait(stop, 60);
  ASSERT_TRUE(status.has_value());
  EXPECT_EQ(*status, 128 + SIGKILL);
}

}  // namespace
}  // namespace obraz::test
