#include "image/layout_examine.h"

#include <blkid/blkid.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>

#include "image/fat.h"
#include "image/file_view.h"
#include "image/foreign_text.h"
#include "image/layout_wire.h"
#include "image/ntfs.h"

namespace obraz {

DiskBytes::DiskBytes(int file, uint64_t size_bytes) : file_(file), size_bytes_(size_bytes) {}

bool DiskBytes::has_page(uint64_t page) const {
  const auto after = std::ranges::upper_bound(pages_, page, {}, &std::pair<uint64_t, uint64_t>::first);
  return after != pages_.begin() && page < std::prev(after)->second;
}

bool DiskBytes::fetch(uint64_t offset, uint64_t length) {
  using layout_wire::kPage;
  if (offset >= size_bytes_ || length == 0)
    return true;
  length = std::min(length, size_bytes_ - offset);
  const uint64_t end = divide_up(offset + length, kPage);
  for (uint64_t page = offset / kPage; page < end;) {
    if (has_page(page)) {
      ++page;
      continue;
    }
    uint64_t behind = page + 1;
    while (behind < end && behind - page < limits::kLayoutReadSize / kPage && !has_page(behind))
      ++behind;
    const uint64_t bytes = std::min(behind * kPage, size_bytes_) - page * kPage;
    if (asked_ >= limits::kLayoutReads || bytes > limits::kLayoutReadTotal - total_ ||
        !ask(page * kPage, bytes)) {
      limit_reached_ = true;
      return false;
    }
    ++asked_;
    total_ += bytes;
    const auto at = pages_.insert(std::ranges::upper_bound(pages_, std::pair(page, behind)), {page, behind});
    if (at != pages_.begin() && std::prev(at)->second == page) {
      std::prev(at)->second = behind;
      pages_.erase(at);
    }
    page = behind;
  }
  return true;
}

bool DiskBytes::read(uint64_t offset, Bytes into) {
  if (offset > size_bytes_ || into.size() > size_bytes_ - offset)
    return false;
  return fetch(offset, into.size()) && read_fully(file_, into, offset) == 0;
}

namespace {

using limits::KiB;
using limits::MiB;

// Where file systems have their heads, and RAID and others their tails; libblkid looks nowhere else but where
// the hints below lead it.
constexpr uint64_t kHead = 2 * MiB, kTail = 1 * MiB;
constexpr uint64_t kAllEnds = 40 * MiB;    // of all partitions: with many of them, each has less
constexpr uint64_t kMaxEntries = 1 * MiB;  // of a GPT
constexpr unsigned kMaxExtended = 256;     // boot records of logical partitions
// What the search for Windows may read in one volume and in all, repetitions included: it bounds the time.
constexpr uint64_t kVolumeReads = 16 * MiB, kAllReads = 256 * MiB, kHintReads = 512 * KiB;

constexpr char kEfiSystem[] = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
constexpr char kBiosBoot[] = "21686148-6449-6e6f-744e-656564454649";
constexpr char kMicrosoftReserved[] = "e3c9e316-0b5c-4db8-817d-f92df00215ae";
constexpr const char* kDynamicDisk[] = {"5808c8aa-7e8f-42e0-85d2-e1e90434cfb3",
                                        "af9b60a0-1431-4f62-bc68-3311714a69ad", "0x42"};
constexpr const char* kExtended[] = {"0x05", "0x0f", "0x85"};
constexpr char kEfiSystemOfDos[] = "0xef";
constexpr uint64_t kGptBiosBootable = 1 << 2;
constexpr uint64_t kDosActive = 0x80;
constexpr uint8_t kProtective = 0xee;
constexpr size_t kDosTable = 446, kDosEntry = 16, kBootCode = 440;

template <size_t N>
bool is_one_of(const std::string& type, const char* const (&types)[N]) {
  return std::ranges::any_of(types, [&](const char* other) { return type == other; });
}

std::string text_of(const char* foreign, size_t limit = limits::kMaxLayoutIdentifier) {
  return foreign ? clean_text(foreign, limit) : "";
}

class Probe {
 public:
  Probe(const DiskBytes& disk, uint64_t offset, uint64_t length) : handle_(blkid_new_probe()) {
    good_ = handle_ &&
            blkid_probe_set_device(handle_, disk.file(), blkid_loff_t(offset), blkid_loff_t(length)) == 0;
  }
  ~Probe() { blkid_free_probe(handle_); }
  Probe(const Probe&) = delete;
  bool good() const { return good_; }
  blkid_probe get() const { return handle_; }
  const char* value(const char* name) const {
    const char* data = nullptr;
    return blkid_probe_lookup_value(handle_, name, &data, nullptr) == 0 ? data : nullptr;
  }

 private:
  blkid_probe handle_;
  bool good_ = false;
};

class Examination {
 public:
  explicit Examination(DiskBytes& disk) : disk_(disk) {}

  DiskLayout run() {
    fetch_ends(0, disk_.size_bytes(), kHead, kTail);
    disk_.read(0, Bytes(boot_record_).first(std::min<uint64_t>(sizeof boot_record_, disk_.size_bytes())));
    fetch_gpt();
    fetch_extended();
    layout_.file_system = find_file_system(0, disk_.size_bytes());
    find_partitions();
    // A boot record in front of a file system looks like an empty table.
    if (layout_.table == PartitionTable::dos && layout_.partitions.empty() &&
        !layout_.file_system.type.empty())
      layout_.table = PartitionTable::none;
    if (layout_.table == PartitionTable::none)
      layout_.table_id.clear();
    else
      layout_.file_system = {};
    examine_partitions();
    find_windows();
    layout_.boot = boot_method();
    layout_.incomplete |= disk_.limit_reached();
    return std::move(layout_);
  }

 private:
  struct Extent {
    uint64_t offset = 0, length = 0;
  };

  // What lies on the disk of a partition, if its table is right about it; nothing, for one that holds others.
  Extent extent_of(const Partition& partition) const {
    if (partition.offset >= disk_.size_bytes() || is_one_of(partition.type, kExtended))
      return {};
    return {partition.offset, std::min(partition.length, disk_.size_bytes() - partition.offset)};
  }

  ReadRange reader_of(Extent extent, uint64_t most_bytes) {
    return [this, extent, left = most_bytes](uint64_t offset, Bytes into) mutable {
      if (offset > extent.length || into.size() > extent.length - offset)
        return false;
      if (into.size() > left || into.size() > reads_left_) {
        layout_.incomplete = true;
        return false;
      }
      left -= into.size();
      reads_left_ -= into.size();
      return disk_.read(extent.offset + offset, into);
    };
  }

  void fetch_ends(uint64_t offset, uint64_t length, uint64_t head, uint64_t tail) {
    disk_.fetch(offset, std::min(length, head));
    if (length > head) {
      tail = std::min(tail, length - head);
      disk_.fetch(offset + length - tail, tail);
    }
  }

  // The entries of a GPT may lie anywhere, so its two headers are asked.
  void fetch_gpt() {
    const auto has_header = [&](uint64_t offset) {
      std::byte header[92];
      if (!disk_.read(offset, header) || std::memcmp(header, "EFI PART", 8) != 0)
        return false;
      const uint64_t place = load_le<uint64_t>(&header[72]);
      const uint64_t length = uint64_t(load_le<uint32_t>(&header[80])) * load_le<uint32_t>(&header[84]);
      if (place < disk_.size_bytes() / sector_size_)
        disk_.fetch(place * sector_size_, std::min(length, kMaxEntries));
      return true;
    };
    if (!has_header(512)) {
      sector_size_ = 4096;
      if (!has_header(4096))
        sector_size_ = 512;
    }
    if (const uint64_t sectors = disk_.size_bytes() / sector_size_; sectors > 0)
      has_header((sectors - 1) * sector_size_);
  }

  const std::byte* dos_entry(const std::byte* record, size_t index) const {
    return record + kDosTable + index * kDosEntry;
  }
  bool is_boot_record(const std::byte* record) const {
    return uint8_t(record[510]) == 0x55 && uint8_t(record[511]) == 0xaa;
  }

  // Logical partitions are a chain: each has a boot record that names the next one.
  void fetch_extended() {
    if (!is_boot_record(boot_record_))
      return;
    unsigned records = 0;
    for (size_t i = 0; i < 4; ++i) {
      const uint64_t first = extended_start(boot_record_, i);
      std::byte record[512];
      for (uint64_t next = first; next != 0 && ++records <= kMaxExtended;) {
        if (!disk_.read(next * sector_size_, record) || !is_boot_record(record))
          break;
        next = 0;
        for (size_t j = 0; j < 4 && next == 0; ++j)
          if (const uint64_t start = extended_start(record, j); start != 0)
            next = first + start;
      }
    }
  }
  // The start of an extended partition, in sectors; 0: the entry is none.
  static uint64_t extended_start(const std::byte* record, size_t index) {
    const std::byte* entry = record + kDosTable + index * kDosEntry;
    const auto type = uint8_t(entry[4]);
    return type == 0x05 || type == 0x0f || type == 0x85 ? load_le<uint32_t>(entry + 8) : 0;
  }

  // What libblkid wants to see of a file system and does not lie at its ends: the records of NTFS that have
  // its name, the root directory of a FAT, the metadata of BitLocker.
  void fetch_hints(Extent extent) {
    std::byte sector[512];
    const ReadRange reader = reader_of(extent, kHintReads);
    if (extent.length < sizeof sector || !reader(0, sector))
      return;
    const bool incomplete = layout_.incomplete;
    if (std::memcmp(&sector[3], "-FVE-FS-", 8) == 0)
      fetch_within(extent, load_le<uint64_t>(&sector[176]), 4 * KiB);
    if (std::memcmp(&sector[3], "MSWIN4.1", 8) == 0)  // a FAT, or BitLocker on a removable disk
      fetch_within(extent, load_le<uint64_t>(&sector[440]), 4 * KiB);
    if (NtfsVolume::has_signature(sector)) {
      if (const auto volume = NtfsVolume::open(reader, extent.length))
        fetch_within(extent, volume->table_offset(), 4 * volume->record_size());
    } else if (std::memcmp(&sector[3], "EXFAT   ", 8) == 0) {
      fetch_exfat_root(extent, sector);
    } else if (auto volume = FatVolume::open(reader, extent.length)) {
      (void)volume->find_path("?");  // no file has this name, so all of the root is read
    }
    layout_.incomplete = incomplete;  // a label is no loss
  }

  void fetch_within(Extent extent, uint64_t offset, uint64_t length) {
    if (offset < extent.length)
      disk_.fetch(extent.offset + offset, std::min(length, extent.length - offset));
  }

  void fetch_exfat_root(Extent extent, const std::byte* sector) {
    const unsigned sector_shift = uint8_t(sector[0x6c]), cluster_shift = uint8_t(sector[0x6d]);
    const uint64_t root = load_le<uint32_t>(&sector[0x60]);
    if (sector_shift < 9 || sector_shift > 12 || cluster_shift > 25 - sector_shift || root < 2)
      return;
    const uint64_t table = uint64_t(load_le<uint32_t>(&sector[0x50])) << sector_shift;
    const uint64_t data = uint64_t(load_le<uint32_t>(&sector[0x58])) << sector_shift;
    const uint64_t place = data + ((root - 2) << (sector_shift + cluster_shift));
    fetch_within(extent, table + root * 4, 4 * KiB);
    fetch_within(extent, place, 64 * KiB);
  }

  // Its bytes are there. Nothing, too, when it could be several: a new file system over the rests of an old
  // one.
  FileSystem find_file_system(uint64_t offset, uint64_t length) {
    FileSystem found;
    if (length < 512)
      return found;
    fetch_hints({offset, length});
    const Probe probe(disk_, offset, length);
    if (!probe.good())
      return found;
    blkid_probe_enable_partitions(probe.get(), 0);
    blkid_probe_enable_superblocks(probe.get(), 1);
    blkid_probe_set_superblocks_flags(probe.get(),
                                      BLKID_SUBLKS_TYPE | BLKID_SUBLKS_LABEL | BLKID_SUBLKS_UUID);
    if (blkid_do_safeprobe(probe.get()) != 0)
      return found;
    found.type = text_of(probe.value("TYPE"));
    found.label = text_of(probe.value("LABEL"), limits::kMaxLayoutText);
    found.uuid = text_of(probe.value("UUID"));
    return found;
  }

  void find_partitions() {
    const Probe probe(disk_, 0, disk_.size_bytes());
    if (!probe.good() || disk_.size_bytes() < sector_size_)
      return;
    char dos[] = "dos", gpt[] = "gpt";
    char* types[] = {dos, gpt, nullptr};
    blkid_probe_enable_superblocks(probe.get(), 0);
    blkid_probe_enable_partitions(probe.get(), 1);
    blkid_probe_filter_partitions_type(probe.get(), BLKID_FLTR_ONLYIN, types);
    if (sector_size_ != 512)
      blkid_probe_set_sectorsize(probe.get(), unsigned(sector_size_));
    const blkid_partlist list = blkid_probe_get_partitions(probe.get());
    const blkid_parttable table = list ? blkid_partlist_get_table(list) : nullptr;
    const char* type = table ? blkid_parttable_get_type(table) : nullptr;
    if (!type) {
      // It says that there is a GPT.
      layout_.incomplete |= has_protective_entry();
      return;
    }
    layout_.table = std::strcmp(type, gpt) == 0 ? PartitionTable::gpt : PartitionTable::dos;
    layout_.table_id = text_of(blkid_parttable_get_id(table));
    const int count = blkid_partlist_numof_partitions(list);
    for (int i = 0; i < count; ++i)
      add_partition(blkid_partlist_get_partition(list, i));
  }

  void add_partition(blkid_partition from) {
    // One of a table inside a partition (BSD, Solaris): what is not asked for is not reliable.
    const blkid_parttable table = from ? blkid_partition_get_table(from) : nullptr;
    if (!table || blkid_parttable_get_parent(table))
      return;
    const auto start = uint64_t(blkid_partition_get_start(from)),
               size = uint64_t(blkid_partition_get_size(from));
    if (start > INT64_MAX / 512 || size > INT64_MAX / 512 || size == 0)
      return;
    if (layout_.partitions.size() >= limits::kMaxPartitions) {
      layout_.incomplete = true;
      return;
    }
    Partition partition;
    partition.number = uint32_t(blkid_partition_get_partno(from));
    partition.offset = start * 512;
    partition.length = size * 512;
    const auto flags = uint64_t(blkid_partition_get_flags(from));
    if (layout_.table == PartitionTable::gpt) {
      partition.type = text_of(blkid_partition_get_type_string(from));
      partition.active = (flags & kGptBiosBootable) != 0;
    } else {
      char type[8];
      std::snprintf(type, sizeof type, "0x%02x", unsigned(blkid_partition_get_type(from)) & 0xff);
      partition.type = type;
      partition.active = (flags & kDosActive) != 0;
    }
    partition.name = text_of(blkid_partition_get_name(from), limits::kMaxPartitionName);
    partition.uuid = text_of(blkid_partition_get_uuid(from));
    layout_.partitions.push_back(std::move(partition));
  }

  void examine_partitions() {
    if (layout_.partitions.empty())
      return;
    const uint64_t share = std::min(kHead + kTail, kAllEnds / layout_.partitions.size());
    for (Partition& partition : layout_.partitions) {
      const Extent extent = extent_of(partition);
      fetch_ends(extent.offset, extent.length, share / 3 * 2, share / 3);
      partition.file_system = find_file_system(extent.offset, extent.length);
    }
  }

  // The first thing found that starts Windows counts, else the first that only Windows makes.
  void find_windows() {
    if (layout_.table == PartitionTable::none) {
      const Extent all{0, disk_.size_bytes()};
      if (disk_.size_bytes() >= 512)
        consider(evidence_in(all, layout_.file_system, false), 0);
      return;
    }
    for (const Partition& partition : layout_.partitions) {
      const Extent extent = extent_of(partition);
      if (extent.length < 512)
        continue;
      const bool efi_system = partition.type == kEfiSystem || partition.type == kEfiSystemOfDos;
      WindowsEvidence evidence = evidence_in(extent, partition.file_system, efi_system);
      if (evidence == WindowsEvidence::none && is_one_of(partition.type, kDynamicDisk))
        evidence = WindowsEvidence::dynamic_disk;
      consider(evidence, partition.number);
      if (layout_.windows.content == WindowsContent::boot)
        return;
    }
    const bool reserved = std::ranges::any_of(
        layout_.partitions, [](const Partition& partition) { return partition.type == kMicrosoftReserved; });
    if (reserved && layout_.windows.evidence == WindowsEvidence::ntfs)
      layout_.windows.evidence = WindowsEvidence::ntfs_beside_reserved;
  }

  void consider(WindowsEvidence evidence, uint32_t partition) {
    if (evidence == WindowsEvidence::none)
      return;
    const bool boot = evidence >= WindowsEvidence::efi_boot_manager;
    if (boot || layout_.windows.content == WindowsContent::none)
      layout_.windows = {boot ? WindowsContent::boot : WindowsContent::data, evidence, partition};
  }

  WindowsEvidence evidence_in(Extent extent, const FileSystem& file_system, bool efi_system) {
    std::byte sector[512];
    const ReadRange reader = reader_of(extent, kVolumeReads);
    if (!reader(0, sector)) {
      layout_.incomplete = true;
      return WindowsEvidence::none;
    }
    if (file_system.type == "BitLocker")
      return WindowsEvidence::bitlocker;
    if (file_system.type == "ReFS")
      return WindowsEvidence::refs;
    if (NtfsVolume::has_signature(sector))
      return evidence_in_ntfs(reader, extent.length);
    if (file_system.type == "vfat" || efi_system)
      return evidence_in_fat(reader, extent.length, file_system.type == "vfat");
    return WindowsEvidence::none;
  }

  // Whether there is such a file; a volume that cannot be searched leaves the answer incomplete.
  template <typename Entry>
  bool is_file(const Result<std::optional<Entry>>& found) {
    layout_.incomplete |= !found;
    return found && *found && !(*found)->directory;
  }

  WindowsEvidence evidence_in_ntfs(const ReadRange& reader, uint64_t length) {
    auto volume = NtfsVolume::open(reader, length);
    if (!volume) {
      layout_.incomplete = true;
      return WindowsEvidence::ntfs;
    }
    if (is_file(volume->find_path("bootmgr")))
      return WindowsEvidence::boot_manager;
    if (is_file(volume->find_path("ntldr")))
      return WindowsEvidence::nt_loader;
    const auto system = volume->find_path("Windows/System32");
    layout_.incomplete |= !system;
    if (system && *system && (*system)->directory)
      for (const char* name : {"ntoskrnl.exe", "winload.exe", "winload.efi"})
        if (is_file(volume->find((*system)->record, name)))
          return WindowsEvidence::system_files;
    return WindowsEvidence::ntfs;
  }

  WindowsEvidence evidence_in_fat(const ReadRange& reader, uint64_t length, bool is_fat) {
    auto volume = FatVolume::open(reader, length);
    if (!volume) {
      layout_.incomplete |= is_fat;
      return WindowsEvidence::none;
    }
    if (is_file(volume->find_path("EFI/Microsoft/Boot/bootmgfw.efi")))
      return WindowsEvidence::efi_boot_manager;
    if (is_file(volume->find_path("bootmgr")))
      return WindowsEvidence::boot_manager;
    if (is_file(volume->find_path("ntldr")))
      return WindowsEvidence::nt_loader;
    return WindowsEvidence::none;
  }

  bool has_protective_entry() const {
    bool found = false;
    for (size_t i = 0; is_boot_record(boot_record_) && i < 4; ++i)
      found |= uint8_t(dos_entry(boot_record_, i)[4]) == kProtective;
    return found;
  }

  // A BIOS runs the code of the boot record; what that does next, the marks of the table tell, or GRUB, which
  // has its name in there and needs no marks.
  bool boots_by_bios() const {
    const ConstBytes code = Bytes(const_cast<std::byte*>(boot_record_), kBootCode);
    if (layout_.table == PartitionTable::none || layout_.partitions.empty() ||
        !is_boot_record(boot_record_) || is_zero(code))
      return false;
    for (size_t i = 0; i < 4; ++i)
      if (uint8_t(dos_entry(boot_record_, i)[0]) == kDosActive)
        return true;
    const auto is_marked = [](const Partition& partition) {
      return partition.active || partition.type == kBiosBoot;
    };
    constexpr char kGrub[] = {'G', 'R', 'U', 'B'};
    const bool grub = !std::ranges::search(code, std::as_bytes(std::span(kGrub))).empty();
    return std::ranges::any_of(layout_.partitions, is_marked) ||
           (grub && layout_.table == PartitionTable::dos);
  }

  BootMethod boot_method() const {
    const bool bios = boots_by_bios();
    const bool uefi = std::ranges::any_of(layout_.partitions, [](const Partition& partition) {
      return partition.type == kEfiSystem || partition.type == kEfiSystemOfDos;
    });
    if (bios)
      return uefi ? BootMethod::both : BootMethod::bios;
    return uefi ? BootMethod::uefi : BootMethod::none;
  }

  DiskBytes& disk_;
  DiskLayout layout_;
  std::byte boot_record_[512] = {};
  uint64_t sector_size_ = 512;
  uint64_t reads_left_ = kAllReads;
};

}  // namespace

DiskLayout examine_disk(DiskBytes& disk) {
  return Examination(disk).run();
}

}  // namespace obraz
