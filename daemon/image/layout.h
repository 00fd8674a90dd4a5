// What is on a virtual disk: its partition table, file systems, how it boots, and whether Windows is on it.
//
// A guest wrote these bytes to be read by whoever looks. So nothing here parses them: obraz-layout does, a
// program of ours that is started for one disk, may only ask for ranges of it, and is confined
// (confined_child.h, SyscallFilter::build_for_parsing). What it answers is input, too: layout_wire.h checks
// it.
//
// Invariants: every text is clean (foreign_text.h) and bounded by limits::kMaxLayoutText and its neighbours,
// so are the numbers of partitions, of reads and of bytes read; whatever is on the disk, there is an answer
// or a refusal within limits::kLayoutSeconds and the time of the read under way. Thread: a worker's, which
// lives on until the return.
#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/refusal.h"

namespace obraz {

enum class PartitionTable : unsigned char { none, dos, gpt };

enum class BootMethod : unsigned char { none, bios, uefi, both };

// `boot`: files that start Windows, or that only an installed one has. `data`: a file system of Windows and
// no such file.
enum class WindowsContent : unsigned char { none, data, boot };

// What the answer rests on.
enum class WindowsEvidence : unsigned char {
  none,
  // data
  ntfs,
  ntfs_beside_reserved,  // and a Microsoft reserved partition on the same disk
  refs,
  bitlocker,
  dynamic_disk,
  // boot
  efi_boot_manager,  // EFI/Microsoft/Boot/bootmgfw.efi on FAT
  boot_manager,      // bootmgr in the root
  nt_loader,         // ntldr in the root
  system_files,      // the kernel or its loader in Windows/System32 on NTFS
};

struct FileSystem {
  std::string type;  // in libblkid's words ("ext4", "LVM2_member", "crypto_LUKS"); empty: none is known
  std::string label, uuid;
};

struct Partition {
  uint32_t number = 0;  // in Linux's way of counting: logical ones from 5 on
  uint64_t offset = 0,
           length = 0;  // in bytes, as the table says: may reach beyond the end of a disk that was cut
  std::string type;     // a GUID in small letters, or "0x83"
  std::string name, uuid;
  bool active = false;  // the mark of dos tables; of GPT, that a BIOS may boot from it
  FileSystem file_system;
};

struct WindowsFinding {
  WindowsContent content = WindowsContent::none;
  WindowsEvidence evidence = WindowsEvidence::none;
  uint32_t partition = 0;  // its number; 0: the disk itself

  std::string sentence() const;  // for a person: what was found, and where; empty when nothing was
};

struct DiskLayout {
  PartitionTable table = PartitionTable::none;
  std::string table_id;
  std::vector<Partition> partitions;  // in the order of the table, extended ones included
  FileSystem file_system;             // of a disk without a table
  BootMethod boot = BootMethod::none;
  WindowsFinding windows;
  // Something was left out: there are more partitions than limits::kMaxPartitions, a limit of reading was
  // reached, or a file system that could hold Windows is damaged.
  bool incomplete = false;
};

const char* name_of(PartitionTable table);
const char* name_of(BootMethod boot);
const char* name_of(WindowsContent content);

// Fills the bytes from [offset, offset + into.size()) of the disk; ranges lie within it and are no longer
// than limits::kLayoutReadSize. What it refuses, probe_layout() refuses.
using ReadDisk = std::function<Answer<void>(uint64_t offset, Bytes into)>;

// The program that looks.
struct LayoutReader {
  std::string program;  // a path; empty: obraz-layout, which lies beside the program that runs
  std::vector<std::string> arguments;
  unsigned seconds = limits::kLayoutSeconds;
};

// Blocks. Each range is read at most once, so what is answered fits the bytes at one time for each of them; a
// disk that is written meanwhile may show a mixture, hence better a snapshot.
Answer<DiskLayout> probe_layout(const ReadDisk& read_disk, uint64_t size_bytes, std::stop_token stop = {},
                                const LayoutReader& reader = {});

}  // namespace obraz
