// On-disk structures of a store, version 1: the tables of docs/disk-format.md as offsets, and pure encode /
// decode. Nothing here does I/O. Decoders take bytes from a disk as input: any bytes end in a value or a
// named error.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/uuid.h"
#include "store/slot.h"
#include "store/types.h"

namespace obraz::disk {

constexpr uint64_t kPageSize = 4096;
constexpr uint64_t kSuperblockPages[2] = {0, 16};
constexpr uint64_t kJournalFirstPage = 256;
constexpr uint16_t kVersion = 1;
constexpr unsigned kSlotsPerNode = 256, kSlotSize = 16;
constexpr unsigned kMaxLevel = 3;  // of a mapping's root
static_assert(kSlotsPerNode * kSlotSize == kPageSize);

// Nodes of the checksum tree have levels of their own, so that one cache and one kind of node serve both
// trees.
constexpr unsigned kSumLevel = 4;     // a node that holds checksums
constexpr unsigned kMaxSumLevel = 7;  // of the root
constexpr unsigned kSumSize = 4, kSumsPerCluster = 16, kClustersPerSumNode = 64;
static_assert(kClustersPerSumNode * kSumsPerCluster * kSumSize == kPageSize);
// Whether the slots of a node of this level are page references.
constexpr bool has_children(unsigned level) {
  return level != 0 && level != kSumLevel;
}

// An element of the tables of counts: a count, and whether checksums cover what is counted (section 4a).
constexpr uint32_t kSummedBit = 0x80000000, kMaxCount = kSummedBit - 1;

// What a page without header is; part of its checksum.
constexpr uint32_t kTypeTablePage = 16;
constexpr uint32_t type_of_node(unsigned level) {
  return level;
}
constexpr uint32_t type_of_index(unsigned level) {
  return kTypeTablePage + 1 + level;
}

struct PageRef {
  Page page;  // none: absent, all zeros
  uint32_t checksum = 0;
  explicit operator bool() const { return bool(page); }
  friend bool operator==(const PageRef&, const PageRef&) = default;
};

uint32_t page_checksum(const Uuid& uuid, Page page, uint32_t type, ConstBytes content);

// The checksum of a block of data: never 0, which stands for none.
uint32_t block_checksum(ConstBytes block);

PageRef load_page_ref(const std::byte* at);
void store_page_ref(std::byte* at, const PageRef& ref);
Slot load_slot(const std::byte* at);
void store_slot(std::byte* at, const Slot& slot);

// --- superblock and label
// --------------------------------------------------------------------------------------------
enum TableId : unsigned { kClusterCounts, kPageCounts, kVolumes, kResources, kDrops, kTables };

struct TableRoot {
  PageRef root;
  uint64_t length_bytes = 0;
  uint8_t levels = 0;  // of index pages above the table pages
};

struct Superblock {
  static constexpr char kMagic[9] = "OBRAZSB1";
  static constexpr uint16_t kType = 1;
  static constexpr uint32_t kFlagClean = 1;
  static constexpr size_t kTableRootsOffset = 144, kTableRootSize = 32,
                          kSumsOffset = kTableRootsOffset + kTables * kTableRootSize,
                          kEnd = kSumsOffset + kSlotSize;
  static_assert(kSumsOffset == 304);
  // Features without which a store may not be opened. A store without them is given them by its next
  // checkpoint.
  static constexpr uint64_t kFeatureSums = 1, kFeatureBlocks = 2, kFeatures = kFeatureSums | kFeatureBlocks;

  Uuid uuid;
  uint64_t features_read_only = 0, features_ignore = 0;
  uint64_t generation = 0, run = 0;
  Sequence sequence;
  uint32_t chain = 0, flags = 0;
  uint64_t journal_position = 0, journal_bytes = 0;
  uint64_t pages = 0, clusters = 0;
  VolumeId next_volume{1};
  std::array<TableRoot, kTables> tables;
  PageRef sums;  // root of the checksum tree

  // Where the generation is written first, and where its second copy goes once the first is durable.
  Page first_place() const { return Page{kSuperblockPages[generation % 2]}; }
  Page second_place() const { return Page{kSuperblockPages[(generation + 1) % 2]}; }
  Page first_node_page() const { return Page{kJournalFirstPage + journal_bytes / kPageSize}; }
};

void encode(const Superblock& superblock, Page at, Bytes page);
// not_found: no superblock of ours; corruption: ours, but damaged; unsupported: a version or feature we do
// not know.
Result<Superblock> decode_superblock(ConstBytes page, Page at);

struct Label {
  static constexpr char kMagic[9] = "OBRAZDAT";
  static constexpr uint16_t kType = 2;
  Uuid uuid;
  uint64_t clusters = 0;
};
void encode(const Label& label, Bytes page);
Result<Label> decode_label(ConstBytes page);

// --- volume entries, drops
// -------------------------------------------------------------------------------------------
constexpr size_t kVolumeEntrySize = 64, kDropEntrySize = 16, kResourceCellSize = 64, kResourceHeaderSize = 8;

struct VolumeEntry {
  VolumeId id;  // none: unused
  uint64_t size_bytes = 0;
  PageRef root;
  uint8_t level = 0;
  VolumeKind kind = VolumeKind::disk;
  uint64_t generation = 0;
};
void encode(const VolumeEntry& entry, std::byte* at);
Result<VolumeEntry> decode_volume_entry(const std::byte* at);

struct DropEntry {
  PageRef node;
  uint32_t level = 0;
};
void encode(const DropEntry& entry, std::byte* at);
Result<DropEntry> decode_drop_entry(const std::byte* at);

// --- journal
// ---------------------------------------------------------------------------------------------------------
struct BatchHeader {
  static constexpr char kMagic[9] = "OBRAZJB1";
  static constexpr uint16_t kType = 3;
  static constexpr size_t kSize = 72;
  Sequence sequence;
  uint64_t position = 0, run = 0;
  uint32_t chain = 0;
  Sequence durable;  // every batch up to this one was durable when this one was made
  uint32_t length_bytes = 0, checksum = 0;
};
// Fills the header in front of the records and returns the batch's checksum. `batch` is header and records,
// unpadded.
uint32_t seal_batch(const Uuid& uuid, const BatchHeader& header, Bytes batch);
// The header alone, enough to know how much to read. Errors: not_found (nothing that could be a batch of this
// store).
Result<BatchHeader> decode_batch_header(const Uuid& uuid, ConstBytes first_block);
bool batch_verifies(const BatchHeader& header, ConstBytes batch);

struct MapRecord {
  VolumeId volume;
  VirtualCluster cluster;
  Slot slot;
};
struct DropRangeRecord {
  VolumeId volume;
  uint64_t index = 0;
  uint32_t level = 0;
};
// Data that the journal carries. The content, a whole block, belongs to whoever made the record: of a decoded
// one it lies in the bytes that were decoded.
struct BlockRecord {
  PhysicalCluster cluster;
  uint32_t block = 0;
  ConstBytes content;
};
// What was carried so far is durable in its place.
struct LandedRecord {};
using Record = std::variant<MapRecord, DropRangeRecord, CreateVolume, CloneVolume, DeleteVolume, RevertVolume,
                            ResizeVolume, PutResource, RemoveResource, BlockRecord, LandedRecord>;
size_t encoded_size(const Record& record);
void encode(const Record& record, std::vector<std::byte>& out);  // appends
// Takes one record off the front of `bytes`, which outlive it.
Result<Record> decode_record(ConstBytes& bytes);

constexpr size_t kMapRecordSize = 4 + 32, kDropRangeRecordSize = 4 + 24, kLandedRecordSize = 4,
                 kBlockRecordSize = 4 + 16 + 4096;
constexpr size_t kMaxKeySize = 96;

// --- geometry of a mapping
// ------------------------------------------------------------------------------------------- Clusters below
// one slot of a node of this level: 1, 256, 65536, …
constexpr uint64_t clusters_per_slot(unsigned level) {
  return uint64_t(1) << (8 * level);
}
constexpr uint64_t clusters_per_node(unsigned level) {
  return clusters_per_slot(level + 1);
}
constexpr unsigned slot_index(VirtualCluster cluster, unsigned level) {
  return unsigned(cluster.value >> (8 * level)) & 0xff;
}
constexpr unsigned root_level(uint64_t size_bytes) {
  unsigned level = 0;
  while (clusters_per_node(level) * kClusterSize < size_bytes)
    ++level;
  return level;
}
// The same of the checksum tree.
constexpr uint64_t clusters_per_sum_node(unsigned level) {
  return uint64_t(kClustersPerSumNode) << (8 * (level - kSumLevel));
}
constexpr unsigned sum_root_level(uint64_t clusters) {
  unsigned level = kSumLevel;
  while (clusters_per_sum_node(level) < clusters)
    ++level;
  return level;
}
// Of a node of either tree: the clusters that it, or one slot of it, is about.
constexpr uint64_t clusters_of_node(unsigned level) {
  return level >= kSumLevel ? clusters_per_sum_node(level) : clusters_per_node(level);
}
constexpr uint64_t clusters_of_slot(unsigned level) {
  return has_children(level) ? clusters_of_node(level - 1) : 1;
}
static_assert(root_level(16u << 20) == 0 && root_level((16u << 20) + 1) == 1 &&
              root_level(uint64_t(1) << 40) == 2);

}  // namespace obraz::disk
