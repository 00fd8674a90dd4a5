// Coroutine frames from per-thread free lists, one for each multiple of 64 bytes up to 4 KiB; larger ones, of
// which the data path has none, come from the heap.
#include <array>
#include <cstdlib>
#include <new>

#include "io/task.h"

namespace obraz {
namespace {

constexpr size_t kUnit = 64, kClasses = 64,
                 kKeep = 256;  // at most kKeep idle frames of a class: 4 MiB in all

struct FreeList {
  struct Link {
    Link* next;
  };
  std::array<Link*, kClasses + 1> heads{};
  std::array<size_t, kClasses + 1> lengths{};
  ~FreeList() {
    for (Link* link : heads)
      while (link) {
        Link* next = link->next;
        ::operator delete(link);
        link = next;
      }
  }
};
thread_local FreeList lists;

size_t class_of(size_t size) {
  return (size + kUnit - 1) / kUnit;
}

}  // namespace

void* allocate_frame(size_t size_bytes) {
  const size_t index = class_of(size_bytes);
  if (index > kClasses)
    return ::operator new(size_bytes);
  if (auto* link = lists.heads[index]) {
    lists.heads[index] = link->next;
    --lists.lengths[index];
    return link;
  }
  return ::operator new(index* kUnit);
}

void free_frame(void* frame, size_t size_bytes) {
  const size_t index = class_of(size_bytes);
#if defined(__SANITIZE_ADDRESS__)
  ::operator delete(frame);  // reuse would hide use-after-free from the sanitizer
#else
  if (index > kClasses || lists.lengths[index] >= kKeep)
    return ::operator delete(frame);
  auto* link = static_cast<FreeList::Link*>(frame);
  link->next = lists.heads[index];
  lists.heads[index] = link;
  ++lists.lengths[index];
#endif
  static_cast<void>(index);
}

}  // namespace obraz
