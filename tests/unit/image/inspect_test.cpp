// Hostile and damaged files: each is made by a program as a good one, then one thing in it is changed.
#include "image/inspect.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <cstring>
#include <random>

#include "base/crc32c.h"
#include "base/limits.h"
#include "image_support.h"

namespace obraz::test {
namespace {

using limits::KiB;
using limits::MiB;

// A good image, to be changed; the first read of it must find it good.
class Inspect : public testing::Test {
 protected:
  std::string make(const std::string& options, uint64_t size = 24 * MiB) {
    make_raw_disk(work_ / "disk.raw", size);
    const std::string path = work_ / "image";
    shell(fmt::format("qemu-img convert -f raw {} {} {}", options, work_ / "disk.raw", path));
    const auto source = ImportSource::open({.location = path, .format = {}});
    EXPECT_TRUE(source.has_value()) << source.error().message;
    return path;
  }
  testing::AssertionResult refused_as(const std::string& part) {
    return open_refused({.location = work_ / "image", .format = {}}, ErrorCode::invalid_argument, part);
  }
  uint64_t be64(uint64_t offset) { return load_be<uint64_t>(&read_file(work_ / "image")[offset]); }
  uint32_t be32(uint64_t offset) { return load_be<uint32_t>(&read_file(work_ / "image")[offset]); }
  uint32_t le32(uint64_t offset) { return load_le<uint32_t>(&read_file(work_ / "image")[offset]); }
  uint64_t le64(uint64_t offset) { return load_le<uint64_t>(&read_file(work_ / "image")[offset]); }

  // A half, most of it, and all but a little: none of these is a whole image, whatever its format.
  void expect_every_cut_refused() {
    const uint64_t whole = file_size(work_ / "image");
    for (const uint64_t length :
         {uint64_t(1), uint64_t(600), uint64_t(70'000), whole / 2, whole * 9 / 10, whole - 70'000}) {
      shell(fmt::format("cp {0} {0}.cut && truncate -s {1} {0}.cut", work_ / "image", length));
      const auto format = ImportSource::open({.location = work_ / "image", .format = {}}).value()->format();
      EXPECT_TRUE(
          open_refused({.location = work_ / "image.cut", .format = format}, ErrorCode::invalid_argument, ""))
          << length;
    }
  }

  WorkDirectory work_;
};

// --- qcow2
// ---------------------------------------------------------------------------------------------------------

TEST_F(Inspect, Qcow2WithBackingFileIsRefusedAndNothingElseIsOpened) {
  const std::string other = work_ / "other.raw";
  make_raw_disk(other, 4 * MiB);
  shell(fmt::format("qemu-img create -q -f qcow2 -F raw -b {} {}", other, work_ / "image"));
  const OwnedFd watch(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  ASSERT_GE(::inotify_add_watch(watch.get(), other.c_str(), IN_OPEN | IN_ACCESS), 0);
  EXPECT_TRUE(refused_as("backing file"));
  char event[4096];
  EXPECT_LT(::read(watch.get(), event, sizeof event), 0) << "the backing file was opened";
  read_file(other);
  EXPECT_GT(::read(watch.get(), event, sizeof event), 0) << "the watch does not see an open";
}

TEST_F(Inspect, Qcow2WithExternalDataFileIsRefused) {
  shell(fmt::format("qemu-img create -q -f qcow2 -o data_file={} {} 4M", work_ / "data", work_ / "image"));
  EXPECT_TRUE(refused_as("another file"));
  patch_be64(work_ / "image", 72, 0);  // without the bit, the name alone
  EXPECT_TRUE(refused_as("external data file"));
}

TEST_F(Inspect, Qcow2EncryptedIsRefused) {
  const std::string path = make("-O qcow2", 4 * MiB);
  patch_be32(path, 32, 2);  // LUKS
  EXPECT_TRUE(refused_as("encrypted"));
  patch_be32(path, 32, 0);
  patch_be32(path, 112, 0x0537be77);  // the header extension that says where its keys are, alone
  patch_be32(path, 116, 16);
  EXPECT_TRUE(refused_as("encrypted"));
}

struct Patch {
  const char* name;
  uint64_t offset;
  unsigned bytes;
  uint64_t value;
  const char* refusal;
};

class InspectQcow2Header : public Inspect, public testing::WithParamInterface<Patch> {};

TEST_P(InspectQcow2Header, IsRefused) {
  const std::string path = make("-O qcow2", 4 * MiB);
  if (GetParam().bytes == 4)
    patch_be32(path, GetParam().offset, uint32_t(GetParam().value));
  else
    patch_be64(path, GetParam().offset, GetParam().value);
  EXPECT_TRUE(refused_as(GetParam().refusal));
}

INSTANTIATE_TEST_SUITE_P(
    All, InspectQcow2Header,
    testing::Values(
        Patch{"Version", 4, 4, 4, "version 4"}, Patch{"BackingOffset", 8, 8, 1000, "backing file"},
        Patch{"ClusterBitsTooFew", 20, 4, 8, "2^8"}, Patch{"ClusterBitsTooMany", 20, 4, 22, "2^22"},
        Patch{"ClusterBitsAbsurd", 20, 4, 0xffffffff, "damaged"}, Patch{"SizeZero", 24, 8, 0, "no bytes"},
        Patch{"SizeAbsurd", 24, 8, UINT64_MAX & ~511ull, "limit"},
        Patch{"SizeAboveLimit", 24, 8, limits::kMaxVolumeSize + 512, "limit"},
        Patch{"SizeBeyondL1", 24, 8, limits::kMaxVolumeSize, "L1 table"},
        Patch{"SizeUneven", 24, 8, 1000, "whole sectors"}, Patch{"CryptMethod", 32, 4, 1, "encrypted"},
        Patch{"L1Empty", 36, 4, 0, "L1 table"}, Patch{"L1Absurd", 36, 4, 0xffffffff, "L1 table"},
        Patch{"L1OffsetBeyond", 40, 8, 1ull << 40, "beyond the file"},
        Patch{"L1OffsetOverflows", 40, 8, UINT64_MAX & ~65535ull, "beyond the file"},
        Patch{"L1OffsetUneven", 40, 8, 65536 + 8, "L1 table"},
        Patch{"L1OffsetInHeader", 40, 8, 0, "L1 table"},
        Patch{"RefcountBeyond", 48, 8, 1ull << 40, "beyond the file"},
        Patch{"RefcountTableAbsent", 56, 4, 0, "refcount table"},
        Patch{"RefcountTableAbsurd", 56, 4, 0xffffffff, "refcount table"},
        Patch{"SnapshotsAbsurd", 60, 4, 0xffffffff, "internal snapshots"},
        Patch{"SnapshotsWithoutTable", 60, 4, 1, "snapshot table"},
        Patch{"Corrupt", 72, 8, 2, "marked as corrupt"}, Patch{"DataFile", 72, 8, 4, "another file"},
        Patch{"UnknownFeature", 72, 8, 1ull << 40, "unknown"},
        Patch{"CompressionWithoutType", 72, 8, 8, "compression"},
        Patch{"RefcountOrder", 96, 4, 7, "reference counts"}, Patch{"HeaderShort", 100, 4, 96, "header"},
        Patch{"HeaderLong", 100, 4, 0xfffffff8, "header"}),
    [](const auto& info) { return info.param.name; });

TEST_F(Inspect, Qcow2ExtensionWithoutEndIsRefused) {
  const std::string path = make("-O qcow2", 4 * MiB);
  patch_be32(path, 112, 0x12345678);
  patch_be32(path, 116, 0xffffffff);
  EXPECT_TRUE(refused_as("header extension"));
}

TEST_F(Inspect, Qcow2WithTablesElsewhereIsRefused) {
  const std::string path = make("-O qcow2", 4 * MiB);
  const uint64_t l1 = be64(40);
  const uint64_t l2 = be64(l1) & 0x00fffffffffffe00;
  patch_be64(path, l2, (1ull << 63) | (1ull << 40));
  EXPECT_TRUE(refused_as("truncated"));
  patch_be64(path, l2, (1ull << 63) | 512);
  EXPECT_TRUE(refused_as("a cluster is said to be at byte 512"));
  patch_be64(path, l2, (1ull << 62) | 0x3fffffffffffff00);
  EXPECT_TRUE(refused_as("truncated"));
  patch_be64(path, l1, (1ull << 63) | (1ull << 40));
  EXPECT_TRUE(refused_as("an L2 table"));
  patch_be64(path, l1, (1ull << 63) | 1024);
  EXPECT_TRUE(refused_as("an L2 table is said to be at byte 1024"));
}

TEST_F(Inspect, Qcow2CutAnywhereIsRefused) {
  make("-O qcow2");
  expect_every_cut_refused();
}

TEST_F(Inspect, Qcow2CompressedCutAnywhereIsRefused) {
  make("-c -O qcow2");
  const uint64_t whole = file_size(work_ / "image");
  shell(fmt::format("truncate -s {} {}", whole - 128 * KiB, work_ / "image"));
  EXPECT_TRUE(refused_as("truncated"));
}

TEST_F(Inspect, Qcow2CutInItsLastClusterIsRefused) {
  const std::string path = make("-O qcow2");
  shell(fmt::format("truncate -s -1 {}", path));
  EXPECT_TRUE(refused_as("truncated"));
}

TEST_F(Inspect, CancelEndsTheWalk) {
  const std::string path = make("-O qcow2");
  std::stop_source stop;
  stop.request_stop();
  const OwnedFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  const auto inspection = inspect_qcow2({fd.get(), file_size(path)}, stop.get_token());
  ASSERT_FALSE(inspection.has_value());
  EXPECT_EQ(inspection.error().code, ErrorCode::cancelled);
}

// --- vmdk
// ----------------------------------------------------------------------------------------------------------

class InspectVmdkType : public Inspect, public testing::WithParamInterface<const char*> {};

TEST_P(InspectVmdkType, OfSeveralFilesIsRefused) {
  make_raw_disk(work_ / "disk.raw", 4 * MiB);
  shell(fmt::format("qemu-img convert -f raw -O vmdk -o subformat={} {} {}", GetParam(), work_ / "disk.raw",
                    work_ / "image.vmdk"));
  ASSERT_EQ(work_.entries().size(), 3u);
  for (const std::string& name : work_.entries()) {
    // A flat extent is just bytes; only its name tells of more.
    if (!name.ends_with(".vmdk"))
      continue;
    const bool flat = name == "image-flat.vmdk" || name == "image-f001.vmdk";
    EXPECT_TRUE(open_refused({.location = work_ / name, .format = {}}, ErrorCode::invalid_argument,
                             flat ? "named like" : "convert"))
        << name;
  }
}

INSTANTIATE_TEST_SUITE_P(All, InspectVmdkType,
                         testing::Values("twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "monolithicFlat"));

TEST_F(Inspect, VmdkHeaderThatPointsElsewhereIsRefused) {
  const std::string path = make("-O vmdk");
  const ByteVector good = read_file(path);
  const auto with = [&](uint64_t offset, uint64_t value, const char* refusal) {
    write_file(path, good);
    patch_le64(path, offset, value);
    EXPECT_TRUE(refused_as(refusal)) << offset;
  };
  with(12, 0, "other files");  // qemu would open what the descriptor names
  with(12, UINT64_MAX, "limit");
  with(12, limits::kMaxVolumeSize / 512 + 1, "limit");
  with(12, 1000, "descriptor tells of");
  with(20, 0, "grains");
  with(20, 3, "grains");
  with(28, 0, "one extent");
  with(28, 1ull << 60, "descriptor");
  with(36, 1ull << 60, "descriptor");
  with(56, 0, "grain tables");
  with(56, 1ull << 40, "grain directory");
  with(56, UINT64_MAX, "footer");
  write_file(path, good);
  patch_le32(path, 44, 0);
  EXPECT_TRUE(refused_as("tables of 0 entries"));
  write_file(path, good);
  patch_le32(path, 4, 9);
  EXPECT_TRUE(refused_as("version 9"));
  write_file(path, good);
  patch_le32(path, 73, 0x0d0d200d);
  EXPECT_TRUE(refused_as("text conversion"));
}

TEST_F(Inspect, VmdkDescriptorThatNamesOthersIsRefused) {
  const std::string path = make("-O vmdk");
  const ByteVector good = read_file(path);
  const std::string text(reinterpret_cast<const char*>(&good[512]), 20 * 512);
  const auto with = [&](const std::string& what, const std::string& by, const char* refusal) {
    std::string changed = text;
    const size_t at = changed.find(what);
    ASSERT_NE(at, changed.npos) << what;
    changed.replace(at, what.size(), by);
    changed.resize(text.size());
    write_file(path, good);
    patch_file(path, 512, std::as_bytes(std::span(changed)));
    EXPECT_TRUE(refused_as(refusal)) << by;
  };
  with("parentCID=ffffffff", "parentCID=12345678", "parent disk");
  with("parentCID=ffffffff", "parentCID=ffffffff\nparentFileNameHint=\"/etc/passwd\"", "parent disk");
  with("createType=\"monolithicSparse\"", "createType=\"monolithicFlat\"", "monolithicFlat");
  with("createType=\"monolithicSparse\"", "createType=\"fullDevice\"", "fullDevice");
  with("createType=\"monolithicSparse\"", "createType=\"\033[2J\377\"", "the type '?[2J?'");
  with("RW ", "RW 100 FLAT \"/etc/passwd\" 0\nRW ", "FLAT");
  with("RW ", "RW 49152 SPARSE \"b.vmdk\"\nRW ", "2 extents");
  with("RW ", "#W ", "0 extents");
}

TEST_F(Inspect, VmdkGrainsBeyondTheEndAreRefused) {
  const std::string path = make("-O vmdk");
  const uint64_t directory = le64(56) * 512;
  const uint64_t table = le32(directory) * 512ull;
  patch_le32(path, table, 0x7fffffff);
  EXPECT_TRUE(refused_as("truncated"));
  patch_le32(path, directory, 0x7fffffff);
  EXPECT_TRUE(refused_as("a grain table"));
}

TEST_F(Inspect, VmdkCutAnywhereIsRefused) {
  make("-O vmdk");
  expect_every_cut_refused();
}

// As programs that write in one pass lay it down: the header points to a copy of itself at the end of the
// file.
TEST_F(Inspect, VmdkStreamWithFooterIsReadAndItsFooterChecked) {
  const std::string path = make("-O vmdk -o subformat=streamOptimized");
  ByteVector bytes = read_file(path);
  bytes.resize(round_up(bytes.size(), 512));
  const ByteVector header(bytes.begin(), bytes.begin() + 512);
  const size_t marker = bytes.size();
  bytes.resize(marker + 3 * 512);
  store_le<uint64_t>(&bytes[marker], 1);
  store_le<uint32_t>(&bytes[marker + 12], 3);
  std::ranges::copy(header, bytes.begin() + marker + 512);
  store_le<uint64_t>(&bytes[56], UINT64_MAX);
  write_file(path, bytes);
  const auto source = ImportSource::open({.location = path, .format = {}});
  ASSERT_TRUE(source.has_value()) << source.error().message;
  EXPECT_EQ((*source)->size_bytes(), 24 * MiB);

  patch_le64(path, marker + 512 + 56, UINT64_MAX);
  EXPECT_TRUE(refused_as("footer differ"));
  patch_le64(path, marker + 512 + 12, 0);
  EXPECT_TRUE(refused_as("footer differ"));
  patch_le32(path, marker + 12, 1);
  EXPECT_TRUE(refused_as("no footer"));
  shell(fmt::format("truncate -s -512 {}", path));
  EXPECT_TRUE(refused_as("no footer"));
}

TEST_F(Inspect, VmdkStreamCutIsRefused) {
  const std::string path = make("-O vmdk -o subformat=streamOptimized");
  shell(fmt::format("truncate -s {} {}", file_size(path) - 64 * KiB, path));
  EXPECT_TRUE(refused_as("truncated"));
}

// --- vpc
// -----------------------------------------------------------------------------------------------------------

void set_vpc_checksum(const std::string& path, uint64_t offset, size_t length, size_t field) {
  const ByteVector all = read_file(path);
  uint32_t sum = 0;
  for (size_t i = 0; i < length; ++i)
    if (i < field || i >= field + 4)
      sum += uint32_t(all[offset + i]);
  patch_be32(path, offset + field, ~sum);
}

TEST_F(Inspect, VpcDifferencingDiskIsRefused) {
  const std::string path = make("-O vpc");
  for (const uint64_t footer : {uint64_t(0), file_size(path) - 512}) {
    patch_be32(path, footer + 60, 4);
    set_vpc_checksum(path, footer, 512, 64);
    EXPECT_TRUE(refused_as("differencing"));
  }
}

TEST_F(Inspect, VpcWithParentIdIsRefused) {
  const std::string path = make("-O vpc");
  const uint64_t header = be64(16);
  patch_be32(path, header + 40, 1);
  set_vpc_checksum(path, header, 1024, 36);
  EXPECT_TRUE(refused_as("parent"));
}

TEST_F(Inspect, VpcWrongChecksumIsRefused) {
  const std::string path = make("-O vpc");
  patch_be32(path, 24, 12345);
  EXPECT_TRUE(refused_as("checksum of its footer"));
  patch_be32(path, file_size(path) - 512 + 24, 12345);
  EXPECT_TRUE(refused_as("checksum of its footer"));
}

TEST_F(Inspect, VpcTableThatPointsElsewhereIsRefused) {
  const std::string path = make("-O vpc");
  const uint64_t header = be64(16), table = be64(header + 16);
  patch_be32(path, table, 0x7fffffff);
  EXPECT_TRUE(refused_as("truncated"));
  const auto with = [&](uint64_t offset, uint32_t value, const char* refusal) {
    const uint32_t before = be32(header + offset);
    patch_be32(path, header + offset, value);
    set_vpc_checksum(path, header, 1024, 36);
    EXPECT_TRUE(refused_as(refusal)) << offset;
    patch_be32(path, header + offset, before);
  };
  with(16, 0x7fffffff, "block allocation table");
  with(28, 1, "block table");
  with(28, 0xffffffff, "block table");
  with(32, 0, "blocks have 0 bytes");
  with(32, 3 << 20, "blocks have");
}

TEST_F(Inspect, VpcCutAnywhereIsRefused) {
  make("-O vpc");
  expect_every_cut_refused();
}

TEST_F(Inspect, VpcFixedCutAnywhereIsRefused) {
  make("-O vpc -o subformat=fixed");
  expect_every_cut_refused();
}

TEST_F(Inspect, VpcFixedShorterThanItSaysIsRefused) {
  const std::string path = make("-O vpc -o subformat=fixed");
  const ByteVector good = read_file(path);
  ByteVector shorter(good.begin(), good.begin() + MiB);
  shorter.insert(shorter.end(), good.end() - 512, good.end());
  write_file(path, shorter);
  EXPECT_TRUE(refused_as("truncated"));
}

// --- vhdx
// ----------------------------------------------------------------------------------------------------------

void set_vhdx_checksum(const std::string& path, uint64_t offset, size_t length) {
  patch_le32(path, offset + 4, 0);
  const ByteVector all = read_file(path);
  patch_le32(path, offset + 4, crc32c(ConstBytes(all).subspan(offset, length)));
}

// Where the vhdx metadata item with these first four bytes of its id has its entry in the table.
uint64_t find_metadata(const std::string& path, uint32_t id) {
  const ByteVector all = read_file(path);
  uint64_t table = MiB;
  while (std::memcmp(&all[table], "metadata", 8) != 0)
    table += MiB;
  for (uint64_t entry = table + 32;; entry += 32)
    if (load_le<uint32_t>(&all[entry]) == id)
      return entry;
}

TEST_F(Inspect, VhdxWithParentIsRefused) {
  const std::string path = make("-O vhdx");
  const uint64_t entry = find_metadata(path, 0xcaa16737);  // file parameters
  const uint64_t item = entry / MiB * MiB + le32(entry + 16);
  patch_le32(path, item + 4, 2);
  EXPECT_TRUE(refused_as("parent"));
  patch_le32(path, item + 4, 0);
  const std::byte locator[] = {std::byte(0x2d), std::byte(0x5f), std::byte(0xd3), std::byte(0xa8),
                               std::byte(0x0b), std::byte(0xb3), std::byte(0x4d), std::byte(0x45),
                               std::byte(0xab), std::byte(0xf7), std::byte(0xd3), std::byte(0xd8),
                               std::byte(0x48), std::byte(0x34), std::byte(0xab), std::byte(0x0c)};
  patch_file(path, find_metadata(path, 0xbeca12ab), locator);
  EXPECT_TRUE(refused_as("parent"));
}

TEST_F(Inspect, VhdxWithLogToReplayIsRefused) {
  const std::string path = make("-O vhdx");
  for (const uint64_t header : {64 * KiB, 128 * KiB}) {
    patch_le64(path, header + 48, 0x1122334455667788);
    set_vhdx_checksum(path, header, 4 * KiB);
  }
  EXPECT_TRUE(ImportSource::open({.location = path, .format = {}}).has_value())
      << "an empty log is nothing to replay";
  const uint64_t log = le64(64 * KiB + 72);
  patch_le32(path, log, 0x65676f6c);  // "loge"
  patch_le64(path, log + 32, 0x1122334455667788);
  patch_le64(path, log + 40, 0);
  EXPECT_TRUE(refused_as("replayed"));
}

TEST_F(Inspect, VhdxDamagedHeadersAreRefusedOnlyWhenBothAre) {
  const std::string path = make("-O vhdx");
  patch_le32(path, 64 * KiB + 100, 1);
  EXPECT_TRUE(ImportSource::open({.location = path, .format = {}}).has_value());
  patch_le32(path, 128 * KiB + 100, 1);
  EXPECT_TRUE(refused_as("headers"));
}

TEST_F(Inspect, VhdxDamagedRegionTablesAreRefused) {
  const std::string path = make("-O vhdx");
  patch_le32(path, 192 * KiB + 8, 0xffffffff);
  patch_le32(path, 256 * KiB + 8, 0xffffffff);
  EXPECT_TRUE(refused_as("region tables"));
}

TEST_F(Inspect, VhdxAbsurdSizesAreRefused) {
  const std::string path = make("-O vhdx");
  const auto with = [&](uint32_t id, uint64_t value, const char* refusal) {
    const uint64_t entry = find_metadata(path, id), item = entry / MiB * MiB + le32(entry + 16),
                   before = le64(item);
    patch_le64(path, item, value);
    EXPECT_TRUE(refused_as(refusal)) << value;
    patch_le64(path, item, before);
  };
  with(0x2fa54224, 0, "no bytes");
  with(0x2fa54224, UINT64_MAX & ~511ull, "limit");
  with(0x2fa54224, limits::kMaxVolumeSize, "block table");
  with(0xcaa16737, 3 * MiB, "blocks have");
  with(0xcaa16737, 0, "blocks have 0");
  const uint64_t entry = find_metadata(path, 0x2fa54224);
  patch_le32(path, entry + 16, 0xffffffff);
  EXPECT_TRUE(refused_as("metadata item"));
}

TEST_F(Inspect, VhdxCutAnywhereIsRefused) {
  make("-O vhdx");
  expect_every_cut_refused();
}

// --- vdi
// -----------------------------------------------------------------------------------------------------------

TEST_F(Inspect, VdiHeaderThatIsNotOfAWholeDiskIsRefused) {
  const std::string path = make("-O vdi");
  const ByteVector good = read_file(path);
  const auto with = [&](uint64_t offset, uint32_t value, const char* refusal) {
    write_file(path, good);
    patch_le32(path, offset, value);
    EXPECT_TRUE(refused_as(refusal)) << offset;
  };
  with(0x44, 0x00020000, "version 2.0");
  with(0x4c, 3, "difference");
  with(0x4c, 4, "difference");
  with(0x1a8, 1, "parent image");
  with(0x1b8, 1, "parent image");
  with(0x154, 100, "sectors begin");
  with(0x154, 0xfffffe00, "block map");
  with(0x158, 0x200, "overlap");
  with(0x168, 4096, "sectors other");
  with(0x178, 512, "blocks other");
  with(0x174, 0xffff, "limit");
  with(0x180, 3, "3 entries");
  with(0x180, 0xffffffff, "entries");
  with(load_le<uint32_t>(&good[0x154]), 0x7fffffff, "truncated");
}

TEST_F(Inspect, VdiCutAnywhereIsRefused) {
  make("-O vdi");
  expect_every_cut_refused();
}

// --- all
// -----------------------------------------------------------------------------------------------------------

// Random damage to the tables must end in an answer, whichever, and never in a crash or a hang.
class InspectNoise : public Inspect, public testing::WithParamInterface<const char*> {};

TEST_P(InspectNoise, EndsInAnAnswer) {
  const std::string path = make(std::string("-O ") + GetParam());
  const ByteVector good = read_file(path);
  const OwnedFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  const auto format = parse_image_format(GetParam()).value();
  std::mt19937 random(7);
  unsigned refused = 0;
  for (unsigned round = 0; round < 1000; ++round) {
    std::vector<uint64_t> places;
    for (unsigned tries = 0; places.size() < 6; ++tries) {
      // The fields of the first header, or any byte near the beginning that says something.
      const uint64_t place = random() % (round % 2 ? 512 : std::min<uint64_t>(good.size(), 3 * MiB));
      if (good[place] != std::byte(0) || round % 2 || tries > 10'000)
        places.push_back(place);
    }
    for (const uint64_t place : places) {
      const std::byte value[] = {std::byte(random())};
      patch_file(path, place, value);
    }
    refused += !inspect(format, {fd.get(), good.size()}, {}).has_value();
    for (const uint64_t place : places)
      patch_file(path, place, ConstBytes(good).subspan(place, 1));
  }
  EXPECT_GT(refused, 0u);
  EXPECT_TRUE(inspect(format, {fd.get(), good.size()}, {}).has_value()) << "the file is not as it was";
}

INSTANTIATE_TEST_SUITE_P(All, InspectNoise, testing::Values("qcow2", "vmdk", "vpc", "vhdx", "vdi"));

}  // namespace
}  // namespace obraz::test
