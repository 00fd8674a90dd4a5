// The checkpoint that a superblock names: its tables in numbers, the trees of its volumes, its resources.
#include <fmt/core.h>
#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <array>

#include "base/limits.h"
#include "obraz/v1/record.pb.h"
#include "store/disk_format.h"
#include "store/journal.h"
#include "store/table.h"
#include "tools/store_dump.h"

namespace obraz {
namespace {

using disk::kPageSize;
using Layout = DumpWriter::Layout;

constexpr const char* kTableNames[] = {"cluster_counts", "page_counts", "volumes", "resources", "drops"};
static_assert(std::size(kTableNames) == disk::kTables);
constexpr size_t kShownBytes = 256;  // of a value that is none of obraz's messages, for people

struct Checkpoint {
  Checkpoint(Device* m, const disk::Superblock* s, const DumpOptions* o, DumpWriter* w, DumpOutcome* found)
      : meta(m), superblock(s), options(o), out(w), outcome(found) {}

  Device* meta;
  const disk::Superblock* superblock;
  const DumpOptions* options;
  DumpWriter* out;
  DumpOutcome* outcome;
  std::array<Table, disk::kTables> tables;
  std::array<std::vector<std::string>, disk::kTables> errors;
};

std::string sums(uint32_t expected, uint32_t found) {
  return fmt::format("checksum {:08x} expected, {:08x} found", expected, found);
}

// The page into the buffer; what is wrong with it, or nothing.
Task<std::string> read_page(Checkpoint* c, disk::PageRef ref, uint32_t type, Bytes into) {
  const disk::Superblock& s = *c->superblock;
  if (ref.page < s.first_node_page() || ref.page.value >= s.pages ||
      (ref.page.value + 1) * kPageSize > c->meta->size_bytes())
    co_return "not one of the node pages of meta";
  const Status read = co_await c->meta->read(ref.page.value * kPageSize, into);
  if (!read)
    co_return describe(read.error());
  const uint32_t sum = disk::page_checksum(s.uuid, ref.page, type, into);
  co_return sum == ref.checksum ? std::string() : sums(ref.checksum, sum);
}

// --- tables
// -------------------------------------------------------------------------------------------------------
Task<void> read_table(Checkpoint* c, unsigned id) {
  const disk::Superblock& s = *c->superblock;
  Table& table = c->tables[id];
  std::vector<std::string>& errors = c->errors[id];
  // Memory is taken on the word of a length only as far as the geometry and the device go.
  if (!table.prepare(s.tables[id], id == disk::kClusterCounts ? s.clusters * 4 : c->meta->size_bytes())) {
    table = Table();
    errors.push_back("impossible shape");
    co_return;
  }
  AlignedBytes page(kPageSize);
  for (unsigned level = table.levels(); level-- > 0;)
    for (uint64_t i = 0; i < table.refs(level).size(); ++i) {
      const disk::PageRef ref = table.refs(level)[i];
      if (!ref)
        continue;
      const uint32_t type = level == 0 ? disk::kTypeTablePage : disk::type_of_index(level - 1);
      const std::string error = co_await read_page(c, ref, type, page.bytes());
      if (error.empty() && table.set_page(level, i, page.bytes()))
        continue;
      errors.push_back(fmt::format("page {} (level {}, index {}): {}", ref.page.value, level, i,
                                   error.empty() ? "reserved bytes are not zero" : error));
    }
}

void show_counts(DumpWriter& out, const Table& table) {
  uint64_t used = 0, shared = 0, references = 0, most = 0, summed = 0;
  for (uint64_t i = 0; i < table.length_bytes() / 4; ++i) {
    const uint64_t count = table.u32(i) & disk::kMaxCount;
    summed += table.u32(i) >> 31;
    used += count > 0;
    shared += count > 1;
    references += count;
    most = std::max(most, count);
  }
  out.field("elements", table.length_bytes() / 4);
  out.field("used", used);
  out.field("shared", shared);
  out.field("references", references);
  out.field("highest", most);
  out.field("summed", summed);
}

void show_entries(DumpWriter& out, const Table& table, uint64_t size) {
  uint64_t used = 0;
  for (uint64_t at = 0; at + size <= table.length_bytes(); at += size)
    used += !is_zero({table.at(at), size});
  out.field("elements", table.length_bytes() / size);
  out.field("used", used);
}

void show_tables(Checkpoint& c) {
  DumpWriter& out = *c.out;
  out.begin("tables", Layout::lines);
  for (unsigned id = 0; id < disk::kTables; ++id) {
    const Table& table = c.tables[id];
    out.begin(kTableNames[id], Layout::line);
    uint64_t stored = 0;
    for (unsigned level = 0; level < table.levels(); ++level)
      stored +=
          uint64_t(std::ranges::count_if(table.refs(level), [](const disk::PageRef& r) { return bool(r); }));
    out.field("stored_pages", stored);
    if (id == disk::kClusterCounts || id == disk::kPageCounts)
      show_counts(out, table);
    else
      show_entries(out, table,
                   id == disk::kVolumes     ? disk::kVolumeEntrySize
                   : id == disk::kResources ? disk::kResourceCellSize
                                            : disk::kDropEntrySize);
    c.outcome->unreadable += c.errors[id].size();
    if (!c.errors[id].empty()) {
      out.begin_list("errors");
      for (const std::string& error : c.errors[id]) {
        out.begin(nullptr, Layout::line);
        out.text("error", error);
        out.end();
      }
      out.end();
    }
    out.end();
  }
  out.end();
}

// --- trees
// --------------------------------------------------------------------------------------------------------
struct Place {
  disk::PageRef ref;
  unsigned level;
  uint64_t first_cluster;  // of the volume; in the checksum tree, of data
};

void show_slots(DumpWriter& out, ConstBytes leaf, uint64_t first_cluster) {
  out.begin_list("slots");
  for (unsigned i = 0; i < disk::kSlotsPerNode; ++i) {
    const Slot slot = disk::load_slot(&leaf[i * disk::kSlotSize]);
    if (slot == Slot{})
      continue;
    out.begin(nullptr, Layout::line);
    out.field("slot", i);
    out.field("offset", (first_cluster + i) * kClusterSize);
    out.field("own", slot.own.value);
    out.field("own_mask", slot.own_mask);
    out.field("base", slot.base.value);
    out.field("zero_mask", slot.zero_mask);
    out.end();
  }
  out.end();
}

Task<void> show_tree(Checkpoint* c, disk::PageRef root, unsigned root_level, bool slots) {
  DumpWriter& out = *c->out;
  const Table& counts = c->tables[disk::kPageCounts];
  std::array<uint64_t, disk::kMaxSumLevel + 1> nodes{};
  std::vector<Place> stack;
  if (root)
    stack.push_back({root, root_level, 0});
  AlignedBytes page(kPageSize);
  out.begin_list("nodes");
  while (!stack.empty()) {
    const Place at = stack.back();
    stack.pop_back();
    ++nodes[at.level];
    const std::string error = co_await read_page(c, at.ref, disk::type_of_node(at.level), page.bytes());
    out.begin(nullptr, Layout::line);
    out.field("level", at.level);
    out.field("page", at.ref.page.value);
    if (at.ref.page.value < counts.length_bytes() / 4) {
      const uint32_t count = counts.u32(at.ref.page.value);
      out.field("count", count & disk::kMaxCount);
      out.flag("summed", count & disk::kSummedBit);
    }
    out.field("offset", at.first_cluster * kClusterSize);
    out.checksum("checksum", at.ref.checksum);
    if (!error.empty()) {
      ++c->outcome->unreadable;
      out.text("error", error);
      out.end();
      continue;
    }
    uint64_t used = 0;
    for (unsigned i = disk::kSlotsPerNode; i-- > 0;) {
      // Of a node of checksums, four of them.
      const std::byte* slot = &page.bytes()[i * disk::kSlotSize];
      used += !is_zero({slot, disk::kSlotSize});
      const disk::PageRef child = disk::load_page_ref(slot);
      if (disk::has_children(at.level) && child)
        stack.push_back({child, at.level - 1, at.first_cluster + i * disk::clusters_of_slot(at.level)});
    }
    out.field("used_slots", used);
    if (slots && at.level == 0)
      show_slots(out, page.bytes(), at.first_cluster);
    out.end();
  }
  out.end();
  out.begin_list("nodes_by_level");
  const unsigned lowest = root_level >= disk::kSumLevel ? disk::kSumLevel : 0;
  for (unsigned level = root ? root_level + 1 : lowest; level-- > lowest;) {
    out.begin(nullptr, Layout::line);
    out.field("level", level);
    out.field("nodes", nodes[level]);
    out.end();
  }
  out.end();
}

Task<void> show_volumes(Checkpoint* c) {
  DumpWriter& out = *c->out;
  const Table& table = c->tables[disk::kVolumes];
  out.begin_list("volumes");
  for (uint64_t at = 0; at + disk::kVolumeEntrySize <= table.length_bytes(); at += disk::kVolumeEntrySize) {
    const uint64_t number = load_le<uint64_t>(table.at(at));
    if (is_zero({table.at(at), disk::kVolumeEntrySize}))
      continue;
    if (c->options->volume && *c->options->volume != number)
      continue;
    c->outcome->volume = true;
    const auto entry = disk::decode_volume_entry(table.at(at));
    out.begin(nullptr, Layout::line);
    out.field("volume", number);
    out.field("entry", at / disk::kVolumeEntrySize);
    if (entry) {
      out.text("kind", entry->kind == VolumeKind::disk ? "disk" : "frozen");
      out.size("size", entry->size_bytes);
      out.field("generation", entry->generation);
      out.field("root_page", entry->root.page.value);
      out.field("root_level", entry->level);
      co_await show_tree(c, entry->root, entry->level, c->options->slots || c->options->volume);
    } else {
      ++c->outcome->unreadable;
      out.text("error", describe(entry.error()));
    }
    out.end();
  }
  out.end();
}

Task<void> show_checksums(Checkpoint* c) {
  c->out->begin("checksums", Layout::lines);
  c->out->field("root_page", c->superblock->sums.page.value);
  co_await show_tree(c, c->superblock->sums, disk::sum_root_level(c->superblock->clusters), false);
  c->out->end();
}

void show_drops(Checkpoint& c) {
  DumpWriter& out = *c.out;
  const Table& table = c.tables[disk::kDrops];
  out.begin_list("drops");
  for (uint64_t at = 0; at + disk::kDropEntrySize <= table.length_bytes(); at += disk::kDropEntrySize) {
    out.begin(nullptr, Layout::line);
    out.field("page", load_le<uint64_t>(table.at(at)));
    out.checksum("checksum", load_le<uint32_t>(table.at(at) + 8));
    out.field("level", load_le<uint32_t>(table.at(at) + 12));
    out.end();
  }
  out.end();
}

// --- resources
// ----------------------------------------------------------------------------------------------------
std::string hexadecimal(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes)
    out += fmt::format("{:02x}", unsigned(uint8_t(byte)));
  return out;
}

// Whether the value is what the catalog keeps under such a key: KIND/ID.
bool decode_record(std::string_view key, const std::string& value, v1::ResourceRecord& record) {
  const std::string_view kind = key.substr(0, key.find('/'));
  const auto expected = kind == "disk"        ? v1::ResourceRecord::kDisk
                        : kind == "snapshot"  ? v1::ResourceRecord::kSnapshot
                        : kind == "image"     ? v1::ResourceRecord::kImage
                        : kind == "operation" ? v1::ResourceRecord::kOperation
                                              : v1::ResourceRecord::RESOURCE_NOT_SET;
  return expected != v1::ResourceRecord::RESOURCE_NOT_SET && record.ParseFromString(value) &&
         record.resource_case() == expected;
}

void show_value(DumpWriter& out, std::string_view key, const std::string& value) {
  v1::ResourceRecord record;
  std::string json;
  google::protobuf::util::JsonPrintOptions print;
  print.preserve_proto_field_names = true;
  if (decode_record(key, value, record) &&
      google::protobuf::util::MessageToJsonString(record, &json, print).ok())
    return out.document("message", json, record.Utf8DebugString());
  const std::string shown = hexadecimal(std::string_view(value).substr(0, kShownBytes));
  out.document("bytes", json_quoted(hexadecimal(value)),
               value.size() > kShownBytes
                   ? fmt::format("{} and {} bytes more", shown, value.size() - kShownBytes)
                   : shown);
}

void show_resources(Checkpoint& c) {
  DumpWriter& out = *c.out;
  const Table& table = c.tables[disk::kResources];
  const uint64_t cells = table.length_bytes() / disk::kResourceCellSize;
  out.begin_list("resources");
  for (uint64_t cell = 0; cell < cells;) {
    const std::byte* at = table.at(cell * disk::kResourceCellSize);
    if (*at == std::byte{0}) {
      ++cell;
      continue;
    }
    const uint64_t key = load_le<uint16_t>(at + 2), value = load_le<uint32_t>(at + 4);
    const uint64_t count = divide_up(disk::kResourceHeaderSize + key + value, disk::kResourceCellSize);
    out.begin(nullptr, Layout::line);
    out.field("cell", cell);
    if (*at != std::byte{1} || key == 0 || key > disk::kMaxKeySize || value > limits::kMaxResourceSize ||
        count > cells - cell) {
      ++c.outcome->unreadable;
      out.text("error", "no resource begins here");
      out.end();
      ++cell;
      continue;
    }
    const auto* text = reinterpret_cast<const char*>(at) + disk::kResourceHeaderSize;
    out.text("key", std::string_view(text, key));
    out.field("value_bytes", value);
    show_value(out, {text, key}, std::string(text + key, value));
    out.end();
    cell += count;
  }
  out.end();
}

}  // namespace

Task<void> dump_checkpoint(Device* meta, const disk::Superblock* superblock, const DumpOptions* options,
                           DumpWriter* out, DumpOutcome* outcome) {
  Checkpoint checkpoint(meta, superblock, options, out, outcome);
  for (unsigned id = 0; id < disk::kTables; ++id)
    co_await read_table(&checkpoint, id);
  show_tables(checkpoint);
  co_await show_volumes(&checkpoint);
  co_await show_checksums(&checkpoint);
  show_drops(checkpoint);
  if (!options->volume)
    show_resources(checkpoint);
}

}  // namespace obraz
