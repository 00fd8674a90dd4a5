// BufferPool: page-aligned payload buffers out of one arena of fixed size (a buddy system of 4 KiB … 32 MiB),
// which the ring can register as one. Small blocks that come back are kept as they are, for the next request
// like the last; they are merged when a larger one is asked for and there is none. All payloads in flight
// live here: when none is free, the asker waits, in order, and that is the back-pressure.
//
// Invariant: a buffer's bytes are whatever they were; nobody relies on zeros. Thread: the executor's.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "io/sync.h"

namespace obraz {

class BufferPool;

// Owns one buffer; gives it back when destroyed. The pool outlives it.
class [[nodiscard]] Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer() { reset(); }
  std::byte* data() const { return data_; }
  size_t size() const { return size_; }  // as asked for; the block behind it may be larger
  Bytes bytes() const { return {data_, size_}; }
  explicit operator bool() const { return data_ != nullptr; }
  void reset();

 private:
  friend class BufferPool;
  Buffer(BufferPool* pool, std::byte* data, size_t size) : pool_(pool), data_(data), size_(size) {}
  BufferPool* pool_ = nullptr;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

class BufferPool {
 public:
  // arena_bytes: rounded up to a multiple of the largest block (kMaxBuffer). Aborts when memory cannot be
  // mapped.
  BufferPool(Executor& executor, size_t arena_bytes);
  BufferPool(const BufferPool&) = delete;
  ~BufferPool();

  static constexpr size_t kMinBuffer = 4096, kMaxBuffer = 64u << 20;
  static constexpr size_t kArenaAlignment = 2u << 20;  // a huge page; so much more is mapped for a moment

  // size: 1 … kMaxBuffer bytes. Waits behind earlier askers until a block is free.
  struct Awaiter {
    BufferPool& pool;
    WaitQueue::Node node;
    Buffer buffer;
    bool await_ready();
    void await_suspend(std::coroutine_handle<> waiter);
    Buffer await_resume() { return std::move(buffer); }
  };
  Awaiter acquire(size_t size);
  // An empty Buffer when none is free at once or others wait.
  Buffer try_acquire(size_t size);

  Bytes arena() const { return {arena_, arena_bytes_}; }
  size_t free_bytes() const { return free_bytes_; }

 private:
  friend class Buffer;
  static constexpr unsigned kOrders = 15;  // 4 KiB << 14 = 64 MiB

  static constexpr unsigned kQuickOrders = 6;  // 4 KiB … 128 KiB
  static constexpr size_t kQuickBlocks = 32;   // kept of each

  static unsigned order_of(size_t size);
  std::byte* take(unsigned order);
  std::byte* take_merged(unsigned order);
  void give_back(std::byte* data, size_t size);
  void merge(uint32_t index, unsigned order);
  bool merge_quick();
  void serve_waiters();
  size_t block_index(const std::byte* data) const { return size_t(data - arena_) / kMinBuffer; }

  Executor& executor_;
  std::byte* arena_ = nullptr;
  size_t arena_bytes_ = 0, free_bytes_ = 0;
  std::array<std::vector<uint32_t>, kOrders> free_;  // indices of free blocks, in units of kMinBuffer
  std::array<std::vector<uint32_t>, kQuickOrders>
      quick_;                        // free, neither split nor merged; the last is the next
  std::vector<uint8_t> free_order_;  // by index: order + 1 of the free block that starts there, or 0
  std::vector<uint32_t> position_;   // by index: where the block stands in its free_ list
  WaitQueue waiters_;
};

}  // namespace obraz
