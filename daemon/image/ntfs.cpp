#include "image/ntfs.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>

namespace obraz {
namespace {

constexpr size_t kFixupStride = 512;  // whatever the size of a sector
constexpr uint64_t kRecordMask = 0xffff'ffff'ffff;
constexpr uint32_t kListType = 0x20, kDataType = 0x80, kIndexRootType = 0x90, kIndexType = 0xa0,
                   kNoType = ~0u;
constexpr uint16_t kInUse = 1, kIsDirectory = 2;               // of a record
constexpr uint16_t kCompressed = 0x00ff, kEncrypted = 0x4000;  // of an attribute
constexpr uint16_t kHasChild = 1, kIsLast = 2;                 // of an entry of an index
constexpr uint32_t kFileNameType = 0x30, kDirectoryFlag = 0x1000'0000;
constexpr char16_t kIndexName[] = u"$I30";
constexpr size_t kFileNameSize = 0x42;  // without the name

Failure corrupt(const char* text) {
  return fail(ErrorCode::corruption, text);
}

std::u16string load_name(const std::byte* at, size_t units) {
  std::u16string name;
  for (size_t i = 0; i < units; ++i)
    name += char16_t(load_le<uint16_t>(at + 2 * i));
  return name;
}

// The last two bytes of each 512 were replaced by a number when the structure was written, and kept in its
// head. The same number everywhere shows that it was written as a whole.
bool undo_fixup(Bytes bytes, const char* signature) {
  if (bytes.size() < kFixupStride || std::memcmp(bytes.data(), signature, 4) != 0)
    return false;
  const size_t array = load_le<uint16_t>(&bytes[4]), count = load_le<uint16_t>(&bytes[6]);
  const size_t strides = bytes.size() / kFixupStride;
  if (count != strides + 1 || array < 8 || array + 2 * count > kFixupStride - 2)
    return false;
  for (size_t i = 0; i < strides; ++i) {
    std::byte* end = &bytes[(i + 1) * kFixupStride - 2];
    if (std::memcmp(end, &bytes[array], 2) != 0)
      return false;
    std::memcpy(end, &bytes[array + 2 * (i + 1)], 2);
  }
  return true;
}

// Sizes of records and blocks: so many clusters, or the power of two that the negative number stands for.
size_t size_of_unit(std::byte stated, uint64_t cluster_size) {
  const auto number = int8_t(stated);
  if (number > 0)
    return size_t(number) * cluster_size;
  return number > -32 ? size_t(1) << -number : 0;
}

}  // namespace

// A view into a record, good as long as the record.
struct NtfsVolume::Attribute {
  ConstBytes bytes;
  bool is_resident() const { return bytes[8] == std::byte(0); }
  uint16_t flags() const { return load_le<uint16_t>(&bytes[0x0c]); }
  uint64_t first_cluster() const { return load_le<uint64_t>(&bytes[0x10]); }
  uint64_t last_cluster() const { return load_le<uint64_t>(&bytes[0x18]); }
  uint64_t size_bytes() const { return load_le<uint64_t>(&bytes[0x30]); }
};

bool NtfsVolume::has_signature(ConstBytes first_sector) {
  return std::memcmp(&first_sector[3], "NTFS    ", 8) == 0;
}

Result<NtfsVolume> NtfsVolume::open(ReadRange read, uint64_t size_bytes) {
  NtfsVolume volume;
  volume.read_ = std::move(read);
  OBRAZ_TRY(volume.read_boot_sector(size_bytes));
  OBRAZ_TRY(volume.read_table());
  return volume;
}

Status NtfsVolume::read_boot_sector(uint64_t size_bytes) {
  std::byte sector[512];
  if (!read_(0, sector))
    return corrupt("the boot sector cannot be read");
  if (!has_signature(sector))
    return corrupt("the boot sector is not one of NTFS");
  const uint64_t sector_size = load_le<uint16_t>(&sector[0x0b]);
  const auto stated = uint8_t(sector[0x0d]);
  // From 0xe1 on it is a negative power of two, for clusters of more than 128 sectors.
  const uint64_t sectors_per_cluster = stated <= 0x80   ? stated
                                       : stated >= 0xe1 ? uint64_t(1) << (256 - stated)
                                                        : 0;
  if (!std::has_single_bit(sector_size) || sector_size < 256 || sector_size > 4096 ||
      !std::has_single_bit(sectors_per_cluster) || sector_size * sectors_per_cluster > kMaxCluster)
    return corrupt("sectors or clusters have a size that is not possible");
  cluster_size_ = sector_size * sectors_per_cluster;
  clusters_ = std::min(load_le<uint64_t>(&sector[0x28]) / sectors_per_cluster, size_bytes / cluster_size_);
  record_size_ = size_of_unit(sector[0x40], cluster_size_);
  if (!std::has_single_bit(record_size_) || record_size_ < kFixupStride || record_size_ > kMaxRecord)
    return corrupt("records have a size that is not possible");
  const uint64_t table = load_le<uint64_t>(&sector[0x30]);
  if (table == 0 || table >= clusters_)
    return corrupt("the table of files lies outside of the volume");
  table_offset_ = table * cluster_size_;
  return {};
}

// The first record tells where all of them lie, itself included.
Status NtfsVolume::read_table() {
  const uint64_t place = table_offset_ / cluster_size_;
  table_.runs = {{.first = 0, .length = divide_up(record_size_, cluster_size_), .place = place}};
  table_.size_bytes = record_size_;
  auto table = load(0, kDataType, u"");
  OBRAZ_TRY(table);
  if (!*table || (*table)->is_resident)
    return corrupt("the table of files is not described");
  table_ = std::move(**table);
  return {};
}

Result<std::vector<std::byte>> NtfsVolume::read_record(uint64_t number) {
  if (number >= table_.size_bytes / record_size_)
    return corrupt("a record lies beyond the table of files");
  std::vector<std::byte> record(record_size_);
  OBRAZ_TRY(read_content(table_, number * record_size_, record));
  if (!undo_fixup(record, "FILE"))
    return corrupt("a record is damaged");
  if (!(load_le<uint16_t>(&record[0x16]) & kInUse))
    return corrupt("a record is not in use");
  return record;
}

Status NtfsVolume::read_content(const Content& content, uint64_t offset, Bytes into) {
  if (content.is_resident) {
    if (offset > content.resident.size() || into.size() > content.resident.size() - offset)
      return corrupt("a value is shorter than it should be");
    std::ranges::copy(ConstBytes(content.resident).subspan(offset, into.size()), into.begin());
    return {};
  }
  if (offset > content.size_bytes || into.size() > content.size_bytes - offset)
    return corrupt("a place lies beyond the end of its file");
  while (!into.empty()) {
    const uint64_t cluster = offset / cluster_size_, within = offset % cluster_size_;
    const auto after = std::ranges::upper_bound(content.runs, cluster, {}, &Run::first);
    if (after == content.runs.begin())
      return corrupt("a place is in no run of its file");
    const Run& run = *std::prev(after);
    const uint64_t skipped = cluster - run.first;
    if (skipped >= run.length || !run.place)
      return corrupt("a place is in no run of its file");
    const uint64_t length = std::min<uint64_t>(into.size(), (run.length - skipped) * cluster_size_ - within);
    if (!read_((*run.place + skipped) * cluster_size_ + within, into.first(length)))
      return corrupt("a part of the volume cannot be read");
    into = into.subspan(length);
    offset += length;
  }
  return {};
}

// The attribute of that type and name which begins at that cluster of its file; the resident one, for 0.
Result<std::optional<NtfsVolume::Attribute>> NtfsVolume::find_attribute(ConstBytes record, uint32_t type,
                                                                        std::u16string_view name,
                                                                        uint64_t first_cluster) {
  const size_t end = std::min<size_t>(record.size(), load_le<uint32_t>(&record[0x18]));
  for (size_t at = load_le<uint16_t>(&record[0x14]); at + 4 <= end;) {
    const uint32_t found = load_le<uint32_t>(&record[at]);
    if (found == kNoType)
      return std::nullopt;
    if (at + 0x18 > end)
      break;
    const size_t length = load_le<uint32_t>(&record[at + 4]);
    if (length < 0x18 || length % 8 != 0 || length > end - at)
      break;
    const Attribute attribute{record.subspan(at, length)};
    const size_t units = uint8_t(attribute.bytes[9]), name_at = load_le<uint16_t>(&attribute.bytes[0x0a]);
    if (name_at + 2 * units > length || (!attribute.is_resident() && length < 0x40))
      break;
    if (found == type && load_name(attribute.bytes.data() + name_at, units) == name &&
        (attribute.is_resident() ? first_cluster == 0 : attribute.first_cluster() == first_cluster))
      return attribute;
    at += length;
  }
  return corrupt("the attributes of a record are damaged");
}

// Runs are pairs of a length and a distance from the run before, each of up to 8 bytes.
Status NtfsVolume::add_runs(const Attribute& attribute, Content& content) const {
  const ConstBytes bytes = attribute.bytes;
  const uint64_t last = attribute.last_cluster();
  uint64_t next = attribute.first_cluster();
  uint64_t place = 0;
  for (size_t at = load_le<uint16_t>(&bytes[0x20]); at < bytes.size() && bytes[at] != std::byte(0);) {
    const size_t length_bytes = uint8_t(bytes[at]) & 0x0f, place_bytes = uint8_t(bytes[at]) >> 4;
    if (length_bytes == 0 || length_bytes > 8 || place_bytes > 8 ||
        at + 1 + length_bytes + place_bytes > bytes.size())
      return corrupt("the runs of a file are damaged");
    uint64_t length = 0, distance = 0;
    for (size_t i = 0; i < length_bytes; ++i)
      length |= uint64_t(bytes[at + 1 + i]) << (8 * i);
    for (size_t i = 0; i < place_bytes; ++i)
      distance |= uint64_t(bytes[at + 1 + length_bytes + i]) << (8 * i);
    // Its highest bit is the sign.
    if (place_bytes > 0 && place_bytes < 8 && (distance >> (8 * place_bytes - 1)) != 0)
      distance |= ~uint64_t(0) << (8 * place_bytes);
    at += 1 + length_bytes + place_bytes;
    // A file has at most as many clusters, holes included, as fit 63 bits of bytes.
    if (length == 0 || length > INT64_MAX / kMaxCluster || next > INT64_MAX / kMaxCluster)
      return corrupt("a run of a file is too long");
    Run run{.first = next, .length = length, .place = std::nullopt};
    if (place_bytes > 0) {
      place += distance;
      if (place >= clusters_ || length > clusters_ - place)
        return corrupt("a run of a file lies outside of the volume");
      run.place = place;
    }
    if (content.runs.size() >= kMaxRuns)
      return corrupt("a file has too many runs");
    content.runs.push_back(run);
    next += length;
  }
  if (next != last + 1)
    return corrupt("the runs of a file do not make up its length");
  return {};
}

// One more part of what the attribute holds; parts come in the order of their clusters.
Status NtfsVolume::add_attribute(const Attribute& attribute, Content& content) const {
  if (attribute.flags() & (kCompressed | kEncrypted))
    return fail(ErrorCode::unsupported, "a file of the system is compressed or encrypted");
  if (attribute.is_resident()) {
    const size_t length = load_le<uint32_t>(&attribute.bytes[0x10]),
                 at = load_le<uint16_t>(&attribute.bytes[0x14]);
    if (at > attribute.bytes.size() || length > attribute.bytes.size() - at || !content.runs.empty())
      return corrupt("a value reaches beyond its attribute");
    const ConstBytes value = attribute.bytes.subspan(at, length);
    content.resident.assign(value.begin(), value.end());
    content.is_resident = true;
    return {};
  }
  if (content.runs.empty())
    content.size_bytes = attribute.size_bytes();
  return add_runs(attribute, content);
}

Result<std::optional<NtfsVolume::Content>> NtfsVolume::load(uint64_t number, uint32_t type,
                                                            std::u16string_view name) {
  const auto record = read_record(number);
  OBRAZ_TRY(record);
  if ((load_le<uint64_t>(&(*record)[0x20]) & kRecordMask) != 0)
    return corrupt("a file's record is a part of another file");
  Content content;
  const auto attribute = find_attribute(*record, type, name, 0);
  OBRAZ_TRY(attribute);
  if (*attribute)
    OBRAZ_TRY(add_attribute(**attribute, content));
  // What does not fit the record is in others, and a list tells in which.
  const auto list = find_attribute(*record, kListType, u"", 0);
  OBRAZ_TRY(list);
  if (*list) {
    Content listed;
    OBRAZ_TRY(add_attribute(**list, listed));
    // The table itself: what of it is known already is needed to read the records that know the rest.
    if (number == 0 && type == kDataType && !content.runs.empty())
      table_ = content;
    OBRAZ_TRY(load_listed(number, *record, listed, type, name, content));
  }
  if (!content.is_resident && content.runs.empty())
    return std::nullopt;
  return content;
}

Status NtfsVolume::load_listed(uint64_t number, ConstBytes record, const Content& list, uint32_t type,
                               std::u16string_view name, Content& content) {
  const uint64_t length = list.is_resident ? list.resident.size() : list.size_bytes;
  if (length > kMaxAttributeList)
    return corrupt("a list of attributes is too long");
  std::vector<std::byte> bytes(length);
  OBRAZ_TRY(read_content(list, 0, bytes));
  size_t records = 0;
  for (size_t at = 0; at + 0x1a <= bytes.size();) {
    const size_t entry_length = load_le<uint16_t>(&bytes[at + 4]);
    const size_t units = uint8_t(bytes[at + 6]), name_at = uint8_t(bytes[at + 7]);
    if (entry_length < 0x1a || entry_length > bytes.size() - at || name_at + 2 * units > entry_length)
      return corrupt("a list of attributes is damaged");
    const std::byte* entry = &bytes[at];
    at += entry_length;
    const uint64_t holder = load_le<uint64_t>(entry + 0x10) & kRecordMask;
    const uint64_t first_cluster = load_le<uint64_t>(entry + 8);
    if (load_le<uint32_t>(entry) != type || load_name(entry + name_at, units) != name)
      continue;
    if (holder == number && first_cluster == 0)
      continue;  // it was taken from there
    const uint64_t expected =
        content.runs.empty() ? 0 : content.runs.back().first + content.runs.back().length;
    if (first_cluster != expected || content.is_resident)
      return corrupt("the parts of a file do not follow each other");
    if (++records > kMaxListedRecords)
      return corrupt("a file is in too many parts");
    std::vector<std::byte> other;
    if (holder != number) {
      auto read = read_record(holder);
      OBRAZ_TRY(read);
      other = std::move(*read);
      if ((load_le<uint64_t>(&other[0x20]) & kRecordMask) != number)
        return corrupt("a list of attributes names a record of another file");
    }
    const auto attribute =
        find_attribute(holder == number ? record : ConstBytes(other), type, name, first_cluster);
    OBRAZ_TRY(attribute);
    if (!*attribute)
      return corrupt("a list of attributes names one that is not there");
    OBRAZ_TRY(add_attribute(**attribute, content));
    if (number == 0 && type == kDataType)
      table_ = content;
  }
  return {};
}

namespace {

// One node of a directory's tree: where the search ends or goes on.
struct Step {
  std::optional<NtfsVolume::Entry> found;
  std::optional<uint64_t> child;  // a block of the index
};

// `node` begins with the header of its entries.
Result<Step> search_node(ConstBytes node, std::string_view name) {
  if (node.size() < 0x10)
    return corrupt("an index is too short");
  size_t at = load_le<uint32_t>(&node[0]);
  const size_t end = std::min<size_t>(node.size(), load_le<uint32_t>(&node[4]));
  while (at <= end && end - at >= 0x10) {
    const ConstBytes entry = node.subspan(at, end - at);
    const size_t length = load_le<uint16_t>(&entry[8]), key_length = load_le<uint16_t>(&entry[0x0a]);
    const uint16_t flags = load_le<uint16_t>(&entry[0x0c]);
    if (length < 0x10 || length % 8 != 0 || length > entry.size() || ((flags & kHasChild) && length < 0x18))
      break;
    int order = -1;
    if (!(flags & kIsLast)) {
      const ConstBytes key = entry.subspan(0x10, length - 0x10);
      if (key_length < kFileNameSize || key_length > key.size())
        break;
      const size_t units = uint8_t(key[0x40]);
      if (kFileNameSize + 2 * units > key_length)
        break;
      order = compare_names(name, load_name(key.data() + kFileNameSize, units));
      if (order == 0)
        return Step{
            .found = NtfsVolume::Entry{.record = load_le<uint64_t>(&entry[0]) & kRecordMask,
                                       .directory = (load_le<uint32_t>(&key[0x38]) & kDirectoryFlag) != 0},
            .child = {}};
    }
    if (order < 0)
      return Step{
          .found = {},
          .child = flags & kHasChild ? std::optional(load_le<uint64_t>(&entry[length - 8])) : std::nullopt};
    at += length;
  }
  return corrupt("the entries of an index are damaged");
}

}  // namespace

Result<std::optional<NtfsVolume::Entry>> NtfsVolume::find(uint64_t directory, std::string_view name) {
  const auto root = load(directory, kIndexRootType, kIndexName);
  OBRAZ_TRY(root);
  if (!*root || !(*root)->is_resident || (*root)->resident.size() < 0x20)
    return corrupt("a directory has no index");
  const ConstBytes head = (*root)->resident;
  const size_t block_size = load_le<uint32_t>(&head[8]);
  if (load_le<uint32_t>(&head[0]) != kFileNameType || !std::has_single_bit(block_size) ||
      block_size < kFixupStride || block_size > kMaxIndexBlock)
    return corrupt("the index of a directory is of another kind");
  auto step = search_node(head.subspan(0x10), name);
  OBRAZ_TRY(step);
  if (step->found || !step->child)
    return step->found;

  const auto blocks = load(directory, kIndexType, kIndexName);
  OBRAZ_TRY(blocks);
  if (!*blocks || (*blocks)->is_resident)
    return corrupt("a directory has no blocks of its index");
  // Blocks are counted in clusters, or in 512 bytes where a cluster has more than a block.
  const uint64_t unit = cluster_size_ <= block_size ? cluster_size_ : kFixupStride;
  std::vector<std::byte> block(block_size);
  for (unsigned depth = 0; step->child && depth < kMaxTreeDepth; ++depth) {
    const uint64_t number = *step->child;
    if (number > (*blocks)->size_bytes / unit)
      return corrupt("a block of an index lies beyond its end");
    OBRAZ_TRY(read_content(**blocks, number * unit, block));
    if (!undo_fixup(block, "INDX") || load_le<uint64_t>(&block[0x10]) != number)
      return corrupt("a block of an index is damaged");
    step = search_node(ConstBytes(block).subspan(0x18), name);
    OBRAZ_TRY(step);
    if (step->found)
      return step->found;
  }
  if (step->child)
    return corrupt("an index is too deep");
  return std::nullopt;
}

Result<std::optional<NtfsVolume::Entry>> NtfsVolume::find_path(std::string_view path) {
  Entry entry{.record = kRootDirectory, .directory = true};
  while (!path.empty()) {
    const size_t end = std::min(path.find('/'), path.size());
    if (!entry.directory)
      return std::nullopt;
    const auto found = find(entry.record, path.substr(0, end));
    OBRAZ_TRY(found);
    if (!*found)
      return std::nullopt;
    entry = **found;
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return entry;
}

}  // namespace obraz
