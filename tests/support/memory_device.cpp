#include "support/memory_device.h"

#include <sys/mman.h>

#include <cstring>

namespace obraz::test {

MemoryDevice::MemoryDevice(Executor& executor, uint64_t size_bytes, bool yielding)
    : executor_(executor), yielding_(yielding), held_event_(executor), released_event_(executor) {
  OBRAZ_CHECK(size_bytes > 0 && size_bytes % kBlockSize == 0);
  void* at =
      ::mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  OBRAZ_CHECK(at != MAP_FAILED);
  memory_ = {static_cast<std::byte*>(at), size_bytes};
}

MemoryDevice::~MemoryDevice() {
  ::munmap(memory_.data(), memory_.size());
}

Task<Status> MemoryDevice::turn(uint64_t offset, uint64_t length) {
  OBRAZ_CHECK(offset % kBlockSize == 0 && length % kBlockSize == 0);
  OBRAZ_CHECK(length <= memory_.size() && offset <= memory_.size() - length);
  if (yielding_)
    co_await yield(executor_);
  if (os_error_ != 0)
    co_return fail_os(os_error_, "injected error");
  co_return Status();
}

Task<Status> MemoryDevice::read(uint64_t offset, Bytes into) {
  Status status = co_await turn(offset, into.size());
  if (status)
    std::memcpy(into.data(), memory_.data() + offset, into.size());
  co_return status;
}

Task<Status> MemoryDevice::write(uint64_t offset, ConstBytes from) {
  Status status = co_await turn(offset, from.size());
  if (status)
    std::memcpy(memory_.data() + offset, from.data(), from.size());
  co_return status;
}

Task<Status> MemoryDevice::flush() {
  if (holding_) {
    ++held_;
    held_event_.notify_all();
    while (holding_)
      co_await released_event_.wait();
    --held_;
  }
  co_return co_await turn(0, 0);
}

Task<void> MemoryDevice::wait_until_one_is_held() {
  while (held_ == 0)
    co_await held_event_.wait();
}

void MemoryDevice::release_flushes() {
  holding_ = false;
  released_event_.notify_all();
}

Task<Status> MemoryDevice::discard(uint64_t offset, uint64_t length) {
  Status status = co_await turn(offset, length);
  if (status)
    OBRAZ_CHECK(::madvise(memory_.data() + offset, length, MADV_DONTNEED) == 0);
  co_return status;
}

Task<Status> MemoryDevice::allocate(uint64_t offset, uint64_t length) {
  return turn(offset, length);
}

}  // namespace obraz::test
