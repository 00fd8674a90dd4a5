#include "io/ring.h"

#include <fmt/format.h>
#include <liburing.h>
#include <linux/falloc.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <vector>

#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"

namespace obraz {
namespace {

constexpr unsigned kFileSlots = 4096;
constexpr int kMostSpunFor = 2;  // operations of devices

// Whether to look for completions before sleeping. With one request at a time there are two waits for each,
// for the device and for the client's next request, and each is shorter than going to sleep and being woken.
// Looking for the client pays only if it runs meanwhile, on another core, and for the device only if that is
// fast; so it is gone on with only where it finds something: each time in vain, twice as many waits go by
// before the next try.
class Spin {
 public:
  bool is_due() {
    if (passes_ == 0)
      return true;
    --passes_;
    return false;
  }
  void ended(bool found) {
    passes_ = found ? 0 : penalty_;
    penalty_ = found ? 1 : std::min(penalty_ * 2, kMaxPenalty);
  }

 private:
  static constexpr unsigned kMaxPenalty = 4096;
  unsigned passes_ = 0, penalty_ = 1;
};

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

struct Ring::Implementation {
  io_uring ring{};
  ReactorOptions options;
  bool deferred = false, cooperative = false;
  Bytes arena;
  std::vector<int> free_slots;
  bool has_slots = false;
  Spin spin_for_client, spin_for_device;
  int of_devices = 0;  // operations under way that are no socket's
  void count(const RingOperation& op, int by) {
    using Kind = RingOperation::Kind;
    const bool socket = op.kind == Kind::receive || op.kind == Kind::send_message || op.kind == Kind::poll;
    of_devices += socket ? 0 : by;
  }

  // With deferred task run completions appear only when asked for.
  int submit_and_collect_events() {
    return deferred ? io_uring_submit_and_get_events(&ring) : io_uring_submit(&ring);
  }

  void prepare(io_uring_sqe* sqe, RingOperation& op);
  // Whether the operation's memory lies in the registered arena.
  bool is_fixed(const RingOperation& op) const {
    auto* p = static_cast<const std::byte*>(op.address);
    return !arena.empty() && p >= arena.data() && p + op.length <= arena.data() + arena.size();
  }
};

void Ring::Implementation::prepare(io_uring_sqe* sqe, RingOperation& op) {
  using Kind = RingOperation::Kind;
  const bool registered = op.file.slot >= 0;
  const int fd = registered ? op.file.slot : op.file.fd;
  switch (op.kind) {
    case Kind::read:
      if (is_fixed(op))
        io_uring_prep_read_fixed(sqe, fd, op.address, unsigned(op.length), op.offset, 0);
      else
        io_uring_prep_read(sqe, fd, op.address, unsigned(op.length), op.offset);
      break;
    case Kind::write:
      if (is_fixed(op))
        io_uring_prep_write_fixed(sqe, fd, op.address, unsigned(op.length), op.offset, 0);
      else
        io_uring_prep_write(sqe, fd, op.address, unsigned(op.length), op.offset);
      break;
    case Kind::data_sync:
      io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
      break;
    case Kind::allocate:
      io_uring_prep_fallocate(sqe, fd, FALLOC_FL_KEEP_SIZE, op.offset, op.length);
      break;
    case Kind::punch:
      io_uring_prep_fallocate(sqe, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, op.offset, op.length);
      break;
    case Kind::receive:
      io_uring_prep_recv(sqe, fd, op.address, op.length, op.flags);
      break;
    case Kind::send_message:
      io_uring_prep_sendmsg(sqe, fd, static_cast<const msghdr*>(op.address), unsigned(op.flags));
      break;
    case Kind::poll:
      io_uring_prep_poll_add(sqe, fd, unsigned(op.flags));
      break;
  }
  if (registered)
    sqe->flags |= IOSQE_FIXED_FILE;
  io_uring_sqe_set_data(sqe, &op);
}

Ring::Ring(std::unique_ptr<Implementation> implementation) : implementation_(std::move(implementation)) {}

Ring::~Ring() {
  io_uring_queue_exit(&implementation_->ring);
}

Result<std::unique_ptr<Ring>> Ring::create(const ReactorOptions& options) {
  auto made = std::make_unique<Implementation>();
  made->options = options;
  // From the best to the plainest set of flags: older kernels, and some containers, refuse the better ones.
  const unsigned attempts[] = {
      IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
      IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, 0};
  int error = -EINVAL;
  for (unsigned flags : attempts) {
    if ((flags & IORING_SETUP_DEFER_TASKRUN) && !options.deferred_task_run)
      continue;
    io_uring_params params{};
    // Twice the default completion queue: every socket may complete in the same turn as every device
    // operation.
    params.flags = flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
    params.cq_entries = options.entries * 4;
    error = io_uring_queue_init_params(options.entries, &made->ring, &params);
    if (error == 0) {
      made->deferred = flags & IORING_SETUP_DEFER_TASKRUN;
      made->cooperative = flags & IORING_SETUP_COOP_TASKRUN;
      break;
    }
    if (error != -EINVAL)
      break;
  }
  if (error != 0)
    return fail_os(-error, "io_uring is not available (kernel.io_uring_disabled, or a container's rules?)");
  if (options.register_files) {
    const int registered = io_uring_register_files_sparse(&made->ring, kFileSlots);
    made->has_slots = registered == 0;
    if (registered != 0)
      log::info("ring: no table of registered files ({})", describe(fail_os(-registered, "").error()));
    for (int slot = made->has_slots ? int(kFileSlots) - 1 : -1; slot >= 0; --slot)
      made->free_slots.push_back(slot);
  }
  return std::unique_ptr<Ring>(new Ring(std::move(made)));
}

// Full: what is there is handed over. EBUSY means that completions must be collected first, which the
// submission does.
void Ring::make_room(unsigned entries) {
  io_uring* ring = &implementation_->ring;
  while (io_uring_sq_space_left(ring) < entries) {
    const int submitted = io_uring_submit(ring);
    OBRAZ_CHECK(submitted >= 0 || submitted == -EINTR || submitted == -EAGAIN || submitted == -EBUSY);
  }
}

void Ring::submit(RingOperation& operation) {
  make_room(1);
  implementation_->prepare(io_uring_get_sqe(&implementation_->ring), operation);
  implementation_->count(operation, 1);
}

// A chain must be handed over whole.
void Ring::submit(RingOperation& first, RingOperation& second) {
  make_room(2);
  io_uring_sqe* sqe = io_uring_get_sqe(&implementation_->ring);
  implementation_->prepare(sqe, first);
  sqe->flags |= IOSQE_IO_LINK;
  implementation_->count(first, 1);
  submit(second);
}

// Submits, and looks for completions. Whether there are any; then there is nothing more to do. With much
// under way something will end soon whatever is done, and sleeping meanwhile saves the processor for others.
bool Ring::spin() {
  auto& i = *implementation_;
  Spin& spin = i.of_devices == 0 ? i.spin_for_client : i.spin_for_device;
  if (i.options.spin_us == 0 || i.of_devices > kMostSpunFor || !spin.is_due())
    return false;
  i.submit_and_collect_events();
  if (io_uring_cq_ready(&i.ring) > 0)
    return true;  // says nothing about spinning
  const auto now = [] { return std::chrono::steady_clock::now(); };
  const auto deadline = now() + std::chrono::microseconds(i.options.spin_us);
  bool found = false;
  constexpr unsigned kLooks = 16;  // between looks at the clock
  do {
    for (unsigned look = 0; look < kLooks && !found; ++look) {
      found = io_uring_cq_ready(&i.ring) > 0 || (IO_URING_READ_ONCE(*i.ring.sq.kflags) & IORING_SQ_TASKRUN);
      if (!found)
        pause();
    }
  } while (!found && now() < deadline);
  spin.ended(found);
  if (found)
    i.submit_and_collect_events();
  return found;
}

void Ring::submit_and_wait(bool wait, uint64_t timeout_us) {
  io_uring* ring = &implementation_->ring;
  io_uring_cqe* cqe = nullptr;
  int result;
  if (wait && timeout_us > 0 && spin())
    return;
  if (!wait || timeout_us == 0) {
    result = implementation_->submit_and_collect_events();
  } else if (timeout_us == UINT64_MAX) {
    result = io_uring_submit_and_wait(ring, 1);
  } else {
    __kernel_timespec time{};
    time.tv_sec = int64_t(timeout_us / 1'000'000);
    time.tv_nsec = int64_t(timeout_us % 1'000'000) * 1000;
    result = io_uring_submit_and_wait_timeout(ring, &cqe, 1, &time, nullptr);
  }
  OBRAZ_CHECK(result >= 0 || result == -EINTR || result == -ETIME || result == -EAGAIN || result == -EBUSY);
}

unsigned Ring::collect(Executor& executor) {
  io_uring* ring = &implementation_->ring;
  unsigned head, count = 0;
  io_uring_cqe* cqe;
  io_uring_for_each_cqe(ring, head, cqe) {
    auto* operation = static_cast<RingOperation*>(io_uring_cqe_get_data(cqe));
    ++count;
    if (!operation)
      continue;
    implementation_->count(*operation, -1);
    operation->result = cqe->res;
    operation->ended = true;
    if (!operation->other || operation->other->ended)
      executor.enqueue(operation->waiter);
  }
  io_uring_cq_advance(ring, count);
  return count;
}

void Ring::register_arena(Bytes arena) {
  OBRAZ_CHECK(implementation_->arena.empty());
  if (!implementation_->options.register_buffers || arena.size() > limits::GiB)
    return;  // the kernel takes at most 1 GiB in one registered buffer
  iovec vector{arena.data(), arena.size()};
  const int result = io_uring_register_buffers(&implementation_->ring, &vector, 1);
  if (result == 0)
    implementation_->arena = arena;
  else
    log::info("ring: payload buffers stay unregistered ({}; RLIMIT_MEMLOCK?)",
              describe(fail_os(-result, "").error()));
}

RingFile Ring::register_file(int fd) {
  auto& free_slots = implementation_->free_slots;
  if (free_slots.empty())
    return {fd, -1};
  const int slot = free_slots.back();
  if (io_uring_register_files_update(&implementation_->ring, unsigned(slot), &fd, 1) != 1)
    return {fd, -1};
  free_slots.pop_back();
  return {fd, slot};
}

void Ring::unregister_file(RingFile& file) {
  if (file.slot < 0)
    return;
  const int none = -1;
  const int result = io_uring_register_files_update(&implementation_->ring, unsigned(file.slot), &none, 1);
  if (result == 1)
    implementation_->free_slots.push_back(file.slot);
  file.slot = -1;
}

std::string Ring::features() const {
  return fmt::format("{}, {} files, {} buffers",
                     implementation_->deferred      ? "single issuer with deferred task run"
                     : implementation_->cooperative ? "cooperative task run"
                                                    : "plain",
                     implementation_->has_slots ? "registered" : "plain",
                     implementation_->arena.empty() ? "plain" : "registered");
}

}  // namespace obraz
