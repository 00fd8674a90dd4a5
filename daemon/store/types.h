// The nouns of the store (docs/architecture.md, vocabulary), as strong types.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <string>
#include <variant>
#include <vector>

#include "io/device.h"

namespace obraz {

constexpr uint64_t kClusterSize = 65536;                           // unit of allocation and sharing
constexpr unsigned kBlocksPerCluster = kClusterSize / kBlockSize;  // 16; a block is the unit of validity
constexpr uint16_t kAllBlocks = 0xffff;

template <typename Tag>
struct StrongId {
  uint64_t value = 0;  // 0: none
  explicit operator bool() const { return value != 0; }
  friend auto operator<=>(const StrongId&, const StrongId&) = default;
};
using VolumeId = StrongId<struct VolumeTag>;                  // never used twice in a store
using VirtualCluster = StrongId<struct VirtualClusterTag>;    // of a volume, from 0
using PhysicalCluster = StrongId<struct PhysicalClusterTag>;  // of the data device, from 1
using Page = StrongId<struct PageTag>;                        // of the meta device, in units of 4 KiB
using Sequence = StrongId<struct SequenceTag>;                // of journal batches, from 1

enum class VolumeKind : uint8_t { disk = 1, frozen = 2 };  // frozen: a snapshot or an image

struct VolumeInfo {
  VolumeId id;
  VolumeKind kind = VolumeKind::disk;
  uint64_t size_bytes = 0;
  bool damaged = false;  // what it needs is unreadable or does not verify; parts of it answer EIO
  bool summed = false;   // frozen, and every block of it has a checksum
};

// A run of bytes of a volume.
struct Extent {
  uint64_t offset = 0, length = 0;
  bool hole = false;  // no cluster stands behind it: reads as zeros, takes no space
  bool zero = false;  // reads as zeros (every hole does)
  friend bool operator==(const Extent&, const Extent&) = default;
};

// Where a read may take bytes from that are in memory, too.
enum class ReadFrom : uint8_t { anywhere, device };

// --- what a transaction may contain
// --------------------------------------------------------------------------------
struct CreateVolume {  // an empty disk
  VolumeId id;
  uint64_t size_bytes;
};
struct CloneVolume {  // of a frozen volume, or of a disk as it is at this instant; beyond the source it reads
                      // as zeros
  VolumeId id, source;
  VolumeKind kind;
  uint64_t size_bytes;  // not below the source's
};
struct DeleteVolume {
  VolumeId id;
};
struct RevertVolume {  // the disk becomes what the frozen volume is, size included
  VolumeId id, source;
};
struct ResizeVolume {  // grows only
  VolumeId id;
  uint64_t size_bytes;
};
// Resources are the catalog's; to the store they are bytes under a key. Key: 1–96 bytes; value: ≤
// kMaxResourceSize.
struct PutResource {
  std::string key, value;
};
struct RemoveResource {
  std::string key;
};
using Change = std::variant<CreateVolume, CloneVolume, DeleteVolume, RevertVolume, ResizeVolume, PutResource,
                            RemoveResource>;
using Transaction = std::vector<Change>;  // all or nothing, in this order, in one journal batch

struct SpaceInfo {
  uint64_t total_bytes = 0;        // of the data device, for clusters
  uint64_t used_bytes = 0;         // clusters with a count above zero
  uint64_t shared_bytes = 0;       // clusters with a count above one
  uint64_t reclaimable_bytes = 0;  // deleted and still to be freed, as far as it is known: a lower bound
  uint64_t meta_total_bytes = 0, meta_used_bytes = 0;  // node pages
  uint64_t reclaim_queue = 0;                          // subtrees still to drop
};

// A run of bytes that does not verify, or cannot be read where it was to be verified.
struct DataDamage {
  VolumeId volume;  // through which it was found; others may show the same bytes
  uint64_t offset = 0, length_bytes = 0;
  PhysicalCluster cluster;
};

enum class StoreHealth : uint8_t {
  ok,
  damaged,
  failed
};  // damaged: some volumes are; failed: read-only until reopened

struct StoreStats {
  uint64_t commits = 0, batches = 0, records = 0, checkpoints = 0, data_flushes = 0;
  uint64_t carried_blocks = 0;  // of data, by the journal
  uint64_t stuck_blocks = 0;    // of data that cannot be written now
  uint64_t nodes_cached = 0, nodes_dirty = 0, node_loads = 0, node_evictions = 0;
  uint64_t writes_in_place = 0, writes_first = 0, writes_allocating = 0, writes_to_base = 0,
           writes_copying = 0;
  uint64_t summed_bytes = 0, volumes_to_sum = 0;  // clusters with checksums; volumes that wait for theirs
  uint64_t checksum_errors = 0;                   // blocks, by reads and scrubs
  uint64_t scrub_passes = 0, scrubbed_bytes = 0;  // whole passes; bytes of all passes since the opening
  uint64_t clone_cache_bytes = 0, clone_cache_used_bytes = 0;  // at most; data in it now
  uint64_t clone_cache_hits = 0, clone_cache_misses = 0;       // blocks of what several volumes show
  uint64_t journal_bytes_used = 0, journal_bytes_total = 0, replayed_records = 0;
};

}  // namespace obraz

template <typename Tag>
struct std::hash<obraz::StrongId<Tag>> {
  size_t operator()(const obraz::StrongId<Tag>& id) const noexcept { return std::hash<uint64_t>()(id.value); }
};
