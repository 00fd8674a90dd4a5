// The structures against the byte tables of docs/disk-format.md, written down here a second time; and
// decoders against bytes nobody wrote.
#include "store/disk_format.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "base/crc32c.h"
#include "base/limits.h"

namespace obraz::disk {
namespace {

using PageBytes = std::vector<std::byte>;

Uuid some_uuid() {
  Uuid uuid;
  for (size_t i = 0; i < 16; ++i)
    uuid.bytes[i] = std::byte(0xa0 + i);
  return uuid;
}

std::string text_at(ConstBytes bytes, size_t at, size_t length) {
  return {reinterpret_cast<const char*>(bytes.data()) + at, length};
}
template <typename T>
T at(ConstBytes bytes, size_t offset) {
  return load_le<T>(bytes.data() + offset);
}
// The checksum of a structure with a header: over all of it, its own field zero.
uint32_t own_checksum(PageBytes bytes) {
  std::fill_n(bytes.begin() + 12, 4, std::byte{0});
  return crc32c(bytes);
}

Superblock some_superblock() {
  Superblock s;
  s.uuid = some_uuid();
  s.features_ignore = 0x44;
  s.generation = 7;
  s.run = 5;
  s.sequence = {99};
  s.chain = 0x12345678;
  s.flags = Superblock::kFlagClean;
  s.journal_position = 0x5000;
  s.journal_bytes = limits::kMinJournalSize;
  s.pages = 5000;
  s.clusters = 256;
  s.next_volume = {12};
  for (unsigned i = 0; i < kTables; ++i)
    s.tables[i] = {{Page{1000 + i}, 0xc0 + i}, 100 * i, uint8_t(i % 2)};
  s.sums = {Page{2000}, 0xd0};
  return s;
}

TEST(Superblock, IsAsItsTableSays) {
  PageBytes page(kPageSize, std::byte{0xff});
  encode(some_superblock(), Page{16}, page);
  EXPECT_EQ(text_at(page, 0, 8), "OBRAZSB1");
  EXPECT_EQ(at<uint16_t>(page, 8), 1u);
  EXPECT_EQ(at<uint16_t>(page, 10), 1u);
  EXPECT_EQ(at<uint32_t>(page, 12), own_checksum(page));
  EXPECT_EQ(page[16], std::byte{0xa0});
  EXPECT_EQ(page[31], std::byte{0xaf});
  EXPECT_EQ(at<uint64_t>(page, 32), 16u) << "odd generations live on page 16";
  EXPECT_EQ(at<uint64_t>(page, 40), 3u) << "checksums of data, blocks in the journal";
  EXPECT_EQ(at<uint64_t>(page, 56), 0x44u);
  EXPECT_EQ(at<uint64_t>(page, 64), 7u);
  EXPECT_EQ(at<uint64_t>(page, 72), 5u);
  EXPECT_EQ(at<uint64_t>(page, 80), 99u);
  EXPECT_EQ(at<uint32_t>(page, 88), 0x12345678u);
  EXPECT_EQ(at<uint32_t>(page, 92), 1u);
  EXPECT_EQ(at<uint64_t>(page, 96), 0x5000u);
  EXPECT_EQ(at<uint64_t>(page, 104), 256u);
  EXPECT_EQ(at<uint64_t>(page, 112), limits::kMinJournalSize);
  EXPECT_EQ(at<uint64_t>(page, 120), 5000u);
  EXPECT_EQ(at<uint64_t>(page, 128), 256u);
  EXPECT_EQ(at<uint64_t>(page, 136), 12u);
  for (unsigned i = 0; i < 5; ++i) {
    EXPECT_EQ(at<uint64_t>(page, 144 + 32 * i), 1000u + i);
    EXPECT_EQ(at<uint32_t>(page, 144 + 32 * i + 8), 0xc0u + i);
    EXPECT_EQ(at<uint32_t>(page, 144 + 32 * i + 12), 0u);
    EXPECT_EQ(at<uint64_t>(page, 144 + 32 * i + 16), 100u * i);
    EXPECT_EQ(page[144 + 32 * i + 24], std::byte(i % 2));
  }
  EXPECT_EQ(at<uint64_t>(page, 304), 2000u);
  EXPECT_EQ(at<uint32_t>(page, 312), 0xd0u);
  EXPECT_TRUE(is_zero(ConstBytes(page).subspan(316)));
}

TEST(Superblock, IsReadBack) {
  PageBytes page(kPageSize);
  const Superblock s = some_superblock();
  encode(s, Page{16}, page);
  const auto read = decode_superblock(page, Page{16});
  ASSERT_TRUE(read) << describe(read.error());
  PageBytes again(kPageSize);
  encode(*read, Page{16}, again);
  EXPECT_EQ(page, again);
}

TEST(Superblock, AnyFlippedBitIsNoticed) {
  PageBytes page(kPageSize);
  encode(some_superblock(), Page{16}, page);
  for (size_t byte = 0; byte < kPageSize; ++byte)
    for (unsigned bit = 0; bit < 8; ++bit) {
      page[byte] ^= std::byte(1u << bit);
      ASSERT_FALSE(decode_superblock(page, Page{16})) << byte << "." << bit;
      page[byte] ^= std::byte(1u << bit);
    }
  EXPECT_FALSE(decode_superblock(page, Page{0})) << "belongs to the other place";
  EXPECT_EQ(decode_superblock(PageBytes(kPageSize), Page{0}).error().code, ErrorCode::not_found);
}

// With a checksum that fits: fields that make no sense, and features of the future.
TEST(Superblock, ImpossibleFieldsAreRefused) {
  const auto with = [](size_t offset, uint64_t value) {
    PageBytes page(kPageSize);
    encode(some_superblock(), Page{16}, page);
    store_le(page.data() + offset, value);
    store_le(page.data() + 12, own_checksum(page));
    const auto read = decode_superblock(page, Page{16});
    return read ? std::optional<ErrorCode>() : read.error().code;
  };
  EXPECT_EQ(with(64, 7), std::nullopt);  // as it was
  EXPECT_EQ(with(40, 7), ErrorCode::unsupported);
  EXPECT_EQ(with(40, 0), ErrorCode::corruption) << "checksums without the feature";
  EXPECT_EQ(with(48, 1), ErrorCode::unsupported);
  EXPECT_EQ(with(56, ~0ull), std::nullopt) << "features to ignore";
  EXPECT_EQ(with(96, 0x5001), ErrorCode::corruption) << "position";
  for (const size_t offset : {64, 72, 80, 96, 136})
    EXPECT_EQ(with(offset, ~0ull << 12), ErrorCode::corruption)
        << "a number near the end of its range, at " << offset;
  EXPECT_EQ(with(104, 257), ErrorCode::corruption) << "start of the journal";
  EXPECT_EQ(with(112, 0), ErrorCode::corruption) << "journal size";
  EXPECT_EQ(with(112, limits::kMinJournalSize + 1), ErrorCode::corruption);
  EXPECT_EQ(with(112, 1ull << 60), ErrorCode::corruption);
  EXPECT_EQ(with(120, 1), ErrorCode::corruption) << "pages";
  EXPECT_EQ(with(128, 0), ErrorCode::corruption) << "clusters";
  EXPECT_EQ(with(128, ~0ull), ErrorCode::corruption);
  EXPECT_EQ(with(136, 0), ErrorCode::corruption) << "next volume";
  EXPECT_EQ(with(4088, 1), ErrorCode::corruption) << "reserved";
}

TEST(Label, IsAsItsTableSaysAndReadBack) {
  PageBytes page(kPageSize, std::byte{0xff});
  encode(Label{some_uuid(), 256}, page);
  EXPECT_EQ(text_at(page, 0, 8), "OBRAZDAT");
  EXPECT_EQ(at<uint16_t>(page, 8), 2u);
  EXPECT_EQ(at<uint32_t>(page, 12), own_checksum(page));
  EXPECT_EQ(at<uint64_t>(page, 40), 256u);
  EXPECT_TRUE(is_zero(ConstBytes(page).subspan(48)));
  const auto read = decode_label(page);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->uuid, some_uuid());
  EXPECT_EQ(read->clusters, 256u);
  page[4000] = std::byte{1};
  EXPECT_EQ(decode_label(page).error().code, ErrorCode::corruption);
  EXPECT_EQ(decode_label(PageBytes(kPageSize)).error().code, ErrorCode::not_found);
}

TEST(PageChecksum, CoversStorePlaceAndType) {
  const PageBytes content(kPageSize, std::byte{3});
  const uint32_t sum = page_checksum(some_uuid(), Page{300}, 16, content);
  Uuid other = some_uuid();
  other.bytes[0] = std::byte{0};
  EXPECT_NE(sum, page_checksum(other, Page{300}, 16, content));
  EXPECT_NE(sum, page_checksum(some_uuid(), Page{301}, 16, content));
  EXPECT_NE(sum, page_checksum(some_uuid(), Page{300}, 17, content));
  std::vector<std::byte> all(28);
  const Uuid uuid = some_uuid();
  std::copy(uuid.bytes.begin(), uuid.bytes.end(), all.begin());
  store_le<uint64_t>(&all[16], 300);
  store_le<uint32_t>(&all[24], 16);
  all.insert(all.end(), content.begin(), content.end());
  EXPECT_EQ(sum, crc32c(all));
}

TEST(Slot, BitsAreWhereTheTableSays) {
  std::array<std::byte, 16> bytes;
  store_slot(bytes.data(), {{0x112233445566}, {0x778899aabbcc}, 0x8001, 0x7ffe});
  EXPECT_EQ(at<uint64_t>(bytes, 0), 0x8001112233445566u);
  EXPECT_EQ(at<uint64_t>(bytes, 8), 0x7ffe778899aabbccu);
  const obraz::Slot slot = load_slot(bytes.data());
  EXPECT_EQ(slot.own.value, 0x112233445566u);
  EXPECT_EQ(slot.zero_mask, 0x7ffe);
}

TEST(VolumeEntry, IsAsItsTableSaysAndReadBack) {
  std::array<std::byte, kVolumeEntrySize> bytes;
  const VolumeEntry entry{{9}, 64 * limits::MiB, {Page{777}, 0xdead}, 1, VolumeKind::frozen, 4};
  encode(entry, bytes.data());
  EXPECT_EQ(at<uint64_t>(bytes, 0), 9u);
  EXPECT_EQ(at<uint64_t>(bytes, 8), 64 * limits::MiB);
  EXPECT_EQ(at<uint64_t>(bytes, 16), 777u);
  EXPECT_EQ(at<uint32_t>(bytes, 24), 0xdeadu);
  EXPECT_EQ(bytes[28], std::byte{1});
  EXPECT_EQ(bytes[29], std::byte{2});
  EXPECT_EQ(at<uint64_t>(bytes, 32), 4u);
  const auto read = decode_volume_entry(bytes.data());
  ASSERT_TRUE(read);
  EXPECT_EQ(read->root, entry.root);
  for (size_t byte : {28, 29, 30, 40, 63}) {  // level, kind, flags, reserved
    auto bad = bytes;
    bad[byte] = std::byte{0x77};
    EXPECT_FALSE(decode_volume_entry(bad.data())) << byte;
  }
  std::array<std::byte, kVolumeEntrySize> unused{};
  EXPECT_TRUE(decode_volume_entry(unused.data()));
  unused[20] = std::byte{1};
  EXPECT_FALSE(decode_volume_entry(unused.data()));
}

TEST(DropEntry, ReadBackAndRefused) {
  std::array<std::byte, kDropEntrySize> bytes;
  encode(DropEntry{{Page{5}, 6}, 3}, bytes.data());
  const auto read = decode_drop_entry(bytes.data());
  ASSERT_TRUE(read);
  EXPECT_EQ(read->node, (PageRef{Page{5}, 6}));
  EXPECT_EQ(read->level, 3u);
  encode(DropEntry{{Page{5}, 6}, 4}, bytes.data());
  EXPECT_FALSE(decode_drop_entry(bytes.data()));
  encode(DropEntry{{Page{0}, 6}, 1}, bytes.data());
  EXPECT_FALSE(decode_drop_entry(bytes.data()));
}

ConstBytes block_of_data() {
  static const std::vector<std::byte> block(kBlockSize, std::byte{0x5a});
  return block;
}

std::vector<Record> every_record() {
  return {MapRecord{{1}, {2}, {{3}, {4}, 5, 8}},
          DropRangeRecord{{1}, 7, 2},
          CreateVolume{{1}, limits::kMinVolumeSize},
          CloneVolume{{2}, {1}, VolumeKind::frozen, limits::kMinVolumeSize},
          DeleteVolume{{1}},
          RevertVolume{{1}, {2}},
          ResizeVolume{{1}, 2 * limits::kMinVolumeSize},
          PutResource{"disk/1", std::string("\0\1\2", 3)},
          PutResource{std::string(kMaxKeySize, 'k'), std::string(limits::kMaxResourceSize, 'v')},
          RemoveResource{"disk/1"},
          BlockRecord{{7}, 15, block_of_data()},
          LandedRecord{}};
}

TEST(Record, EachIsReadBackAndAsLongAsItSays) {
  std::vector<std::byte> bytes;
  std::vector<size_t> starts;
  for (const Record& record : every_record()) {
    starts.push_back(bytes.size());
    encode(record, bytes);
    EXPECT_EQ(bytes.size() - starts.back(), encoded_size(record));
    EXPECT_EQ(at<uint16_t>(bytes, starts.back() + 2), encoded_size(record));
  }
  ConstBytes rest = bytes;
  std::vector<std::byte> again;
  for (const Record& expected : every_record()) {
    const auto read = decode_record(rest);
    ASSERT_TRUE(read) << describe(read.error());
    EXPECT_EQ(read->index(), expected.index());
    encode(*read, again);
  }
  EXPECT_TRUE(rest.empty());
  EXPECT_EQ(bytes, again);
}

TEST(Record, KindsHaveTheNumbersOfTheTable) {
  const int numbers[] = {1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 10, 11};
  size_t i = 0;
  for (const Record& record : every_record()) {
    std::vector<std::byte> bytes;
    encode(record, bytes);
    EXPECT_EQ(int(bytes[0]), numbers[i++]);
  }
}

TEST(Record, CutShortAnywhereIsRefused) {
  for (const Record& record : every_record()) {
    std::vector<std::byte> bytes;
    encode(record, bytes);
    const size_t step = bytes.size() > 1000 ? 997 : 1;
    for (size_t length = 0; length < bytes.size(); length += step) {
      ConstBytes part = ConstBytes(bytes).first(length);
      ASSERT_FALSE(decode_record(part)) << length;
    }
  }
}

// Whatever the bytes are: a value or an error, and what is accepted says the same when it is written again.
TEST(Record, RandomBytesNeverHarm) {
  std::mt19937_64 random(4);
  uint64_t accepted = 0;
  for (int i = 0; i < 200'000; ++i) {
    std::vector<std::byte> bytes(random() % 80);
    for (auto& byte : bytes)
      byte = random() % 2 ? std::byte(random()) : std::byte{0};
    if (bytes.size() >= 4 && random() % 2) {  // a plausible start
      bytes[0] = std::byte(1 + random() % 11);
      bytes[1] = std::byte{0};
      store_le<uint16_t>(&bytes[2], uint16_t(bytes.size()));
    }
    ConstBytes rest = bytes;
    const auto read = decode_record(rest);
    if (!read)
      continue;
    ++accepted;
    std::vector<std::byte> again;
    encode(*read, again);
    ASSERT_TRUE(std::equal(again.begin(), again.end(), bytes.begin()));
    ASSERT_EQ(again.size(), bytes.size() - rest.size());
  }
  EXPECT_GT(accepted, 0u);
}

TEST(Batch, IsAsItsTableSays) {
  std::vector<std::byte> batch(BatchHeader::kSize);
  encode(Record(DeleteVolume{{1}}), batch);
  const uint32_t sum = seal_batch(some_uuid(), {{8}, 0x3000, 5, 0x77, {6}, 0, 0}, batch);
  EXPECT_EQ(text_at(batch, 0, 8), "OBRAZJB1");
  EXPECT_EQ(at<uint16_t>(batch, 8), 3u);
  EXPECT_EQ(at<uint16_t>(batch, 10), 1u);
  EXPECT_EQ(at<uint32_t>(batch, 12), sum);
  EXPECT_EQ(sum, own_checksum(batch));
  EXPECT_EQ(at<uint64_t>(batch, 32), 8u);
  EXPECT_EQ(at<uint64_t>(batch, 40), 0x3000u);
  EXPECT_EQ(at<uint64_t>(batch, 48), 5u);
  EXPECT_EQ(at<uint32_t>(batch, 56), 0x77u);
  EXPECT_EQ(at<uint32_t>(batch, 60), batch.size());
  EXPECT_EQ(at<uint64_t>(batch, 64), 6u);
  const size_t length = batch.size();
  batch.resize(kPageSize);
  const auto header = decode_batch_header(some_uuid(), batch);
  ASSERT_TRUE(header);
  EXPECT_EQ(header->length_bytes, length);
  const Bytes whole = Bytes(batch).first(length);
  EXPECT_TRUE(batch_verifies(*header, whole));
  EXPECT_FALSE(batch_verifies(*header, whole.first(length - 1)));
  for (size_t byte = 0; byte < length; ++byte) {
    whole[byte] ^= std::byte{0x10};
    const auto flipped = decode_batch_header(some_uuid(), batch);
    EXPECT_FALSE(flipped && batch_verifies(*flipped, whole)) << byte;
    whole[byte] ^= std::byte{0x10};
  }
  EXPECT_FALSE(decode_batch_header(Uuid{}, batch)) << "another store's";
}

TEST(Geometry, LevelsSpanWhatTheDocumentSays) {
  EXPECT_EQ(root_level(limits::kMinVolumeSize), 0u);
  EXPECT_EQ(root_level(16 * limits::MiB), 0u);
  EXPECT_EQ(root_level(20 * limits::MiB), 1u);
  EXPECT_EQ(root_level(4 * limits::GiB), 1u);
  EXPECT_EQ(root_level(1 * limits::TiB), 2u);
  EXPECT_EQ(root_level(4 * limits::TiB), 3u);
  EXPECT_EQ(slot_index({0x01020304}, 0), 4u);
  EXPECT_EQ(slot_index({0x01020304}, 3), 1u);
}

}  // namespace
}  // namespace obraz::disk
