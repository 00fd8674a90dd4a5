#include "store/state.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/check.h"
#include "base/limits.h"
#include "store/marks.h"

namespace obraz {

using disk::DropRangeRecord;
using disk::kPageSize;
using disk::MapRecord;
using disk::PageRef;
using disk::Record;

State::State(Executor& executor, Device& meta, const disk::Superblock& superblock, uint64_t cache_nodes,
             uint64_t slab_clusters)
    : executor_(executor),
      uuid_(superblock.uuid),
      first_page_(superblock.first_node_page().value),
      page_count_(superblock.pages),
      cluster_count_(superblock.clusters),
      cache_(executor, meta, superblock.uuid, {first_page_, page_count_, cluster_count_}, cache_nodes),
      clusters_(1, superblock.clusters, slab_clusters),
      pages_(first_page_, superblock.pages, limits::kPageSlabSize / kPageSize),
      next_volume_(superblock.next_volume),
      sum_root_(superblock.sums),
      sum_root_level_(disk::sum_root_level(superblock.clusters)) {}

// --- looking
// ---------------------------------------------------------------------------------------------------------

std::shared_ptr<VolumeState> State::find_volume(VolumeId id) const {
  const auto found = volumes_.find(id);
  return found == volumes_.end() ? nullptr : found->second;
}

Node* State::node(PageRef ref, unsigned level) {
  Node* node = cache_.find(ref.page);
  return node && node->level == level ? node : nullptr;
}

LeafView State::leaf_of(const VolumeState& volume, VirtualCluster cluster) {
  LeafView view;
  PageRef ref = volume.root;
  for (unsigned level = volume.level;; --level) {
    const uint64_t span = disk::clusters_per_node(level);
    view.end = (cluster.value / span + 1) * span;
    if (!ref)
      return view;
    Node* found = node(ref, level);
    if (!found) {
      view.missing = Missing{ref, level};
      return view;
    }
    view.shared |= page_count(ref.page) > 1;
    if (level == 0) {
      view.leaf = found;
      return view;
    }
    ref = found->child(disk::slot_index(cluster, level));
  }
}

std::optional<Missing> State::needs(const Record& record) {
  VolumeId id;
  VirtualCluster cluster;
  unsigned down_to = 0;
  if (const auto* map = std::get_if<MapRecord>(&record)) {
    id = map->volume;
    cluster = map->cluster;
  } else if (const auto* range = std::get_if<DropRangeRecord>(&record)) {
    id = range->volume;
    cluster = {range->index * disk::clusters_per_node(range->level)};
    down_to = range->level + 1;
  } else {
    return {};
  }
  const auto volume = find_volume(id);
  OBRAZ_CHECK(volume);
  PageRef ref = volume->root;
  for (unsigned level = volume->level; ref && level + 1 > down_to; --level) {
    Node* found = node(ref, level);
    if (!found)
      return Missing{ref, level};
    if (level == 0)
      break;
    ref = found->child(disk::slot_index(cluster, level));
  }
  return {};
}

Status State::admissible(const Record& record) const {
  constexpr auto kNoVolume = "no such volume";
  const auto valid_size = [](uint64_t size) { return size > 0 && size <= limits::kMaxVolumeSize; };
  const auto get = [this](VolumeId id) -> const VolumeState* {
    const auto found = volumes_.find(id);
    return found == volumes_.end() ? nullptr : found->second.get();
  };
  if (const auto* r = std::get_if<MapRecord>(&record)) {
    const auto* volume = get(r->volume);
    if (!volume)
      return fail(ErrorCode::not_found, kNoVolume);
    if (r->cluster.value >= volume->clusters() || !r->slot.valid(cluster_count_))
      return fail(ErrorCode::out_of_range, "a mapping beyond the volume or the device");
  } else if (const auto* r = std::get_if<DropRangeRecord>(&record)) {
    const auto* volume = get(r->volume);
    if (!volume)
      return fail(ErrorCode::not_found, kNoVolume);
    if (r->level > volume->level ||
        r->index >= divide_up(volume->clusters(), disk::clusters_per_node(r->level)))
      return fail(ErrorCode::out_of_range, "a range beyond the volume");
  } else if (const auto* r = std::get_if<CreateVolume>(&record)) {
    if (!r->id || get(r->id))
      return fail(ErrorCode::already_exists, "the volume exists");
    if (!valid_size(r->size_bytes))
      return fail(ErrorCode::invalid_argument, "volume size beyond the limits");
    if (volumes_.size() >= limits::kMaxVolumes)
      return fail(ErrorCode::resource_exhausted, "too many volumes");
  } else if (const auto* r = std::get_if<CloneVolume>(&record)) {
    const auto* source = get(r->source);
    if (!source)
      return fail(ErrorCode::not_found, kNoVolume);
    if (!r->id || get(r->id))
      return fail(ErrorCode::already_exists, "the volume exists");
    if (!valid_size(r->size_bytes) || r->size_bytes < source->size_bytes)
      return fail(ErrorCode::invalid_argument, "volume size beyond the limits or below the source's");
    if (volumes_.size() >= limits::kMaxVolumes)
      return fail(ErrorCode::resource_exhausted, "too many volumes");
  } else if (const auto* r = std::get_if<DeleteVolume>(&record)) {
    if (!get(r->id))
      return fail(ErrorCode::not_found, kNoVolume);
  } else if (const auto* r = std::get_if<RevertVolume>(&record)) {
    const auto *volume = get(r->id), *source = get(r->source);
    if (!volume || !source)
      return fail(ErrorCode::not_found, kNoVolume);
    if (volume->kind != VolumeKind::disk || source->kind != VolumeKind::frozen)
      return fail(ErrorCode::failed_precondition, "only a disk can be reverted, and only to a frozen volume");
  } else if (const auto* r = std::get_if<ResizeVolume>(&record)) {
    const auto* volume = get(r->id);
    if (!volume)
      return fail(ErrorCode::not_found, kNoVolume);
    if (volume->kind != VolumeKind::disk)
      return fail(ErrorCode::failed_precondition, "only a disk can be resized");
    if (!valid_size(r->size_bytes) || r->size_bytes < volume->size_bytes)
      return fail(ErrorCode::invalid_argument, "a disk can only grow, up to the limit");
  } else if (const auto* r = std::get_if<PutResource>(&record)) {
    if (r->key.empty() || r->key.size() > disk::kMaxKeySize || r->value.size() > limits::kMaxResourceSize)
      return fail(ErrorCode::invalid_argument, "a resource beyond the limits");
  } else if (const auto* r = std::get_if<RemoveResource>(&record)) {
    if (!resources_.contains(r->key))
      return fail(ErrorCode::not_found, "no such resource");
  } else if (const auto* r = std::get_if<disk::BlockRecord>(&record)) {
    if (!r->cluster || r->cluster.value >= cluster_count_ || r->block >= kBlocksPerCluster)
      return fail(ErrorCode::out_of_range, "a block beyond the device");
  }
  return {};
}

// --- counts and pages
// ------------------------------------------------------------------------------------------------

Page State::allocate_page() {
  for (;;) {
    const Space::Run run = pages_.allocate(1);
    OBRAZ_CHECK(run.count == 1);  // admission keeps a reserve
    const Page page{run.first};
    if (page_count(page) == 0 && !cache_.peek(page))
      return page;
    // A tree names what the counts on the disk called free. It stays taken, so that nothing is written over
    // it.
    inconsistent_ = true;
  }
}

// Counts that a disk holds may be wrong. One that would pass its end stays there, and what it counts is never
// freed.
void State::add_page_reference(Page page) {
  auto& counts = tables_[disk::kPageCounts];
  const uint32_t count = page_count(page);
  if (count == disk::kMaxCount)
    inconsistent_ = true;
  else
    counts.set_u32(page.value, counts.u32(page.value) + 1);
}

bool State::drop_page_reference(Page page) {
  auto& counts = tables_[disk::kPageCounts];
  const uint32_t count = page_count(page);
  if (count == 0) {
    inconsistent_ = true;
    return false;
  }
  if (count == 1)
    counts.set_u32(page.value, 0);
  else if (count < disk::kMaxCount)
    counts.set_u32(page.value, counts.u32(page.value) - 1);
  return count == 1;
}

void State::add_cluster_reference(PhysicalCluster cluster) {
  auto& counts = tables_[disk::kClusterCounts];
  const uint32_t count = cluster_count(cluster);
  if (count == disk::kMaxCount) {
    inconsistent_ = true;
    return;
  }
  counts.set_u32(cluster.value, counts.u32(cluster.value) + 1);
  if (count == 0) {
    clusters_.claim(cluster.value);
    ++used_clusters_;
  } else if (count == 1) {
    ++shared_clusters_;
  }
}

void State::drop_cluster_reference(PhysicalCluster cluster) {
  auto& counts = tables_[disk::kClusterCounts];
  const uint32_t count = cluster_count(cluster);
  if (count == 0) {
    inconsistent_ = true;
    return;
  }
  if (count < disk::kMaxCount)
    counts.set_u32(cluster.value, counts.u32(cluster.value) - 1);
  if (count == 1) {
    end_summing(cluster);
    clusters_.release(cluster.value);
    --used_clusters_;
  } else if (count == 2) {
    --shared_clusters_;
  }
}

// No count names the page any more. A page that some checkpoint names stays taken until the next one is
// durable.
void State::free_node_page(Page page) {
  if (cache_.forget(page))
    free_pages({page});
  else
    retire_page(page);
}

// With counts that are too low, a page can lose its last reference twice.
void State::free_pages(const std::vector<Page>& pages) {
  for (Page page : pages)
    if (pages_.is_free(page.value))
      inconsistent_ = true;
    else
      pages_.release(page.value);
}

uint64_t State::next_checkpoint_pages() const {
  uint64_t pages = 8;  // the list of drops grows by itself, while the reclaimer takes trees apart
  for (const Table& table : tables_)
    pages += table.worst_case_pages();
  return pages;
}

uint64_t State::checkpoint_reserve() const {
  uint64_t growth = 0;
  for (const Table& table : tables_)
    growth += table.worst_case_pages() - std::min(table.worst_case_pages(), table.stored_pages());
  return next_checkpoint_pages() + growth;
}

uint64_t State::table_growth(const Record& record) {
  // Each page counts twice, see checkpoint_reserve().
  constexpr uint64_t kElement = 2 * 2;  // a table page, and an index page when that was one too many
  if (const auto* put = std::get_if<PutResource>(&record)) {
    const uint64_t bytes = disk::kResourceHeaderSize + put->key.size() + put->value.size();
    return 2 * 2 * divide_up(bytes, kPageSize) + kElement;  // write_cells() grows by twice the need
  }
  const bool one_more =
      std::holds_alternative<CreateVolume>(record) || std::holds_alternative<CloneVolume>(record) ||
      std::holds_alternative<DeleteVolume>(record) || std::holds_alternative<RevertVolume>(record);
  return one_more ? kElement : 0;
}

// --- the path to a slot
// ----------------------------------------------------------------------------------------------

Node& State::make_private(PageRef& ref, unsigned level, std::vector<Drop>& drops) {
  if (!ref) {
    const Page page = allocate_page();
    add_page_reference(page);
    ref = {page, 0};
    return cache_.create(page, level);
  }
  Node* old = node(ref, level);
  OBRAZ_CHECK(old);
  const bool shared = page_count(ref.page) > 1;
  if (shared && level > disk::kMaxLevel)
    inconsistent_ = true;                    // a node of the checksum tree has one parent
  if (shared && level <= disk::kMaxLevel) {  // copied: the children gain a reference each
    marks::hit(Mark::node_copied);
    const Page page = allocate_page();
    Node& copy = cache_.create(page, level, old);
    add_page_reference(page);
    for (unsigned i = 0; i < disk::kSlotsPerNode; ++i) {
      if (level == 0) {
        const Slot slot = copy.slot(i);
        if (slot.own)
          add_cluster_reference(slot.own);
        if (slot.base)
          add_cluster_reference(slot.base);
      } else if (const PageRef child = copy.child(i)) {
        add_page_reference(child.page);
      }
    }
    drops.push_back({ref, {}, uint8_t(level)});
    ref = {page, 0};
    return copy;
  }
  if (old->state == Node::State::dirty) {
    if (is_summed(ref.page)) {  // it changes, so this may not be so any more
      marks::hit(Mark::node_no_longer_summed);
      tables_[disk::kPageCounts].set_u32(ref.page.value, page_count(ref.page));
    }
    return *old;
  }
  // Moved: the old page belongs to a checkpoint; the count goes along.
  marks::hit(old->state == Node::State::frozen ? Mark::frozen_node_moved : Mark::node_moved);
  const Page page = allocate_page();
  Node& moved = cache_.create(page, level, old);
  add_page_reference(page);
  const bool last = drop_page_reference(ref.page);
  if (last)
    free_node_page(ref.page);
  ref = {page, 0};
  return moved;
}

// Making the child may evict clean nodes only; the parent is dirty, so it stays where it is.
Node& State::private_child(Node& parent, unsigned index, std::vector<Drop>& drops) {
  PageRef ref = parent.child(index);
  const PageRef before = ref;
  Node& child = make_private(ref, parent.level - 1u, drops);
  if (ref.page != before.page)
    parent.set_child(index, ref);
  return child;
}

Node& State::private_path(VolumeState& volume, VirtualCluster cluster, unsigned down_to,
                          std::vector<Drop>& drops) {
  PageRef root = volume.root;
  Node* current = &make_private(root, volume.level, drops);
  if (root.page != volume.root.page) {
    volume.root = root;
    if (!std::exchange(volume.changed, true))
      changed_volumes_.push_back(volumes_.at(volume.id));
  }
  for (unsigned level = volume.level; level > down_to; --level)
    current = &private_child(*current, disk::slot_index(cluster, level), drops);
  return *current;
}

// --- records
// ---------------------------------------------------------------------------------------------------------

void State::apply(const Record& record, std::vector<Drop>& drops) {
  std::visit([&](const auto& r) { apply_one(r, drops); }, record);
}

void State::apply_one(const MapRecord& r, std::vector<Drop>& drops) {
  VolumeState& volume = *volumes_.at(r.volume);
  Node& leaf = private_path(volume, r.cluster, 0, drops);
  const unsigned index = disk::slot_index(r.cluster, 0);
  const Slot old = leaf.slot(index);
  leaf.set_slot(index, r.slot);
  // A reference that stays within the slot is neither gained nor dropped.
  const auto names = [](const Slot& slot, PhysicalCluster cluster) {
    return slot.own == cluster || slot.base == cluster;
  };
  // A new own has been written just now. In a replay it may have been something else until then, and have
  // kept its count.
  if (r.slot.own && !names(old, r.slot.own))
    end_summing(r.slot.own);
  for (PhysicalCluster cluster : {r.slot.own, r.slot.base})
    if (cluster && !names(old, cluster))
      add_cluster_reference(cluster);
  for (PhysicalCluster cluster : {old.own, old.base})
    if (cluster && !names(r.slot, cluster))
      drops.push_back({{}, cluster, 0});
}

void State::apply_one(const DropRangeRecord& r, std::vector<Drop>& drops) {
  VolumeState& volume = *volumes_.at(r.volume);
  if (!volume.root)
    return;
  if (r.level == volume.level) {
    marks::hit(Mark::whole_tree_dropped);
    drops.push_back({volume.root, {}, uint8_t(r.level)});
    volume.root = {};
    if (!std::exchange(volume.changed, true))
      changed_volumes_.push_back(volumes_.at(volume.id));
    return;
  }
  const VirtualCluster cluster{r.index * disk::clusters_per_node(r.level)};
  PageRef ref = volume.root;  // look first: nothing is made private for a range that is absent
  for (unsigned level = volume.level; ref && level > r.level; --level)
    ref = node(ref, level)->child(disk::slot_index(cluster, level));
  if (!ref)
    return;
  marks::hit(Mark::subtree_dropped);
  Node& parent = private_path(volume, cluster, r.level + 1, drops);
  const unsigned index = disk::slot_index(cluster, r.level + 1);
  drops.push_back({parent.child(index), {}, uint8_t(r.level)});
  parent.set_child(index, {});
}

std::shared_ptr<VolumeState> State::add_volume(VolumeId id, VolumeKind kind, uint64_t size_bytes) {
  auto volume = std::make_shared<VolumeState>(executor_);
  volume->id = id;
  volume->kind = kind;
  volume->size_bytes = size_bytes;
  volume->level = disk::root_level(size_bytes);
  volume->changed = true;
  if (free_entries_.empty()) {
    Table& table = tables_[disk::kVolumes];
    const uint64_t count = table.length_bytes() / disk::kVolumeEntrySize;
    const uint64_t grown = count + kPageSize / disk::kVolumeEntrySize;
    table.resize(grown * disk::kVolumeEntrySize);
    for (uint64_t entry = grown; entry-- > count;)
      free_entries_.push_back(uint32_t(entry));
  }
  volume->entry = free_entries_.back();
  free_entries_.pop_back();
  volumes_.emplace(id, volume);
  changed_volumes_.push_back(volume);
  next_volume_ = std::max(next_volume_, VolumeId{id.value + 1});
  return volume;
}

// Puts roots above the present one until they span the size; the volume's reference moves to the new slot.
void State::grow_root(VolumeState& volume, uint64_t size_bytes) {
  volume.size_bytes = size_bytes;
  for (const unsigned level = disk::root_level(size_bytes); volume.level < level; ++volume.level) {
    if (!volume.root)
      continue;
    marks::hit(Mark::root_grown);
    const Page page = allocate_page();
    Node& root = cache_.create(page, volume.level + 1);
    add_page_reference(page);
    root.set_child(0, volume.root);
    volume.root = {page, 0};
  }
  if (!std::exchange(volume.changed, true))
    changed_volumes_.push_back(volumes_.at(volume.id));
}

void State::apply_one(const CreateVolume& r, std::vector<Drop>&) {
  add_volume(r.id, VolumeKind::disk, r.size_bytes);
}

void State::apply_one(const CloneVolume& r, std::vector<Drop>&) {
  const auto source = volumes_.at(r.source);
  const auto volume = add_volume(r.id, r.kind, source->size_bytes);
  volume->root = source->root;
  volume->damaged = source->damaged;
  if (volume->root)
    add_page_reference(volume->root.page);
  if (r.size_bytes > source->size_bytes)
    grow_root(*volume, r.size_bytes);
}

void State::apply_one(const DeleteVolume& r, std::vector<Drop>& drops) {
  const auto volume = volumes_.at(r.id);
  if (volume->root)
    drops.push_back({volume->root, {}, uint8_t(volume->level)});
  // Handles may outlive the volume; what the tree names is not theirs to follow any more.
  volume->root = {};
  volume->deleted = true;
  disk::encode(disk::VolumeEntry{},
               tables_[disk::kVolumes].edit(volume->entry * disk::kVolumeEntrySize, disk::kVolumeEntrySize));
  free_entries_.push_back(volume->entry);
  volumes_.erase(r.id);
}

void State::apply_one(const RevertVolume& r, std::vector<Drop>& drops) {
  VolumeState& volume = *volumes_.at(r.id);
  const auto source = volumes_.at(r.source);
  if (source->root)
    add_page_reference(source->root.page);
  if (volume.root)
    drops.push_back({volume.root, {}, uint8_t(volume.level)});
  volume.root = source->root;
  volume.level = source->level;
  volume.size_bytes = source->size_bytes;
  volume.damaged = source->damaged;
  ++volume.generation;
  if (!std::exchange(volume.changed, true))
    changed_volumes_.push_back(volumes_.at(volume.id));
}

void State::apply_one(const ResizeVolume& r, std::vector<Drop>&) {
  grow_root(*volumes_.at(r.id), r.size_bytes);
}

void State::erase_cells(const ResourcePlace& place) {
  Table& table = tables_[disk::kResources];
  for (uint64_t cell = place.cell; cell < place.cell + place.cells; ++cell)
    std::memset(table.edit(cell * disk::kResourceCellSize, disk::kResourceCellSize), 0,
                disk::kResourceCellSize);
  free_cells_.add(place.cell, place.cells);
}

void State::write_cells(const std::string& key, const std::string& value) {
  Table& table = tables_[disk::kResources];
  const uint64_t cells =
      divide_up(disk::kResourceHeaderSize + key.size() + value.size(), disk::kResourceCellSize);
  std::optional<uint64_t> first = free_cells_.take(cells);
  if (!first) {
    first = table.length_bytes() / disk::kResourceCellSize;
    const uint64_t more = round_up(cells, kPageSize / disk::kResourceCellSize) * 2;
    table.resize((*first + more) * disk::kResourceCellSize);
    free_cells_.add(*first + cells, more - cells);
  }
  const ResourcePlace place{*first, cells};
  places_[key] = place;
  std::vector<std::byte> bytes(cells * disk::kResourceCellSize);
  bytes[0] = std::byte{1};
  store_le<uint16_t>(&bytes[2], uint16_t(key.size()));
  store_le<uint32_t>(&bytes[4], uint32_t(value.size()));
  std::memcpy(&bytes[disk::kResourceHeaderSize], key.data(), key.size());
  if (!value.empty())
    std::memcpy(&bytes[disk::kResourceHeaderSize + key.size()], value.data(), value.size());
  for (uint64_t i = 0; i < cells; ++i)
    std::memcpy(table.edit((place.cell + i) * disk::kResourceCellSize, disk::kResourceCellSize),
                &bytes[i * disk::kResourceCellSize], disk::kResourceCellSize);
}

void State::apply_one(const PutResource& r, std::vector<Drop>&) {
  if (const auto found = places_.find(r.key); found != places_.end())
    erase_cells(found->second);
  write_cells(r.key, r.value);
  resources_[r.key] = r.value;
}

void State::apply_one(const RemoveResource& r, std::vector<Drop>&) {
  if (const auto found = places_.find(r.key); found != places_.end()) {
    erase_cells(found->second);
    places_.erase(found);
  }
  resources_.erase(r.key);
}

// --- letting go
// ------------------------------------------------------------------------------------------------------

void State::release(const Drop& drop) {
  if (drop.cluster)
    drop_cluster_reference(drop.cluster);
  else if (drop_page_reference(drop.node.page))
    dead_.push_back({drop.node, drop.level});
}

std::optional<Missing> State::reclaim_needs() {
  const disk::DropEntry& entry = dead_.back();
  if (node(entry.node, entry.level))
    return {};
  return Missing{entry.node, entry.level};
}

void State::reclaim_one() {
  const disk::DropEntry entry = dead_.back();
  dead_.pop_back();
  Node* gone = node(entry.node, entry.level);
  OBRAZ_CHECK(gone);
  for (unsigned i = 0; i < disk::kSlotsPerNode; ++i) {
    if (entry.level == 0) {
      const Slot slot = gone->slot(i);
      if (slot.own)
        drop_cluster_reference(slot.own);
      if (slot.base)
        drop_cluster_reference(slot.base);
    } else if (const PageRef child = gone->child(i)) {
      if (drop_page_reference(child.page))
        dead_.push_back({child, entry.level - 1});
      else
        marks::hit(Mark::reclaimed_shared_child);
    }
  }
  free_node_page(entry.node.page);
}

void State::set_dead_aside() {
  unreadable_dead_.push_back(dead_.back());
  dead_.pop_back();
}

// --- checkpoint
// ------------------------------------------------------------------------------------------------------

void State::patch_checksum(PageRef& ref) const {
  if (const Node* node = cache_.peek(ref.page))
    ref.checksum = node->checksum;
}

FrozenState State::freeze(const std::vector<Drop*>& pending) {
  FrozenState frozen;
  frozen.next_volume = next_volume_;
  frozen.nodes = cache_.freeze();
  // Leaves first: whatever names a node made since the last freeze was itself made or changed since then, so
  // all such references are in these nodes, in changed volumes, in dead_ and in the pending drops.
  for (Node* node : frozen.nodes) {
    for (unsigned i = 0; disk::has_children(node->level) && i < disk::kSlotsPerNode; ++i)
      if (PageRef child = node->child(i)) {
        patch_checksum(child);
        node->set_child(i, child);
      }
    node->checksum = disk::page_checksum(uuid_, node->page, disk::type_of_node(node->level), node->bytes());
  }
  for (const auto& volume : changed_volumes_) {
    volume->changed = false;
    if (volume->deleted)
      continue;
    if (volume->root)
      patch_checksum(volume->root);
    disk::encode(
        disk::VolumeEntry{volume->id, volume->size_bytes, volume->root, uint8_t(volume->level), volume->kind,
                          volume->generation},
        tables_[disk::kVolumes].edit(volume->entry * disk::kVolumeEntrySize, disk::kVolumeEntrySize));
  }
  changed_volumes_.clear();
  if (sum_root_)
    patch_checksum(sum_root_);
  frozen.sums = sum_root_;

  // Counts without the pending drops; nodes that have no other reference are on the frozen list of drops.
  std::map<uint64_t, uint32_t> fewer_clusters, fewer_pages;
  for (disk::DropEntry& entry : dead_)
    patch_checksum(entry.node);
  std::vector<disk::DropEntry> dead = dead_;
  dead.insert(dead.end(), unreadable_dead_.begin(), unreadable_dead_.end());
  boost::unordered_flat_map<uint64_t, Drop> pending_nodes;
  for (Drop* drop : pending) {
    if (drop->cluster) {
      ++fewer_clusters[drop->cluster.value];
    } else {
      marks::hit(Mark::pending_drop_frozen);
      const uint32_t before = drop->node.checksum;
      patch_checksum(drop->node);
      if (drop->node.checksum != before)
        marks::hit(Mark::pending_drop_checksum_filled);
      ++fewer_pages[drop->node.page.value];
      pending_nodes[drop->node.page.value] = *drop;
    }
  }
  for (const auto& [page, fewer] : fewer_pages)
    if (page_count(Page{page}) == fewer)
      dead.push_back({pending_nodes[page].node, pending_nodes[page].level});
  Table& drops = tables_[disk::kDrops];
  drops.resize(dead.size() * disk::kDropEntrySize);
  for (size_t i = 0; i < dead.size(); ++i)
    disk::encode(dead[i], drops.edit(i * disk::kDropEntrySize, disk::kDropEntrySize));

  constexpr uint64_t kCountsPerPage = kPageSize / 4;
  const auto adjust = [](const std::map<uint64_t, uint32_t>& fewer, uint64_t page_index, Bytes content) {
    for (auto it = fewer.lower_bound(page_index * kCountsPerPage);
         it != fewer.end() && it->first < (page_index + 1) * kCountsPerPage; ++it) {
      std::byte* at = &content[(it->first % kCountsPerPage) * 4];
      const uint32_t left = load_le<uint32_t>(at) - it->second;
      store_le<uint32_t>(at, left & disk::kMaxCount ? left : 0);
    }
  };
  for (const auto& [cluster, fewer] : fewer_clusters)
    tables_[disk::kClusterCounts].mark_dirty(cluster / kCountsPerPage);
  for (const auto& [page, fewer] : fewer_pages)
    tables_[disk::kPageCounts].mark_dirty(page / kCountsPerPage);
  for (unsigned id = 0; id < disk::kTables; ++id) {
    Table::Freeze steps;
    steps.allocate = [this] { return allocate_page(); };
    steps.retire = [this](Page page) { retire_page(page); };
    steps.emit = [&](Page page, uint32_t type, ConstBytes content) {
      auto* copy = static_cast<std::byte*>(std::aligned_alloc(kPageSize, kPageSize));
      OBRAZ_CHECK(copy);
      std::ranges::copy(content, copy);
      frozen.images.push_back({page, {copy, std::free}});
      return disk::page_checksum(uuid_, page, type, content);
    };
    steps.adjust = [&](uint64_t index, Bytes content) {
      if (id == disk::kClusterCounts)
        adjust(fewer_clusters, index, content);
      else if (id == disk::kPageCounts)
        adjust(fewer_pages, index, content);
    };
    frozen.tables[id] = tables_[id].freeze(steps);
  }
  frozen.retired = std::move(retired_);
  retired_.clear();
  return frozen;
}

// --- opening
// ---------------------------------------------------------------------------------------------------------

Status State::adopt_tables() {
  constexpr auto kBad = "tables: they contradict each other";
  const Table& cluster_counts = tables_[disk::kClusterCounts];
  const Table& page_counts = tables_[disk::kPageCounts];
  if (cluster_counts.length_bytes() != cluster_count_ * 4 || page_counts.length_bytes() != page_count_ * 4 ||
      cluster_counts.u32(0) != 0)
    return fail(ErrorCode::corruption, kBad);
  for (uint64_t cluster = 1; cluster < cluster_count_; ++cluster)
    if (const uint32_t count = cluster_counts.u32(cluster); count > 0) {
      if (count == disk::kSummedBit)
        return fail(ErrorCode::corruption, kBad);
      clusters_.claim(cluster);
      ++used_clusters_;
      shared_clusters_ += cluster_count({cluster}) > 1;
      summed_clusters_ += is_summed(PhysicalCluster{cluster});
    }
  for (uint64_t page = 0; page < page_count_; ++page)
    if (const uint32_t count = page_counts.u32(page); count > 0) {
      if (page < first_page_ || count == disk::kSummedBit)
        return fail(ErrorCode::corruption, kBad);
      pages_.claim(page);
    }
  const auto claim_fresh = [this](Page page) {  // named once, and by nothing else
    return page.value >= first_page_ && page.value < page_count_ && page_count(page) == 0 &&
           pages_.claim(page.value);
  };
  for (const Table& table : tables_)
    for (unsigned level = 0; level < table.levels(); ++level)
      for (const PageRef& ref : table.refs(level))
        if (ref && !claim_fresh(ref.page))
          return fail(ErrorCode::corruption, kBad);
  const Table& drops = tables_[disk::kDrops];
  for (uint64_t at = 0; at < drops.length_bytes(); at += disk::kDropEntrySize) {
    const auto entry = disk::decode_drop_entry(drops.at(at));
    if (!entry)
      return Failure(entry.error());
    if (!claim_fresh(entry->node.page))
      return fail(ErrorCode::corruption, kBad);
    dead_.push_back(*entry);
  }
  const Table& volumes = tables_[disk::kVolumes];
  const uint64_t entries = volumes.length_bytes() / disk::kVolumeEntrySize;
  for (uint64_t i = entries; i-- > 0;) {
    const auto entry = disk::decode_volume_entry(volumes.at(i * disk::kVolumeEntrySize));
    if (!entry)
      return Failure(entry.error());
    if (!entry->id) {
      free_entries_.push_back(uint32_t(i));
      continue;
    }
    auto volume = std::make_shared<VolumeState>(executor_);
    volume->id = entry->id;
    volume->kind = entry->kind;
    volume->size_bytes = entry->size_bytes;
    volume->root = entry->root;
    volume->level = entry->level;
    volume->generation = entry->generation;
    volume->entry = uint32_t(i);
    if (entry->id >= next_volume_ || !volumes_.emplace(entry->id, volume).second ||
        (entry->root && (entry->root.page.value < first_page_ || entry->root.page.value >= page_count_)))
      return fail(ErrorCode::corruption, kBad);
  }
  if (sum_root_ && (sum_root_.page.value < first_page_ || sum_root_.page.value >= page_count_ ||
                    page_count(sum_root_.page) != 1))
    return fail(ErrorCode::corruption, kBad);
  const Table& resources = tables_[disk::kResources];
  const uint64_t cells = resources.length_bytes() / disk::kResourceCellSize;
  for (uint64_t cell = 0; cell < cells;) {
    const std::byte* at = resources.at(cell * disk::kResourceCellSize);
    if (*at == std::byte{0}) {
      const uint64_t first = cell;
      while (cell < cells && *resources.at(cell * disk::kResourceCellSize) == std::byte{0})
        ++cell;
      free_cells_.add(first, cell - first);
      continue;
    }
    const uint64_t key = load_le<uint16_t>(at + 2), value = load_le<uint32_t>(at + 4);
    const uint64_t length = disk::kResourceHeaderSize + key + value;
    const uint64_t count = divide_up(length, disk::kResourceCellSize);
    if (*at != std::byte{1} || key == 0 || key > disk::kMaxKeySize || value > limits::kMaxResourceSize ||
        count > cells - cell)
      return fail(ErrorCode::corruption, "resource table: impossible entry");
    const auto* text = reinterpret_cast<const char*>(at) + disk::kResourceHeaderSize;
    std::string name(text, key);
    places_[name] = {cell, count};
    if (!resources_.emplace(std::move(name), std::string(text + key, value)).second)
      return fail(ErrorCode::corruption, "resource table: a key twice");
    cell += count;
  }
  return {};
}

}  // namespace obraz
