#include "image/confined_child.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <mutex>

#include "image/landlock.h"
#include "image/syscall_filter.h"

namespace obraz {
namespace {

constexpr size_t kErrorBytes = 8192;
constexpr int kAboveTargets =
    32;  // descriptors are first moved here and above, so that no dup2 closes another's source
constexpr char kProcessIdVariable[] = "LISTEN_PID=";
constexpr size_t kProcessIdDigits = 20;
// QEMU says so because it may open nothing for writing, and takes locks of another kind.
constexpr char kNoComplaint[] = "Failed to open /dev/null for OFD lock probing: Permission denied ";
constexpr uid_t kNobody = 65534;

std::string find_program(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::string rest = path ? path : "";
  rest += ":/usr/local/bin:/usr/bin:/bin:";
  for (size_t end; (end = rest.find(':')) != rest.npos; rest.erase(0, end + 1)) {
    const std::string candidate = rest.substr(0, end) + "/" + name;
    if (candidate.front() == '/' && candidate.size() > name.size() + 1 &&
        ::access(candidate.c_str(), X_OK) == 0)
      return candidate;
  }
  return {};
}

// Standard error of the child: a memory file whose size is fixed, so that nothing has to drain it.
OwnedFd make_error_file() {
  OwnedFd fd(::memfd_create("obraz-child-stderr", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd || ::ftruncate(fd.get(), kErrorBytes) != 0 ||
      ::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) != 0)
    return {};
  return fd;
}

constexpr uint64_t bit(unsigned capability) {
  return uint64_t(1) << capability;
}

// Raw, for the C library's own calls would change all threads of the process whose memory we share.
bool get_capabilities(uint64_t& permitted) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  if (::syscall(SYS_capget, &header, data) != 0)
    return false;
  permitted = data[0].permitted | uint64_t(data[1].permitted) << 32;
  return true;
}

bool set_capabilities(uint64_t wanted) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  const auto low = uint32_t(wanted), high = uint32_t(wanted >> 32);
  const __user_cap_data_struct data[2] = {{low, low, low}, {high, high, high}};
  return ::syscall(SYS_capset, &header, data) == 0;
}

// Who the child is. Root becomes nobody, and keeps a single capability where nobody could not open the files:
// to pass over their permissions, which is of no use but for them, for Landlock lets it open no others.
struct Identity {
  bool nobody = false;
  int capability = -1;
};

// `program` is -1, or one that nobody may not be able to run.
Identity choose_identity(const std::vector<int>& files, bool may_write, int program) {
  Identity identity;
  uint64_t permitted = 0;
  if (!get_capabilities(permitted))
    return identity;
  const mode_t needed = S_IROTH | (may_write ? S_IWOTH : 0);
  const bool open_to_all = std::ranges::all_of(files, [needed](int fd) {
    struct stat status {};
    return ::fstat(fd, &status) == 0 && (status.st_mode & needed) == needed;
  });
  if (!open_to_all && !may_write && (permitted & bit(CAP_DAC_READ_SEARCH)))
    identity.capability = CAP_DAC_READ_SEARCH;
  else if (!open_to_all && (permitted & bit(CAP_DAC_OVERRIDE)))
    identity.capability = CAP_DAC_OVERRIDE;
  struct stat status {};
  if (program >= 0 && (::fstat(program, &status) != 0 || !(status.st_mode & S_IXOTH)))
    return identity;
  // One that we could not kill any more must stay what we are.
  const uint64_t to_change = bit(CAP_SETUID) | bit(CAP_SETGID) | bit(CAP_KILL);
  identity.nobody =
      ::geteuid() == 0 && (permitted & to_change) == to_change && (open_to_all || identity.capability >= 0);
  return identity;
}

// All that the child needs between vfork and exec, made before: it shares our memory and may only make system
// calls.
struct Plan {
  const char* program;
  char* const* arguments;
  char* const* environment;
  char* process_id;          // in the environment, or null
  std::vector<int> sources;  // descriptors that become 0, 1, 2, …
  int report;                // an errno is written here when the child fails; closed by exec
  int ruleset;               // or -1
  int program_fd;            // what `program` names by its number at exec, or -1
  SyscallFilter filter;
  Identity identity;
  bool may_write;
  uint64_t memory_bytes;
  unsigned cpu_seconds;
  pid_t parent;

  // Behind those that the program gets, closed by exec.
  int report_at() const { return int(sources.size()); }
  int program_at() const { return report_at() + 1; }
  int ruleset_at() const { return program_at() + 1; }
};

void write_decimal(char* at, unsigned value) {
  char digits[kProcessIdDigits];
  size_t count = 0;
  do
    digits[count++] = char('0' + value % 10);
  while ((value /= 10) != 0);
  while (count > 0)
    *at++ = digits[--count];
  *at = '\0';
}

bool limit(decltype(RLIMIT_DATA) resource, rlim_t value) {
  rlimit current{};
  ::getrlimit(resource, &current);
  const rlim_t bounded = std::min(value, current.rlim_max);
  const rlimit wanted{bounded, bounded};
  return ::setrlimit(resource, &wanted) == 0;
}

[[noreturn]] void give_up(int report, int os_error) {
  [[maybe_unused]] const auto n = ::write(report, &os_error, sizeof os_error);
  ::_exit(127);
}

// Makes `fd` the descriptor `number`, to be closed by exec.
bool move_to(int fd, int number) {
  return ::dup2(fd, number) >= 0 && ::fcntl(number, F_SETFD, FD_CLOEXEC) == 0;
}

// An empty network, not even connected to itself. Where none may be made - without privileges, a user
// namespace is the way, which some systems forbid - the filter of system calls does alone.
void leave_network(const Identity& identity) {
  if (::unshare(CLONE_NEWNET) != 0 && !identity.nobody && identity.capability < 0)
    ::unshare(CLONE_NEWUSER | CLONE_NEWNET);
}

bool take_identity(const Identity& identity) {
  if (identity.nobody) {
    if (::prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0 || ::syscall(SYS_setgroups, 0, nullptr) != 0 ||
        ::syscall(SYS_setresgid, kNobody, kNobody, kNobody) != 0 ||
        ::syscall(SYS_setresuid, kNobody, kNobody, kNobody) != 0)
      return false;
    // Until exec it shares our memory: not even another nobody may look into it.
    ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  }
  ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  const int kept = identity.capability;
  return set_capabilities(kept >= 0 ? bit(unsigned(kept)) : 0) &&
         (kept < 0 || ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, kept, 0, 0) == 0);
}

[[noreturn]] void become(Plan& plan) {
  ::setsid();
  leave_network(plan.identity);
  if (!take_identity(plan.identity))
    give_up(plan.report, errno);
  // After the change of user, which undoes it.
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || ::getppid() != plan.parent)
    give_up(plan.report, errno);
  for (size_t i = 0; i < plan.sources.size(); ++i)
    if (::dup2(plan.sources[i], int(i)) < 0)
      give_up(plan.report, errno);
  const int report = plan.report_at(), program = plan.program_at(), ruleset = plan.ruleset_at();
  if (!move_to(plan.report, report) || (plan.program_fd >= 0 && !move_to(plan.program_fd, program)) ||
      (plan.ruleset >= 0 && !move_to(plan.ruleset, ruleset)))
    give_up(plan.report, errno);
  // What is not close-on-exec anywhere in this process stays out of the child all the same.
  if (plan.program_fd < 0)
    ::close(program);
  if (plan.ruleset < 0)
    ::close(ruleset);
  ::syscall(SYS_close_range, unsigned(ruleset) + 1, ~0u, 0u);
  if (!limit(RLIMIT_CORE, 0) || !limit(RLIMIT_DATA, plan.memory_bytes) ||
      !limit(RLIMIT_STACK, 8 * limits::MiB) || !limit(RLIMIT_CPU, plan.cpu_seconds) ||
      !limit(RLIMIT_NOFILE, limits::kImportChildFiles) ||
      (!plan.may_write && !limit(RLIMIT_FSIZE, kErrorBytes)))
    give_up(report, errno);
  // Names that are not absolute lead nowhere.
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || ::chdir("/") != 0)
    give_up(report, errno);
  if (plan.ruleset >= 0) {
    const int os_error = restrict_self(ruleset);
    if (os_error != 0)
      give_up(report, os_error);
  }
  if (plan.process_id)
    write_decimal(plan.process_id, unsigned(::getpid()));
  plan.filter.finish(::getpid());
  if (const int os_error = plan.filter.install(); os_error != 0)
    give_up(report, os_error);
  // All signals stay blocked, as they were before vfork, so that no handler of ours ever runs here; to
  // SIGKILL, the only one we send, that makes no difference.
  ::execve(plan.program, plan.arguments, plan.environment);
  give_up(report, errno);
}

// vfork rather than fork: a copy of our page tables, with their pinned buffers, would stop the reactor for a
// while.
[[gnu::noinline]] pid_t start_process(Plan& plan) {
  // A child that changes its user makes the memory it shares with us unfit for core dumps and debuggers. That
  // is right until it has its own; then it is undone, before another child reads what to go back to.
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  const int dumpable = ::prctl(PR_GET_DUMPABLE, 0, 0, 0, 0);
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t pid = ::vfork();
  if (pid == 0)
    become(plan);
  const int os_error = errno;
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (dumpable == 1)
    ::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
  errno = os_error;
  return pid;
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> result;
  for (std::string& string : strings)
    result.push_back(string.data());
  result.push_back(nullptr);
  return result;
}

}  // namespace

Answer<std::unique_ptr<ConfinedChild>> ConfinedChild::start(const Options& options) {
  // One that is given by its path may lie where the child's user and Landlock would not let it go, so it is
  // opened here; it has to be a program itself, not a script.
  OwnedFd given;
  std::string program;
  if (options.program.starts_with('/')) {
    given = OwnedFd(::open(options.program.c_str(), O_PATH | O_CLOEXEC));
    if (!given)
      return refuse_os(errno, "", fmt::format("start {}", options.program));
  } else {
    program = find_program(options.program);
  }
  if (program.empty() && !given)
    return refuse(
        ErrorCode::failed_precondition, "",
        fmt::format("the program {} is not installed on the server (Debian: qemu-utils)", options.program));
  OwnedFd null(::open("/dev/null", O_RDWR | O_CLOEXEC)), errors = make_error_file();
  if (!null || !errors)
    return refuse_os(errno, "", fmt::format("start {}", options.program));

  // The child's descriptors, away from the numbers they will get.
  std::vector<OwnedFd> moved;
  std::vector<int> wanted = {null.get(), null.get(), errors.get()}, files;
  wanted.insert(wanted.end(), options.descriptors.begin(), options.descriptors.end());
  for (const size_t index : options.files)
    files.push_back(options.descriptors[index]);
  int report[2];
  if (::pipe2(report, O_CLOEXEC) != 0)
    return refuse_os(errno, "", fmt::format("start {}", options.program));
  const OwnedFd report_reader(report[0]);
  OwnedFd report_writer(report[1]);
  const OwnedFd ruleset = make_ruleset(files, options.may_write, given.get());
  const size_t own = wanted.size();  // the rest is for the way to exec only
  wanted.insert(wanted.end(), {report_writer.get(), given.get(), ruleset.get()});
  for (const int fd : wanted) {
    moved.emplace_back(fd >= 0 ? ::fcntl(fd, F_DUPFD_CLOEXEC, kAboveTargets) : -1);
    if (fd >= 0 && !moved.back())
      return refuse_os(errno, "", fmt::format("start {}", options.program));
  }
  report_writer.reset();

  std::vector<std::string> arguments = {options.program};
  arguments.insert(arguments.end(), options.arguments.begin(), options.arguments.end());
  std::vector<std::string> environment = {"PATH=/usr/bin:/bin", "LC_ALL=C"};
  if (options.listens) {
    environment.push_back("LISTEN_FDS=1");
    environment.push_back(kProcessIdVariable + std::string(kProcessIdDigits, ' '));
  }
  const auto argument_pointers = pointers(arguments), environment_pointers = pointers(environment);
  if (given)
    program = fmt::format("/proc/self/fd/{}", own + 1);
  Plan plan{
      .program = program.c_str(),
      .arguments = argument_pointers.data(),
      .environment = environment_pointers.data(),
      .process_id = options.listens ? environment.back().data() + sizeof kProcessIdVariable - 1 : nullptr,
      .sources = {},
      .report = moved[own].get(),
      .ruleset = moved[own + 2].get(),
      .program_fd = moved[own + 1].get(),
      .filter = SyscallFilter::build({.program = program.c_str(), .may_write = options.may_write}),
      .identity = choose_identity(files, options.may_write, given.get()),
      .may_write = options.may_write,
      .memory_bytes = options.memory_bytes,
      .cpu_seconds = options.cpu_seconds,
      .parent = ::getpid()};
  for (size_t i = 0; i < own; ++i)
    plan.sources.push_back(moved[i].get());

  const pid_t pid = start_process(plan);
  if (pid < 0)
    return refuse_os(errno, "", fmt::format("start {}", options.program));
  moved.clear();
  // Ends when the child has become the program, or has told why not.
  int os_error = 0;
  while (::read(report_reader.get(), &os_error, sizeof os_error) < 0 && errno == EINTR) {
  }
  OwnedFd process(int(::syscall(SYS_pidfd_open, pid, 0)));
  if (os_error == 0 && !process)
    os_error = errno;
  std::unique_ptr<ConfinedChild> child(
      new ConfinedChild(options.program, pid, std::move(process), std::move(errors)));
  if (os_error != 0)
    return refuse_os(os_error, "", fmt::format("start {}", options.program));
  return child;
}

ConfinedChild::ConfinedChild(std::string program, pid_t pid, OwnedFd process, OwnedFd standard_error)
    : program_(std::move(program)),
      pid_(pid),
      process_(std::move(process)),
      standard_error_(std::move(standard_error)) {}

ConfinedChild::~ConfinedChild() {
  if (status_ >= 0)
    return;
  ::kill(pid_, SIGKILL);
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

Answer<int> ConfinedChild::wait(const StopSignal& stop, unsigned timeout_seconds) {
  if (status_ >= 0)
    return status_;
  pollfd wanted[] = {{process_.get(), POLLIN, 0}, {stop.fd(), POLLIN, 0}};
  int ready;
  do
    ready = ::poll(wanted, 2, int(timeout_seconds) * 1000);
  while (ready < 0 && errno == EINTR);
  if (ready < 0)
    return refuse_os(errno, "", fmt::format("wait for {}", program_));
  if (wanted[0].revents == 0 && stop.requested())
    return refuse_cancelled();
  if (wanted[0].revents == 0)
    return refuse(ErrorCode::io, "",
                  fmt::format("{} did not end within {} seconds", program_, timeout_seconds));
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0)
    if (errno != EINTR)
      return refuse_os(errno, "", fmt::format("wait for {}", program_));
  status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return status_;
}

std::string ConfinedChild::complaint() const {
  std::string text(kErrorBytes, '\0');
  const ssize_t n = ::pread(standard_error_.get(), text.data(), text.size(), 0);
  text.resize(n > 0 ? size_t(n) : 0);
  text.resize(std::min(text.find('\0'), text.size()));
  for (char& c : text)
    if (uint8_t(c) < 0x20 || uint8_t(c) > 0x7e)
      c = ' ';
  for (const std::string& noise : {program_ + ": ", std::string(kNoComplaint)})
    for (size_t at; (at = text.find(noise)) != text.npos;)
      text.erase(at, noise.size());
  while (!text.empty() && text.back() == ' ')
    text.pop_back();
  return text;
}

}  // namespace obraz
