#include "layout_support.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>

#include "base/limits.h"

namespace obraz::test {
namespace {

using limits::MiB;

constexpr char kLinux[] = "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
               kBasic[] = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7";

// Of the LVM: a physical volume, as libblkid checks it.
ByteVector lvm_label() {
  ByteVector bytes(1024);
  std::byte* sector = &bytes[512];
  std::memcpy(sector, "LABELONE", 8);
  store_le<uint64_t>(sector + 8, 1);
  store_le<uint32_t>(sector + 20, 32);
  std::memcpy(sector + 24, "LVM2 001", 8);
  std::memcpy(sector + 32, "abcdefghijklmnopqrstuvwxyz012345", 32);
  uint32_t sum = 0xf597'a6cf;
  for (size_t i = 20; i < 512; ++i) {
    sum ^= uint32_t(sector[i]);
    for (int bit = 0; bit < 8; ++bit)
      sum = sum >> 1 ^ (sum & 1 ? 0xedb8'8320 : 0);
  }
  store_le<uint32_t>(sector + 16, sum);
  return bytes;
}

ByteVector luks_header() {
  ByteVector bytes(592);
  std::memcpy(bytes.data(), "LUKS\xba\xbe\0\1aes", 11);
  std::memcpy(&bytes[168], "01234567-89ab-cdef-0123-456789abcdef", 36);
  return bytes;
}

// BitLocker says where its metadata is, which is where nobody looks otherwise.
void put_bitlocker(const std::string& disk, uint64_t offset) {
  ByteVector head(512);
  std::memcpy(head.data(), "\xeb\x58\x90-FVE-FS-", 11);
  store_le<uint64_t>(&head[176], 32 * MiB);
  patch_file(disk, offset, head);
  ByteVector metadata(512);
  std::memcpy(metadata.data(), "-FVE-FS-", 8);
  patch_file(disk, offset + 32 * MiB, metadata);
}

}  // namespace

void quiet(const std::string& command) {
  shell("PATH=$PATH:/usr/sbin:/sbin; { " + command + "; } >/dev/null 2>&1");
}

std::string DiskMaker::blank(const std::string& name, uint64_t mib) {
  quiet(fmt::format("rm -f {0} && truncate -s {1}M {0}", path(name), mib));
  return path(name);
}

std::string DiskMaker::partitioned(const std::string& name, uint64_t mib, const std::string& script) {
  const std::string disk = blank(name, mib);
  std::ofstream(path("script")) << script;
  quiet(fmt::format("sfdisk --no-reread --no-tell-kernel {} <{}", disk, path("script")));
  return disk;
}

void DiskMaker::put(const std::string& disk, uint64_t at_mib, const std::string& file) {
  quiet(fmt::format("dd if={} of={} bs=1M seek={} conv=notrunc,sparse", file, disk, at_mib));
}

void DiskMaker::put_boot_code(const std::string& disk, const std::string& text) {
  patch_file(disk, 32, std::as_bytes(std::span(text)));
}

std::string DiskMaker::ext4(uint64_t mib, const std::string& label) {
  const std::string file = blank(fmt::format("volume{}", ++made_), mib);
  quiet(fmt::format("mkfs.ext4 -q -L {} -U 11111111-2222-3333-4444-555555555555 {}", label, file));
  return file;
}

std::string DiskMaker::fat(uint64_t mib, unsigned bits, const std::string& label,
                           const std::vector<std::string>& files) {
  const std::string file = blank(fmt::format("volume{}", ++made_), mib);
  quiet(fmt::format("mkfs.vfat -F {} -n {} -i 12345678 {}", bits, label, file));
  quiet("echo content >" + path("content"));
  for (const std::string& name : files) {
    for (size_t at = 0; (at = name.find('/', at + 1)) != name.npos;)
      quiet(fmt::format("mdir -i {0} '::{1}' || mmd -i {0} '::{1}'", file, name.substr(0, at)));
    quiet(fmt::format("mcopy -i {} {} '::{}'", file, path("content"), name));
  }
  return file;
}

std::string DiskMaker::ntfs(uint64_t mib, const std::string& label, const std::vector<std::string>& paths) {
  const std::string file = blank(fmt::format("volume{}", ++made_), mib);
  quiet(fmt::format("mkntfs --force --fast --label '{}' {}", label, file));
  std::ofstream list(path("paths"));
  for (const std::string& name : paths)
    list << name << '\n';
  list.close();
  quiet(fmt::format("python3 {}/support/ntfs_tree.py {} <{}", OBRAZ_TEST_SOURCES, file, path("paths")));
  return file;
}

const std::vector<std::string>& DiskMaker::names() {
  static const std::vector<std::string> names = {
      "gpt_linux",   "mbr_linux",      "ext4",     "xfs",   "swap",        "lvm",      "luks",
      "ntfs_data",   "ntfs_files",     "fat_boot", "empty", "gpt_windows", "gpt_data", "gpt_locked",
      "mbr_windows", "mbr_old_windows"};
  return names;
}

std::string DiskMaker::make(const std::string& name) {
  const std::string efi = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
                    reserved = "E3C9E316-0B5C-4DB8-817D-F92DF00215AE";
  if (name == "gpt_linux") {
    const auto disk =
        partitioned(name, 512,
                    fmt::format("label: gpt\nlabel-id: 99999999-1111-2222-3333-444444444444\n"
                                "start=1MiB, size=1MiB, type=21686148-6449-6E6F-744E-656564454649\n"
                                "start=2MiB, size=64MiB, type={}, name=\"EFI System\"\n"
                                "start=66MiB, size=100MiB, type={}, name=\"Wurzel é\", "
                                "uuid=AAAAAAAA-1111-2222-3333-444444444444\n"
                                "start=200MiB, size=302MiB, type={}\n",
                                efi, kLinux, kLinux));
    put(disk, 2, fat(64, 32, "ESP", {"EFI/debian/grubx64.efi", "EFI/BOOT/BOOTX64.EFI"}));
    put(disk, 66, ext4(100, "root"));
    const auto xfs = blank("xfs-volume", 302);
    quiet("mkfs.xfs -q -L data " + xfs);
    put(disk, 200, xfs);
    put_boot_code(disk);
    return disk;
  }
  if (name == "mbr_linux") {
    const auto disk =
        partitioned(name, 64,
                    "label: dos\nlabel-id: 0x12345678\nstart=1MiB, size=15MiB, type=83, bootable\n"
                    "start=16MiB, size=40MiB, type=5\nstart=17MiB, size=8MiB, type=82\n"
                    "start=26MiB, size=8MiB, type=83\nstart=40MiB, size=10MiB, type=83\n");
    put(disk, 1, ext4(15, "boot"));
    const auto swap = blank("swap-volume", 8);
    quiet("mkswap -L pages " + swap);
    put(disk, 17, swap);
    put(disk, 40, ext4(10, "home"));
    put_boot_code(disk);
    return disk;
  }
  if (name == "ext4")
    return ext4(32, "bare");
  if (name == "xfs") {
    const auto disk = blank(name, 320);
    quiet("mkfs.xfs -q -L bare " + disk);
    return disk;
  }
  if (name == "swap") {
    const auto disk = blank(name, 16);
    quiet("mkswap -L pages -U 11111111-2222-3333-4444-555555555555 " + disk);
    return disk;
  }
  if (name == "empty")
    return blank(name, 64);
  if (name == "lvm" || name == "luks") {
    const auto disk = blank(name, 16);
    patch_file(disk, 0, name == "lvm" ? lvm_label() : luks_header());
    return disk;
  }
  if (name == "ntfs_data")
    return ntfs(64, "Daten für alle", {"documents/", "documents/bootmgr", "Windows/", "Windows/System32"});
  if (name == "ntfs_files")
    return ntfs(64, "C", {"windows/", "windows/SYSTEM32/", "windows/SYSTEM32/WinLoad.exe"});
  if (name == "fat_boot")
    return fat(16, 16, "STICK", {"bootmgr", "sources/install.wim"});
  if (name == "gpt_windows") {
    const auto disk =
        partitioned(name, 256,
                    fmt::format("label: gpt\nstart=1MiB, size=64MiB, type={}, name=\"EFI system partition\"\n"
                                "start=65MiB, size=16MiB, type={}\n"
                                "start=81MiB, size=100MiB, type={}, name=\"Basic data partition\"\n",
                                efi, reserved, kBasic));
    put(disk, 1, fat(64, 32, "SYSTEM", {"EFI/Boot/bootx64.efi", "EFI/Microsoft/Boot/bootmgfw.efi"}));
    put(disk, 81, ntfs(100, "Windows", {"Windows/", "Windows/System32/", "Windows/System32/ntoskrnl.exe"}));
    return disk;
  }
  if (name == "gpt_data") {
    const auto disk = partitioned(
        name, 128,
        fmt::format("label: gpt\nstart=1MiB, size=16MiB, type={}\nstart=17MiB, size=64MiB, type={}\n",
                    reserved, kBasic));
    put(disk, 17, ntfs(64, "Data", {"pictures/", "pictures/cat.png"}));
    return disk;
  }
  if (name == "gpt_locked") {
    const auto disk = partitioned(
        name, 128,
        fmt::format("label: gpt\nstart=1MiB, size=16MiB, type={}\nstart=17MiB, size=64MiB, type={}\n",
                    reserved, kBasic));
    put_bitlocker(disk, 17 * MiB);
    return disk;
  }
  if (name == "mbr_windows" || name == "mbr_old_windows") {
    const auto disk = partitioned(
        name, 128, "label: dos\nstart=1MiB, size=32MiB, type=7, bootable\nstart=40MiB, size=64MiB, type=7\n");
    put(disk, 1,
        name == "mbr_windows" ? ntfs(32, "System Reserved", {"Boot/", "Boot/BCD"})
                              : ntfs(32, "XP", {"NTLDR"}));
    put(disk, 40, ntfs(64, "", {}));
    put_boot_code(disk);
    if (name == "mbr_windows") {  // by another program
      quiet(fmt::format(
          "echo content >{0}; dd if={1} of={2} bs=1M skip=1 count=32 && ntfscp --force {2} {0} bootmgr && "
          "dd if={2} of={1} bs=1M seek=1 conv=notrunc",
          path("content"), disk, path("system")));
    }
    return disk;
  }
  ADD_FAILURE() << "no disk is called " << name;
  return blank("none", 1);
}

FileDisk::FileDisk(const std::string& path) : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
  EXPECT_TRUE(fd_) << path;
  view_ = {fd_.get(), file_size(path)};
}

bool FileDisk::read(uint64_t offset, Bytes into) {
  bytes_read_ += into.size();
  if (!view_.holds(offset, into.size()) || read_fully(view_.fd, into, offset) != 0)
    return false;
  for (const auto& [place, bytes] : changes_)
    for (size_t i = 0; i < bytes.size(); ++i)
      if (place + i >= offset && place + i - offset < into.size())
        into[place + i - offset] = bytes[i];
  return true;
}

ReadDisk FileDisk::reader() {
  return [this](uint64_t offset, Bytes into) -> Answer<void> {
    if (!read(offset, into))
      return refuse(ErrorCode::io, "", "no such bytes");
    return {};
  };
}

FileBytes::FileBytes(FileDisk& disk) : FileBytes(disk, ::memfd_create("disk", MFD_CLOEXEC)) {}

FileBytes::FileBytes(FileDisk& disk, int file)
    : DiskBytes(file, disk.size_bytes()), disk_(disk), owner_(file) {
  EXPECT_EQ(::ftruncate(file, off_t(disk.size_bytes())), 0);
}

bool FileBytes::ask(uint64_t offset, uint64_t length) {
  asked_.push_back({offset, length});
  EXPECT_LE(length, limits::kLayoutReadSize);
  std::vector<std::byte> bytes(length);
  EXPECT_TRUE(disk_.read(offset, bytes)) << offset << " " << length;
  return write_fully(file(), bytes, offset) == 0;
}

DiskLayout examine(FileDisk& disk) {
  FileBytes bytes(disk);
  return examine_disk(bytes);
}

DiskLayout probe(const std::string& path) {
  FileDisk disk(path);
  const auto layout = probe_layout(disk.reader(), disk.size_bytes());
  EXPECT_TRUE(layout.has_value()) << layout.error().message;
  return layout.value_or(DiskLayout());
}

std::string describe(const DiskLayout& layout) {
  const auto describe_system = [](const FileSystem& system) {
    return fmt::format("[{}|{}|{}]", system.type, system.label, system.uuid);
  };
  std::string text =
      fmt::format("{} {} {}\n", name_of(layout.table), layout.table_id, describe_system(layout.file_system));
  for (const Partition& partition : layout.partitions)
    text += fmt::format("{}: {}+{} {} '{}' {}{} {}\n", partition.number, partition.offset, partition.length,
                        partition.type, partition.name, partition.uuid, partition.active ? " active" : "",
                        describe_system(partition.file_system));
  text +=
      fmt::format("boots by {}, Windows: {} ({}){}\n", name_of(layout.boot), name_of(layout.windows.content),
                  layout.windows.sentence(), layout.incomplete ? ", incomplete" : "");
  return text;
}

}  // namespace obraz::test
