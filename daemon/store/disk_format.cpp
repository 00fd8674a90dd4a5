#include "store/disk_format.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/limits.h"

namespace obraz::disk {
namespace {

static_assert(sum_root_level(limits::kMaxDataSize / kClusterSize) <= kMaxSumLevel);
constexpr uint64_t kMaxNumber = uint64_t(1) << 62;
constexpr uint64_t kMask48 = (uint64_t(1) << 48) - 1;

// The 16 bytes every structure with a header begins with, and the UUID after them.
void put_header(Bytes page, const char* magic, uint16_t type, const Uuid& uuid) {
  std::memcpy(page.data(), magic, 8);
  store_le<uint16_t>(&page[8], type);
  store_le<uint16_t>(&page[10], kVersion);
  store_le<uint32_t>(&page[12], 0);
  std::memcpy(&page[16], uuid.bytes.data(), 16);
}

uint32_t checksum_without_field(ConstBytes bytes) {
  static constexpr std::array<std::byte, 4> zeros{};
  uint32_t sum = crc32c(bytes.first(12));
  sum = crc32c(zeros, sum);
  return crc32c(bytes.subspan(16), sum);
}

bool has_magic(ConstBytes page, const char* magic) {
  return std::memcmp(page.data(), magic, 8) == 0;
}

Uuid uuid_at(const std::byte* at) {
  Uuid uuid;
  std::memcpy(uuid.bytes.data(), at, 16);
  return uuid;
}

}  // namespace

uint32_t page_checksum(const Uuid& uuid, Page page, uint32_t type, ConstBytes content) {
  std::array<std::byte, 28> identity;
  std::memcpy(identity.data(), uuid.bytes.data(), 16);
  store_le<uint64_t>(&identity[16], page.value);
  store_le<uint32_t>(&identity[24], type);
  return crc32c(content, crc32c(identity));
}

uint32_t block_checksum(ConstBytes block) {
  const uint32_t sum = crc32c(block);
  return sum != 0 ? sum : UINT32_MAX;
}

PageRef load_page_ref(const std::byte* at) {
  return {Page{load_le<uint64_t>(at)}, load_le<uint32_t>(at + 8)};
}

void store_page_ref(std::byte* at, const PageRef& ref) {
  store_le<uint64_t>(at, ref.page.value);
  store_le<uint32_t>(at + 8, ref.checksum);
  store_le<uint32_t>(at + 12, 0);
}

Slot load_slot(const std::byte* at) {
  const auto own = load_le<uint64_t>(at), base = load_le<uint64_t>(at + 8);
  return {{own & kMask48}, {base & kMask48}, uint16_t(own >> 48), uint16_t(base >> 48)};
}

void store_slot(std::byte* at, const Slot& slot) {
  store_le<uint64_t>(at, slot.own.value | uint64_t(slot.own_mask) << 48);
  store_le<uint64_t>(at + 8, slot.base.value | uint64_t(slot.zero_mask) << 48);
}

void encode(const Superblock& s, Page at_page, Bytes page) {
  OBRAZ_CHECK(page.size() == kPageSize);
  std::ranges::fill(page, std::byte{0});
  put_header(page, Superblock::kMagic, Superblock::kType, s.uuid);
  std::byte* p = page.data();
  store_le<uint64_t>(p + 32, at_page.value);
  store_le<uint64_t>(p + 40, Superblock::kFeatures);
  store_le<uint64_t>(p + 48, s.features_read_only);
  store_le<uint64_t>(p + 56, s.features_ignore);
  store_le<uint64_t>(p + 64, s.generation);
  store_le<uint64_t>(p + 72, s.run);
  store_le<uint64_t>(p + 80, s.sequence.value);
  store_le<uint32_t>(p + 88, s.chain);
  store_le<uint32_t>(p + 92, s.flags);
  store_le<uint64_t>(p + 96, s.journal_position);
  store_le<uint64_t>(p + 104, kJournalFirstPage);
  store_le<uint64_t>(p + 112, s.journal_bytes);
  store_le<uint64_t>(p + 120, s.pages);
  store_le<uint64_t>(p + 128, s.clusters);
  store_le<uint64_t>(p + 136, s.next_volume.value);
  for (unsigned i = 0; i < kTables; ++i) {
    std::byte* at = p + Superblock::kTableRootsOffset + i * Superblock::kTableRootSize;
    store_page_ref(at, s.tables[i].root);
    store_le<uint64_t>(at + 16, s.tables[i].length_bytes);
    at[24] = std::byte(s.tables[i].levels);
  }
  store_page_ref(p + Superblock::kSumsOffset, s.sums);
  store_le<uint32_t>(p + 12, checksum_without_field(page));
}

Result<Superblock> decode_superblock(ConstBytes page, Page at) {
  OBRAZ_CHECK(page.size() == kPageSize);
  const std::byte* p = page.data();
  if (!has_magic(page, Superblock::kMagic))
    return fail(ErrorCode::not_found, "no superblock");
  if (load_le<uint32_t>(p + 12) != checksum_without_field(page))
    return fail(ErrorCode::corruption, "superblock: checksum does not fit");
  if (load_le<uint16_t>(p + 8) != Superblock::kType)
    return fail(ErrorCode::corruption, "superblock: wrong type");
  if (load_le<uint16_t>(p + 10) != kVersion)
    return fail(ErrorCode::unsupported, "superblock: made by another version");
  if (load_le<uint64_t>(p + 40) & ~Superblock::kFeatures)
    return fail(ErrorCode::unsupported, "superblock: uses a feature this version does not have");
  if (load_le<uint64_t>(p + 48) != 0)
    return fail(ErrorCode::unsupported, "superblock: uses a feature this version may only read");
  Superblock s;
  s.uuid = uuid_at(p + 16);
  s.features_read_only = load_le<uint64_t>(p + 48);
  s.features_ignore = load_le<uint64_t>(p + 56);
  s.generation = load_le<uint64_t>(p + 64);
  s.run = load_le<uint64_t>(p + 72);
  s.sequence = {load_le<uint64_t>(p + 80)};
  s.chain = load_le<uint32_t>(p + 88);
  s.flags = load_le<uint32_t>(p + 92);
  s.journal_position = load_le<uint64_t>(p + 96);
  s.journal_bytes = load_le<uint64_t>(p + 112);
  s.pages = load_le<uint64_t>(p + 120);
  s.clusters = load_le<uint64_t>(p + 128);
  s.next_volume = {load_le<uint64_t>(p + 136)};
  if (load_le<uint64_t>(p + 32) != at.value)
    return fail(ErrorCode::corruption, "superblock: belongs to another place");
  // Numbers that only ever count up, and from which sums are made.
  for (const uint64_t number :
       {s.generation, s.run, s.sequence.value, s.journal_position, s.next_volume.value})
    if (number > kMaxNumber)
      return fail(ErrorCode::corruption, "superblock: a number that no store comes to");
  if (load_le<uint64_t>(p + 104) != kJournalFirstPage || s.journal_bytes < limits::kMinJournalSize ||
      s.journal_bytes > limits::kMaxJournalSize || s.journal_bytes % kPageSize != 0 ||
      s.journal_position % kPageSize != 0 || s.pages <= s.first_node_page().value || s.pages > kMask48 ||
      s.clusters < 2 || s.clusters > limits::kMaxDataSize / kClusterSize || !s.next_volume)
    return fail(ErrorCode::corruption, "superblock: impossible geometry");
  for (unsigned i = 0; i < kTables; ++i) {
    const std::byte* root = p + Superblock::kTableRootsOffset + i * Superblock::kTableRootSize;
    s.tables[i] = {load_page_ref(root), load_le<uint64_t>(root + 16), uint8_t(root[24])};
    if (load_le<uint32_t>(root + 12) != 0 || !is_zero({root + 25, 7}))
      return fail(ErrorCode::corruption, "superblock: reserved bytes are not zero");
  }
  s.sums = load_page_ref(p + Superblock::kSumsOffset);
  if (load_le<uint32_t>(p + Superblock::kSumsOffset + 12) != 0 ||
      (s.sums && !(load_le<uint64_t>(p + 40) & Superblock::kFeatureSums)) ||
      !is_zero(page.subspan(Superblock::kEnd)))
    return fail(ErrorCode::corruption, "superblock: reserved bytes are not zero");
  return s;
}

void encode(const Label& label, Bytes page) {
  OBRAZ_CHECK(page.size() == kPageSize);
  std::ranges::fill(page, std::byte{0});
  put_header(page, Label::kMagic, Label::kType, label.uuid);
  store_le<uint64_t>(&page[40], label.clusters);
  store_le<uint32_t>(&page[12], checksum_without_field(page));
}

Result<Label> decode_label(ConstBytes page) {
  if (!has_magic(page, Label::kMagic))
    return fail(ErrorCode::not_found, "no label");
  if (load_le<uint32_t>(&page[12]) != checksum_without_field(page))
    return fail(ErrorCode::corruption, "label: checksum does not fit");
  if (load_le<uint16_t>(&page[8]) != Label::kType || load_le<uint16_t>(&page[10]) != kVersion ||
      load_le<uint64_t>(&page[32]) != 0 || !is_zero(page.subspan(48)))
    return fail(ErrorCode::corruption, "label: impossible fields");
  return Label{uuid_at(&page[16]), load_le<uint64_t>(&page[40])};
}

void encode(const VolumeEntry& entry, std::byte* at) {
  std::memset(at, 0, kVolumeEntrySize);
  if (!entry.id)
    return;
  store_le<uint64_t>(at, entry.id.value);
  store_le<uint64_t>(at + 8, entry.size_bytes);
  store_le<uint64_t>(at + 16, entry.root.page.value);
  store_le<uint32_t>(at + 24, entry.root.checksum);
  at[28] = std::byte(entry.level);
  at[29] = std::byte(entry.kind);
  store_le<uint64_t>(at + 32, entry.generation);
}

Result<VolumeEntry> decode_volume_entry(const std::byte* at) {
  VolumeEntry entry;
  entry.id = {load_le<uint64_t>(at)};
  if (!entry.id) {
    if (!is_zero({at, kVolumeEntrySize}))
      return fail(ErrorCode::corruption, "volume table: an unused entry is not zero");
    return entry;
  }
  entry.size_bytes = load_le<uint64_t>(at + 8);
  entry.root = {Page{load_le<uint64_t>(at + 16)}, load_le<uint32_t>(at + 24)};
  entry.level = uint8_t(at[28]);
  entry.kind = VolumeKind(at[29]);
  entry.generation = load_le<uint64_t>(at + 32);
  if (entry.size_bytes == 0 || entry.size_bytes > limits::kMaxVolumeSize ||
      entry.level != root_level(entry.size_bytes) ||
      (entry.kind != VolumeKind::disk && entry.kind != VolumeKind::frozen) ||
      load_le<uint16_t>(at + 30) != 0 || !is_zero({at + 40, 24}))
    return fail(ErrorCode::corruption, "volume table: impossible entry");
  return entry;
}

void encode(const DropEntry& entry, std::byte* at) {
  store_page_ref(at, entry.node);
  store_le<uint32_t>(at + 12, entry.level);
}

Result<DropEntry> decode_drop_entry(const std::byte* at) {
  DropEntry entry{load_page_ref(at), load_le<uint32_t>(at + 12)};
  if (!entry.node || entry.level > kMaxLevel)
    return fail(ErrorCode::corruption, "drop table: impossible entry");
  return entry;
}

uint32_t seal_batch(const Uuid& uuid, const BatchHeader& header, Bytes batch) {
  put_header(batch, BatchHeader::kMagic, BatchHeader::kType, uuid);
  std::byte* p = batch.data();
  store_le<uint64_t>(p + 32, header.sequence.value);
  store_le<uint64_t>(p + 40, header.position);
  store_le<uint64_t>(p + 48, header.run);
  store_le<uint32_t>(p + 56, header.chain);
  store_le<uint32_t>(p + 60, uint32_t(batch.size()));
  store_le<uint64_t>(p + 64, header.durable.value);
  const uint32_t checksum = checksum_without_field(batch);
  store_le<uint32_t>(p + 12, checksum);
  return checksum;
}

Result<BatchHeader> decode_batch_header(const Uuid& uuid, ConstBytes block) {
  const std::byte* p = block.data();
  if (!has_magic(block, BatchHeader::kMagic) || load_le<uint16_t>(p + 8) != BatchHeader::kType ||
      load_le<uint16_t>(p + 10) != kVersion || uuid_at(p + 16) != uuid)
    return fail(ErrorCode::not_found, "no batch");
  BatchHeader header;
  header.checksum = load_le<uint32_t>(p + 12);
  header.sequence = {load_le<uint64_t>(p + 32)};
  header.position = load_le<uint64_t>(p + 40);
  header.run = load_le<uint64_t>(p + 48);
  header.chain = load_le<uint32_t>(p + 56);
  header.length_bytes = load_le<uint32_t>(p + 60);
  header.durable = {load_le<uint64_t>(p + 64)};
  if (header.length_bytes < BatchHeader::kSize || header.length_bytes > limits::kMaxBatchSize)
    return fail(ErrorCode::not_found, "no batch");
  return header;
}

bool batch_verifies(const BatchHeader& header, ConstBytes batch) {
  return batch.size() == header.length_bytes && checksum_without_field(batch) == header.checksum;
}

// --- records
// ---------------------------------------------------------------------------------------------------------
namespace {

enum Kind : uint8_t {
  kMap = 1,
  kDropRange,
  kCreate,
  kClone,
  kDelete,
  kRevert,
  kResize,
  kPut,
  kRemove,
  kBlock,
  kLanded
};

// Appends fields in order.
struct Writer {
  std::vector<std::byte>& out;
  template <std::unsigned_integral T>
  Writer& put(T value) {
    const size_t at = out.size();
    out.resize(at + sizeof(T));
    store_le<T>(&out[at], value);
    return *this;
  }
  Writer& put(std::string_view text) {
    const auto* p = reinterpret_cast<const std::byte*>(text.data());
    out.insert(out.end(), p, p + text.size());
    return *this;
  }
};

// Takes fields in order; `ok` turns false for ever when they end too early.
struct Reader {
  ConstBytes bytes;
  bool ok = true;
  template <typename T>
  T take() {
    if (bytes.size() < sizeof(T)) {
      ok = false;
      return 0;
    }
    const T value = load_le<T>(bytes.data());
    bytes = bytes.subspan(sizeof(T));
    return value;
  }
  std::string take_text(size_t size) {
    if (bytes.size() < size) {
      ok = false;
      return {};
    }
    std::string text(reinterpret_cast<const char*>(bytes.data()), size);
    bytes = bytes.subspan(size);
    return text;
  }
  void take_zeros(size_t size) {
    if (bytes.size() < size || !is_zero(bytes.first(size)))
      ok = false;
    else
      bytes = bytes.subspan(size);
  }
};

struct Size {
  size_t operator()(const MapRecord&) const { return kMapRecordSize; }
  size_t operator()(const DropRangeRecord&) const { return kDropRangeRecordSize; }
  size_t operator()(const CreateVolume&) const { return 4 + 16; }
  size_t operator()(const CloneVolume&) const { return 4 + 32; }
  size_t operator()(const DeleteVolume&) const { return 4 + 8; }
  size_t operator()(const RevertVolume&) const { return 4 + 16; }
  size_t operator()(const ResizeVolume&) const { return 4 + 16; }
  size_t operator()(const PutResource& r) const { return 4 + 8 + r.key.size() + r.value.size(); }
  size_t operator()(const RemoveResource& r) const { return 4 + 4 + r.key.size(); }
  size_t operator()(const BlockRecord&) const { return kBlockRecordSize; }
  size_t operator()(const LandedRecord&) const { return kLandedRecordSize; }
};

struct Body {
  Writer w;
  uint8_t operator()(const MapRecord& r) {
    w.put(r.volume.value).put(r.cluster.value);
    const size_t at = w.out.size();
    w.out.resize(at + kSlotSize);
    store_slot(&w.out[at], r.slot);
    return kMap;
  }
  uint8_t operator()(const DropRangeRecord& r) {
    w.put(r.volume.value).put(r.index).put(r.level).put(uint32_t(0));
    return kDropRange;
  }
  uint8_t operator()(const CreateVolume& r) {
    w.put(r.id.value).put(r.size_bytes);
    return kCreate;
  }
  uint8_t operator()(const CloneVolume& r) {
    w.put(r.id.value).put(r.source.value).put(r.size_bytes).put(uint64_t(uint8_t(r.kind)));
    return kClone;
  }
  uint8_t operator()(const DeleteVolume& r) {
    w.put(r.id.value);
    return kDelete;
  }
  uint8_t operator()(const RevertVolume& r) {
    w.put(r.id.value).put(r.source.value);
    return kRevert;
  }
  uint8_t operator()(const ResizeVolume& r) {
    w.put(r.id.value).put(r.size_bytes);
    return kResize;
  }
  uint8_t operator()(const PutResource& r) {
    w.put(uint16_t(r.key.size())).put(uint16_t(0)).put(uint32_t(r.value.size())).put(r.key).put(r.value);
    return kPut;
  }
  uint8_t operator()(const RemoveResource& r) {
    w.put(uint16_t(r.key.size())).put(uint16_t(0)).put(r.key);
    return kRemove;
  }
  uint8_t operator()(const BlockRecord& r) {
    OBRAZ_CHECK(r.content.size() == kBlockSize);
    w.put(r.cluster.value).put(r.block).put(uint32_t(0));
    w.out.insert(w.out.end(), r.content.begin(), r.content.end());
    return kBlock;
  }
  uint8_t operator()(const LandedRecord&) { return kLanded; }
};

std::optional<Record> read_body(uint8_t kind, Reader& r) {
  switch (kind) {
    case kMap: {
      MapRecord m{{r.take<uint64_t>()}, {r.take<uint64_t>()}, {}};
      if (r.bytes.size() != kSlotSize)
        return {};
      m.slot = load_slot(r.bytes.data());
      r.bytes = {};
      return m;
    }
    case kDropRange: {
      DropRangeRecord d{{r.take<uint64_t>()}, r.take<uint64_t>(), r.take<uint32_t>()};
      r.take_zeros(4);
      return d;
    }
    case kCreate:
      return CreateVolume{{r.take<uint64_t>()}, r.take<uint64_t>()};
    case kClone: {
      CloneVolume c{{r.take<uint64_t>()}, {r.take<uint64_t>()}, VolumeKind::disk, r.take<uint64_t>()};
      c.kind = VolumeKind(r.take<uint8_t>());
      r.take_zeros(7);
      if (c.kind != VolumeKind::disk && c.kind != VolumeKind::frozen)
        return {};
      return c;
    }
    case kDelete:
      return DeleteVolume{{r.take<uint64_t>()}};
    case kRevert:
      return RevertVolume{{r.take<uint64_t>()}, {r.take<uint64_t>()}};
    case kResize:
      return ResizeVolume{{r.take<uint64_t>()}, r.take<uint64_t>()};
    case kPut: {
      const auto key = r.take<uint16_t>();
      r.take_zeros(2);
      const auto value = r.take<uint32_t>();
      if (key == 0 || key > kMaxKeySize || value > limits::kMaxResourceSize)
        return {};
      PutResource put;
      put.key = r.take_text(key);
      put.value = r.take_text(value);
      return put;
    }
    case kRemove: {
      const auto key = r.take<uint16_t>();
      r.take_zeros(2);
      if (key == 0 || key > kMaxKeySize)
        return {};
      return RemoveResource{r.take_text(key)};
    }
    case kBlock: {
      BlockRecord b{{r.take<uint64_t>()}, r.take<uint32_t>(), {}};
      r.take_zeros(4);
      if (r.bytes.size() != kBlockSize || b.block >= kBlocksPerCluster || !b.cluster)
        return {};
      b.content = std::exchange(r.bytes, {});
      return b;
    }
    case kLanded:
      return LandedRecord{};
    default:
      return {};
  }
}

}  // namespace

size_t encoded_size(const Record& record) {
  return std::visit(Size{}, record);
}

void encode(const Record& record, std::vector<std::byte>& out) {
  const size_t at = out.size();
  out.resize(at + 4);
  const uint8_t kind = std::visit(Body{{out}}, record);
  out[at] = std::byte(kind);
  out[at + 1] = std::byte{0};
  const size_t size = out.size() - at;
  OBRAZ_CHECK(size == encoded_size(record) && size <= UINT16_MAX);
  store_le<uint16_t>(&out[at + 2], uint16_t(size));
}

Result<Record> decode_record(ConstBytes& bytes) {
  constexpr auto kBad = "journal: malformed record";
  if (bytes.size() < 4 || bytes[1] != std::byte{0})
    return fail(ErrorCode::corruption, kBad);
  const size_t size = load_le<uint16_t>(&bytes[2]);
  if (size < 4 || size > bytes.size())
    return fail(ErrorCode::corruption, kBad);
  Reader reader{bytes.subspan(4, size - 4)};
  auto record = read_body(uint8_t(bytes[0]), reader);
  if (!record || !reader.ok || !reader.bytes.empty())
    return fail(ErrorCode::corruption, kBad);
  bytes = bytes.subspan(size);
  return std::move(*record);
}

}  // namespace obraz::disk
