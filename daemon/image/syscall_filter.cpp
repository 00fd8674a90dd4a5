#include "image/syscall_filter.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/fs.h>
#include <linux/hdreg.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <cerrno>

namespace obraz {
namespace {

#if defined(__x86_64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_X86_64;
constexpr uint32_t kOtherNumbers = 0x4000'0000;  // of x32, a second set on the same processor
#elif defined(__aarch64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
constexpr uint32_t kOtherNumbers = 0;
#else
constexpr uint32_t kArchitecture = 0, kOtherNumbers = 0;
#endif
constexpr uint32_t kNewest = 451;  // cachestat, of Linux 6.5; later ones are answered ENOSYS

// Numbers that the headers of an older system lack; the same on every processor.
constexpr long kPidfdSendSignal = 424, kIoUringSetup = 425, kIoUringEnter = 426, kIoUringRegister = 427,
               kOpenTree = 428, kMoveMount = 429, kFsopen = 430, kFsconfig = 431, kFsmount = 432,
               kFspick = 433, kPidfdOpen = 434, kClone3 = 435, kOpenat2 = 437, kPidfdGetfd = 438,
               kProcessMadvise = 440, kMountSetattr = 442, kQuotactlFd = 443, kMemfdSecret = 447,
               kProcessMrelease = 448, kSetMempolicyHomeNode = 450;

constexpr long kRefused[] = {
    // Connections to anybody. The one to the daemon is there already.
    SYS_socket,
    SYS_socketpair,
    SYS_connect,
    SYS_bind,
    SYS_listen,
    // Other processes and other programs (clone and execve are below).
    SYS_execveat,
    SYS_tkill,
    SYS_rt_sigqueueinfo,
    SYS_rt_tgsigqueueinfo,
    kPidfdSendSignal,
    kPidfdOpen,
    kPidfdGetfd,
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    kProcessMadvise,
    kProcessMrelease,
    SYS_kcmp,
    SYS_setpriority,
    SYS_ioprio_set,
    SYS_sched_setparam,
    SYS_sched_setscheduler,
    SYS_sched_setattr,
    SYS_sched_setaffinity,
    SYS_migrate_pages,
    SYS_move_pages,
    kSetMempolicyHomeNode,
    SYS_perf_event_open,
    SYS_bpf,
    SYS_userfaultfd,
    // Users, privileges, namespaces, mounts, keys.
    SYS_setuid,
    SYS_setgid,
    SYS_setreuid,
    SYS_setregid,
    SYS_setresuid,
    SYS_setresgid,
    SYS_setfsuid,
    SYS_setfsgid,
    SYS_setgroups,
    SYS_capset,
    SYS_unshare,
    SYS_setns,
    SYS_chroot,
    SYS_pivot_root,
    SYS_mount,
    SYS_umount2,
    kOpenTree,
    kMoveMount,
    kFsopen,
    kFsconfig,
    kFsmount,
    kFspick,
    kMountSetattr,
    SYS_add_key,
    SYS_request_key,
    SYS_keyctl,
    SYS_personality,
    SYS_setrlimit,
    // The machine.
    SYS_reboot,
    SYS_kexec_load,
    SYS_kexec_file_load,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_swapon,
    SYS_swapoff,
    SYS_acct,
    SYS_quotactl,
    kQuotactlFd,
    SYS_syslog,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_adjtimex,
    SYS_clock_adjtime,
    SYS_vhangup,
    // Files by other ways than open, and what tells of them. Landlock does not know changes of their
    // metadata,
    // and only its later versions know truncation.
    SYS_open_by_handle_at,
    SYS_name_to_handle_at,
    SYS_truncate,
    SYS_fchmod,
    SYS_fchmodat,
    SYS_fchown,
    SYS_fchownat,
    SYS_utimensat,
    SYS_setxattr,
    SYS_lsetxattr,
    SYS_fsetxattr,
    SYS_removexattr,
    SYS_lremovexattr,
    SYS_fremovexattr,
    SYS_linkat,
    SYS_symlinkat,
    SYS_renameat,
    SYS_renameat2,
    SYS_unlinkat,
    SYS_mkdirat,
    SYS_mknodat,
    SYS_inotify_init1,
    SYS_fanotify_init,
    SYS_flock,
    // Memory outside the limits, and work that the kernel does without asking this filter.
    SYS_memfd_create,
    kMemfdSecret,
    SYS_shmget,
    SYS_shmat,
    SYS_msgget,
    SYS_semget,
    SYS_mq_open,
    kIoUringSetup,
    kIoUringEnter,
    kIoUringRegister,
#if defined(__x86_64__)
    // Older names of the same.
    SYS_fork,
    SYS_vfork,
    SYS_chmod,
    SYS_chown,
    SYS_lchown,
    SYS_utime,
    SYS_utimes,
    SYS_futimesat,
    SYS_link,
    SYS_symlink,
    SYS_rename,
    SYS_unlink,
    SYS_mkdir,
    SYS_rmdir,
    SYS_mknod,
    SYS_creat,
    SYS_inotify_init,
    SYS_iopl,
    SYS_ioperm,
    SYS_modify_ldt,
    SYS_uselib,
#endif
};

// What a reader asks of a file or device, none of which changes anything. Others are answered as by a kernel
// that does not know them.
constexpr unsigned long kHarmlessIoctls[] = {
    BLKGETSIZE, BLKGETSIZE64, BLKSSZGET, BLKPBSZGET,  BLKIOMIN, BLKIOOPT, BLKALIGNOFF, BLKROTATIONAL,
    BLKSECTGET, BLKROGET,     FIGETBSZ,  HDIO_GETGEO, FIONREAD, FIONBIO,  FIOCLEX,     FS_IOC_GETFLAGS,
};

// Of a program that parses: its descriptors, memory (mmap is below), and its end. No call here opens a file
// or makes one grow.
constexpr long kNeededToParse[] = {
    SYS_read,           SYS_pread64,      SYS_write,         SYS_lseek,
    SYS_close,          SYS_recvfrom,     SYS_sendto,        SYS_newfstatat,
    SYS_fadvise64,      SYS_brk,          SYS_munmap,        SYS_madvise,
    SYS_futex,          SYS_getrandom,    SYS_clock_gettime, SYS_restart_syscall,
    SYS_exit,           SYS_exit_group,   SYS_getpid,        SYS_gettid,
    SYS_rt_sigprocmask, SYS_rt_sigaction, SYS_rt_sigreturn,  SYS_mremap,
#if defined(__x86_64__)
    SYS_fstat,
#endif
};

constexpr size_t kNumberAt = offsetof(seccomp_data, nr), kArchitectureAt = offsetof(seccomp_data, arch);
constexpr size_t argument_at(unsigned index) {  // its lower half, on the little-endian machines above
  return offsetof(seccomp_data, args) + index * sizeof(uint64_t);
}

constexpr uint16_t kEqual = BPF_JMP | BPF_JEQ | BPF_K, kAtLeast = BPF_JMP | BPF_JGE | BPF_K,
                   kAnyBit = BPF_JMP | BPF_JSET | BPF_K, kReturn = BPF_RET | BPF_K;

constexpr uint32_t answer(int os_error) {
  return SECCOMP_RET_ERRNO | uint32_t(os_error);
}

}  // namespace

void SyscallFilter::add(uint16_t code, uint32_t value, uint8_t when_true, uint8_t when_false) {
  program_.push_back({code, when_true, when_false, value});
}

void SyscallFilter::load(size_t offset) {
  add(BPF_LD | BPF_W | BPF_ABS, uint32_t(offset));
}

void SyscallFilter::refuse(long number, int os_error) {
  add(kEqual, uint32_t(number), 0, 1);
  add(kReturn, answer(os_error));
}

// The call is decided here, by one argument.
void SyscallFilter::allow_when(long number, unsigned argument, uint32_t value, int os_error) {
  add(kEqual, uint32_t(number), 0, 4);
  load(argument_at(argument));
  add(kEqual, value, 0, 1);
  add(kReturn, SECCOMP_RET_ALLOW);
  add(kReturn, answer(os_error));
}

void SyscallFilter::allow_own(long number) {
  own_places_.push_back(program_.size() + 2);
  allow_when(number, 0, 0, EPERM);
}

// The calls of another processor, whose numbers mean something else, end the process. The number is loaded
// then.
void SyscallFilter::begin() {
  load(kArchitectureAt);
  add(kEqual, kArchitecture, 1, 0);
  add(kReturn, SECCOMP_RET_KILL_PROCESS);
  load(kNumberAt);
  if (kOtherNumbers != 0) {
    add(kAtLeast, kOtherNumbers, 0, 1);
    add(kReturn, SECCOMP_RET_KILL_PROCESS);
  }
}

SyscallFilter SyscallFilter::build_for_parsing() {
  SyscallFilter f;
  if (kArchitecture == 0)
    return f;
  f.begin();
  for (const long number : kNeededToParse) {
    f.add(kEqual, uint32_t(number), 0, 1);
    f.add(kReturn, SECCOMP_RET_ALLOW);
  }
  // abort() ends it, nothing else is to be signalled.
  f.allow_own(SYS_tgkill);
  // Memory of its own only. A file that is mapped gets a page for every one that is looked at, holes
  // included, and that is memory which no limit of the process counts.
  f.add(kEqual, SYS_mmap, 0, 5);  // all others are refused below
  f.load(argument_at(3));
  f.add(BPF_ALU | BPF_AND | BPF_K, MAP_PRIVATE | MAP_ANONYMOUS);
  f.add(kEqual, MAP_PRIVATE | MAP_ANONYMOUS, 0, 2);
  f.load(argument_at(2));
  f.add(kAnyBit, PROT_EXEC, 0, 1);
  f.add(kReturn, answer(EPERM));
  f.add(kReturn, SECCOMP_RET_ALLOW);
  return f;
}

SyscallFilter SyscallFilter::build(const Options& options) {
  SyscallFilter f;
  if (kArchitecture == 0)
    return f;
  f.begin();
  f.add(kAtLeast, kNewest + 1, 0, 1);
  f.add(kReturn, answer(ENOSYS));
  for (const long number : kRefused)
    f.refuse(number, EPERM);
  // The C library then uses clone and openat, whose arguments can be looked at.
  f.refuse(kClone3, ENOSYS);
  f.refuse(kOpenat2, ENOSYS);

  // Threads, but no processes: nothing of it survives when it is killed.
  f.add(kEqual, SYS_clone, 0, 4);
  f.load(argument_at(0));
  f.add(kAnyBit, CLONE_THREAD, 0, 1);
  f.add(kReturn, SECCOMP_RET_ALLOW);
  f.add(kReturn, answer(EPERM));
  // The program itself: after exec the same address means nothing.
  const auto program = uint64_t(reinterpret_cast<uintptr_t>(options.program));
  f.add(kEqual, SYS_execve, 0, 6);
  f.load(argument_at(0));
  f.add(kEqual, uint32_t(program), 0, 3);
  f.load(argument_at(0) + 4);
  f.add(kEqual, uint32_t(program >> 32), 0, 1);
  f.add(kReturn, SECCOMP_RET_ALLOW);
  f.add(kReturn, answer(EPERM));
  f.allow_own(SYS_kill);
  f.allow_own(SYS_tgkill);
  f.allow_when(SYS_prlimit64, 0, 0, EPERM);  // its own; raising them takes a privilege
  // It dies with its parent, whether it wants or not.
  f.add(kEqual, SYS_prctl, 0, 4);
  f.load(argument_at(0));
  f.add(kEqual, PR_SET_PDEATHSIG, 0, 1);
  f.add(kReturn, answer(EPERM));
  f.add(kReturn, SECCOMP_RET_ALLOW);
  // Shared anonymous memory is not counted by RLIMIT_DATA.
  f.add(kEqual, SYS_mmap, 0, 5);
  f.load(argument_at(3));
  f.add(BPF_ALU | BPF_AND | BPF_K, MAP_SHARED | MAP_ANONYMOUS);
  f.add(kEqual, MAP_SHARED | MAP_ANONYMOUS, 0, 1);
  f.add(kReturn, answer(EPERM));
  f.add(kReturn, SECCOMP_RET_ALLOW);
  if (!options.may_write) {
    // O_TRUNC works on a file that is opened for reading, too.
    const uint32_t changing = O_ACCMODE | O_CREAT | O_TRUNC | O_APPEND;
    const auto read_only = [&f](long number, unsigned argument, uint32_t bits) {
      f.add(kEqual, uint32_t(number), 0, 4);
      f.load(argument_at(argument));
      f.add(kAnyBit, bits, 0, 1);
      f.add(kReturn, answer(EACCES));
      f.add(kReturn, SECCOMP_RET_ALLOW);
    };
    read_only(SYS_openat, 2, changing);
#if defined(__x86_64__)
    read_only(SYS_open, 1, changing);
#endif
  }
  constexpr auto harmless = uint8_t(std::size(kHarmlessIoctls));
  f.add(kEqual, SYS_ioctl, 0, uint8_t(harmless + 3));
  f.load(argument_at(1));
  for (uint8_t i = 0; i < harmless; ++i)
    f.add(kEqual, uint32_t(kHarmlessIoctls[i]), uint8_t(harmless - i), 0);
  f.add(kReturn, answer(ENOTTY));
  f.add(kReturn, SECCOMP_RET_ALLOW);
  f.add(kReturn, SECCOMP_RET_ALLOW);
  return f;
}

int SyscallFilter::install() const {
  if (program_.empty())
    return 0;
  const sock_fprog program{static_cast<unsigned short>(program_.size()),
                           const_cast<sock_filter*>(program_.data())};
  if (::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0)
    return 0;
  const int os_error = errno;
  return os_error == EINVAL && ::prctl(PR_GET_SECCOMP) < 0 ? 0 : os_error;
}

}  // namespace obraz
