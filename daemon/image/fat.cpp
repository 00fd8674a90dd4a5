#include "image/fat.h"

#include <algorithm>
#include <bit>
#include <string>
#include <vector>

namespace obraz {
namespace {

constexpr uint32_t kFirstCluster = 2;
constexpr uint32_t kFewestOf16 = 4085, kFewestOf32 = 65525, kMostClusters = 0x0fff'fff5;
constexpr uint8_t kDeleted = 0xe5, kEscapedE5 = 0x05;
constexpr uint8_t kLabel = 0x08, kDirectory = 0x10, kLongName = 0x0f;  // attributes
constexpr uint8_t kLastPart = 0x40;                                    // of a long name, which comes first
constexpr size_t kUnitsPerPart = 13, kMaxParts = 20;

Failure corrupt(const char* text) {
  return fail(ErrorCode::corruption, text);
}

// The sum of a short name, by which the parts of its long name know it.
uint8_t sum_of(const std::byte* short_name) {
  uint8_t sum = 0;
  for (size_t i = 0; i < 11; ++i)
    sum = uint8_t((sum & 1) << 7 | sum >> 1) + uint8_t(short_name[i]);
  return sum;
}

std::u16string short_name(const std::byte* entry) {
  std::u16string name;
  const auto add = [&](size_t from, size_t to) {
    while (to > from && entry[to - 1] == std::byte(' '))
      --to;
    for (size_t i = from; i < to; ++i)
      name += char16_t(i == 0 && uint8_t(entry[0]) == kEscapedE5 ? kDeleted : uint8_t(entry[i]));
  };
  add(0, 8);
  const size_t base = name.size();
  name += u'.';
  add(8, 11);
  if (name.size() == base + 1)
    name.pop_back();
  return name;
}

// A long name lies in front of its short one, its last part first. A part that does not follow the one before
// makes all of it void; the short name stands alone then.
class LongName {
 public:
  void add(const std::byte* part) {
    const auto number = uint8_t(part[0]);
    if (number & kLastPart) {
      missing_ = number & ~kLastPart;
      sum_ = uint8_t(part[13]);
      name_.assign(missing_ <= kMaxParts ? missing_ * kUnitsPerPart : 0, u'\0');
    } else if (missing_ == 0 || number != missing_ || uint8_t(part[13]) != sum_) {
      return clear();
    }
    if (missing_ == 0 || missing_ > kMaxParts)
      return clear();
    --missing_;
    constexpr uint8_t kPlaces[kUnitsPerPart] = {1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30};
    for (size_t i = 0; i < kUnitsPerPart; ++i)
      name_[missing_ * kUnitsPerPart + i] = char16_t(load_le<uint16_t>(part + kPlaces[i]));
  }
  void clear() {
    name_.clear();
    missing_ = 0;
  }
  // The whole name, when all its parts were there and are of this short name.
  std::u16string_view of(const std::byte* entry) const {
    if (missing_ != 0 || sum_of(entry) != sum_)
      return {};
    const std::u16string_view name = name_;
    return name.substr(0, name.find(u'\0'));
  }

 private:
  std::u16string name_;
  size_t missing_ = 0;  // parts
  uint8_t sum_ = 0;
};

}  // namespace

Result<FatVolume> FatVolume::open(ReadRange read, uint64_t size_bytes) {
  FatVolume volume;
  volume.read_ = std::move(read);
  OBRAZ_TRY(volume.read_boot_sector(size_bytes));
  return volume;
}

Status FatVolume::read_boot_sector(uint64_t size_bytes) {
  std::byte sector[512];
  if (!read_(0, sector))
    return corrupt("the boot sector cannot be read");
  const auto word = [&](size_t at) -> uint64_t { return load_le<uint16_t>(&sector[at]); };
  const auto long_word = [&](size_t at) -> uint64_t { return load_le<uint32_t>(&sector[at]); };
  const uint64_t sector_size = word(11), cluster_sectors = uint8_t(sector[13]), reserved = word(14);
  const uint64_t tables = uint8_t(sector[16]), root_entries = word(17);
  const uint64_t sectors = word(19) != 0 ? word(19) : long_word(32);
  const bool is_32 = word(22) == 0;
  const uint64_t table_sectors = is_32 ? long_word(36) : word(22);
  if (uint8_t(sector[510]) != 0x55 || uint8_t(sector[511]) != 0xaa || !std::has_single_bit(sector_size) ||
      sector_size < 512 || sector_size > 4096 || !std::has_single_bit(cluster_sectors) || reserved == 0 ||
      tables == 0 || table_sectors == 0 || (uint8_t(sector[21]) < 0xf8 && uint8_t(sector[21]) != 0xf0))
    return corrupt("the boot sector is not one of FAT");
  const uint64_t root_sectors = divide_up(root_entries * kEntrySize, sector_size);
  const uint64_t before = reserved + tables * table_sectors + root_sectors;
  if (sectors <= before || before * sector_size >= size_bytes)
    return corrupt("the tables are longer than the volume");
  const uint64_t clusters = (sectors - before) / cluster_sectors;
  if (clusters == 0 || clusters > kMostClusters)
    return corrupt("the number of clusters is not possible");
  bits_ = is_32 ? 32 : clusters < kFewestOf16 ? 12 : 16;
  // A table of 32 bits may have fewer clusters than its kind begins with: small EFI system partitions are
  // made so.
  const uint64_t table_entries = table_sectors * sector_size * 8 / bits_;
  if ((!is_32 && clusters >= kFewestOf32) || table_entries <= kFirstCluster)
    return corrupt("the number of clusters is not possible");
  clusters_ = uint32_t(std::min(clusters, table_entries - kFirstCluster));
  piece_size_ = sector_size;
  cluster_size_ = cluster_sectors * sector_size;
  table_ = reserved * sector_size;
  root_ = table_ + tables * table_sectors * sector_size;
  root_size_ = root_sectors * sector_size;
  data_ = root_ + root_size_;
  root_cluster_ = is_32 ? uint32_t(long_word(44)) : 0;
  return {};
}

// The cluster after this one in its chain; 0: it is the last.
Result<uint32_t> FatVolume::following(uint32_t cluster) {
  std::byte bytes[4] = {};
  const uint64_t at = table_ + uint64_t(cluster) * bits_ / 8;
  if (!read_(at, Bytes(bytes).first(bits_ == 32 ? 4 : 2)))
    return corrupt("the table of clusters cannot be read");
  uint32_t next = load_le<uint32_t>(bytes);
  uint32_t last = 0xfff8;
  if (bits_ == 12) {
    next = cluster % 2 != 0 ? next >> 4 : next & 0xfff;
    last = 0xff8;
  } else if (bits_ == 32) {
    next &= 0x0fff'ffff;
    last = 0x0fff'fff8;
  }
  if (next >= last)
    return 0u;
  if (next < kFirstCluster || next - kFirstCluster >= clusters_)
    return corrupt("a chain of clusters leads out of the volume");
  return next;
}

// Where the reading of a directory has got to.
struct FatVolume::Walk {
  uint32_t cluster = 0;  // 0: the root of FAT12 and FAT16, which is no chain
  uint64_t within = 0;   // the cluster, or the root
};

Result<std::optional<uint64_t>> FatVolume::next_piece(Walk& walk) {
  if (walk.cluster == 0) {
    if (walk.within >= root_size_)
      return std::nullopt;
  } else if (walk.within >= cluster_size_) {
    const auto next = following(walk.cluster);
    OBRAZ_TRY(next);
    if (*next == 0)
      return std::nullopt;
    walk = {.cluster = *next, .within = 0};
  }
  const uint64_t start =
      walk.cluster == 0 ? root_ : data_ + uint64_t(walk.cluster - kFirstCluster) * cluster_size_;
  const uint64_t place = start + walk.within;
  walk.within += piece_size_;
  return place;
}

Result<std::optional<FatVolume::Entry>> FatVolume::find(const Entry* directory, std::string_view name) {
  Walk walk{.cluster = directory ? directory->cluster : root_cluster_, .within = 0};
  if ((directory || bits_ == 32) &&
      (walk.cluster < kFirstCluster || walk.cluster - kFirstCluster >= clusters_))
    return corrupt("a directory lies outside of the volume");
  std::vector<std::byte> piece(piece_size_);
  LongName long_name;
  for (size_t entries = 0; entries < kMaxDirectory;) {
    const auto place = next_piece(walk);
    OBRAZ_TRY(place);
    if (!*place)
      return std::nullopt;
    if (!read_(**place, piece))
      return corrupt("a directory cannot be read");
    for (size_t at = 0; at < piece.size(); at += kEntrySize, ++entries) {
      const std::byte* entry = &piece[at];
      const auto first = uint8_t(entry[0]), attributes = uint8_t(entry[11]);
      if (first == 0)
        return std::nullopt;
      if (first == kDeleted) {
        long_name.clear();
        continue;
      }
      if ((attributes & 0x3f) == kLongName) {
        long_name.add(entry);
        continue;
      }
      if (!(attributes & kLabel) &&
          (compare_names(name, short_name(entry)) == 0 || compare_names(name, long_name.of(entry)) == 0)) {
        const uint32_t high = bits_ == 32 ? load_le<uint16_t>(entry + 20) : 0;
        return Entry{.cluster = high << 16 | load_le<uint16_t>(entry + 26),
                     .directory = (attributes & kDirectory) != 0};
      }
      long_name.clear();
    }
  }
  return corrupt("a directory does not end");
}

Result<std::optional<FatVolume::Entry>> FatVolume::find_path(std::string_view path) {
  std::optional<Entry> entry;
  while (!path.empty()) {
    const size_t end = std::min(path.find('/'), path.size());
    if (entry && !entry->directory)
      return std::nullopt;
    const auto found = find(entry ? &*entry : nullptr, path.substr(0, end));
    OBRAZ_TRY(found);
    if (!*found)
      return std::nullopt;
    entry = **found;
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return entry;
}

}  // namespace obraz
