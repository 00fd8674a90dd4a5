// The roots of a store, and its journal.
#include "tools/store_dump.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <map>

#include "base/limits.h"
#include "store/disk_format.h"
#include "store/journal.h"

namespace obraz {
namespace {

using Layout = DumpWriter::Layout;

constexpr const char* kTableNames[] = {"cluster_counts", "page_counts", "volumes", "resources", "drops"};
static_assert(std::size(kTableNames) == disk::kTables);

// --- superblocks
// --------------------------------------------------------------------------------------------------
void show_superblock(DumpWriter& out, const disk::Superblock& s) {
  out.text("store", s.uuid.to_string());
  out.field("features_read_only", s.features_read_only);
  out.field("features_ignore", s.features_ignore);
  out.field("generation", s.generation);
  out.field("run", s.run);
  out.field("flags", s.flags);
  out.flag("closed_cleanly", s.flags & disk::Superblock::kFlagClean);
  out.field("sequence", s.sequence.value);
  out.checksum("chain", s.chain);
  out.field("journal_position", s.journal_position);
  out.field("journal_first_page", disk::kJournalFirstPage);
  out.size("journal_bytes", s.journal_bytes);
  out.field("first_node_page", s.first_node_page().value);
  out.field("pages", s.pages);
  out.field("clusters", s.clusters);
  out.field("next_volume", s.next_volume.value);
  out.begin("tables", Layout::lines);
  for (unsigned id = 0; id < disk::kTables; ++id) {
    const disk::TableRoot& table = s.tables[id];
    out.begin(kTableNames[id], Layout::line);
    out.field("page", table.root.page.value);
    out.checksum("checksum", table.root.checksum);
    out.field("length_bytes", table.length_bytes);
    out.field("levels", table.levels);
    out.end();
  }
  out.end();
  out.begin("checksums", Layout::line);
  out.field("page", s.sums.page.value);
  out.checksum("checksum", s.sums.checksum);
  out.end();
}

// --- journal
// ------------------------------------------------------------------------------------------------------
struct KindName {
  const char* operator()(const disk::MapRecord&) const { return "map"; }
  const char* operator()(const disk::DropRangeRecord&) const { return "drop_range"; }
  const char* operator()(const CreateVolume&) const { return "create"; }
  const char* operator()(const CloneVolume&) const { return "clone"; }
  const char* operator()(const DeleteVolume&) const { return "delete"; }
  const char* operator()(const RevertVolume&) const { return "revert"; }
  const char* operator()(const ResizeVolume&) const { return "resize"; }
  const char* operator()(const PutResource&) const { return "put_resource"; }
  const char* operator()(const RemoveResource&) const { return "remove_resource"; }
  const char* operator()(const disk::BlockRecord&) const { return "block"; }
  const char* operator()(const disk::LandedRecord&) const { return "landed"; }
};

struct ShowFields {
  DumpWriter& out;
  void operator()(const disk::MapRecord& r) const {
    out.field("volume", r.volume.value);
    out.field("offset", r.cluster.value * kClusterSize);
    out.field("own", r.slot.own.value);
    out.field("own_mask", r.slot.own_mask);
    out.field("base", r.slot.base.value);
    out.field("zero_mask", r.slot.zero_mask);
  }
  void operator()(const disk::DropRangeRecord& r) const {
    out.field("volume", r.volume.value);
    out.field("index", r.index);
    out.field("level", r.level);
  }
  void operator()(const CreateVolume& r) const {
    out.field("volume", r.id.value);
    out.field("size", r.size_bytes);
  }
  void operator()(const CloneVolume& r) const {
    out.field("volume", r.id.value);
    out.field("source", r.source.value);
    out.field("size", r.size_bytes);
    out.text("volume_kind", r.kind == VolumeKind::disk ? "disk" : "frozen");
  }
  void operator()(const DeleteVolume& r) const { out.field("volume", r.id.value); }
  void operator()(const RevertVolume& r) const {
    out.field("volume", r.id.value);
    out.field("source", r.source.value);
  }
  void operator()(const ResizeVolume& r) const {
    out.field("volume", r.id.value);
    out.field("size", r.size_bytes);
  }
  void operator()(const PutResource& r) const {
    out.text("key", r.key);
    out.field("value_bytes", r.value.size());
  }
  void operator()(const RemoveResource& r) const { out.text("key", r.key); }
  void operator()(const disk::BlockRecord& r) const {
    out.field("cluster", r.cluster.value);
    out.field("block", r.block);
  }
  void operator()(const disk::LandedRecord&) const {}
};

// Whether all of it is records.
bool show_records(DumpWriter& out, ConstBytes bytes) {
  uint64_t records = 0;
  std::map<std::string, uint64_t> kinds;
  bool malformed = false;
  for (ConstBytes rest = bytes; !rest.empty() && !malformed;) {
    const auto record = disk::decode_record(rest);
    malformed = !record;
    if (record) {
      ++records;
      ++kinds[std::visit(KindName{}, *record)];
    }
  }
  out.field("records", records);
  out.flag("malformed", malformed);
  out.begin("kinds", Layout::line);
  for (const auto& [kind, count] : kinds)
    out.field(kind.c_str(), count);
  out.end();
  out.begin_list("record_list");
  for (uint64_t i = 0; i < records; ++i) {
    const auto record = disk::decode_record(bytes);
    out.begin(nullptr, Layout::line);
    out.text("kind", std::visit(KindName{}, *record));
    std::visit(ShowFields{out}, *record);
    out.end();
  }
  out.end();
  return !malformed;
}

// Reads [position, position + length) of the ring, which may wrap around its end.
Task<Status> read_ring(Device* meta, const disk::Superblock* superblock, uint64_t position, Bytes into) {
  while (!into.empty()) {
    const uint64_t place = position % superblock->journal_bytes;
    const auto part = into.first(std::min<uint64_t>(into.size(), superblock->journal_bytes - place));
    const Status read = co_await meta->read(disk::kJournalFirstPage * disk::kPageSize + place, part);
    OBRAZ_CO_TRY(read);
    position += part.size();
    into = into.subspan(part.size());
  }
  co_return Status();
}

// What keeps `header` from following; nullptr when nothing does.
const char* misfit(const disk::BatchHeader& header, const disk::BatchHeader& expected) {
  if (header.position != expected.position)
    return "the batch there belongs to another round of the ring";
  if (header.run != expected.run)
    return "the batch there belongs to another run";
  if (header.sequence != expected.sequence)
    return "the batch there has another sequence";
  if (header.chain != expected.chain)
    return "the batch there follows another batch";
  return nullptr;
}

// The batches behind the superblock, by the rule of docs/disk-format.md, section 6. Returns why there are no
// more.
Task<Result<const char*>> show_journal(Device* meta, const disk::Superblock* superblock, DumpWriter* out,
                                       DumpOutcome* outcome) {
  disk::BatchHeader expected;
  expected.position = superblock->journal_position;
  expected.run = superblock->run;
  expected.sequence = {superblock->sequence.value + 1};
  expected.chain = superblock->chain;
  const AlignedBytes buffer(limits::kMaxBatchSize);
  while (expected.position < superblock->journal_position + superblock->journal_bytes) {
    Status read =
        co_await read_ring(meta, superblock, expected.position, buffer.bytes().first(disk::kPageSize));
    OBRAZ_CO_TRY(read);
    const auto header = disk::decode_batch_header(superblock->uuid, buffer.bytes().first(disk::kPageSize));
    if (!header)
      co_return "no batch there";
    if (const char* reason = misfit(*header, expected))
      co_return reason;
    const uint64_t whole = round_up(header->length_bytes, disk::kPageSize);
    read = co_await read_ring(meta, superblock, expected.position, buffer.bytes().first(whole));
    OBRAZ_CO_TRY(read);
    if (!disk::batch_verifies(*header, buffer.bytes().first(header->length_bytes)))
      co_return "the batch there is torn: its checksum does not fit";
    out->begin(nullptr, Layout::line);
    out->field("sequence", header->sequence.value);
    out->field("page",
               disk::kJournalFirstPage + expected.position % superblock->journal_bytes / disk::kPageSize);
    out->field("position", header->position);
    out->field("run", header->run);
    out->field("durable", header->durable.value);
    out->field("length_bytes", header->length_bytes);
    out->checksum("chain", header->chain);
    out->checksum("checksum", header->checksum);
    if (!show_records(*out, buffer.bytes().first(header->length_bytes).subspan(disk::BatchHeader::kSize)))
      ++outcome->unreadable;
    out->end();
    expected.position += whole;
    ++expected.sequence.value;
    expected.chain = header->checksum;
  }
  co_return "the ring is full";
}

}  // namespace

Task<Answer<DumpOutcome>> dump_store(Device& meta, Device& data, DumpOptions options, DumpWriter& out) {
  if (meta.size_bytes() < disk::kJournalFirstPage * disk::kPageSize || data.size_bytes() < kClusterSize)
    co_return refuse(ErrorCode::not_found, "store", "meta or data is too short to belong to a store");
  DumpOutcome outcome;
  out.begin(nullptr, Layout::lines);
  out.size("meta_bytes", meta.size_bytes());
  out.size("data_bytes", data.size_bytes());
  const AlignedBytes buffer(disk::kPageSize);
  Status read = co_await data.read(0, buffer.bytes());
  const auto label = read ? disk::decode_label(buffer.bytes()) : Failure(read.error());
  out.begin("label", Layout::line);
  out.flag("valid", label.has_value());
  if (label) {
    out.text("store", label->uuid.to_string());
    out.field("clusters", label->clusters);
  } else {
    ++outcome.unreadable;
    out.text("error", describe(label.error()));
  }
  out.end();

  std::array<Result<disk::Superblock>, 2> superblocks = {fail(ErrorCode::not_found, "not read"),
                                                         fail(ErrorCode::not_found, "not read")};
  int newest = -1;
  for (size_t i = 0; i < superblocks.size(); ++i) {
    const uint64_t page = disk::kSuperblockPages[i];
    read = co_await meta.read(page * disk::kPageSize, buffer.bytes());
    superblocks[i] = read ? disk::decode_superblock(buffer.bytes(), Page{page}) : Failure(read.error());
    if (superblocks[i] &&
        (newest < 0 || superblocks[i]->generation > superblocks[size_t(newest)]->generation))
      newest = int(i);
  }
  out.begin_list("superblocks");
  for (size_t i = 0; i < superblocks.size(); ++i) {
    out.begin(nullptr, Layout::lines);
    out.field("page", disk::kSuperblockPages[i]);
    out.flag("valid", superblocks[i].has_value());
    out.flag("newest", int(i) == newest);
    if (superblocks[i]) {
      show_superblock(out, *superblocks[i]);
    } else {
      ++outcome.unreadable;
      out.text("error", describe(superblocks[i].error()));
    }
    out.end();
  }
  out.end();

  outcome.superblock = newest >= 0;
  out.begin_list("journal");
  std::string journal_end = "not read: no superblock is valid";
  const disk::Superblock* superblock = newest < 0 ? nullptr : &*superblocks[size_t(newest)];
  if (superblock && meta.size_bytes() < superblock->first_node_page().value * disk::kPageSize) {
    ++outcome.unreadable;
    journal_end = "not read: meta ends before it does";
  } else if (superblock) {
    const auto end = co_await show_journal(&meta, superblock, &out, &outcome);
    outcome.unreadable += !end;
    journal_end = end ? *end : describe(end.error());
  }
  out.end();
  out.text("journal_end", journal_end);
  if (superblock)
    co_await dump_checkpoint(&meta, superblock, &options, &out, &outcome);
  out.end();
  co_return outcome;
}

}  // namespace obraz
