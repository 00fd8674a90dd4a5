// What a reader of foreign files could do if such a file took it over. A probe, which is told what to try, is
// run in its place: the Python of the system, since no program of ours lies where it may be run from.
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "base/limits.h"
#include "image/confined_child.h"
#include "image/syscall_filter.h"
#include "image_support.h"

namespace obraz::test {
namespace {

// refused(call, arguments): the call must fail, as something that is not allowed or does not exist. A
// complaint of any other kind, or none, ends the probe with a status that is not 0.
constexpr const char* kPrelude = R"(
import ctypes, errno, fcntl, mmap, os, resource, signal, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
FILE = "/proc/self/fd/3"
def refused(call, *arguments, numbers=(errno.EPERM, errno.EACCES)):
    try:
        result = call(*arguments)
    except OSError as error:
        assert error.errno in numbers, f"{call} {arguments}: {error}"
        return
    raise AssertionError(f"allowed: {call} {arguments} = {result}")
def capabilities():
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, data) == 0
    return data[0] | data[1] | data[2] | (data[3] | data[4] | data[5]) << 32
)";

bool kernel_has_landlock() {
  return ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION) >= 1;
}

// Root in a container may lack what it takes to become another user.
bool can_become_nobody() {
  return ::geteuid() == 0 && ::prctl(PR_CAPBSET_READ, CAP_SETUID, 0, 0, 0) == 1 &&
         ::prctl(PR_CAPBSET_READ, CAP_SETGID, 0, 0, 0) == 1 &&
         ::prctl(PR_CAPBSET_READ, CAP_KILL, 0, 0, 0) == 1 &&
         ::prctl(PR_CAPBSET_READ, CAP_DAC_OVERRIDE, 0, 0, 0) == 1;
}

class Confinement : public testing::Test {
 protected:
  void SetUp() override {
    const std::string text = "content";
    write_file(work_ / "file", std::as_bytes(std::span(text)));
    ASSERT_EQ(::chmod((work_ / "file").c_str(), 0644), 0);
    reopen(O_RDONLY);
    // One that lies elsewhere could not be run.
    const char* path = std::getenv("PATH");
    path_ = path ? path : "";
    ASSERT_EQ(::setenv("PATH", "/usr/bin:/bin", 1), 0);
  }
  void TearDown() override { ASSERT_EQ(::setenv("PATH", path_.c_str(), 1), 0); }
  void reopen(int flags) { file_ = OwnedFd(::open((work_ / "file").c_str(), flags | O_CLOEXEC)); }

  // Descriptor 3 of the probe is the file, which it may open again.
  testing::AssertionResult probe(const std::string& script, bool may_write = false) {
    ConfinedChild::Options options;
    options.program = "python3";
    options.arguments = {"-I", "-S", "-B", "-c", kPrelude + script};
    options.descriptors = {file_.get()};
    options.files = {0};
    options.may_write = may_write;
    auto child = ConfinedChild::start(options);
    if (!child)
      return testing::AssertionFailure() << child.error().message;
    const StopSignal stop({});
    const auto status = (*child)->wait(stop, 60);
    if (!status || *status != 0)
      return testing::AssertionFailure() << "status " << status.value_or(-1) << ": " << (*child)->complaint();
    return testing::AssertionSuccess();
  }

  WorkDirectory work_;
  OwnedFd file_;
  std::string path_;
};

// The probe itself: what should work does, and a failure of its assertions is seen.
TEST_F(Confinement, LetsItReadItsFileAndUseThreads) {
  EXPECT_TRUE(probe(R"(
import threading
assert open(FILE).read() == "content" and os.pread(3, 100, 0) == b"content"
found = []
threads = [threading.Thread(target=found.append, args=(i,)) for i in range(8)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
assert len(found) == 8
)"));
  EXPECT_FALSE(probe("raise AssertionError()"));
  EXPECT_FALSE(probe("refused(os.getpid)"));
  EXPECT_FALSE(probe("refused(os.open, FILE, os.O_RDONLY)"));
}

TEST_F(Confinement, NoNetwork) {
  EXPECT_TRUE(probe(R"(
for family in socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK, socket.AF_PACKET, socket.AF_VSOCK:
    for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW:
        refused(socket.socket, family, kind)
refused(socket.socketpair)
)"));
}

// A socket that it has must not be able to get anywhere else either.
TEST_F(Confinement, NoConnectionByASocketItHas) {
  file_ = OwnedFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_TRUE(probe(R"(
address = (ctypes.c_uint8 * 16)(2, 0, 0, 80, 127, 0, 0, 1)
for call in libc.connect, libc.bind:
    assert call(3, address, 16) == -1 and ctypes.get_errno() == errno.EPERM, call
assert libc.listen(3, 1) == -1 and ctypes.get_errno() == errno.EPERM
)"));
}

TEST_F(Confinement, NetworkIsAnEmptyOneWhereOneMayBeMade) {
  const pid_t pid = ::fork();
  if (pid == 0)
    ::_exit(::unshare(CLONE_NEWNET) == 0 || (::geteuid() != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0)
                ? 0
                : 1);
  int status = 0;
  ASSERT_EQ(::waitpid(pid, &status, 0), pid);
  if (status != 0)
    GTEST_SKIP() << "no network namespace can be made here";
  char own[64] = {};
  ASSERT_GT(::readlink("/proc/self/ns/net", own, sizeof own - 1), 0);
  EXPECT_TRUE(probe(fmt::format("assert os.readlink('/proc/self/ns/net') != '{}'", own)));
}

TEST_F(Confinement, NoPrivilegesAndNoWayToGainAny) {
  EXPECT_TRUE(probe(R"(
PR_GET_NO_NEW_PRIVS = 39
assert libc.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1
assert capabilities() == 0, capabilities()
for call in os.setuid, os.setgid, os.seteuid, os.setegid:
    refused(call, 0)
refused(os.setgroups, [0])
CLONE_NEWUSER = 0x10000000
for name, arguments in (("unshare", (CLONE_NEWUSER,)), ("setns", (3, 0)), ("chroot", (b"/usr",)), ("personality", (0,)),
                        ("mount", (b"none", b"/usr", b"tmpfs", 0, 0)), ("ptrace", (16, os.getppid(), 0, 0))):
    assert getattr(libc, name)(*arguments) == -1 and ctypes.get_errno() == errno.EPERM, name
)"));
}

TEST_F(Confinement, RootBecomesNobody) {
  if (!can_become_nobody())
    GTEST_SKIP() << "only root can become another user";
  EXPECT_TRUE(probe(R"(
assert os.getresuid() == (65534,) * 3 and os.getresgid() == (65534,) * 3, (os.getresuid(), os.getresgid())
assert os.getgroups() == []
)"));
}

// A file that nobody may read is read all the same: by the one capability for that, and none more.
TEST_F(Confinement, RootKeepsOneCapabilityForAPrivateFile) {
  if (!can_become_nobody())
    GTEST_SKIP() << "only root can become another user";
  ASSERT_EQ(::chmod((work_ / "file").c_str(), 0600), 0);
  EXPECT_TRUE(probe(fmt::format(R"(
assert os.getuid() == 65534
assert open(FILE).read() == "content"
assert capabilities() & ~(1 << {} | 1 << {}) == 0 and capabilities().bit_count() == 1, capabilities()
)",
                                CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE)));
  reopen(O_RDWR);
  EXPECT_TRUE(probe(fmt::format(R"(
assert os.getuid() == 65534
open(FILE, "r+").write("CONTENT")
assert capabilities() == 1 << {}, capabilities()
)",
                                CAP_DAC_OVERRIDE),
                    true));
  EXPECT_EQ(read_file(work_ / "file").front(), std::byte('C'));
}

TEST_F(Confinement, FileStaysAsItIs) {
  reopen(O_RDWR);
  struct stat before {
  }, after{};
  ASSERT_EQ(::stat((work_ / "file").c_str(), &before), 0);
  EXPECT_TRUE(probe(R"(
for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_RDONLY | os.O_CREAT, os.O_WRONLY | os.O_APPEND):
    refused(os.open, FILE, flags)
refused(os.truncate, FILE, 0)
refused(os.chmod, FILE, 0o777)
refused(os.fchmod, 3, 0o777)
refused(os.chown, FILE, 0, 0)
refused(os.fchown, 3, 0, 0)
refused(os.utime, FILE, (1, 1))
refused(os.utime, 3, (1, 1))
refused(os.setxattr, 3, "user.x", b"x")
refused(os.link, FILE, "/tmp/x")
FS_IOC_SETFLAGS = 0x40086602
refused(fcntl.ioctl, 3, FS_IOC_SETFLAGS, bytes(8), numbers=(errno.ENOTTY,))
refused(fcntl.flock, 3, fcntl.LOCK_EX)
)"));
  ASSERT_EQ(::stat((work_ / "file").c_str(), &after), 0);
  EXPECT_EQ(after.st_size, before.st_size);
  EXPECT_EQ(after.st_mode, before.st_mode);
  EXPECT_EQ(after.st_mtim.tv_sec, before.st_mtim.tv_sec);
  EXPECT_EQ(after.st_ctim.tv_nsec, before.st_ctim.tv_nsec);
}

TEST_F(Confinement, NoOtherFileIsSeenOrMade) {
  if (!kernel_has_landlock())
    GTEST_SKIP() << "this kernel has no Landlock";
  const std::string other = work_ / "other";
  write_file(other, {});
  ASSERT_EQ(::chmod(other.c_str(), 0666), 0);
  ASSERT_EQ(::chmod(work_.path().c_str(), 0777), 0);
  EXPECT_TRUE(probe(fmt::format(R"(
for path in "{0}", "/etc/passwd", "/proc/self/maps", "/proc/self/mem", "/proc/%d/mem" % os.getppid(), "/dev/full", "/dev/zero":
    refused(os.open, path, os.O_RDONLY)
for path in "{1}", "/", "/etc", "/tmp", "/proc/self/fd", "/dev":
    refused(os.listdir, path)
for path in "{1}/new", "/tmp/new", "/dev/shm/new":
    refused(os.open, path, os.O_WRONLY | os.O_CREAT)
    refused(os.mkdir, path)
    refused(os.mkfifo, path)
    refused(os.symlink, "x", path)
refused(os.unlink, "{0}")
refused(os.rename, "{0}", "{0}2")
refused(os.truncate, "{0}", 1)
assert os.getcwd() == "/"
)",
                                other, work_.path())));
  EXPECT_EQ(work_.entries().size(), 2u);
}

TEST_F(Confinement, NeitherProcessesNorProgramsNorSignals) {
  EXPECT_TRUE(probe(R"(
refused(os.fork)
refused(os.execv, "/usr/bin/env", ["env"])
refused(os.execv, sys.executable, ["python3", "-c", ""])
refused(os.posix_spawn, "/usr/bin/env", ["env"], {}, numbers=(errno.EPERM, errno.ENOSYS))
for pid in os.getppid(), 1, -1, 0, -os.getppid():
    refused(os.kill, pid, 0)
refused(os.pidfd_open, os.getppid())
refused(os.setpriority, os.PRIO_PROCESS, os.getppid(), 19)
refused(os.sched_setaffinity, os.getppid(), [0])
refused(resource.prlimit, os.getppid(), resource.RLIMIT_CPU)
refused(resource.prlimit, os.getppid(), resource.RLIMIT_CPU, (1, 1))
)"));
  EXPECT_TRUE(children().empty());
}

TEST_F(Confinement, CannotOutliveItsParent) {
  EXPECT_TRUE(probe(R"(
PR_SET_PDEATHSIG, PR_GET_PDEATHSIG = 1, 2
number = ctypes.c_int(0)
assert libc.prctl(PR_GET_PDEATHSIG, ctypes.byref(number), 0, 0, 0) == 0 and number.value == signal.SIGKILL, number
assert libc.prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0) == -1 and ctypes.get_errno() == errno.EPERM
)"));
}

TEST_F(Confinement, MemoryIsLimited) {
  EXPECT_TRUE(probe(fmt::format(R"(
size = {}
try:
    bytearray(size)
    raise SystemExit("allowed: heap")
except MemoryError:
    pass
refused(mmap.mmap, -1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, numbers=(errno.ENOMEM,))
refused(mmap.mmap, -1, 1 << 20, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
refused(os.memfd_create, "x")
for name, arguments in (("shmget", (0, 4096, 0o1600)), ("msgget", (0, 0o1600)), ("semget", (0, 1, 0o1600))):
    assert getattr(libc, name)(*arguments) == -1 and ctypes.get_errno() == errno.EPERM, name
io_uring_setup = 425
assert libc.syscall(io_uring_setup, 1, (ctypes.c_uint8 * 120)()) == -1 and ctypes.get_errno() == errno.EPERM
)",
                                limits::kImportChildMemory)));
}

TEST_F(Confinement, TimeDescriptorsAndCoresAreLimited) {
  EXPECT_TRUE(probe(fmt::format(R"(
def both(kind): return resource.getrlimit(kind)
assert both(resource.RLIMIT_CPU) == ({0}, {0}), both(resource.RLIMIT_CPU)
assert both(resource.RLIMIT_CORE) == (0, 0)
assert both(resource.RLIMIT_FSIZE) == (8192, 8192)
try:
    resource.setrlimit(resource.RLIMIT_CPU, (1 << 40, 1 << 40))
    raise SystemExit("allowed: more time")
except ValueError:
    pass
opened = []
try:
    while len(opened) < 1000:
        opened.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error:
    assert error.errno == errno.EMFILE
assert len(opened) == {1} - 4, len(opened)
)",
                                limits::kImportChildCpuSeconds, limits::kImportChildFiles)));
}

TEST_F(Confinement, NoDescriptorIsInherited) {
  const OwnedFd leaked(::open("/dev/null", O_RDONLY)),
      more(::open("/dev/null", O_RDWR));  // not close-on-exec
  EXPECT_TRUE(probe(R"(
open_ones = []
for number in range(4096):
    try:
        os.fstat(number)
        open_ones.append(number)
    except OSError:
        pass
assert open_ones == [0, 1, 2, 3], open_ones
assert os.fstat(0).st_rdev == os.fstat(1).st_rdev == os.stat("/dev/null").st_rdev
assert os.environ.keys() <= {"PATH", "LC_ALL", "LC_CTYPE"}, os.environ
)"));
}

// What a program of ours keeps when it is about to look at foreign bytes: tried by a process that has given
// up the rest, and tells by its exit status which of these it still has.
TEST_F(Confinement, ParserKeepsItsDescriptorsAndMemoryOnly) {
  const OwnedFd file(::open((work_ / "file").c_str(), O_RDONLY | O_CLOEXEC));
  // Not _exit(): before that a sanitizer wants more from the kernel than there is.
  const auto leave = [](int status) { ::syscall(SYS_exit_group, status); };
  const pid_t pid = ::fork();
  if (pid == 0) {
    SyscallFilter filter = SyscallFilter::build_for_parsing();
    filter.finish(::getpid());
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || filter.install() != 0)
      leave(1);
    const auto allowed = [](long result) { return result >= 0; };
    char byte = 0;
    int number = 0;
    if (!allowed(::pread(file.get(), &byte, 1, 0)) || byte != 'c' ||
        !allowed(::lseek(file.get(), 0, SEEK_END)))
      leave(2);
    void* memory = ::mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || ::munmap(memory, 1 << 20) != 0)
      leave(3);
    const auto maps = [&](int protection, int flags, int fd) {
      return ::mmap(nullptr, 4096, protection, flags, fd, 0) != MAP_FAILED;
    };
    if (maps(PROT_READ, MAP_PRIVATE, file.get()) || maps(PROT_READ, MAP_SHARED, file.get()) ||
        maps(PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1) ||
        maps(PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1))
      leave(4);
    if (allowed(::open("/dev/null", O_RDONLY)) || allowed(::openat(AT_FDCWD, "/", O_RDONLY)) ||
        allowed(::socket(AF_UNIX, SOCK_STREAM, 0)) || allowed(::fork()) || allowed(::dup(0)) ||
        allowed(::kill(::getppid(), 0)) || allowed(::syscall(SYS_tgkill, ::getppid(), ::getppid(), 0)) ||
        allowed(::execl("/bin/true", "true", nullptr)) || allowed(::syscall(SYS_memfd_create, "x", 0)) ||
        allowed(::prctl(PR_SET_PDEATHSIG, 0)) || allowed(::ftruncate(file.get(), 0)) ||
        allowed(::ioctl(file.get(), FIONREAD, &number)) || allowed(::syscall(1000)))
      leave(5);
    leave(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0) << WEXITSTATUS(status);
}

TEST_F(Confinement, LeavesTheDaemonFitForCoreDumps) {
  ASSERT_EQ(::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), 0);
  EXPECT_TRUE(probe(""));
  EXPECT_EQ(::prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), 1);
}

}  // namespace
}  // namespace obraz::test
