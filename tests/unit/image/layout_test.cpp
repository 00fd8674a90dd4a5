// What is found on disks that programs of the system have made, by obraz-layout, as the daemon asks for it;
// and what the daemon makes of a program in its place that does not keep to the rules.
#include "image/layout.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/limits.h"
#include "image/foreign_text.h"
#include "layout_support.h"

namespace obraz::test {
namespace {

using limits::KiB;
using limits::MiB;

class Layout : public testing::Test {
 protected:
  DiskLayout probe_made(const std::string& name) { return probe(maker_.make(name)); }

  DiskMaker maker_;
};

testing::AssertionResult is(const FileSystem& system, const std::string& type, const std::string& label,
                            const std::string& uuid) {
  if (system.type != type || system.label != label || (uuid != "*" && system.uuid != uuid))
    return testing::AssertionFailure() << system.type << " '" << system.label << "' " << system.uuid;
  return testing::AssertionSuccess();
}

// No partitions, no Windows, nothing left out: only this file system.
testing::AssertionResult is_only(const DiskLayout& layout, const std::string& type, const std::string& label,
                                 const std::string& uuid) {
  if (layout.table != PartitionTable::none || !layout.partitions.empty() || !layout.table_id.empty() ||
      layout.boot != BootMethod::none || layout.windows.content != WindowsContent::none ||
      layout.incomplete || !layout.windows.sentence().empty())
    return testing::AssertionFailure() << describe(layout);
  return is(layout.file_system, type, label, uuid);
}

testing::AssertionResult has_windows(const DiskLayout& layout, WindowsEvidence evidence, uint32_t partition,
                                     const std::string& sentence) {
  const WindowsContent content =
      evidence >= WindowsEvidence::efi_boot_manager ? WindowsContent::boot : WindowsContent::data;
  if (layout.windows.evidence != evidence || layout.windows.content != content ||
      layout.windows.partition != partition || layout.incomplete ||
      layout.windows.sentence().find(sentence) == std::string::npos)
    return testing::AssertionFailure() << describe(layout);
  return testing::AssertionSuccess();
}

constexpr char kUuid[] = "11111111-2222-3333-4444-555555555555";

// --- disks of Linux

TEST_F(Layout, GptWithLinux) {
  const DiskLayout layout = probe_made("gpt_linux");
  EXPECT_EQ(layout.table, PartitionTable::gpt);
  EXPECT_EQ(layout.table_id, "99999999-1111-2222-3333-444444444444");
  EXPECT_TRUE(is(layout.file_system, "", "", ""));
  ASSERT_EQ(layout.partitions.size(), 4u) << describe(layout);
  const auto& parts = layout.partitions;
  for (uint32_t i = 0; i < 4; ++i)
    EXPECT_EQ(parts[i].number, i + 1);
  EXPECT_EQ(parts[0].type, "21686148-6449-6e6f-744e-656564454649");
  EXPECT_TRUE(is(parts[0].file_system, "", "", ""));
  EXPECT_EQ(parts[1].type, "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
  EXPECT_EQ(parts[1].name, "EFI System");
  EXPECT_TRUE(is(parts[1].file_system, "vfat", "ESP", "1234-5678"));
  EXPECT_EQ(parts[2].offset, 66 * MiB);
  EXPECT_EQ(parts[2].length, 100 * MiB);
  EXPECT_EQ(parts[2].name, "Wurzel é");
  EXPECT_EQ(parts[2].uuid, "aaaaaaaa-1111-2222-3333-444444444444");
  EXPECT_TRUE(is(parts[2].file_system, "ext4", "root", kUuid));
  EXPECT_TRUE(is(parts[3].file_system, "xfs", "data", "*"));
  EXPECT_FALSE(std::ranges::any_of(parts, &Partition::active));
  EXPECT_EQ(layout.boot, BootMethod::both);
  EXPECT_EQ(layout.windows.content, WindowsContent::none) << describe(layout);
  EXPECT_FALSE(layout.incomplete);
}

TEST_F(Layout, MbrWithLinuxAndLogicalPartitions) {
  const DiskLayout layout = probe_made("mbr_linux");
  EXPECT_EQ(layout.table, PartitionTable::dos);
  EXPECT_EQ(layout.table_id, "12345678");
  ASSERT_EQ(layout.partitions.size(), 5u) << describe(layout);
  const auto& parts = layout.partitions;
  EXPECT_EQ(parts[0].type, "0x83");
  EXPECT_TRUE(parts[0].active);
  EXPECT_EQ(parts[0].uuid, "12345678-01");
  EXPECT_TRUE(is(parts[0].file_system, "ext4", "boot", kUuid));
  EXPECT_EQ(parts[1].type, "0x05");
  EXPECT_TRUE(is(parts[1].file_system, "", "", ""));
  EXPECT_EQ(parts[2].number, 5u);
  EXPECT_EQ(parts[2].offset, 17 * MiB);
  EXPECT_TRUE(is(parts[2].file_system, "swap", "pages", "*"));
  EXPECT_EQ(parts[4].number, 7u);
  EXPECT_TRUE(is(parts[4].file_system, "ext4", "home", kUuid));
  EXPECT_EQ(layout.boot, BootMethod::bios);
  EXPECT_EQ(layout.windows.content, WindowsContent::none);
  EXPECT_FALSE(layout.incomplete);
}

TEST_F(Layout, FileSystemsWithoutATable) {
  EXPECT_TRUE(is_only(probe_made("ext4"), "ext4", "bare", kUuid));
  EXPECT_TRUE(is_only(probe_made("xfs"), "xfs", "bare", "*"));
  EXPECT_TRUE(is_only(probe_made("swap"), "swap", "pages", kUuid));
  EXPECT_TRUE(is_only(probe_made("lvm"), "LVM2_member", "", "abcdef-ghij-klmn-opqr-stuv-wxyz-012345"));
  EXPECT_TRUE(is_only(probe_made("luks"), "crypto_LUKS", "", "01234567-89ab-cdef-0123-456789abcdef"));
}

TEST_F(Layout, NothingAtAll) {
  EXPECT_TRUE(is_only(probe_made("empty"), "", "", ""));
  const std::string disk = maker_.blank("tiny", 1);
  for (const uint64_t size : {1, 511, 512, 513, 4096, 5000, 40'000}) {
    quiet(fmt::format("truncate -s {} {}", size, disk));
    EXPECT_TRUE(is_only(probe(disk), "", "", "")) << size;
  }
}

TEST_F(Layout, EmptyTable) {
  const DiskLayout dos = probe(maker_.partitioned("dos", 16, "label: dos\n"));
  EXPECT_EQ(dos.table, PartitionTable::dos);
  EXPECT_TRUE(dos.partitions.empty());
  EXPECT_EQ(dos.boot, BootMethod::none);
  const DiskLayout gpt = probe(maker_.partitioned("gpt", 16, "label: gpt\n"));
  EXPECT_EQ(gpt.table, PartitionTable::gpt);
  EXPECT_TRUE(gpt.partitions.empty());
}

// extlinux and others put their code in front of a file system.
TEST_F(Layout, BootCodeInFrontOfAFileSystemIsNoTable) {
  const std::string disk = maker_.make("ext4");
  maker_.put_boot_code(disk);
  const std::byte mark[] = {std::byte(0x55), std::byte(0xaa)};
  patch_file(disk, 510, mark);
  EXPECT_TRUE(is_only(probe(disk), "ext4", "bare", kUuid));
}

// What was there before was not wiped: which of the two counts is not for us to say.
TEST_F(Layout, FileSystemOverTheRestsOfAnotherIsNotNamed) {
  const std::string disk = maker_.make("xfs");
  const ByteVector swap = read_file(maker_.make("swap"));
  ASSERT_TRUE(is_only(probe(disk), "xfs", "bare", "*"));
  patch_file(disk, 1024, ConstBytes(swap).subspan(1024, 3072));
  EXPECT_TRUE(is_only(probe(disk), "", "", ""));
}

// --- how it boots

TEST_F(Layout, BiosNeedsCodeAndAMark) {
  const std::string marked = maker_.partitioned("marked", 16, "label: dos\nstart=1MiB, bootable\n");
  EXPECT_EQ(probe(marked).boot, BootMethod::none);
  maker_.put_boot_code(marked);
  EXPECT_EQ(probe(marked).boot, BootMethod::bios);

  const std::string unmarked = maker_.partitioned("unmarked", 16, "label: dos\nstart=1MiB\n");
  maker_.put_boot_code(unmarked);
  EXPECT_EQ(probe(unmarked).boot, BootMethod::none);
  maker_.put_boot_code(unmarked, "GRUB ");
  EXPECT_EQ(probe(unmarked).boot, BootMethod::bios);

  const std::string gpt = maker_.partitioned(
      "gpt", 16,
      "label: gpt\nstart=1MiB, size=1MiB, type=21686148-6449-6E6F-744E-656564454649\nstart=2MiB\n");
  EXPECT_EQ(probe(gpt).boot, BootMethod::none);
  maker_.put_boot_code(gpt);
  EXPECT_EQ(probe(gpt).boot, BootMethod::bios);

  const std::string legacy =
      maker_.partitioned("legacy", 16, "label: gpt\nstart=1MiB, attrs=LegacyBIOSBootable\n");
  maker_.put_boot_code(legacy);
  const DiskLayout layout = probe(legacy);
  EXPECT_TRUE(layout.partitions.at(0).active);
  EXPECT_EQ(layout.boot, BootMethod::bios);
}

TEST_F(Layout, EfiSystemPartitionIsUefi) {
  EXPECT_EQ(probe(maker_.partitioned("dos", 16, "label: dos\nstart=1MiB, type=ef\n")).boot, BootMethod::uefi);
  EXPECT_EQ(probe(maker_.partitioned("gpt", 16, "label: gpt\nstart=1MiB, type=uefi\n")).boot,
            BootMethod::uefi);
}

// --- Windows

TEST_F(Layout, WindowsOnGpt) {
  const DiskLayout layout = probe_made("gpt_windows");
  EXPECT_TRUE(has_windows(layout, WindowsEvidence::efi_boot_manager, 1,
                          "partition 1 has the file EFI/Microsoft/Boot/bootmgfw.efi"));
  EXPECT_EQ(layout.boot, BootMethod::uefi);
  ASSERT_EQ(layout.partitions.size(), 3u);
  EXPECT_EQ(layout.partitions[1].type, "e3c9e316-0b5c-4db8-817d-f92df00215ae");
  EXPECT_TRUE(is(layout.partitions[2].file_system, "ntfs", "Windows", "*"));
}

TEST_F(Layout, WindowsOnMbr) {
  const DiskLayout layout = probe_made("mbr_windows");
  EXPECT_TRUE(has_windows(layout, WindowsEvidence::boot_manager, 1, "partition 1 has the file bootmgr"));
  EXPECT_EQ(layout.boot, BootMethod::bios);
  ASSERT_EQ(layout.partitions.size(), 2u);
  EXPECT_TRUE(layout.partitions[0].active);
  EXPECT_TRUE(is(layout.partitions[0].file_system, "ntfs", "System Reserved", "*"));
  EXPECT_TRUE(has_windows(probe_made("mbr_old_windows"), WindowsEvidence::nt_loader, 1, "ntldr"));
}

// The partition of the system alone, as some tools copy it; and a stick that installs Windows.
TEST_F(Layout, WindowsWithoutATable) {
  EXPECT_TRUE(has_windows(probe_made("ntfs_files"), WindowsEvidence::system_files, 0,
                          "the disk, which has no partitions, has the kernel of Windows"));
  EXPECT_TRUE(has_windows(probe_made("fat_boot"), WindowsEvidence::boot_manager, 0, "the file bootmgr"));
}

// Files of the same names in other places, and directories of the names of files, start nothing.
TEST_F(Layout, DataOfWindowsIsNotBoot) {
  const DiskLayout bare = probe_made("ntfs_data");
  EXPECT_TRUE(has_windows(bare, WindowsEvidence::ntfs, 0, "has the file system NTFS"));
  EXPECT_TRUE(is(bare.file_system, "ntfs", "Daten für alle", "*"));
  EXPECT_EQ(bare.boot, BootMethod::none);
  EXPECT_TRUE(has_windows(probe_made("gpt_data"), WindowsEvidence::ntfs_beside_reserved, 2,
                          "beside a Microsoft reserved partition"));
  const DiskLayout locked = probe_made("gpt_locked");
  EXPECT_TRUE(has_windows(locked, WindowsEvidence::bitlocker, 2, "BitLocker"));
  EXPECT_EQ(locked.partitions[1].file_system.type, "BitLocker");
  EXPECT_TRUE(has_windows(probe(maker_.partitioned("dynamic", 16, "label: dos\nstart=1MiB, type=42\n")),
                          WindowsEvidence::dynamic_disk, 1, "dynamic disk"));
  const std::string directory =
      maker_.ntfs(32, "odd", {"bootmgr/", "Windows/", "Windows/System32/", "Windows/System32/winload.exe/"});
  EXPECT_TRUE(has_windows(probe(directory), WindowsEvidence::ntfs, 0, "NTFS"));
}

TEST_F(Layout, EfiSystemPartitionOfLinuxAndANewDiskAreNotWindows) {
  const std::string disk = maker_.partitioned(
      "new", 64,
      "label: gpt\nstart=1MiB, size=16MiB, type=E3C9E316-0B5C-4DB8-817D-F92DF00215AE\nstart=17MiB\n");
  const DiskLayout layout = probe(disk);
  EXPECT_EQ(layout.windows.content, WindowsContent::none) << describe(layout);
  EXPECT_FALSE(layout.incomplete);
}

// --- tables that are large, cut off or damaged

TEST_F(Layout, PartitionsBeyondTheLimitAreLeftOut) {
  std::string script = "label: gpt\ntable-length: 200\n";
  for (unsigned i = 0; i < 150; ++i)
    script += "size=1MiB\n";
  const DiskLayout layout = probe(maker_.partitioned("many", 160, script));
  EXPECT_EQ(layout.partitions.size(), limits::kMaxPartitions);
  EXPECT_EQ(layout.partitions.back().number, limits::kMaxPartitions);
  EXPECT_TRUE(layout.incomplete);
}

TEST_F(Layout, ManyPartitionsAreLookedInto) {
  std::string script = "label: gpt\n";
  for (unsigned i = 0; i < 100; ++i)
    script += "size=8MiB\n";
  const std::string disk = maker_.partitioned("many", 900, script);
  const std::string volume = maker_.ext4(8, "small"), windows = maker_.ntfs(8, "last", {"bootmgr"});
  for (unsigned i = 0; i < 99; ++i)
    maker_.put(disk, 1 + 8 * i, volume);
  maker_.put(disk, 1 + 8 * 99, windows);
  FileDisk file(disk);
  const auto layout = probe_layout(file.reader(), file.size_bytes());
  ASSERT_TRUE(layout.has_value()) << layout.error().message;
  EXPECT_TRUE(has_windows(*layout, WindowsEvidence::boot_manager, 100, "partition 100"));
  for (unsigned i = 0; i < 99; ++i)
    EXPECT_TRUE(is(layout->partitions.at(i).file_system, "ext4", "small", kUuid)) << i;
  EXPECT_LE(file.bytes_read(), limits::kLayoutReadTotal);
}

TEST_F(Layout, OneCopyOfAGptIsEnough) {
  const std::string disk = maker_.make("gpt_data");
  const ByteVector zeros(limits::MiB - 512);
  const std::string whole = describe(probe(disk));
  patch_file(disk, 512, zeros);
  EXPECT_EQ(describe(probe(disk)), whole);
  // Both are gone; the protective entry says that there were some.
  patch_file(disk, file_size(disk) - 64 * KiB, ConstBytes(zeros).first(64 * KiB));
  const DiskLayout none = probe(disk);
  EXPECT_EQ(none.table, PartitionTable::none);
  EXPECT_TRUE(none.partitions.empty());
  EXPECT_TRUE(none.incomplete);
}

TEST_F(Layout, DiskThatWasCutOff) {
  const std::string gpt = maker_.make("gpt_data"), mbr = maker_.make("mbr_linux");
  quiet(fmt::format("truncate -s 60M {} && truncate -s 20M {}", gpt, mbr));
  // The table says more than there is.
  const DiskLayout damaged = probe(gpt);
  EXPECT_EQ(damaged.table, PartitionTable::none) << describe(damaged);
  EXPECT_TRUE(damaged.incomplete);
  const DiskLayout cut = probe(mbr);
  ASSERT_GE(cut.partitions.size(), 3u) << describe(cut);
  EXPECT_TRUE(is(cut.partitions[0].file_system, "ext4", "boot", kUuid));
  EXPECT_EQ(cut.partitions[1].offset + cut.partitions[1].length, 56 * MiB);
  EXPECT_TRUE(is(cut.partitions[2].file_system, "swap", "pages", "*"));
  quiet("truncate -s 1M " + mbr);
  EXPECT_EQ(probe(mbr).partitions.size(), 2u);
}

// Partitions that overlap or are the whole disk are nothing to follow.
TEST_F(Layout, PartitionsThatContainThemselves) {
  const std::string disk = maker_.partitioned("odd", 16, "label: dos\nstart=1MiB, type=83\n");
  ByteVector entries(64);
  for (size_t i = 0; i < 4; ++i) {
    entries[16 * i + 4] = std::byte(i == 3 ? 0x05 : 0x07);
    store_le<uint32_t>(&entries[16 * i + 8], i == 1 ? 0xffff'ffff : uint32_t(i));
    store_le<uint32_t>(&entries[16 * i + 12], 0xffff'ffff);
  }
  patch_file(disk, 446, entries);
  const DiskLayout layout = probe(disk);
  EXPECT_EQ(layout.table, PartitionTable::dos);
  EXPECT_EQ(layout.partitions.size(), 4u) << describe(layout);
  EXPECT_EQ(layout.windows.content, WindowsContent::none);
}

// A logical partition whose boot record names itself as the next one, or the one before.
TEST_F(Layout, LogicalPartitionsThatLoop) {
  const std::string disk = maker_.make("mbr_linux");
  const ByteVector bytes = read_file(disk);
  for (const uint64_t record : {16 * MiB, 25 * MiB, 39 * MiB})
    for (const uint32_t to : {0u, 1u, uint32_t(9 * MiB / 512), 0xffff'ffffu}) {
      ByteVector entry(16);
      entry[4] = std::byte(0x05);
      store_le<uint32_t>(&entry[8], to);
      store_le<uint32_t>(&entry[12], 4096);
      patch_file(disk, record + 446 + 16, entry);
      const DiskLayout layout = probe(disk);
      EXPECT_LE(layout.partitions.size(), 128u);
      EXPECT_TRUE(is(layout.partitions.at(0).file_system, "ext4", "boot", kUuid));
      patch_file(disk, record, ConstBytes(bytes).subspan(record, 512));
    }
}

// A table of sectors of 4096 bytes, which sfdisk does not make in a file.
ByteVector gpt_of_large_sectors() {
  const auto checksum = [](ConstBytes bytes) {
    uint32_t sum = ~0u;
    for (const std::byte byte : bytes) {
      sum ^= uint32_t(byte);
      for (int bit = 0; bit < 8; ++bit)
        sum = sum >> 1 ^ (sum & 1 ? 0xedb8'8320 : 0);
    }
    return ~sum;
  };
  constexpr uint64_t kSector = 4096;
  ByteVector head(6 * kSector);
  head[446 + 4] = std::byte(0xee);
  store_le<uint32_t>(&head[446 + 8], 1);
  store_le<uint32_t>(&head[446 + 12], 16383);
  store_le<uint16_t>(&head[510], 0xaa55);
  std::byte* entry = &head[2 * kSector];
  const uint8_t linux_type[] = {0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47,
                                0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4};
  std::memcpy(entry, linux_type, 16);
  entry[16] = std::byte(1);
  store_le<uint64_t>(entry + 32, 256);
  store_le<uint64_t>(entry + 40, 8447);
  std::byte* header = &head[kSector];
  std::memcpy(header, "EFI PART", 8);
  store_le<uint32_t>(header + 8, 0x10000);
  store_le<uint32_t>(header + 12, 92);
  store_le<uint64_t>(header + 24, 1);
  store_le<uint64_t>(header + 32, 16383);
  store_le<uint64_t>(header + 40, 6);
  store_le<uint64_t>(header + 48, 16377);
  header[56] = std::byte(7);
  store_le<uint64_t>(header + 72, 2);
  store_le<uint32_t>(header + 80, 128);
  store_le<uint32_t>(header + 84, 128);
  store_le<uint32_t>(header + 88, checksum(ConstBytes(head).subspan(2 * kSector, 128 * 128)));
  store_le<uint32_t>(header + 16, checksum({header, 92}));
  return head;
}

TEST_F(Layout, GptOfLargeSectors) {
  const std::string disk = maker_.blank("large", 64);
  patch_file(disk, 0, gpt_of_large_sectors());
  maker_.put(disk, 1, maker_.ext4(32, "large"));
  const DiskLayout layout = probe(disk);
  EXPECT_EQ(layout.table, PartitionTable::gpt);
  ASSERT_EQ(layout.partitions.size(), 1u) << describe(layout);
  EXPECT_EQ(layout.partitions[0].offset, 1 * MiB);
  EXPECT_EQ(layout.partitions[0].length, 32 * MiB);
  EXPECT_TRUE(is(layout.partitions[0].file_system, "ext4", "large", kUuid));
}

// --- text

TEST_F(Layout, TextOfTheGuestIsCleaned) {
  const std::string disk = maker_.blank("hostile", 16);
  quiet(fmt::format("mkfs.ext4 -q -O ^metadata_csum -L 0123456789abcdef {}", disk));
  patch_file(disk, 1024 + 0x78, std::as_bytes(std::span("a\x1b[31m\n\xc3\xa9\xff\xe2\x80\xae!", 15)));
  EXPECT_EQ(probe(disk).file_system.label, "a?[31m?é" + std::string(4, '?') + "!");
  const DiskLayout gpt =
      probe(maker_.partitioned("names", 16, "label: gpt\nstart=1MiB, name=\"x\u202eexe.txt\u0085\"\n"));
  const std::string& name = gpt.partitions.at(0).name;
  EXPECT_TRUE(is_clean_text(name, limits::kMaxPartitionName));
  EXPECT_EQ(name.substr(0, 4), "x???") << name;
}

// --- the way there and back

TEST_F(Layout, ReadsAreBoundedAndAligned) {
  FileDisk file(maker_.make("gpt_linux"));
  const ReadDisk read = [&](uint64_t offset, Bytes into) -> Answer<void> {
    EXPECT_EQ(offset % 4096, 0u);
    EXPECT_LE(into.size(), limits::kLayoutReadSize);
    EXPECT_TRUE(file.view().holds(offset, into.size()));
    return file.reader()(offset, into);
  };
  const auto layout = probe_layout(read, file.size_bytes());
  ASSERT_TRUE(layout.has_value()) << layout.error().message;
  EXPECT_EQ(layout->partitions.size(), 4u);
  EXPECT_LE(file.bytes_read(), 16 * MiB);
  EXPECT_TRUE(children().empty());
}

TEST_F(Layout, LargestDiskTakesNoSpace) {
  const std::string disk = maker_.blank("large", limits::kMaxVolumeSize / MiB);
  quiet(fmt::format(
      "echo 'start=1MiB, size=1TiB, type=7' | sfdisk --no-reread --no-tell-kernel --label gpt {} || "
      "printf 'label: gpt\\nstart=1MiB\\n' | sfdisk --no-reread --no-tell-kernel {}",
      disk, disk));
  const DiskLayout layout = probe(disk);
  EXPECT_EQ(layout.table, PartitionTable::gpt);
  EXPECT_EQ(layout.partitions.size(), 1u);
}

TEST_F(Layout, RefusalOfAReadIsHandedOn) {
  FileDisk file(maker_.make("gpt_linux"));
  for (const unsigned good : {0u, 1u, 5u}) {
    unsigned reads = 0;
    const ReadDisk read = [&](uint64_t offset, Bytes into) -> Answer<void> {
      if (reads++ == good)
        return refuse(ErrorCode::corruption, "", "this block is rotten");
      return file.reader()(offset, into);
    };
    const auto layout = probe_layout(read, file.size_bytes());
    ASSERT_FALSE(layout.has_value());
    EXPECT_TRUE(refused(layout.error(), ErrorCode::corruption, "this block is rotten"));
    EXPECT_EQ(reads, good + 1);
    EXPECT_TRUE(children().empty());
  }
}

TEST_F(Layout, StopEndsIt) {
  FileDisk file(maker_.make("gpt_linux"));
  std::stop_source stop;
  const ReadDisk read = [&](uint64_t offset, Bytes into) -> Answer<void> {
    stop.request_stop();
    return file.reader()(offset, into);
  };
  const auto layout = probe_layout(read, file.size_bytes(), stop.get_token());
  ASSERT_FALSE(layout.has_value());
  EXPECT_EQ(layout.error().code, ErrorCode::cancelled);
  EXPECT_TRUE(children().empty());
}

TEST_F(Layout, SizesThatNoDiskHas) {
  const ReadDisk read = [](uint64_t, Bytes) -> Answer<void> { return {}; };
  for (const uint64_t size : {uint64_t(0), limits::kMaxVolumeSize + 1, UINT64_MAX}) {
    const auto layout = probe_layout(read, size);
    ASSERT_FALSE(layout.has_value());
    EXPECT_EQ(layout.error().code, ErrorCode::invalid_argument);
  }
}

// --- a program in its place that was taken over

constexpr char kScript[] = R"(
import os, socket, struct, sys, time
peer = socket.socket(fileno=3)
def ask(offset, length):
    peer.send(b"R" + struct.pack("<QI", offset, length))
    return peer.recv(1)
)";

class HostileReader : public testing::Test {
 protected:
  Answer<DiskLayout> run(const std::string& script, unsigned seconds = 60) {
    const ReadDisk read = [this](uint64_t offset, Bytes into) -> Answer<void> {
      read_ += into.size();
      EXPECT_TRUE(offset < kSize && into.size() <= kSize - offset && into.size() <= limits::kLayoutReadSize);
      std::ranges::fill(into, std::byte(0x42));
      return {};
    };
    return probe_layout(read, kSize, {},
                        {.program = "/usr/bin/python3",
                         .arguments = {"-I", "-S", "-B", "-c", kScript + script},
                         .seconds = seconds});
  }
  testing::AssertionResult is_refused(const std::string& script, const std::string& part,
                                      ErrorCode code = ErrorCode::io, unsigned seconds = 60) {
    const auto layout = run(script, seconds);
    if (layout)
      return testing::AssertionFailure() << script << " was believed:\n" << describe(*layout);
    if (!children().empty())
      return testing::AssertionFailure() << script << " left a process behind";
    return refused(layout.error(), code, part);
  }

  static constexpr uint64_t kSize = 10 * MiB + 1000;
  uint64_t read_ = 0;
};

// What it may do: the script itself works.
TEST_F(HostileReader, IsServedWhatItMayAskFor) {
  // A layout of nothing: no table, six texts of no length, four choices, two numbers.
  const std::string answer = "peer.send(b'L' + bytes(1 + 2 + 2 + 6 + 3 + 4 + 1))\n";
  const auto layout = run(R"(
assert ask(0, 1 << 20) == b"D" and ask(10 << 20, 1000) == b"D"
assert os.pread(4, 4096, 8192) == b"\x42" * 4096 and os.pread(4, 4096, 10 << 20) == b"\x42" * 1000
assert os.pread(4, 100, 5 << 20) == bytes(100)
assert os.fstat(4).st_size == (10 << 20) + 1000
)" + answer);
  ASSERT_TRUE(layout.has_value()) << layout.error().message;
  EXPECT_EQ(layout->table, PartitionTable::none);
  EXPECT_EQ(read_, MiB + 1000);
}

TEST_F(HostileReader, CannotAskForWhatIsNotThere) {
  const std::string words = "no range of the disk";
  EXPECT_TRUE(is_refused("ask(0, 0)", words));
  EXPECT_TRUE(is_refused("ask(0, (1 << 20) + 4096)", words));
  EXPECT_TRUE(is_refused("ask(0, 0xffffffff)", words));
  EXPECT_TRUE(is_refused("ask(1, 4096)", words));
  EXPECT_TRUE(is_refused("ask(0, 4097)", words));
  EXPECT_TRUE(is_refused("ask(10 << 20, 4096)", words));
  EXPECT_TRUE(is_refused("ask(11 << 20, 4096)", words));
  EXPECT_TRUE(is_refused("ask((1 << 64) - 4096, 4096)", words));
  EXPECT_TRUE(is_refused("ask((1 << 64) - 4096, 8192)", words));
  EXPECT_EQ(read_, 0u);
}

TEST_F(HostileReader, CannotAskForMoreThanItMay) {
  EXPECT_TRUE(is_refused("while True: ask(0, 1 << 20)", "more than it may"));
  EXPECT_EQ(read_, limits::kLayoutReadTotal);
  EXPECT_TRUE(is_refused("while True: ask(0, 4096)", "more than it may"));
  EXPECT_EQ(read_, limits::kLayoutReadTotal + limits::kLayoutReads * 4096);
}

TEST_F(HostileReader, ThatDoesNotListenIsEnded) {
  EXPECT_TRUE(is_refused("while True: peer.send(b'R' + struct.pack('<QI', 0, 4096))", "does not"));
}

TEST_F(HostileReader, CannotChangeTheFileOrGetMemoryByIt) {
  const auto layout = run(R"(
import mmap
def refused(call, *arguments):
    try:
        call(*arguments)
    except OSError:
        return
    raise SystemExit(f"allowed: {call} {arguments}")
refused(os.pwrite, 4, b"x", 0)
refused(os.ftruncate, 4, 1 << 40)
refused(os.posix_fallocate, 4, 0, 1 << 30)
refused(os.open, "/proc/self/fd/4", os.O_RDWR)
refused(mmap.mmap, 4, 4096)
refused(os.memfd_create, "x")
raise SystemExit("all refused")
)");
  ASSERT_FALSE(layout.has_value());
  EXPECT_TRUE(refused(layout.error(), ErrorCode::io, "status 1: all refused"));
}

TEST_F(HostileReader, AnswersThatAreNone) {
  const std::string words = "does not work as it should";
  EXPECT_TRUE(is_refused("peer.send(b'L')", words));
  EXPECT_TRUE(is_refused("peer.send(b'X')", words));
  EXPECT_TRUE(is_refused("peer.send(b'R')", words));
  EXPECT_TRUE(is_refused("peer.send(b'L' + bytes(18))", words));
  EXPECT_TRUE(is_refused("peer.send(b'L' + bytes(20))", words));
  EXPECT_TRUE(is_refused("peer.send(b'L' + b'\\xff' * 1000)", words));
  EXPECT_TRUE(is_refused("peer.send(b'L' + bytes(131072))", "too long"));
}

TEST_F(HostileReader, ThatEndsIsTold) {
  EXPECT_TRUE(is_refused("raise SystemExit(3)", "ended with status 3"));
  EXPECT_TRUE(is_refused("raise SystemExit('it hurts')", "status 1: it hurts"));
  EXPECT_TRUE(is_refused("import ctypes; ctypes.string_at(0)", "status 139"));
  EXPECT_TRUE(is_refused("os.kill(os.getpid(), 9)", "by a limit", ErrorCode::resource_exhausted));
  EXPECT_TRUE(is_refused("bytearray(1 << 30)", "MemoryError"));
}

TEST_F(HostileReader, ThatSaysNothingHasADeadline) {
  EXPECT_TRUE(is_refused("time.sleep(1000)", "more than 1 seconds", ErrorCode::resource_exhausted, 1));
  EXPECT_TRUE(is_refused("while True: pass", "more than 1 seconds", ErrorCode::resource_exhausted, 1));
}

TEST_F(HostileReader, ThatIsMissingIsTold) {
  const ReadDisk read = [](uint64_t, Bytes) -> Answer<void> { return {}; };
  const auto layout = probe_layout(read, MiB, {}, {.program = "/nonexistent/obraz-layout", .arguments = {}});
  ASSERT_FALSE(layout.has_value());
  EXPECT_TRUE(refused(layout.error(), ErrorCode::not_found, "/nonexistent/obraz-layout"));
}

// The program itself does not run for anybody else, nor for another version.
TEST_F(HostileReader, TheRealOneRefusesOtherVersions) {
  const ReadDisk read = [](uint64_t, Bytes) -> Answer<void> { return {}; };
  char self[4096] = {};
  ASSERT_GT(::readlink("/proc/self/exe", self, sizeof self - 1), 0);
  std::string program = self;
  program = program.substr(0, program.rfind('/') + 1) + "obraz-layout";
  const auto layout = probe_layout(read, MiB, {}, {.program = program, .arguments = {"0"}});
  ASSERT_FALSE(layout.has_value());
  EXPECT_TRUE(
      refused(layout.error(), ErrorCode::io, "status 2: obraz-layout is for obrazd of the same version"));
}

}  // namespace
}  // namespace obraz::test
