#include "io/buffer_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdint>

#include "base/limits.h"

namespace obraz {
namespace {

// Requests take the lowest addresses there are, so the beginning is what is nearly always in use. In huge
// pages a buffer is one piece of memory to the device instead of one for each 4 KiB. Not all of the arena:
// it may never be used, and a huge page is cleared whole. Where the kernel has none, all is as without.
std::byte* map_arena(size_t bytes) {
  void* memory = ::mmap(nullptr, bytes + BufferPool::kArenaAlignment, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  OBRAZ_CHECK(memory != MAP_FAILED);
  auto* const mapped = static_cast<std::byte*>(memory);
  const size_t before = size_t(-reinterpret_cast<uintptr_t>(mapped)) % BufferPool::kArenaAlignment;
  if (before > 0)
    ::munmap(mapped, before);
  ::munmap(mapped + before + bytes, BufferPool::kArenaAlignment - before);
  static_cast<void>(
      ::madvise(mapped + before, std::min<size_t>(bytes, limits::kHugeBufferMemory), MADV_HUGEPAGE));
  return mapped + before;
}

}  // namespace

Buffer::Buffer(Buffer&& other) noexcept
    : pool_(other.pool_), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this != &other) {
    reset();
    pool_ = other.pool_;
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
  }
  return *this;
}

void Buffer::reset() {
  if (data_)
    pool_->give_back(std::exchange(data_, nullptr), std::exchange(size_, 0));
}

BufferPool::BufferPool(Executor& executor, size_t arena_bytes)
    : executor_(executor),
      arena_(map_arena(round_up(arena_bytes, kMaxBuffer))),
      arena_bytes_(round_up(arena_bytes, kMaxBuffer)) {
  const size_t blocks = arena_bytes_ / kMinBuffer;
  free_order_.assign(blocks, 0);
  position_.assign(blocks, 0);
  for (auto& list : quick_)
    list.reserve(kQuickBlocks);
  for (size_t at = arena_bytes_; at > 0; at -= kMaxBuffer)  // the lowest is on top of the list
    give_back(arena_ + at - kMaxBuffer, kMaxBuffer);
}

BufferPool::~BufferPool() {
  OBRAZ_CHECK(free_bytes_ == arena_bytes_);
  ::munmap(arena_, arena_bytes_);
}

unsigned BufferPool::order_of(size_t size) {
  OBRAZ_CHECK(size > 0 && size <= kMaxBuffer);
  return unsigned(std::bit_width((size - 1) / kMinBuffer));
}

std::byte* BufferPool::take(unsigned order) {
  std::byte* data = nullptr;
  if (order < kQuickOrders && !quick_[order].empty()) {
    data = arena_ + size_t(quick_[order].back()) * kMinBuffer;
    quick_[order].pop_back();
  } else {
    data = take_merged(order);
    if (!data && merge_quick())
      data = take_merged(order);
  }
  if (data)
    free_bytes_ -= kMinBuffer << order;
  return data;
}

std::byte* BufferPool::take_merged(unsigned order) {
  unsigned have = order;
  while (have < kOrders && free_[have].empty())
    ++have;
  if (have == kOrders)
    return nullptr;
  const uint32_t index = free_[have].back();
  free_[have].pop_back();
  free_order_[index] = 0;
  while (have > order) {  // split; the upper half becomes free
    --have;
    const uint32_t upper = index + (1u << have);
    free_order_[upper] = uint8_t(have + 1);
    position_[upper] = uint32_t(free_[have].size());
    free_[have].push_back(upper);
  }
  return arena_ + size_t(index) * kMinBuffer;
}

void BufferPool::give_back(std::byte* data, size_t size) {
  const unsigned order = order_of(size);
  const auto index = uint32_t(block_index(data));
  free_bytes_ += kMinBuffer << order;
  // Somebody who waits waits for a larger one.
  if (order < kQuickOrders && quick_[order].size() < kQuickBlocks && waiters_.empty())
    return quick_[order].push_back(index);
  merge(index, order);
  serve_waiters();
}

// Whether there was anything to merge.
bool BufferPool::merge_quick() {
  bool any = false;
  for (unsigned order = 0; order < kQuickOrders; ++order) {
    any |= !quick_[order].empty();
    for (const uint32_t index : quick_[order])
      merge(index, order);
    quick_[order].clear();
  }
  return any;
}

void BufferPool::merge(uint32_t index, unsigned order) {
  while (order + 1 < kOrders) {  // with the buddy while that is free and whole
    const uint32_t buddy = index ^ (1u << order);
    if (buddy >= free_order_.size() || free_order_[buddy] != order + 1)
      break;
    auto& list = free_[order];
    const uint32_t moved = list.back();
    list[position_[buddy]] = moved;
    position_[moved] = position_[buddy];
    list.pop_back();
    free_order_[buddy] = 0;
    index &= ~(1u << order);
    ++order;
  }
  free_order_[index] = uint8_t(order + 1);
  position_[index] = uint32_t(free_[order].size());
  free_[order].push_back(index);
}

Buffer BufferPool::try_acquire(size_t size) {
  if (!waiters_.empty())
    return {};
  std::byte* data = take(order_of(size));
  return data ? Buffer(this, data, size) : Buffer();
}

void BufferPool::serve_waiters() {
  while (!waiters_.empty()) {
    // The node is the first member after the pool reference of an Awaiter; its units carry the Awaiter
    // itself.
    auto* asker = reinterpret_cast<Awaiter*>(waiters_.front()->units);
    const size_t size = asker->buffer.size_;
    std::byte* data = take(order_of(size));
    if (!data)
      return;
    asker->buffer = Buffer(this, data, size);
    executor_.enqueue(waiters_.pop()->waiter);
  }
}

BufferPool::Awaiter BufferPool::acquire(size_t size) {
  return {*this, {}, Buffer(this, nullptr, size)};
}

bool BufferPool::Awaiter::await_ready() {
  const size_t size = buffer.size_;
  buffer = pool.try_acquire(size);
  if (buffer)
    return true;
  buffer = Buffer(&pool, nullptr, size);
  return false;
}

void BufferPool::Awaiter::await_suspend(std::coroutine_handle<> waiter) {
  node.waiter = waiter;
  node.units = reinterpret_cast<uint64_t>(this);
  pool.waiters_.push(node);
}

}  // namespace obraz
