// The calls of liburing that enter the kernel, wrapped by the linker (--wrap, see CMakeLists.txt). Here the
// server's calls are counted, and here time stands still for it: what takes as long as it takes in real life
// happens in a fixed order, so that two runs count the same.
//
// A call of liburing that daemon/io/ring.cpp uses and that is not wrapped would wait for ever; the program
// has a deadline for that.
#include "cost_ring.h"

#include <liburing.h>

#include <algorithm>
#include <vector>

#include "cost_meter.h"

extern "C" {
int __real_io_uring_submit(io_uring* ring);
int __real_io_uring_submit_and_wait(io_uring* ring, unsigned wait_nr);
int __real_io_uring_submit_and_get_events(io_uring* ring);
int __real_io_uring_submit_and_wait_timeout(io_uring* ring, io_uring_cqe** cqe, unsigned wait_nr,
                                            __kernel_timespec* timeout, sigset_t* mask);
}

namespace obraz::bench {
namespace {

Outside* outside = nullptr;
std::vector<uint64_t> at_devices;  // user_data of what was submitted to devices, in that order

io_uring_cqe& ready(io_uring* ring, unsigned index) {
  return ring->cq.cqes[(*ring->cq.khead + index) & ring->cq.ring_mask];
}

auto device_position(const io_uring_cqe& cqe) {
  return std::ranges::find(at_devices, cqe.user_data);
}

void look_at_submissions(io_uring* ring, meter::Counts* counts) {
  for (unsigned at = ring->sq.sqe_head; at != ring->sq.sqe_tail; ++at) {
    const io_uring_sqe& sqe = ring->sq.sqes[at & ring->sq.ring_mask];
    if (counts)
      ++counts->operations;
    uint64_t meter::Counts::*kind = nullptr;
    switch (sqe.opcode) {
      case IORING_OP_READ:
      case IORING_OP_READ_FIXED:
      case IORING_OP_READV:
        kind = &meter::Counts::device_reads;
        break;
      case IORING_OP_WRITE:
      case IORING_OP_WRITE_FIXED:
      case IORING_OP_WRITEV:
        kind = &meter::Counts::device_writes;
        break;
      case IORING_OP_FSYNC:
        kind = &meter::Counts::device_flushes;
        break;
      case IORING_OP_FALLOCATE:
        kind = &meter::Counts::device_others;
        break;
      default:
        break;
    }
    if (!kind)
      continue;
    at_devices.push_back(sqe.user_data);
    if (counts)
      ++(counts->*kind);
  }
}

// The threads of the kernel that work for devices finish in any order.
void put_in_order(io_uring* ring) {
  std::vector<io_uring_cqe> cqes;
  for (unsigned i = 0; i < io_uring_cq_ready(ring); ++i)
    cqes.push_back(ready(ring, i));
  std::ranges::stable_sort(cqes, {}, [](const io_uring_cqe& cqe) {
    const auto position = device_position(cqe);
    return position == at_devices.end() ? 0 : position - at_devices.begin() + 1;
  });
  for (unsigned i = 0; i < cqes.size(); ++i)
    ready(ring, i) = cqes[i];
}

int enter(io_uring* ring, bool wait) {
  const bool counting = meter::counting;
  const meter::Pause pause;
  if (counting) {
    ++meter::counts.enters;
    meter::counts.enters_waiting += wait;
  }
  look_at_submissions(ring, counting ? &meter::counts : nullptr);
  const int result = __real_io_uring_submit_and_get_events(ring);
  for (;;) {
    size_t devices_done = 0;
    const unsigned have = io_uring_cq_ready(ring);
    for (unsigned i = 0; i < have; ++i)
      devices_done += device_position(ready(ring, i)) != at_devices.end();
    if (devices_done < at_devices.size()) {
      __real_io_uring_submit_and_wait(ring, have + 1);
      continue;
    }
    if (!wait || have > 0)
      break;
    if (outside->step())
      __real_io_uring_submit_and_get_events(ring);
    else
      __real_io_uring_submit_and_wait(ring, 1);
  }
  put_in_order(ring);
  at_devices.clear();
  return result;
}

}  // namespace

void run_outside(Outside* now) {
  outside = now;
}

}  // namespace obraz::bench

using obraz::bench::outside;

extern "C" {

int __wrap_io_uring_submit(io_uring* ring) {
  return outside ? obraz::bench::enter(ring, false) : __real_io_uring_submit(ring);
}
int __wrap_io_uring_submit_and_get_events(io_uring* ring) {
  return outside ? obraz::bench::enter(ring, false) : __real_io_uring_submit_and_get_events(ring);
}
int __wrap_io_uring_submit_and_wait(io_uring* ring, unsigned wait_nr) {
  return outside ? obraz::bench::enter(ring, true) : __real_io_uring_submit_and_wait(ring, wait_nr);
}
// The only timer that is set while a case runs is the one of commits that nobody asked for, and it is far
// away.
int __wrap_io_uring_submit_and_wait_timeout(io_uring* ring, io_uring_cqe** cqe, unsigned wait_nr,
                                            __kernel_timespec* timeout, sigset_t* mask) {
  return outside ? obraz::bench::enter(ring, true)
                 : __real_io_uring_submit_and_wait_timeout(ring, cqe, wait_nr, timeout, mask);
}
}
