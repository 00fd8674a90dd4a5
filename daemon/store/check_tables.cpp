// The checker's view of the tables (docs/disk-format.md, section 5): their pages, what each entry says, and
// what entries say of one another. An entry is read if its page is sound, so one bad page hides no other's
// faults.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/limits.h"
#include "store/checker.h"

namespace obraz::checking {

using disk::kPageSize;

namespace {

constexpr const char* kTableNames[] = {"cluster counts", "page counts", "volumes", "resources", "drops"};
static_assert(std::size(kTableNames) == disk::kTables);

std::string printable(std::string_view text) {
  std::string out;
  for (const char c : text)
    out += c >= 0x20 && c < 0x7f ? std::string(1, c) : fmt::format("\\x{:02x}", unsigned(uint8_t(c)));
  return out;
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

}  // namespace

std::string describe(const TablePage& at) {
  if (at.level == 0)
    return fmt::format("page {} of meta (page {} of the table of {})", at.page, at.index,
                       kTableNames[at.table]);
  return fmt::format("page {} of meta (index page {} of level {} of the table of {})", at.page, at.index,
                     at.level, kTableNames[at.table]);
}

Task<void> read_tables(Checker* c) {
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
}

}  // namespace obraz::checking
