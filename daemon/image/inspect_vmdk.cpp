// VMware sparse extents with an embedded descriptor (monolithicSparse, streamOptimized): VMware Virtual Disk
// Format 5.0. All integers are little-endian; places and sizes are in sectors of 512 bytes.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cctype>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "base/limits.h"
#include "image/inspect.h"

namespace obraz {
namespace {

constexpr auto kFormat = ImageFormat::vmdk;
constexpr uint64_t kSector = 512;
constexpr uint64_t kMaxDescriptor = 1 * limits::MiB;
constexpr uint64_t kUsualDescriptor = 20;    // sectors from 1 on, where QEMU looks for a parent's name
constexpr uint64_t kMaxSector = 1ull << 46;  // no product below overflows
constexpr uint64_t kDirectoryAtEnd = UINT64_MAX;
constexpr uint32_t kFlagZeroGrains = 4, kFlagCompressed = 1u << 16;
constexpr uint32_t kZeroGrain = 1;
constexpr uint32_t kMarkerEnd = 0, kMarkerFooter = 3;
constexpr uint64_t kGrainMarkerSize = 12;

struct Header {
  uint32_t version, flags, table_entries;
  uint64_t capacity, grain, descriptor_offset, descriptor_sectors, directory_offset;
  uint16_t compression;
  uint64_t size_bytes() const { return capacity * kSector; }
  bool compressed() const { return flags & kFlagCompressed; }
};

Answer<Header> read_header(const FileView& file, uint64_t offset) {
  std::byte bytes[kSector];
  OBRAZ_ASK(file.read(offset, bytes, "the vmdk header"));
  if (std::memcmp(bytes, "KDMV", 4) != 0)
    return refuse_damaged(kFormat, "it has no sparse extent header");
  if (std::memcmp(bytes + 73, "\n \r\n", 4) != 0)
    return refuse_damaged(kFormat, "it went through a text conversion");
  Header h{};
  h.version = load_le<uint32_t>(bytes + 4);
  h.flags = load_le<uint32_t>(bytes + 8);
  h.capacity = load_le<uint64_t>(bytes + 12);
  h.grain = load_le<uint64_t>(bytes + 20);
  h.descriptor_offset = load_le<uint64_t>(bytes + 28);
  h.descriptor_sectors = load_le<uint64_t>(bytes + 36);
  h.table_entries = load_le<uint32_t>(bytes + 44);
  h.directory_offset = load_le<uint64_t>(bytes + 56);
  h.compression = load_le<uint16_t>(bytes + 77);
  return h;
}

// What the header says of the disk's shape.
Answer<void> check_shape(const Header& h) {
  if (!std::has_single_bit(h.grain) || h.grain > 65536 || h.table_entries == 0 || h.table_entries > 512)
    return refuse_damaged(kFormat, fmt::format("it has grains of {} sectors in tables of {} entries", h.grain,
                                               h.table_entries));
  if (h.compressed() != (h.compression == 1) || h.compression > 1)
    return refuse_damaged(kFormat, fmt::format("it has the unknown compression {}", h.compression));
  return {};
}

std::unexpected<Refusal> refuse_part() {
  return refuse_source(
      "the vmdk has no descriptor: it is one extent of a disk in several files; convert the disk to one "
      "monolithic file "
      "first");
}

Answer<void> check_header(const Header& h) {
  if (h.version < 1 || h.version > 3)
    return refuse_source(fmt::format("vmdk version {} is unknown; 1 to 3 can be imported", h.version));
  if (h.capacity == 0)
    return refuse_source(
        "the vmdk only describes extents in other files; convert it to one monolithic file first");
  if (h.descriptor_offset == 0 || h.descriptor_sectors == 0)
    return refuse_part();
  if (h.capacity > kMaxSector)
    return check_virtual_size(UINT64_MAX);
  OBRAZ_ASK(check_virtual_size(h.size_bytes()));
  return check_shape(h);
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && std::isspace(uint8_t(text.front())))
    text.remove_prefix(1);
  while (!text.empty() && std::isspace(uint8_t(text.back())))
    text.remove_suffix(1);
  return text;
}

bool equal_words(std::string_view a, std::string_view b) {
  return std::ranges::equal(
      a, b, [](char x, char y) { return std::tolower(uint8_t(x)) == std::tolower(uint8_t(y)); });
}

// Whether a line of the descriptor tells of an extent: ACCESS SECTORS TYPE …
bool is_extent(std::string_view line) {
  for (std::string_view access : {"RW ", "RDONLY ", "NOACCESS "})
    if (line.size() > access.size() && equal_words(line.substr(0, access.size()), access))
      return true;
  return false;
}

Answer<void> check_extent(std::string_view line, const Header& h) {
  const std::string text(line);
  unsigned long long sectors = 0;
  char access[16] = {}, type[24] = {};
  if (std::sscanf(text.c_str(), "%15s %llu %23s", access, &sectors, type) != 3 ||
      !equal_words(type, "SPARSE"))
    return refuse_source(fmt::format(
        "the vmdk keeps its data in an extent of type {} in another file; convert it to one monolithic "
        "sparse file first",
        printable(type)));
  if (sectors != h.capacity)
    return refuse_damaged(
        kFormat, fmt::format("its descriptor tells of {} sectors, its header of {}", sectors, h.capacity));
  return {};
}

Answer<void> check_descriptor(std::string_view text, const Header& h) {
  unsigned extents = 0;
  std::string type;
  for (text = text.substr(0, text.find('\0')); !text.empty();) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = trim(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty() || line.front() == '#')
      continue;
    if (is_extent(line)) {
      ++extents;
      OBRAZ_ASK(check_extent(line, h));
      continue;
    }
    const size_t equals = line.find('=');
    if (equals == line.npos)
      continue;
    const auto key = trim(line.substr(0, equals));
    auto value = trim(line.substr(equals + 1));
    if (value.size() >= 2 && value.front() == '"' && value.back() == '"')
      value = value.substr(1, value.size() - 2);
    if ((equal_words(key, "parentCID") && !equal_words(value, "ffffffff")) ||
        equal_words(key, "parentFileNameHint"))
      return refuse_source("the vmdk is a difference to a parent disk; clone it to a full disk first");
    if (equal_words(key, "createType"))
      type = value;
    if (equal_words(key, "encryption.keySafe"))
      return refuse_source("the vmdk is encrypted; decrypt it first");
  }
  if (type.empty() && extents == 0)
    return refuse_part();
  if (!equal_words(type, "monolithicSparse") && !equal_words(type, "streamOptimized"))
    return refuse_source(fmt::format(
        "the vmdk is of the type '{}'; convert it to monolithicSparse or streamOptimized, which are one file",
        printable(type)));
  if (extents != 1)
    return refuse_source(
        fmt::format("the vmdk has {} extents; convert it to one monolithic file first", extents));
  return {};
}

Answer<std::string> read_text(const FileView& file, uint64_t sector, uint64_t sectors) {
  if (sector > kMaxSector || sectors * kSector > kMaxDescriptor || sectors > kMaxSector)
    return refuse_damaged(kFormat, fmt::format("its descriptor has {} sectors at {}", sectors, sector));
  std::string text(sectors * kSector, '\0');
  OBRAZ_ASK(file.read(sector * kSector, std::as_writable_bytes(std::span(text)), "the vmdk descriptor"));
  return text;
}

Answer<void> check_descriptors(const FileView& file, const Header& h) {
  auto text = read_text(file, h.descriptor_offset, h.descriptor_sectors);
  if (!text)
    return std::unexpected(std::move(text.error()));
  OBRAZ_ASK(check_descriptor(*text, h));
  // Readers disagree on where the descriptor is: sector 1, or where the header says. No parent in either.
  const uint64_t sectors = std::min(kUsualDescriptor, file.size_bytes / kSector - 1);
  auto usual = read_text(file, 1, sectors);
  if (!usual)
    return std::unexpected(std::move(usual.error()));
  for (const std::string* place : {&*text, &*usual})
    if (place->find("parentFileNameHint") != std::string::npos)
      return refuse_source("the vmdk names a parent disk; clone it to a full disk first");
  return {};
}

// A stream-optimized disk that was written in one pass has its true header in the last sectors but two.
Answer<Header> read_footer(const FileView& file, const Header& first) {
  if (file.size_bytes % kSector != 0 || file.size_bytes < 4 * kSector)
    return refuse_source("the vmdk image is truncated: its end has no footer");
  const auto marker_is = [&](uint64_t offset, uint32_t type) -> Answer<bool> {
    std::byte marker[kSector];
    OBRAZ_ASK(file.read(offset, marker, "a vmdk marker"));
    return load_le<uint32_t>(marker + 8) == 0 && load_le<uint32_t>(marker + 12) == type;
  };
  auto footer = marker_is(file.size_bytes - 3 * kSector, kMarkerFooter);
  auto end = marker_is(file.size_bytes - kSector, kMarkerEnd);
  if (!footer || !end)
    return std::unexpected(std::move(!footer ? footer.error() : end.error()));
  if (!*footer || !*end)
    return refuse_source("the vmdk image is truncated: its end has no footer");
  auto h = read_header(file, file.size_bytes - 2 * kSector);
  if (!h)
    return std::unexpected(std::move(h.error()));
  if (h->capacity != first.capacity || h->grain != first.grain || h->directory_offset == kDirectoryAtEnd)
    return refuse_damaged(kFormat, "its header and its footer differ");
  OBRAZ_ASK(check_shape(*h));
  return h;
}

// Whether every grain that the tables name is in the file.
Answer<void> check_grains(const FileView& file, const Header& h, const std::stop_token& stop) {
  const uint64_t span = uint64_t(h.table_entries) * h.grain;  // sectors of one table
  const uint64_t tables = divide_up(h.capacity, span);
  if (tables * 4 > limits::kMaxFormatTable || h.directory_offset == 0 || h.directory_offset > kMaxSector)
    return refuse_damaged(kFormat,
                          fmt::format("it has {} grain tables at sector {}", tables, h.directory_offset));
  std::vector<std::byte> directory(tables * 4), table(h.table_entries * 4);
  OBRAZ_ASK(file.read(h.directory_offset * kSector, directory, "the grain directory"));
  uint64_t needed = 0;
  for (uint64_t i = 0; i < tables; ++i)
    needed += load_le<uint32_t>(&directory[i * 4]) != 0 ? table.size() : 0;
  OBRAZ_ASK(check_tables(kFormat, file, needed));
  uint64_t last_compressed = 0;
  for (uint64_t i = 0; i < tables; ++i) {
    const uint64_t at = load_le<uint32_t>(&directory[i * 4]);
    if (at == 0)
      continue;
    if (stop.stop_requested())
      return refuse_cancelled();
    OBRAZ_ASK(file.read(at * kSector, table, "a grain table"));
    for (uint64_t j = 0; j < h.table_entries; ++j) {
      const uint64_t sector = load_le<uint32_t>(&table[j * 4]), guest = i * span + j * h.grain;
      if (guest >= h.capacity)
        break;
      if (sector == 0 || (sector == kZeroGrain && (h.flags & kFlagZeroGrains)))
        continue;
      const uint64_t length =
          h.compressed() ? kGrainMarkerSize : std::min(h.grain, h.capacity - guest) * kSector;
      if (!file.holds(sector * kSector, length))
        return refuse_truncated(kFormat, file, sector * kSector + length);
      last_compressed = std::max(last_compressed, sector);
    }
  }
  if (!h.compressed() || last_compressed == 0)
    return {};
  // Grains are laid down one after another: where the last one is whole, the others are.
  std::byte marker[kGrainMarkerSize];
  OBRAZ_ASK(file.read(last_compressed * kSector, marker, "a grain"));
  const uint64_t end = last_compressed * kSector + kGrainMarkerSize + load_le<uint32_t>(marker + 8);
  if (end > file.size_bytes)
    return refuse_truncated(kFormat, file, end);
  return {};
}

}  // namespace

Answer<Inspection> inspect_vmdk(const FileView& file, const std::stop_token& stop) {
  auto header = read_header(file, 0);
  if (!header)
    return std::unexpected(std::move(header.error()));
  OBRAZ_ASK(check_header(*header));
  OBRAZ_ASK(check_descriptors(file, *header));
  if (header->directory_offset == kDirectoryAtEnd) {
    header = read_footer(file, *header);
    if (!header)
      return std::unexpected(std::move(header.error()));
  }
  OBRAZ_ASK(check_grains(file, *header, stop));
  return Inspection{.virtual_size = header->size_bytes()};
}

}  // namespace obraz
