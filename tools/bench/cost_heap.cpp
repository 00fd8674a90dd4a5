// The functions of malloc, so that every allocation is seen: by operator new, by libraries, aligned or not.
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

#include "cost_meter.h"

extern "C" {
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* old, size_t size);
void* __libc_memalign(size_t alignment, size_t size);
}

namespace obraz::bench::meter {
namespace {

constexpr int kFrames = 32, kSkippedFrames = 2;  // the two of this file
constexpr size_t kStacks = 1024;

struct Stack {
  std::array<void*, kFrames> frames;
  int depth = 0;
  uint64_t count = 0, bytes = 0;
};
std::array<Stack, kStacks> stacks;
size_t stacks_used = 0;
bool tracing = false;

[[gnu::noinline]] void note(size_t size) {
  ++counts.allocations;
  counts.allocated_bytes += size;
  if (!tracing)
    return;
  const Pause pause;
  Stack now;
  now.depth = ::backtrace(now.frames.data(), kFrames);
  const auto same = [&now](const Stack& stack) {
    return stack.depth == now.depth &&
           std::equal(now.frames.begin(), now.frames.begin() + now.depth, stack.frames.begin());
  };
  Stack* found = std::find_if(stacks.begin(), stacks.begin() + stacks_used, same);
  if (found == stacks.begin() + stacks_used) {
    if (stacks_used == kStacks)
      return;
    *found = now;
    ++stacks_used;
  }
  ++found->count;
  found->bytes += size;
}

inline void see(size_t size) {
  if (counting) [[unlikely]]
    note(size);
}

}  // namespace

void trace_allocations() {
  std::array<void*, 1> frame;
  ::backtrace(frame.data(), 1);  // the first call loads a library, and allocates
  tracing = true;
}

std::string traces_json() {
  std::vector<const Stack*> order;
  for (size_t i = 0; i < stacks_used; ++i)
    order.push_back(&stacks[i]);
  std::ranges::sort(order, std::greater(), [](const Stack* stack) { return stack->count; });
  std::string json;
  for (const Stack* stack : order) {
    json += fmt::format("{}{{\"count\": {}, \"bytes\": {}, \"frames\": [", json.empty() ? "" : ", ",
                        stack->count, stack->bytes);
    for (int i = kSkippedFrames; i < stack->depth; ++i) {
      Dl_info info{};
      ::dladdr(stack->frames[size_t(i)], &info);
      const auto offset = uintptr_t(stack->frames[size_t(i)]) - uintptr_t(info.dli_fbase);
      json += fmt::format("{}[\"{}\", {}]", i > kSkippedFrames ? ", " : "",
                          info.dli_fname ? info.dli_fname : "", offset);
    }
    json += "]}";
  }
  return "[" + json + "]";
}

}  // namespace obraz::bench::meter

using obraz::bench::meter::see;

extern "C" {

void* malloc(size_t size) {
  see(size);
  return __libc_malloc(size);
}
void* calloc(size_t count, size_t size) {
  see(count * size);
  return __libc_calloc(count, size);
}
void* realloc(void* old, size_t size) {
  see(size);
  return __libc_realloc(old, size);
}
void* memalign(size_t alignment, size_t size) {
  see(size);
  return __libc_memalign(alignment, size);
}
void* aligned_alloc(size_t alignment, size_t size) {
  see(size);
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** into, size_t alignment, size_t size) {
  see(size);
  *into = __libc_memalign(alignment, size);
  return *into ? 0 : ENOMEM;
}
}
