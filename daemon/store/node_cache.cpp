#include "store/node_cache.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "store/marks.h"

namespace obraz {

using disk::kPageSize;

NodeCache::NodeCache(Executor& executor, Device& meta, const Uuid& uuid, const Limits& limits,
                     uint64_t capacity_nodes)
    : executor_(executor),
      meta_(meta),
      uuid_(uuid),
      limits_(limits),
      capacity_(std::max<uint64_t>(capacity_nodes, 32)) {}

NodeCache::~NodeCache() {
  for (auto& [page, node] : nodes_) {
    std::free(node->content);
    delete node;
  }
  for (std::byte* content : spare_)
    std::free(content);
}

std::byte* NodeCache::take_content() {
  if (!spare_.empty()) {
    std::byte* content = spare_.back();
    spare_.pop_back();
    return content;
  }
  void* content = std::aligned_alloc(kPageSize, kPageSize);
  OBRAZ_CHECK(content != nullptr);
  return static_cast<std::byte*>(content);
}

void NodeCache::link(Node* node) {
  node->newer = nullptr;
  node->older = newest_;
  (newest_ ? newest_->newer : oldest_) = node;
  newest_ = node;
  ++clean_;
}

void NodeCache::unlink(Node* node) {
  (node->newer ? node->newer->older : newest_) = node->older;
  (node->older ? node->older->newer : oldest_) = node->newer;
  --clean_;
}

Node* NodeCache::find(Page page) {
  const auto found = nodes_.find(page.value);
  if (found == nodes_.end())
    return nullptr;
  Node* node = found->second;
  if (node->state == Node::State::clean && node != newest_) {
    unlink(node);
    link(node);
  }
  return node;
}

Node* NodeCache::peek(Page page) const {
  const auto found = nodes_.find(page.value);
  return found == nodes_.end() ? nullptr : found->second;
}

void NodeCache::remove(Node* node) {
  if (node->state == Node::State::clean)
    unlink(node);
  else
    --(node->state == Node::State::dirty ? dirty_ : frozen_);
  nodes_.erase(node->page.value);
  if (spare_.size() < 64)
    spare_.push_back(node->content);
  else
    std::free(node->content);
  delete node;
}

Node* NodeCache::insert(Page page, unsigned level, std::byte* content) {
  // Changed nodes count against the capacity too, but a part of it always belongs to clean ones.
  const uint64_t changed = dirty_ + frozen_;
  const uint64_t room = std::max(capacity_ / 4, capacity_ > changed ? capacity_ - changed : 0);
  while (clean_ >= room) {
    remove(oldest_);
    ++evictions_;
    marks::hit(Mark::node_evicted);
  }
  Node* node = new Node;
  node->page = page;
  node->level = uint8_t(level);
  node->content = content;
  const bool fresh = nodes_.emplace(page.value, node).second;
  OBRAZ_CHECK(fresh);
  return node;
}

Task<Status> NodeCache::load(disk::PageRef ref, unsigned level) {
  if (const Node* node = find(ref.page)) {
    if (node->level != level)
      co_return fail(ErrorCode::corruption, "mapping: a node is referred to at two levels");
    co_return Status();
  }
  if (const auto found = loading_.find(ref.page.value); found != loading_.end()) {
    marks::hit(Mark::load_shared);
    const std::shared_ptr<Loading> loading = found->second;
    co_await loading->done.wait();
    co_return loading->result;
  }
  if (ref.page.value < limits_.first_page || ref.page.value >= limits_.pages)
    co_return fail(ErrorCode::corruption, "mapping: a reference points outside the node pages");
  const auto loading = std::make_shared<Loading>(executor_);
  loading_.emplace(ref.page.value, loading);
  std::byte* content = take_content();
  const Bytes bytes{content, kPageSize};
  Status status = co_await meta_.read(ref.page.value * kPageSize, bytes);
  ++loads_;
  marks::hit(Mark::node_reloaded);
  if (status && disk::page_checksum(uuid_, ref.page, disk::type_of_node(level), bytes) != ref.checksum)
    status = fail(ErrorCode::corruption, "mapping: a node's checksum does not fit");
  if (status && !valid(bytes, level))
    status = fail(ErrorCode::corruption, "mapping: a node breaks the rules of the format");
  // Only where counts on the disk are too low can a page that is being read have been given to another node.
  if (status && nodes_.contains(ref.page.value))
    status = fail(ErrorCode::corruption, "mapping: a reference names a page that was free");
  loading_.erase(ref.page.value);
  if (status) {
    Node* node = insert(ref.page, level, content);
    node->checksum = ref.checksum;
    link(node);
  } else {
    std::free(content);
  }
  loading->result = status;
  loading->done.notify_all();
  co_return status;
}

bool NodeCache::valid(ConstBytes content, unsigned level) const {
  for (unsigned i = 0; i < disk::kSlotsPerNode; ++i) {
    const std::byte* at = &content[i * disk::kSlotSize];
    if (level == disk::kSumLevel)
      break;  // any bytes may be checksums
    if (level == 0) {
      if (!disk::load_slot(at).valid(limits_.clusters))
        return false;
    } else {
      const disk::PageRef ref = disk::load_page_ref(at);
      if ((ref.page && (ref.page.value < limits_.first_page || ref.page.value >= limits_.pages)) ||
          load_le<uint32_t>(at + 12) != 0)
        return false;
    }
  }
  return true;
}

Node& NodeCache::create(Page page, unsigned level, const Node* from) {
  // The source may be the very node that insert() evicts; copy first.
  std::byte* content = take_content();
  if (from)
    std::memcpy(content, from->content, kPageSize);
  else
    std::memset(content, 0, kPageSize);
  Node* node = insert(page, level, content);
  node->state = Node::State::dirty;
  ++dirty_;
  return *node;
}

bool NodeCache::forget(Page page) {
  const auto found = nodes_.find(page.value);
  if (found == nodes_.end())
    return false;
  Node* node = found->second;
  if (node->state == Node::State::frozen) {
    marks::hit(Mark::frozen_node_forgotten);
    node->orphan = true;
    return false;
  }
  const bool dirty = node->state == Node::State::dirty;
  remove(node);
  return dirty;
}

std::vector<Node*> NodeCache::freeze() {
  std::vector<Node*> list;
  list.reserve(dirty_);
  for (auto& [page, node] : nodes_)
    if (node->state == Node::State::dirty)
      list.push_back(node);
  // By level, so that children have their checksums before parents; by page, so that the writes are
  // sequential.
  std::ranges::sort(list, [](const Node* a, const Node* b) {
    return a->level != b->level ? a->level < b->level : a->page < b->page;
  });
  for (Node* node : list)
    node->state = Node::State::frozen;
  frozen_ += dirty_;
  dirty_ = 0;
  return list;
}

void NodeCache::written(Node* node) {
  OBRAZ_CHECK(node->state == Node::State::frozen);
  if (node->orphan)
    return remove(node);
  --frozen_;
  node->state = Node::State::clean;
  link(node);
}

}  // namespace obraz
