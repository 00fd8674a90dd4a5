// NodeCache: nodes of mappings and of the checksum tree in memory, by page. Loads them on demand, verified;
// forgets clean ones, least recently used first; keeps changed ones until a checkpoint has written them.
//
// Invariants: a node's page is its identity. clean = the device has it; dirty = made or changed since the
// last freeze, no checkpoint names its page; frozen = part of the checkpoint being written, its content does
// not change any more (a later change makes a new node on a new page). Only clean nodes are evicted, and only
// from insert(), so pointers stay good until the next co_await. A page is loaded once however many ask.
// Thread: the store's. What a crash leaves behind: nothing of this; the device has the clean ones.
#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/result.h"
#include "base/uuid.h"
#include "io/device.h"
#include "io/sync.h"
#include "store/disk_format.h"

namespace obraz {

struct Node {
  enum class State : uint8_t { clean, dirty, frozen };
  Page page;
  uint8_t level = 0;
  State state = State::clean;
  bool orphan = false;    // frozen, and nothing in memory names it any more: forgotten once it is written
  uint32_t checksum = 0;  // valid unless dirty
  std::byte* content = nullptr;
  Node *newer = nullptr, *older = nullptr;  // in the list of clean nodes

  Slot slot(unsigned index) const { return disk::load_slot(content + index * disk::kSlotSize); }
  disk::PageRef child(unsigned index) const { return disk::load_page_ref(content + index * disk::kSlotSize); }
  void set_slot(unsigned index, const Slot& slot) {
    disk::store_slot(content + index * disk::kSlotSize, slot);
  }
  // Of a node of the checksum tree; `index` counts the checksums of the page.
  uint32_t sum(unsigned index) const { return load_le<uint32_t>(content + index * disk::kSumSize); }
  void set_sum(unsigned index, uint32_t sum) { store_le<uint32_t>(content + index * disk::kSumSize, sum); }
  void set_child(unsigned index, const disk::PageRef& ref) {
    disk::store_page_ref(content + index * disk::kSlotSize, ref);
  }
  ConstBytes bytes() const { return {content, disk::kPageSize}; }
};

class NodeCache {
 public:
  struct Limits {
    uint64_t first_page, pages, clusters;  // what slots may name
  };
  NodeCache(Executor& executor, Device& meta, const Uuid& uuid, const Limits& limits,
            uint64_t capacity_nodes);
  NodeCache(const NodeCache&) = delete;
  ~NodeCache();

  // The node when it is in memory, marked as used; nullptr otherwise.
  Node* find(Page page);
  // The same without the mark.
  Node* peek(Page page) const;
  // Reads and verifies it unless it is there. Errors: corruption (checksum, or slots that break the rules),
  // io.
  Task<Status> load(disk::PageRef ref, unsigned level);

  // A new dirty node on the page, all zeros or with a copy of `from`.
  Node& create(Page page, unsigned level, const Node* from = nullptr);
  // Nothing names the node any more. True when no checkpoint names its page either (it was dirty), so that
  // the page is free at once. Also for pages that are not in memory (false).
  bool forget(Page page);

  // Dirty nodes become frozen; the list is ordered by level, leaves first.
  std::vector<Node*> freeze();
  // The node of the list has been written: clean now, or gone when orphaned.
  void written(Node* node);

  uint64_t dirty_count() const { return dirty_; }
  uint64_t frozen_count() const { return frozen_; }
  uint64_t size() const { return nodes_.size(); }
  uint64_t loads() const { return loads_; }
  uint64_t evictions() const { return evictions_; }

 private:
  struct Loading {
    explicit Loading(Executor& executor) : done(executor) {}
    Event done;
    Status result;
    unsigned users = 1;
  };
  Node* insert(Page page, unsigned level, std::byte* content);
  void remove(Node* node);
  void link(Node* node);  // as newest
  void unlink(Node* node);
  std::byte* take_content();
  bool valid(ConstBytes content, unsigned level) const;

  Executor& executor_;
  Device& meta_;
  const Uuid uuid_;
  const Limits limits_;
  const uint64_t capacity_;
  boost::unordered_flat_map<uint64_t, Node*> nodes_;
  boost::unordered_flat_map<uint64_t, std::shared_ptr<Loading>> loading_;
  Node *newest_ = nullptr, *oldest_ = nullptr;
  uint64_t clean_ = 0, dirty_ = 0, frozen_ = 0, loads_ = 0, evictions_ = 0;
  std::vector<std::byte*> spare_;
};

}  // namespace obraz
