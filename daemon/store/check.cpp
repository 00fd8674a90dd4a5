#include "store/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <unordered_map>

#include "base/crc32c.h"
#include "base/limits.h"
#include "store/core.h"

namespace obraz {
namespace {

using disk::kPageSize;

constexpr const char* kTableNames[] = {"cluster counts", "page counts", "volumes", "resources", "drops"};
static_assert(std::size(kTableNames) == disk::kTables);
constexpr uint64_t kBatchNodes = 256;  // read together
constexpr size_t kPlaces = 8;          // where one thing is used: named, of how ever many
constexpr uint8_t kUnseen = 0xff;      // level of a page that nothing has named

// What names a node: a slot of a node, or a root (a volume's, or an entry of the drops).
struct Reference {
  uint64_t child;
  uint64_t from;  // page * 256 + slot, or kFromRoot + index of the root
  static constexpr uint64_t kFromRoot = uint64_t(1) << 63;
};

struct Root {
  VolumeId volume;  // none: an entry of the drops, or the checksum tree
  disk::PageRef ref;
  unsigned level = 0;
  bool is_sums() const { return level >= disk::kSumLevel; }
  bool is_dead() const { return !volume && !is_sums(); }
};

struct NodeToRead {
  disk::PageRef ref;
  unsigned level = 0;
  Status read;
};

struct NodeFinding {
  uint64_t page = 0;
  int slot = -1;  // the whole node
  unsigned level = 0;
  std::string text;
};

struct TablePage {
  uint64_t page = 0;
  unsigned table = 0, level = 0;
  uint64_t index = 0;
};

struct Checker {
  Checker(Executor& e, Device& m, Device& d, const CheckOptions& o)
      : executor(e), meta(m), data(d), options(o) {}

  Executor& executor;
  Device& meta;
  Device& data;
  CheckOptions options;
  CheckReport report;

  std::unique_ptr<StoreCore> core;  // only its tables, state and journal are used; it never starts
  bool tables_sound = true;         // as far as recovery judges them
  bool adopted = false;             // the state has been built of the tables
  bool unread = false;              // something that may name nodes or clusters could not be read
  std::array<std::vector<bool>, disk::kTables> unknown;  // by table page
  std::vector<TablePage> table_pages;                    // by page
  std::vector<Root> roots;

  std::vector<uint32_t> pages, clusters;  // references found
  bool walking_dead = false;              // what is found now, no volume reaches
  std::vector<bool> live_clusters;        // that a volume reaches
  std::vector<uint16_t> have_sums;        // by cluster: blocks with a checksum
  std::vector<uint16_t> need_sums;        // by cluster: blocks of which a node says that they have one
  bool sums_unread = false;               // a node of checksums
  std::vector<uint8_t> levels;            // by page, kUnseen
  std::vector<uint32_t> checksums;        // by page, of the first reference
  std::vector<Reference> references;
  // Of nodes of the checksum tree: the parent, and the first cluster relative to the parent's.
  std::unordered_map<uint64_t, std::pair<uint64_t, uint64_t>> sum_parents;
  std::vector<NodeToRead> to_read;  // a stack
  std::vector<NodeFinding> findings;
  uint64_t unlisted_findings = 0;
  std::map<uint64_t, std::string> cluster_findings;
  uint64_t unlisted_clusters = 0;

  const disk::Superblock& superblock() const { return core->superblock; }
  bool is_node_page(uint64_t page) const {
    return page >= superblock().first_node_page().value && page < superblock().pages;
  }
  bool is_summed(Page node) const {
    return node.value < core->state.table(disk::kPageCounts).length_bytes() / 4 &&
           core->state.is_summed(node);
  }
  void problem(std::string line) {
    if (++report.problem_count <= options.max_problems)
      report.problems.push_back(std::move(line));
  }
  void table_problem(std::string line) {
    tables_sound = false;
    problem(std::move(line));
  }
  void finding(NodeFinding what) {
    if (findings.size() < options.max_problems)
      findings.push_back(std::move(what));
    else
      ++unlisted_findings;
  }
  void cluster_finding(uint64_t cluster, std::string text) {
    if (const auto found = cluster_findings.find(cluster); found != cluster_findings.end())
      found->second += "; " + text;
    else if (cluster_findings.size() < options.max_problems)
      cluster_findings.emplace(cluster, std::move(text));
    else
      ++unlisted_clusters;
  }
};

std::string sums(uint32_t expected, uint32_t found) {
  return fmt::format("checksum {:08x} expected, {:08x} found", expected, found);
}

std::string printable(std::string_view text) {
  std::string out;
  for (const char c : text)
    out += c >= 0x20 && c < 0x7f ? std::string(1, c) : fmt::format("\\x{:02x}", unsigned(uint8_t(c)));
  return out;
}

Task<Status> read_at(Device* device, uint64_t offset, Bytes into) {
  if (offset + into.size() > device->size_bytes())
    co_return fail(ErrorCode::io, "lies beyond the end of the device");
  const Status status = co_await device->read(offset, into);
  co_return status;
}

// --- superblocks and label
// ----------------------------------------------------------------------------------------

// What is wrong with a structure that carries its own checksum.
std::string header_fault(ConstBytes page, const Error& error) {
  if (error.code == ErrorCode::not_found)
    return "its magic is not there";
  static constexpr std::array<std::byte, 4> kZeros{};
  const uint32_t expected = load_le<uint32_t>(&page[12]);
  const uint32_t found = crc32c(page.subspan(16), crc32c(kZeros, crc32c(page.first(12))));
  return expected == found ? describe(error) : sums(expected, found);
}

// Errors when this is no store of ours. Nothing when both are damaged, which is reported.
Task<Result<std::optional<disk::Superblock>>> check_superblocks(Checker* c) {
  constexpr const char* kNames[] = {"superblock A (page 0 of meta)", "superblock B (page 16 of meta)"};
  std::optional<disk::Superblock> found[2], best;
  std::string faults[2];
  bool ours = false, foreign = false;
  AlignedBytes page(kPageSize), other(kPageSize);
  for (unsigned i = 0; i < 2; ++i) {
    const Status read = co_await read_at(&c->meta, disk::kSuperblockPages[i] * kPageSize, page.bytes());
    if (!read) {
      faults[i] = describe(read.error());
      ours |= c->meta.size_bytes() >= (disk::kSuperblockPages[i] + 1) * kPageSize;
      continue;
    }
    const auto decoded = disk::decode_superblock(page.bytes(), Page{disk::kSuperblockPages[i]});
    if (decoded) {
      found[i] = *decoded;
      if (!best || decoded->generation > best->generation)
        best = *decoded;
      continue;
    }
    ours |= decoded.error().code == ErrorCode::corruption;
    foreign |= decoded.error().code == ErrorCode::unsupported;
    faults[i] = header_fault(page.bytes(), decoded.error());
  }
  if (!best && foreign)
    co_return fail(ErrorCode::unsupported, "the store was made by another version");
  if (!best && !ours)
    co_return fail(ErrorCode::not_found, "no superblock: this is not a store");
  for (unsigned i = 0; i < 2; ++i) {
    if (found[i])
      continue;
    // The place that the next checkpoint, or the second copy of this one, is written to.
    const bool may_be_torn = best && best->second_place().value == disk::kSuperblockPages[i];
    std::string line = fmt::format("{}: {}{}", kNames[i], faults[i], best ? "; the other one serves" : "");
    if (may_be_torn && c->options.superblock_may_be_torn)
      c->report.notes.push_back(std::move(line));
    else
      c->problem(std::move(line));
  }
  if (found[0] && found[1]) {
    if (found[0]->uuid != found[1]->uuid) {
      c->problem(fmt::format("superblocks: one is of store {}, the other of store {}",
                             found[0]->uuid.to_string(), found[1]->uuid.to_string()));
    } else if (found[0]->generation == found[1]->generation) {
      encode(*found[0], Page{0}, page.bytes());
      encode(*found[1], Page{0}, other.bytes());
      if (!std::ranges::equal(page.bytes(), other.bytes()))
        c->problem(fmt::format("superblocks: both have generation {}, and they differ", best->generation));
    }
  }
  co_return best;
}

Task<void> check_label_and_sizes(Checker* c, const disk::Superblock* superblock) {
  AlignedBytes page(kPageSize);
  const Status read = co_await read_at(&c->data, 0, page.bytes());
  const auto label = read ? disk::decode_label(page.bytes()) : Failure(read.error());
  if (!label)
    c->problem(fmt::format("label (cluster 0 of data): {}",
                           read ? header_fault(page.bytes(), label.error()) : describe(read.error())));
  else if (label->uuid != superblock->uuid)
    c->problem(fmt::format("label (cluster 0 of data): store {} expected, {} found",
                           superblock->uuid.to_string(), label->uuid.to_string()));
  else if (label->clusters != superblock->clusters)
    c->problem(fmt::format("label (cluster 0 of data): {} clusters expected, {} found", superblock->clusters,
                           label->clusters));
  const uint64_t meta_bytes = superblock->pages * kPageSize, data_bytes = superblock->clusters * kClusterSize;
  if (c->meta.size_bytes() < meta_bytes)
    c->problem(fmt::format("meta: {} bytes expected, {} found", meta_bytes, c->meta.size_bytes()));
  if (c->data.size_bytes() < data_bytes)
    c->problem(fmt::format("data: {} bytes expected, {} found", data_bytes, c->data.size_bytes()));
}

// --- tables
// -------------------------------------------------------------------------------------------------------
std::string describe(const TablePage& at) {
  if (at.level == 0)
    return fmt::format("page {} of meta (page {} of the table of {})", at.page, at.index,
                       kTableNames[at.table]);
  return fmt::format("page {} of meta (index page {} of level {} of the table of {})", at.page, at.index,
                     at.level, kTableNames[at.table]);
}

// Everything below this page of the table is unknown.
void lose_table_page(Checker* c, const TablePage& at, const std::string& why) {
  c->table_problem(fmt::format("{}: {}", describe(at), why));
  uint64_t pages = 1;
  for (unsigned level = 0; level < at.level; ++level)
    pages *= disk::kSlotsPerNode;
  std::vector<bool>& unknown = c->unknown[at.table];
  for (uint64_t i = at.index * pages; i < std::min<uint64_t>((at.index + 1) * pages, unknown.size()); ++i)
    unknown[i] = true;
}

Task<void> read_table_level(Checker* c, unsigned id, unsigned level) {
  Table& table = c->core->state.table(id);
  constexpr uint64_t kRun = 64;
  AlignedBytes buffer(kRun * kPageSize);
  const std::vector<disk::PageRef>& refs = table.refs(level);
  for (uint64_t at = 0; at < refs.size();) {
    if (!refs[at]) {
      ++at;
      continue;
    }
    const uint64_t first = refs[at].page.value;
    if (!c->is_node_page(first)) {
      lose_table_page(c, {first, id, level, at}, "named, but not one of the node pages");
      ++at;
      continue;
    }
    uint64_t run = 1;
    while (run < kRun && at + run < refs.size() && refs[at + run].page.value == first + run &&
           first + run < c->superblock().pages)
      ++run;
    const Status all = co_await read_at(&c->meta, first * kPageSize, buffer.bytes().first(run * kPageSize));
    for (uint64_t i = 0; i < run; ++i) {
      const Bytes content = buffer.bytes().subspan(i * kPageSize, kPageSize);
      const TablePage place{first + i, id, level, at + i};
      c->table_pages.push_back(place);
      Status read = all;
      if (!all && run > 1)
        read = co_await read_at(&c->meta, place.page * kPageSize, content);
      if (!read) {
        lose_table_page(c, place, describe(read.error()));
        continue;
      }
      const uint32_t type = level == 0 ? disk::kTypeTablePage : disk::type_of_index(level - 1);
      const uint32_t sum = disk::page_checksum(c->superblock().uuid, Page{place.page}, type, content);
      if (sum != refs[at + i].checksum)
        lose_table_page(c, place, sums(refs[at + i].checksum, sum));
      else if (!table.set_page(level, at + i, content))
        c->table_problem(describe(place) + ": reserved bytes, or bytes beyond the end, are not zero");
    }
    at += run;
  }
}

Task<void> read_table(Checker* c, unsigned id) {
  const disk::Superblock& s = c->superblock();
  const disk::TableRoot& root = s.tables[id];
  Table& table = c->core->state.table(id);
  const uint64_t node_bytes = s.pages * kPageSize;
  // The bounds of recovery (StoreCore::load_table): nothing is allocated on the word of a length alone.
  const uint64_t largest[disk::kTables] = {
      s.clusters * 4, s.pages * 4, std::min(limits::kMaxVolumes * disk::kVolumeEntrySize * 2, node_bytes),
      node_bytes, node_bytes};
  const bool counts = id == disk::kClusterCounts || id == disk::kPageCounts;
  if (!table.prepare(root, largest[id])) {
    c->table_problem(fmt::format(
        "table of {}: impossible shape: {} bytes (at most {} expected), {} levels of index pages, {} root",
        kTableNames[id], root.length_bytes, largest[id], root.levels, root.root ? "a" : "no"));
    table = Table();
    co_return;
  }
  c->unknown[id].assign(table.table_pages(), false);
  if (counts && root.length_bytes != largest[id])
    c->table_problem(fmt::format("table of {}: {} bytes expected, {} found", kTableNames[id], largest[id],
                                 root.length_bytes));
  for (unsigned level = table.levels(); level-- > 0;)
    co_await read_table_level(c, id, level);
}

// Where an element lies, for people.
std::string element(const Checker& c, unsigned id, uint64_t index, uint64_t size) {
  const uint64_t page = index * size / kPageSize;
  return fmt::format("entry {} of the table of {} (page {} of meta)", index, kTableNames[id],
                     c.core->state.table(id).refs(0)[page].page.value);
}

// Calls visit(index, bytes) for each whole element that could be read.
template <typename Visitor>
void for_each_element(Checker& c, unsigned id, uint64_t size, Visitor visit) {
  const Table& table = c.core->state.table(id);
  if (table.length_bytes() % size != 0)
    c.table_problem(fmt::format("table of {}: its length {} is no multiple of {}", kTableNames[id],
                                table.length_bytes(), size));
  for (uint64_t i = 0; i < table.length_bytes() / size; ++i)
    if (!c.unknown[id][i * size / kPageSize])
      visit(i, table.at(i * size));
}

void check_volume_table(Checker* c) {
  std::map<VolumeId, uint64_t> seen;
  for_each_element(*c, disk::kVolumes, disk::kVolumeEntrySize, [&](uint64_t index, const std::byte* at) {
    const VolumeId id{load_le<uint64_t>(at)};
    const auto bad = [&](const std::string& what) {
      c->table_problem(fmt::format("volume {}, {}: {}", id.value,
                                   element(*c, disk::kVolumes, index, disk::kVolumeEntrySize), what));
    };
    const auto entry = disk::decode_volume_entry(at);
    if (entry && !id)
      return;
    // Read here field by field only to name what decode_volume_entry() found impossible.
    const uint64_t size = load_le<uint64_t>(at + 8);
    const unsigned level = unsigned(at[28]), kind = unsigned(at[29]);
    const disk::PageRef root{Page{load_le<uint64_t>(at + 16)}, load_le<uint32_t>(at + 24)};
    if (!entry) {
      if (!id)
        bad("unused, but not zero");
      else if (size == 0 || size > limits::kMaxVolumeSize)
        bad(fmt::format("a size of 1 to {} expected, {} found", limits::kMaxVolumeSize, size));
      else if (level != disk::root_level(size))
        bad(fmt::format("a root of level {} expected for its size of {} bytes, level {} found",
                        disk::root_level(size), size, level));
      else if (kind != 1 && kind != 2)
        bad(fmt::format("kind 1 or 2 expected, {} found", kind));
      else
        bad("flags or reserved bytes are not zero");
    }
    if (!id)
      return;
    if (const auto [first, fresh] = seen.emplace(id, index); !fresh)
      bad(fmt::format("the number is also that of entry {}", first->second));
    if (id >= c->superblock().next_volume)
      bad(fmt::format("a number below {} expected", c->superblock().next_volume.value));
    if (root && !c->is_node_page(root.page.value))
      bad(fmt::format("its root is page {}, which is not one of the node pages", root.page.value));
    else if (root && level <= disk::kMaxLevel)
      c->roots.push_back({id, root, level});
    else if (root)
      c->unread = true;
    ++c->report.volumes;
    c->report.volume_bytes += size;
  });
}

void check_drop_table(Checker* c) {
  for_each_element(*c, disk::kDrops, disk::kDropEntrySize, [&](uint64_t index, const std::byte* at) {
    const auto entry = disk::decode_drop_entry(at);
    if (entry && c->is_node_page(entry->node.page.value)) {
      c->roots.push_back({{}, entry->node, entry->level});
      return;
    }
    c->unread = true;
    const uint64_t page = load_le<uint64_t>(at);
    const std::string place = element(*c, disk::kDrops, index, disk::kDropEntrySize);
    if (entry || !c->is_node_page(page))
      c->table_problem(fmt::format("{}: page {}, which is not one of the node pages", place, page));
    else
      c->table_problem(fmt::format("{}: a level of at most {} expected, {} found", place, disk::kMaxLevel,
                                   load_le<uint32_t>(at + 12)));
  });
}

void check_resource_table(Checker* c) {
  const Table& table = c->core->state.table(disk::kResources);
  std::map<std::string, uint64_t> seen;
  uint64_t beyond = 0;  // first cell that is not part of a resource yet
  bool lost = false;    // where the next resource begins
  for_each_element(*c, disk::kResources, disk::kResourceCellSize, [&](uint64_t cell, const std::byte* at) {
    if (cell < beyond || lost || *at == std::byte{0})
      return;
    const auto bad = [&](const std::string& what) {
      c->table_problem(
          fmt::format("{}: {}", element(*c, disk::kResources, cell, disk::kResourceCellSize), what));
    };
    const uint64_t key = load_le<uint16_t>(at + 2), value = load_le<uint32_t>(at + 4);
    const uint64_t cells = divide_up(disk::kResourceHeaderSize + key + value, disk::kResourceCellSize);
    if (*at != std::byte{1} || at[1] != std::byte{0} || key == 0 || key > disk::kMaxKeySize ||
        value > limits::kMaxResourceSize || cells > table.length_bytes() / disk::kResourceCellSize - cell) {
      bad(fmt::format(
          "no resource: mark {}, a key of {} and a value of {} bytes; those after it are not read",
          unsigned(*at), key, value));
      lost = true;
      return;
    }
    beyond = cell + cells;
    for (uint64_t i = cell; i < beyond; ++i)
      if (c->unknown[disk::kResources][i * disk::kResourceCellSize / kPageSize])
        return;  // reported with its page
    std::string name(reinterpret_cast<const char*>(at) + disk::kResourceHeaderSize, key);
    if (const auto [first, fresh] = seen.emplace(name, cell); !fresh)
      bad(fmt::format("the key '{}' is also that of entry {}", printable(name), first->second));
    ++c->report.resources;
  });
}

// Table pages are named once, and by nothing else.
void check_table_pages(Checker* c) {
  std::ranges::sort(c->table_pages, {}, &TablePage::page);
  for (size_t i = 1; i < c->table_pages.size(); ++i)
    if (c->table_pages[i].page == c->table_pages[i - 1].page)
      c->table_problem(
          fmt::format("{}: also {}", describe(c->table_pages[i - 1]), describe(c->table_pages[i])));
  const Table& counts = c->core->state.table(disk::kPageCounts);
  const uint64_t first_node = c->superblock().first_node_page().value;
  for (uint64_t page = 0; page < std::min(first_node, counts.length_bytes() / 4); ++page)
    if (const uint32_t count = counts.u32(page))
      c->table_problem(fmt::format("page {} of meta: not a node page, and its count is {}", page, count));
  for (const unsigned id : {disk::kPageCounts, disk::kClusterCounts}) {
    const Table& table = c->core->state.table(id);
    for (uint64_t i = 0; i < table.length_bytes() / 4; ++i)
      if (table.u32(i) == disk::kSummedBit)
        c->table_problem(fmt::format("{}: summed, and its count is 0", element(*c, id, i, 4)));
  }
  const Table& clusters = c->core->state.table(disk::kClusterCounts);
  if (clusters.length_bytes() >= 4 && clusters.u32(0) != 0)
    c->table_problem(
        fmt::format("cluster 0 of data: it holds the label, and its count is {}", clusters.u32(0)));
  for (const TablePage& at : c->table_pages)
    if (at.page < counts.length_bytes() / 4)
      if (const uint32_t count = counts.u32(at.page))
        c->table_problem(fmt::format("{}: its count as a node is {}, 0 expected", describe(at), count));
  std::set<uint64_t> drops;
  for (const Root& root : c->roots) {
    const uint64_t page = root.ref.page.value;
    if (!root.is_dead())
      continue;
    if (page < counts.length_bytes() / 4)
      if (const uint32_t count = counts.u32(page))
        c->table_problem(fmt::format("page {} of meta: to be dropped, and its count is {}", page, count));
    if (!drops.insert(page).second)
      c->table_problem(fmt::format("page {} of meta: twice in the table of drops", page));
  }
}

// --- the journal, as recovery replays it
// --------------------------------------------------------------------------
struct VolumeOf {
  VolumeId operator()(const disk::MapRecord& r) const { return r.volume; }
  VolumeId operator()(const disk::DropRangeRecord& r) const { return r.volume; }
  VolumeId operator()(const CreateVolume& r) const { return r.id; }
  VolumeId operator()(const CloneVolume& r) const { return r.id; }
  VolumeId operator()(const DeleteVolume& r) const { return r.id; }
  VolumeId operator()(const RevertVolume& r) const { return r.id; }
  VolumeId operator()(const ResizeVolume& r) const { return r.id; }
  VolumeId operator()(const PutResource&) const { return {}; }
  VolumeId operator()(const RemoveResource&) const { return {}; }
};

// Beyond the end of `meta` nothing is asked of the device.
Task<Status> load_node(Checker* c, Missing missing) {
  if ((missing.ref.page.value + 1) * kPageSize > c->meta.size_bytes())
    co_return fail(ErrorCode::io, "lies beyond the end of the device");
  const Status status = co_await c->core->state.cache().load(missing.ref, missing.level);
  co_return status;
}

// As StoreCore::make_room_in_recovery(), and nothing is allocated.
Task<bool> make_room(Checker* c) {
  State& state = c->core->state;
  while (state.pages().free_units() < State::kPagesPerRecord) {
    if (const auto slab = state.pages().next_slab()) {
      state.pages().grown(*slab);
      continue;
    }
    if (!state.has_dead())
      co_return false;
    const auto missing = state.reclaim_needs();
    if (!missing) {
      state.reclaim_one();
      continue;
    }
    const Status loaded = co_await load_node(c, *missing);
    if (!loaded) {
      c->finding({missing->ref.page.value, -1, missing->level, describe(loaded.error())});
      c->unread = true;
      state.set_dead_aside();
    }
  }
  co_return true;
}

// Whether the journal goes on.
Task<bool> replay_record(Checker* c, const disk::Record* record, std::string place) {
  State& state = c->core->state;
  const Status fits = state.admissible(*record);
  if (!fits) {
    if (const VolumeId id = std::visit(VolumeOf{}, *record))
      place += fmt::format(", of volume {}", id.value);
    c->problem(fmt::format("{}: it does not fit the state: {}", place, describe(fits.error())));
    co_return false;
  }
  for (auto missing = state.needs(*record); missing; missing = state.needs(*record)) {
    const Status loaded = co_await load_node(c, *missing);
    if (!loaded) {  // the walk names the node; recovery passes the record over
      const auto volume = state.find_volume(std::visit(VolumeOf{}, *record));
      if (volume && !std::exchange(volume->damaged, true))
        c->problem(
            fmt::format("{}: volume {} is damaged, so the record cannot be replayed: page {} of meta: {}",
                        place, volume->id.value, missing->ref.page.value, describe(loaded.error())));
      co_return true;
    }
  }
  const bool room = co_await make_room(c);
  if (!room) {
    c->problem(place + ": no room in the metadata device to recover");
    co_return false;
  }
  std::vector<Drop> drops;
  state.apply(*record, drops);
  for (const Drop& drop : drops)
    state.release(drop);
  ++c->report.replayed_records;
  co_return true;
}

Task<void> replay_journal(Checker* c) {
  Journal& journal = c->core->journal;
  const auto place = [&] {
    return fmt::format("journal, batch {} at page {} of meta", journal.sequence().value + 1,
                       disk::kJournalFirstPage + journal.position() % journal.size() / kPageSize);
  };
  if (c->meta.size_bytes() < c->superblock().first_node_page().value * kPageSize) {
    c->problem("journal: not read, for it lies beyond the end of meta");
    co_return;
  }
  bool apply = c->adopted;
  for (;;) {
    const std::string batch = place();
    const auto records = co_await journal.read_next();
    if (!records) {
      c->problem(fmt::format("{}: {}", batch, describe(records.error())));
      co_return;
    }
    if (records->empty())
      break;
    for (size_t i = 0; apply && i < records->size(); ++i)
      apply = co_await replay_record(c, &(*records)[i], fmt::format("{}, record {}", batch, i));
  }
  if (c->core->state.inconsistent())
    c->problem("journal: it drops references that no count has");
  if (!(c->superblock().flags & disk::Superblock::kFlagClean)) {
    const Status end = co_await journal.check_end();
    if (!end)
      c->problem(fmt::format("{}: damaged or missing, though a batch behind it says that it was durable ({})",
                             place(), describe(end.error())));
  }
}

// --- the walk
// -----------------------------------------------------------------------------------------------------

// The node's content when it is newer than the device's.
const Node* changed_node(const Checker& c, uint64_t page) {
  const Node* node = c.adopted ? c.core->state.cache().peek(Page{page}) : nullptr;
  return node && node->state != Node::State::clean ? node : nullptr;
}

// The reference has been counted by the caller where it counts.
void refer(Checker* c, const disk::PageRef& ref, unsigned level, uint64_t from) {
  const uint64_t page = ref.page.value;
  c->references.push_back({page, from});
  if (c->levels[page] == kUnseen) {
    c->levels[page] = uint8_t(level);
    c->checksums[page] = ref.checksum;
    c->to_read.push_back({ref, level, {}});
  } else if (c->levels[page] != level) {
    c->finding({page, -1, c->levels[page],
                fmt::format("named as a node of level {} and as one of level {}", c->levels[page], level)});
  } else if (c->checksums[page] != ref.checksum && !changed_node(*c, page)) {
    c->finding({page, -1, level,
                fmt::format("named with checksum {:08x} and with {:08x}", c->checksums[page], ref.checksum)});
  }
}

std::string slot_fault(const Slot& slot, uint64_t clusters) {
  if (slot.own.value >= clusters || slot.base.value >= clusters)
    return fmt::format("names cluster {}, clusters below {} expected",
                       std::max(slot.own.value, slot.base.value), clusters);
  if (bool(slot.own) != (slot.own_mask != 0))
    return fmt::format("own cluster {} with own mask {:04x}", slot.own.value, slot.own_mask);
  if (!slot.base && slot.zero_mask != 0)
    return fmt::format("no base, but zero mask {:04x}", slot.zero_mask);
  if ((slot.own_mask & slot.zero_mask) != 0)
    return fmt::format("blocks both own and zero: masks {:04x} and {:04x}", slot.own_mask, slot.zero_mask);
  return fmt::format("own and base are both cluster {}", slot.own.value);
}

void note_sums(Checker* c, uint64_t page, ConstBytes content) {
  // Where the node stands tells which clusters it is about: it has one parent, which was visited before.
  uint64_t first = 0, at = page;
  for (unsigned level = disk::kSumLevel; level < c->core->state.sum_root_level(); ++level) {
    const auto found = c->sum_parents.find(at);
    if (found == c->sum_parents.end())
      return;
    first += found->second.second;
    at = found->second.first;
  }
  for (uint64_t i = 0; i < disk::kClustersPerSumNode && first + i < c->have_sums.size(); ++i)
    for (unsigned block = 0; block < kBlocksPerCluster; ++block)
      if (load_le<uint32_t>(&content[(i * disk::kSumsPerCluster + block) * disk::kSumSize]) != 0)
        c->have_sums[first + i] |= uint16_t(1u << block);
}

void visit_node(Checker* c, const NodeToRead& node, ConstBytes content) {
  const uint64_t page = node.ref.page.value;
  const Node* changed = changed_node(*c, page);
  if (!node.read) {
    c->unread = true;
    c->sums_unread |= node.level >= disk::kSumLevel;
    return c->finding({page, -1, node.level, describe(node.read.error())});
  }
  if (!changed) {
    const uint32_t sum =
        disk::page_checksum(c->superblock().uuid, node.ref.page, disk::type_of_node(node.level), content);
    if (sum != node.ref.checksum) {
      c->unread = true;
      c->sums_unread |= node.level >= disk::kSumLevel;
      return c->finding({page, -1, node.level, sums(node.ref.checksum, sum)});
    }
  } else if (changed->level != node.level) {
    return c->finding(
        {page, -1, node.level, fmt::format("the journal makes it one of level {}", changed->level)});
  }
  ++c->report.nodes;
  if (node.level == disk::kSumLevel)
    return note_sums(c, page, content);
  const bool summed = !c->walking_dead && node.level <= disk::kMaxLevel && c->is_summed(node.ref.page);
  for (unsigned i = 0; i < disk::kSlotsPerNode; ++i) {
    const std::byte* at = &content[i * disk::kSlotSize];
    const auto bad = [&](std::string what) { c->finding({page, int(i), node.level, std::move(what)}); };
    if (node.level == 0) {
      const Slot slot = disk::load_slot(at);
      if (!slot.valid(c->clusters.size()))
        bad(slot_fault(slot, c->clusters.size()));
      const std::pair<PhysicalCluster, uint16_t> shown[] = {
          {slot.own, slot.own_mask}, {slot.base, uint16_t(~slot.own_mask & ~slot.zero_mask)}};
      for (const auto& [cluster, blocks] : shown)
        if (cluster && cluster.value < c->clusters.size()) {
          ++c->clusters[cluster.value];
          if (!c->walking_dead)
            c->live_clusters[cluster.value] = true;
          if (summed)
            c->need_sums[cluster.value] |= blocks;
        }
      continue;
    }
    const disk::PageRef child = disk::load_page_ref(at);
    if (load_le<uint32_t>(at + 12) != 0)
      bad("reserved bytes are not zero");
    if (!child)
      continue;
    if (!c->is_node_page(child.page.value)) {
      c->unread = true;
      bad(fmt::format("names page {}, which is not one of the node pages", child.page.value));
      continue;
    }
    ++c->pages[child.page.value];
    if (summed && !c->is_summed(child.page))
      bad(fmt::format("all below the node is said to have checksums, but not of page {}", child.page.value));
    if (node.level > disk::kSumLevel)
      c->sum_parents.try_emplace(child.page.value, page, i * disk::clusters_of_slot(node.level));
    refer(c, child, node.level - 1, page * disk::kSlotsPerNode + i);
  }
}

Task<void> read_run(Checker* c, std::span<NodeToRead> run, Bytes into) {
  const Status all = co_await read_at(&c->meta, run.front().ref.page.value * kPageSize, into);
  for (size_t i = 0; i < run.size(); ++i) {
    run[i].read = all;
    if (!all && run.size() > 1)
      run[i].read = co_await read_at(&c->meta, run[i].ref.page.value * kPageSize,
                                     into.subspan(i * kPageSize, kPageSize));
  }
}

// Nodes by page, ascending; one after the other into the buffer.
Task<void> read_nodes(Checker* c, std::span<NodeToRead> nodes, Bytes buffer) {
  Gate gate(c->executor);
  for (size_t at = 0; at < nodes.size();) {
    if (const Node* node = changed_node(*c, nodes[at].ref.page.value)) {
      std::ranges::copy(node->bytes(), buffer.subspan(at * kPageSize).begin());
      ++at;
      continue;
    }
    const uint64_t first = nodes[at].ref.page.value;
    size_t run = 1;
    while (at + run < nodes.size() && nodes[at + run].ref.page.value == first + run &&
           !changed_node(*c, first + run))
      ++run;
    gate.spawn(read_run(c, nodes.subspan(at, run), buffer.subspan(at * kPageSize, run * kPageSize)));
    at += run;
  }
  co_await gate.close();
}

// What volumes reach first, so that the rest is what only deleted ones did.
Task<void> walk(Checker* c, bool dead) {
  AlignedBytes buffer(kBatchNodes * kPageSize);
  c->walking_dead = dead;
  for (size_t i = 0; i < c->roots.size(); ++i) {
    const Root& root = c->roots[i];
    if (root.is_dead() != dead)
      continue;
    if (!dead)
      ++c->pages[root.ref.page.value];
    refer(c, root.ref, root.level, Reference::kFromRoot + i);
  }
  std::vector<NodeToRead> batch;
  while (!c->to_read.empty()) {  // the last first, so that the stack stays small
    const size_t count = std::min<size_t>(kBatchNodes, c->to_read.size());
    batch.assign(c->to_read.end() - ptrdiff_t(count), c->to_read.end());
    c->to_read.resize(c->to_read.size() - count);
    std::ranges::sort(batch, {}, [](const NodeToRead& node) { return node.ref.page; });
    co_await read_nodes(c, batch, buffer.bytes());
    for (size_t i = 0; i < count; ++i)
      visit_node(c, batch[i], buffer.bytes().subspan(i * kPageSize, kPageSize));
  }
}

// --- where a node or a cluster is used
// ----------------------------------------------------------------------------
struct Places {
  std::vector<std::string> list;
  bool more = false;
};

// `offset` and `length` are in clusters, from the start of what the node spans. Upwards only, from above the
// level `below`: references may form a ring.
void climb(const Checker& c, uint64_t page, uint64_t offset, uint64_t length, Places& places,
           int below = -1) {
  const auto [first, last] = std::ranges::equal_range(c.references, page, {}, &Reference::child);
  for (auto at = first; at != last; ++at) {
    if (places.list.size() >= kPlaces) {
      places.more = true;
      return;
    }
    if (at->from < Reference::kFromRoot) {
      const uint64_t parent = at->from / disk::kSlotsPerNode, slot = at->from % disk::kSlotsPerNode;
      const int level = int(c.levels[parent]);
      if (level > below)
        climb(c, parent, offset + slot * disk::clusters_of_slot(unsigned(level)), length, places, level);
      continue;
    }
    const Root& root = c.roots[at->from - Reference::kFromRoot];
    if (root.is_sums()) {
      places.list.push_back(fmt::format("the checksums of {} clusters of data from {}", length, offset));
      continue;
    }
    const std::string range =
        fmt::format("{} bytes at offset {}", length * kClusterSize, offset * kClusterSize);
    places.list.push_back(root.volume
                              ? fmt::format("volume {}, {}", root.volume.value, range)
                              : fmt::format("a deleted tree (page {}), {}", root.ref.page.value, range));
  }
}

std::string join(const Places& places) {
  return fmt::format("{}{}", fmt::join(places.list, "; "), places.more ? "; and others" : "");
}

void report_findings(Checker* c) {
  std::ranges::sort(c->findings, {}, [](const NodeFinding& f) { return std::tie(f.page, f.slot, f.text); });
  for (const NodeFinding& finding : c->findings) {
    Places places;
    if (finding.slot < 0)
      climb(*c, finding.page, 0, disk::clusters_of_node(finding.level), places);
    else
      climb(*c, finding.page, uint64_t(finding.slot) * disk::clusters_of_slot(finding.level),
            disk::clusters_of_slot(finding.level), places);
    const std::string slot = finding.slot < 0 ? "" : fmt::format(", slot {}", finding.slot);
    c->problem(fmt::format("page {} of meta (node of level {}{}): {}; {}", finding.page, finding.level, slot,
                           finding.text, join(places)));
  }
  c->report.problem_count += c->unlisted_findings;
}

// One more pass over the leaves, only when there is something to say about clusters.
Task<void> report_clusters(Checker* c) {
  if (c->cluster_findings.empty())
    co_return;
  std::unordered_map<uint64_t, Places> places;
  AlignedBytes buffer(kBatchNodes * kPageSize);
  std::vector<NodeToRead> batch;
  for (uint64_t page = 0; page <= c->levels.size(); ++page) {
    if (page < c->levels.size() && c->levels[page] == 0)
      batch.push_back({{Page{page}, c->checksums[page]}, 0, {}});
    if (batch.empty() || (batch.size() < kBatchNodes && page < c->levels.size()))
      continue;
    co_await read_nodes(c, batch, buffer.bytes());
    for (size_t i = 0; i < batch.size(); ++i) {
      const ConstBytes content = buffer.bytes().subspan(i * kPageSize, kPageSize);
      const uint64_t leaf = batch[i].ref.page.value;
      if (!batch[i].read || (!changed_node(*c, leaf) &&
                             disk::page_checksum(c->superblock().uuid, Page{leaf}, disk::type_of_node(0),
                                                 content) != batch[i].ref.checksum))
        continue;
      for (unsigned slot = 0; slot < disk::kSlotsPerNode; ++slot) {
        const Slot value = disk::load_slot(&content[slot * disk::kSlotSize]);
        for (const PhysicalCluster cluster : {value.own, value.base})
          if (cluster && c->cluster_findings.contains(cluster.value))
            climb(*c, leaf, slot, 1, places[cluster.value]);
      }
    }
    batch.clear();
  }
  for (const auto& [cluster, text] : c->cluster_findings) {
    const auto found = places.find(cluster);
    c->problem(fmt::format("cluster {} of data: {}{}", cluster, text,
                           found == places.end() ? "" : "; " + join(found->second)));
  }
  c->report.problem_count += c->unlisted_clusters;
}

// --- counts
// -------------------------------------------------------------------------------------------------------
std::string count_fault(uint32_t counted, uint32_t found) {
  if (counted == 0)
    return fmt::format("free by its count, but {} reference{} found", found, found == 1 ? "" : "s");
  return fmt::format("count {}, but {} reference{} found", counted, found, found == 1 ? "" : "s");
}

void check_counts(Checker* c) {
  const State& state = c->core->state;
  uint64_t excused_pages = 0, excused_clusters = 0;
  const auto known = [&](unsigned id, uint64_t index) {
    return index < state.table(id).length_bytes() / 4 && !c->unknown[id][index * 4 / kPageSize];
  };
  size_t next = 0;  // of table_pages
  for (uint64_t page = c->superblock().first_node_page().value; page < c->pages.size(); ++page) {
    for (; next < c->table_pages.size() && c->table_pages[next].page <= page; ++next)
      if (c->table_pages[next].page == page && c->levels[page] != kUnseen)
        c->finding({page, -1, c->levels[page], "also " + describe(c->table_pages[next])});
    if (!known(disk::kPageCounts, page))
      continue;
    const uint32_t counted = state.page_count(Page{page}), found = c->pages[page];
    if (found < counted && c->unread)
      ++excused_pages;
    else if (found != counted && c->levels[page] != kUnseen)
      c->finding({page, -1, c->levels[page], count_fault(counted, found)});
    else if (found != counted)
      c->problem(fmt::format("page {} of meta: {}", page, count_fault(counted, found)));
    else if (c->adopted && found > 0 && state.pages().is_free(page))
      c->problem(fmt::format("page {} of meta: both free and named", page));
  }
  for (const Root& root : c->roots)
    if (root.is_dead() && c->pages[root.ref.page.value] > 0)
      c->finding({root.ref.page.value, -1, root.level, "to be dropped, and still named"});
  for (uint64_t cluster = 1; cluster < c->clusters.size(); ++cluster) {
    const uint32_t found = c->clusters[cluster];
    c->report.clusters += found > 0;
    if (!known(disk::kClusterCounts, cluster))
      continue;
    const uint32_t counted = state.cluster_count({cluster});
    c->report.summed_clusters += found > 0 && state.is_summed(PhysicalCluster{cluster});
    const uint16_t need = c->need_sums[cluster];
    if (need != 0 && found == counted && !c->sums_unread) {
      if (!state.is_summed(PhysicalCluster{cluster}))
        c->cluster_finding(cluster, "not summed, though a node above says so");
      else if (need & ~c->have_sums[cluster])
        c->cluster_finding(cluster, fmt::format("blocks {:04x} have no checksum, though a node above says so",
                                                need & ~c->have_sums[cluster]));
    }
    if (found < counted && c->unread)
      ++excused_clusters;
    else if (found != counted)
      c->cluster_finding(cluster, count_fault(counted, found));
    else if (c->adopted && found > 0 && state.clusters().is_free(cluster))
      c->cluster_finding(cluster, "both free and named");
  }
  c->report.cluster_bytes = c->report.clusters * kClusterSize;
  if (excused_pages + excused_clusters > 0)
    c->report.notes.push_back(
        fmt::format("counts: {} pages and {} clusters have more references than were found; what is "
                    "unreadable may hold the "
                    "others",
                    excused_pages, excused_clusters));
}

// --- data
// ---------------------------------------------------------------------------------------------------------
// Checksums are held against what volumes show. What only deleted ones did may have been written anew before
// a power cut that lost the record of that.
Task<void> verify_cluster(Checker* c, PhysicalCluster cluster, ConstBytes bytes) {
  State& state = c->core->state;
  if (!c->adopted || !c->live_clusters[cluster.value] || !state.is_summed(cluster))
    co_return;
  auto sums = state.sums_of(cluster);
  for (; sums.missing; sums = state.sums_of(cluster)) {
    const Status loaded = co_await load_node(c, *sums.missing);
    if (!loaded)
      co_return;  // the walk names the node
  }
  uint16_t bad = 0;
  for (unsigned block = 0; block < kBlocksPerCluster; ++block)
    if (sums.of(block) != 0 &&
        sums.of(block) != disk::block_checksum(bytes.subspan(block * kBlockSize, kBlockSize)))
      bad |= uint16_t(1u << block);
  ++c->report.verified_clusters;
  if (bad != 0)
    c->cluster_finding(cluster.value, fmt::format("blocks {:04x} do not fit their checksums", bad));
}

Task<void> read_data_run(Checker* c, uint64_t first, uint64_t count, Bytes buffer) {
  const Status all = co_await read_at(&c->data, first * kClusterSize, buffer.first(count * kClusterSize));
  for (uint64_t i = 0; !all && i < count; ++i) {
    const Status one = co_await read_at(&c->data, (first + i) * kClusterSize, buffer.first(kClusterSize));
    if (!one)
      c->cluster_finding(first + i, describe(one.error()));
    else
      co_await verify_cluster(c, {first + i}, buffer.first(kClusterSize));
  }
  for (uint64_t i = 0; all && i < count; ++i)
    co_await verify_cluster(c, {first + i}, buffer.subspan(i * kClusterSize, kClusterSize));
}

Task<void> read_data(Checker* c) {
  constexpr uint64_t kRun = 16, kRuns = 8;  // clusters read at once, and reads in flight
  AlignedBytes buffer(kRuns * kRun * kClusterSize);
  const auto used = [&](uint64_t cluster) {
    return cluster < c->clusters.size() && c->clusters[cluster] > 0;
  };
  for (uint64_t cluster = 1; cluster < c->clusters.size();) {
    Gate gate(c->executor);
    for (uint64_t runs = 0; runs < kRuns && cluster < c->clusters.size();) {
      uint64_t count = 0;
      while (count < kRun && used(cluster + count))
        ++count;
      if (count > 0) {
        gate.spawn(read_data_run(c, cluster, count,
                                 buffer.bytes().subspan(runs * kRun * kClusterSize, kRun * kClusterSize)));
        ++runs;
      }
      cluster += std::max<uint64_t>(count, 1);
    }
    co_await gate.close();
  }
}

// The state that recovery would serve, or where it would refuse, the checkpoint as far as it can be read.
Task<void> recover(Checker* c) {
  for (unsigned id = 0; id < disk::kTables; ++id)
    co_await read_table(c, id);
  check_volume_table(c);
  if (const disk::PageRef sums = c->superblock().sums) {
    if (c->is_node_page(sums.page.value)) {
      c->roots.push_back({{}, sums, disk::sum_root_level(c->superblock().clusters)});
    } else {
      c->unread = c->sums_unread = true;
      c->table_problem(fmt::format("the root of the checksums is page {}, which is not one of the node pages",
                                   sums.page.value));
    }
  }
  check_drop_table(c);
  check_resource_table(c);
  check_table_pages(c);
  for (const unsigned id : {disk::kVolumes, disk::kDrops})
    c->unread |= std::ranges::find(c->unknown[id], true) != c->unknown[id].end() ||
                 c->unknown[id].size() * kPageSize < c->superblock().tables[id].length_bytes;
  State& state = c->core->state;
  if (c->tables_sound) {
    const Status adopted = state.adopt_tables();
    if (adopted)
      c->adopted = true;
    else
      c->problem(fmt::format("tables: {}", describe(adopted.error())));
  }
  if (!c->adopted)
    c->report.notes.push_back(
        "journal: not replayed, for the tables are damaged; what follows is the checkpoint's");
  co_await replay_journal(c);
  if (!c->adopted)
    co_return;
  c->roots.clear();
  c->report.volumes = c->report.volume_bytes = 0;
  for (const auto& [id, volume] : state.volumes()) {
    ++c->report.volumes;
    c->report.volume_bytes += volume->size_bytes;
    if (volume->root)
      c->roots.push_back({id, volume->root, volume->level});
  }
  if (const disk::PageRef sums = state.sum_root())
    c->roots.push_back({{}, sums, state.sum_root_level()});
  for (const disk::DropEntry& entry : state.dead())
    c->roots.push_back({{}, entry.node, entry.level});
  c->report.resources = state.resources().size();
}

}  // namespace

Task<Result<CheckReport>> check_store(Executor& executor, Device& meta, Device& data, CheckOptions options) {
  Checker checker(executor, meta, data, options);
  Checker* const c = &checker;
  const auto superblock = co_await check_superblocks(c);
  OBRAZ_CO_TRY(superblock);
  if (!*superblock)
    co_return std::move(c->report);
  const disk::Superblock& s = **superblock;
  c->report.generation = s.generation;
  co_await check_label_and_sizes(c, &s);
  // Memory follows the geometry, so it is believed only as far as such a store can be.
  if (s.pages * kPageSize >
      std::max(meta.size_bytes(), Store::meta_bytes_for(s.clusters * kClusterSize, s.journal_bytes))) {
    c->report.notes.push_back("tables, journal and volumes: not read, for meta is much too short");
    co_return std::move(c->report);
  }
  c->core = std::make_unique<StoreCore>(executor, meta, data, StoreOptions{}, s);
  co_await recover(c);
  c->pages.assign(s.pages, 0);
  c->levels.assign(s.pages, kUnseen);
  c->checksums.assign(s.pages, 0);
  c->clusters.assign(s.clusters, 0);
  c->live_clusters.assign(s.clusters, false);
  c->have_sums.assign(s.clusters, 0);
  c->need_sums.assign(s.clusters, 0);
  for (const bool dead : {false, true})
    co_await walk(c, dead);
  std::ranges::sort(c->references, {}, &Reference::child);
  for (const Root& root : c->roots)
    c->report.to_reclaim += root.is_dead();
  check_counts(c);
  report_findings(c);
  if (options.read_data)
    co_await read_data(c);
  co_await report_clusters(c);
  co_return std::move(c->report);
}

}  // namespace obraz
