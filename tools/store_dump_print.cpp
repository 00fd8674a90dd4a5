// How a dump is written: in lines for people, in one JSON document for programs. Pure.
#include <fmt/core.h>

#include <iterator>

#include "base/size.h"
#include "tools/store_dump.h"

namespace obraz {
namespace {

constexpr const char* kSuperblockNames[] = {"A", "B"};
constexpr const char* kTableNames[] = {"cluster_counts", "page_counts", "volumes", "resources", "drops"};
static_assert(std::size(kTableNames) == disk::kTables);

template <typename... Values>
void add(std::string& out, fmt::format_string<Values...> format, Values&&... values) {
  fmt::format_to(std::back_inserter(out), format, std::forward<Values>(values)...);
}

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\')
      out += '\\';
    if (static_cast<unsigned char>(c) < 0x20)
      add(out, "\\u{:04x}", unsigned(c));
    else
      out += c;
  }
  return out + '"';
}

bool is_clean(const disk::Superblock& superblock) {
  return superblock.flags & disk::Superblock::kFlagClean;
}

// --- text
// ------------------------------------------------------------------------------------------------------------
void add_superblock(std::string& out, const disk::Superblock& s) {
  add(out, "  store            {}\n", s.uuid.to_string());
  add(out, "  features         read-only {:#x}, ignore {:#x}\n", s.features_read_only, s.features_ignore);
  add(out, "  generation       {}, of the run that began with {}\n", s.generation, s.run);
  add(out, "  closed cleanly   {}\n", is_clean(s) ? "yes" : "no");
  add(out, "  sequence         {}, checksum {:08x}\n", s.sequence.value, s.chain);
  add(out, "  journal          {} from page {}, next position {}\n", format_size(s.journal_bytes),
      disk::kJournalFirstPage, s.journal_position);
  add(out, "  meta             {} pages ({}), nodes from page {}\n", s.pages,
      format_size(s.pages * disk::kPageSize), s.first_node_page().value);
  add(out, "  data             {} clusters ({})\n", s.clusters, format_size(s.clusters * kClusterSize));
  add(out, "  next volume      {}\n", s.next_volume.value);
  for (unsigned i = 0; i < disk::kTables; ++i) {
    const disk::TableRoot& table = s.tables[i];
    add(out, "  {:<16} {} bytes, {} levels of index", kTableNames[i], table.length_bytes, table.levels);
    if (table.root)
      add(out, ", root in page {}, checksum {:08x}\n", table.root.page.value, table.root.checksum);
    else
      out += ", all zeros\n";
  }
}

void add_journal(std::string& out, const StoreDump& dump) {
  add(out, "journal: {} batches after the superblock\n", dump.journal.size());
  for (const JournalBatch& batch : dump.journal) {
    const disk::BatchHeader& header = batch.header;
    add(out, "  sequence {}: page {}, position {}, {} bytes, chain {:08x}, checksum {:08x}, {} records",
        header.sequence.value, batch.page, header.position, header.length_bytes, header.chain,
        header.checksum, batch.records);
    const char* separator = " (";
    for (const auto& [kind, count] : batch.kinds) {
      add(out, "{}{} {}", separator, kind, count);
      separator = ", ";
    }
    out += batch.kinds.empty() ? "" : ")";
    out += batch.malformed ? ", then a malformed one\n" : "\n";
  }
  add(out, "  end: {}\n", dump.journal_end);
}

// --- JSON
// ------------------------------------------------------------------------------------------------------------
void add_json_superblock(std::string& out, const disk::Superblock& s) {
  add(out, R"("store": "{}", "features_read_only": {}, "features_ignore": {}, "generation": {}, "run": {}, )",
      s.uuid.to_string(), s.features_read_only, s.features_ignore, s.generation, s.run);
  add(out, R"("flags": {}, "closed_cleanly": {}, "sequence": {}, "chain": {}, )", s.flags, is_clean(s),
      s.sequence.value, s.chain);
  add(out, R"("journal_position": {}, "journal_first_page": {}, "journal_bytes": {}, )", s.journal_position,
      disk::kJournalFirstPage, s.journal_bytes);
  add(out, R"("first_node_page": {}, "pages": {}, "clusters": {}, "next_volume": {}, "tables": {{)",
      s.first_node_page().value, s.pages, s.clusters, s.next_volume.value);
  for (unsigned i = 0; i < disk::kTables; ++i) {
    const disk::TableRoot& table = s.tables[i];
    add(out, R"({}"{}": {{"page": {}, "checksum": {}, "length_bytes": {}, "levels": {}}})",
        i == 0 ? "" : ", ", kTableNames[i], table.root.page.value, table.root.checksum, table.length_bytes,
        table.levels);
  }
  out += "}";
}

void add_json_batch(std::string& out, const JournalBatch& batch) {
  const disk::BatchHeader& header = batch.header;
  add(out, R"({{"sequence": {}, "page": {}, "position": {}, "run": {}, "length_bytes": {}, "chain": {}, )",
      header.sequence.value, batch.page, header.position, header.run, header.length_bytes, header.chain);
  add(out, R"("checksum": {}, "records": {}, "malformed": {}, "kinds": {{)", header.checksum, batch.records,
      batch.malformed);
  const char* separator = "";
  for (const auto& [kind, count] : batch.kinds) {
    add(out, R"({}"{}": {})", separator, kind, count);
    separator = ", ";
  }
  out += "}}";
}

}  // namespace

std::string dump_as_text(const StoreDump& dump) {
  std::string out;
  add(out, "meta: {} bytes, data: {} bytes\n", dump.meta_bytes, dump.data_bytes);
  if (dump.label)
    add(out, "label of data: store {}, {} clusters\n", dump.label->uuid.to_string(), dump.label->clusters);
  else
    add(out, "label of data: not valid: {}\n", describe(dump.label.error()));
  for (size_t i = 0; i < dump.superblocks.size(); ++i) {
    const auto& superblock = dump.superblocks[i];
    add(out, "superblock {} (page {}): ", kSuperblockNames[i], disk::kSuperblockPages[i]);
    if (!superblock) {
      add(out, "not valid: {}\n", describe(superblock.error()));
      continue;
    }
    add(out, "valid, generation {}{}\n", superblock->generation, int(i) == dump.newest ? ", the newest" : "");
    add_superblock(out, *superblock);
  }
  if (dump.newest >= 0)
    add_journal(out, dump);
  else
    out += "journal: not read, for no superblock is valid\n";
  return out;
}

std::string dump_as_json(const StoreDump& dump) {
  std::string out;
  add(out, "{{\n  \"meta_bytes\": {},\n  \"data_bytes\": {},\n  \"label\": ", dump.meta_bytes,
      dump.data_bytes);
  if (dump.label)
    add(out, R"({{"valid": true, "store": "{}", "clusters": {}}})", dump.label->uuid.to_string(),
        dump.label->clusters);
  else
    add(out, R"({{"valid": false, "error": {}}})", quoted(describe(dump.label.error())));
  out += ",\n  \"superblocks\": [";
  for (size_t i = 0; i < dump.superblocks.size(); ++i) {
    const auto& superblock = dump.superblocks[i];
    add(out, "{}\n    {{\"page\": {}, \"valid\": {}, \"newest\": {}, ", i == 0 ? "" : ",",
        disk::kSuperblockPages[i], superblock.has_value(), int(i) == dump.newest);
    if (superblock)
      add_json_superblock(out, *superblock);
    else
      add(out, "\"error\": {}", quoted(describe(superblock.error())));
    out += "}";
  }
  out += "\n  ],\n  \"journal\": [";
  const char* separator = "\n    ";
  for (const JournalBatch& batch : dump.journal) {
    out += separator;
    add_json_batch(out, batch);
    separator = ",\n    ";
  }
  add(out, "{}],\n  \"journal_end\": {}\n}}\n", dump.journal.empty() ? "" : "\n  ", quoted(dump.journal_end));
  return out;
}

}  // namespace obraz
