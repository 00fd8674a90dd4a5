#include "image/confined_child.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "base/limits.h"
#include "image/landlock.h"

namespace obraz {
namespace {

constexpr size_t kErrorBytes = 8192;
constexpr int kAboveTargets =
    32;  // descriptors are first moved here and above, so that no dup2 closes another's source
constexpr char kProcessIdVariable[] = "LISTEN_PID=";
constexpr size_t kProcessIdDigits = 20;

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
  bool may_write;
  pid_t parent;
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

[[noreturn]] void become(const Plan& plan) {
  ::setsid();
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || ::getppid() != plan.parent)
    give_up(plan.report, errno);
  for (size_t i = 0; i < plan.sources.size(); ++i)
    if (::dup2(plan.sources[i], int(i)) < 0)
      give_up(plan.report, errno);
  const int report = int(plan.sources.size()), ruleset = report + 1;
  if (!move_to(plan.report, report) || (plan.ruleset >= 0 && !move_to(plan.ruleset, ruleset)))
    give_up(plan.report, errno);
  // What is not close-on-exec anywhere in this process stays out of the child all the same.
  ::syscall(SYS_close_range, unsigned(plan.ruleset >= 0 ? ruleset : report) + 1, ~0u, 0u);
  if (!limit(RLIMIT_CORE, 0) || !limit(RLIMIT_DATA, limits::kImportChildMemory) ||
      !limit(RLIMIT_STACK, 8 * limits::MiB) || !limit(RLIMIT_CPU, limits::kImportChildCpuSeconds) ||
      !limit(RLIMIT_NOFILE, limits::kImportChildFiles) ||
      (!plan.may_write && !limit(RLIMIT_FSIZE, kErrorBytes)))
    give_up(report, errno);
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    give_up(report, errno);
  if (plan.ruleset >= 0) {
    const int os_error = restrict_self(ruleset);
    if (os_error != 0)
      give_up(report, os_error);
  }
  if (plan.process_id)
    write_decimal(plan.process_id, unsigned(::getpid()));
  // All signals stay blocked, as they were before vfork, so that no handler of ours ever runs here; to
  // SIGKILL, the only one we send, that makes no difference.
  ::execve(plan.program, plan.arguments, plan.environment);
  give_up(report, errno);
}

// vfork rather than fork: a copy of our page tables, with their pinned buffers, would stop the reactor for a
// while.
[[gnu::noinline]] pid_t start_process(const Plan& plan) {
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t pid = ::vfork();
  if (pid == 0)
    become(plan);
  const int os_error = errno;
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
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
  const std::string program = find_program(options.program);
  if (program.empty())
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
  const OwnedFd ruleset = make_ruleset(files, options.may_write);
  const size_t own = wanted.size();  // the rest is for the way to exec only
  wanted.push_back(report_writer.get());
  if (ruleset)
    wanted.push_back(ruleset.get());
  for (const int fd : wanted) {
    moved.emplace_back(::fcntl(fd, F_DUPFD_CLOEXEC, kAboveTargets));
    if (!moved.back())
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
  Plan plan{
      .program = program.c_str(),
      .arguments = argument_pointers.data(),
      .environment = environment_pointers.data(),
      .process_id = options.listens ? environment.back().data() + sizeof kProcessIdVariable - 1 : nullptr,
      .sources = {},
      .report = moved[own].get(),
      .ruleset = ruleset ? moved.back().get() : -1,
      .may_write = options.may_write,
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
  const std::string own_name = program_ + ": ";
  for (size_t at; (at = text.find(own_name)) != text.npos;)
    text.erase(at, own_name.size());
  while (!text.empty() && text.back() == ' ')
    text.pop_back();
  return text;
}

}  // namespace obraz
