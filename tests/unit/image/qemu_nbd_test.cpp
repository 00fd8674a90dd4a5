// The second line of defence: what the reader would do with a file that nobody inspected.
#include "image/qemu_nbd.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/landlock.h>
#include <sys/inotify.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/limits.h"
#include "image_support.h"

namespace obraz::test {
namespace {

using limits::MiB;

// Whether a file is opened from now on.
class OpenWatch {
 public:
  explicit OpenWatch(const std::string& path) : fd_(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {
    EXPECT_GE(::inotify_add_watch(fd_.get(), path.c_str(), IN_OPEN), 0);
  }
  bool saw_one() const {
    char event[4096];
    return ::read(fd_.get(), event, sizeof event) > 0;
  }

 private:
  OwnedFd fd_;
};

Answer<ServedFile> serve(const std::string& path, ImageFormat format) {
  const OwnedFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  const StopSignal stop({});
  return serve_file(fd.get(), {.format = format}, stop);
}

TEST(ServeFile, BackingFileIsNotOpened) {
  const WorkDirectory work;
  make_raw_disk(work / "other", 4 * MiB);
  for (const char* format : {"qcow2", "vmdk"}) {
    shell(fmt::format("qemu-img create -q -f {} {} 4M", format, work / "base"));
    shell(fmt::format("qemu-img create -q -f {0} -F {0} -b {1} {2}", format, work / "base", work / "image"));
    const OpenWatch watch(work / "base");
    const auto served = serve(work / "image", parse_image_format(format).value());
    EXPECT_TRUE(served.has_value()) << served.error().message;
    EXPECT_FALSE(watch.saw_one()) << format;
    read_file(work / "base");
    EXPECT_TRUE(watch.saw_one()) << "the watch sees nothing";
  }
}

TEST(ServeFile, ExternalDataFileIsOutOfReach) {
  if (::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION) < 1)
    GTEST_SKIP() << "this kernel has no Landlock";
  const WorkDirectory work;
  shell(fmt::format("qemu-img create -q -f qcow2 -o data_file={} {} 4M", work / "data", work / "image"));
  const OpenWatch watch(work / "data");
  const auto served = serve(work / "image", ImageFormat::qcow2);
  ASSERT_FALSE(served.has_value());
  EXPECT_TRUE(refused(served.error(), ErrorCode::invalid_argument, "qemu-nbd cannot open the qcow2 image"));
  EXPECT_FALSE(watch.saw_one());
  EXPECT_TRUE(children().empty());
}

TEST(ServeFile, ExtentsOfADescriptorAreOutOfReach) {
  if (::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION) < 1)
    GTEST_SKIP() << "this kernel has no Landlock";
  const WorkDirectory work;
  shell(fmt::format("qemu-img create -q -f vmdk -o subformat=monolithicFlat {} 4M", work / "image.vmdk"));
  const OpenWatch watch(work / "image-flat.vmdk");
  EXPECT_FALSE(serve(work / "image.vmdk", ImageFormat::vmdk).has_value());
  EXPECT_FALSE(watch.saw_one());
}

TEST(ServeFile, NothingStaysInTheTemporaryDirectory) {
  const WorkDirectory work;
  const char* before = std::getenv("TMPDIR");
  const std::string kept = before ? before : "";
  shell(fmt::format("mkdir {0} && qemu-img create -q -f qcow2 {1} 4M", work / "tmp", work / "image"));
  ASSERT_EQ(::setenv("TMPDIR", (work / "tmp").c_str(), 1), 0);
  const auto served = serve(work / "image", ImageFormat::qcow2);
  ASSERT_EQ(before ? ::setenv("TMPDIR", kept.c_str(), 1) : ::unsetenv("TMPDIR"), 0);
  ASSERT_TRUE(served.has_value()) << served.error().message;
  EXPECT_EQ(served->client->size_bytes(), 4 * MiB);
  shell(fmt::format("rmdir {}", work / "tmp"));  // it is empty, while the reader is at work
}

}  // namespace
}  // namespace obraz::test
