#include "tools/store_dump.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/limits.h"
#include "store/journal.h"

namespace obraz {
namespace {

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
};

void count_records(ConstBytes records, JournalBatch& batch) {
  while (!records.empty()) {
    const auto record = disk::decode_record(records);
    if (!record) {
      batch.malformed = true;
      return;
    }
    ++batch.kinds[std::visit(KindName{}, *record)];
    ++batch.records;
  }
}

std::unexpected<Refusal> cannot_read(const char* device, const Error& error) {
  return refuse(error.code, "store", fmt::format("{}: {}", device, describe(error)));
}

// Reads [position, position + length) of the ring, which may wrap around its end.
Task<Status> read_ring(Device& meta, const disk::Superblock& superblock, uint64_t position, Bytes into) {
  while (!into.empty()) {
    const uint64_t place = position % superblock.journal_bytes;
    const auto part = into.first(std::min<uint64_t>(into.size(), superblock.journal_bytes - place));
    Status read = co_await meta.read(disk::kJournalFirstPage * disk::kPageSize + place, part);
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

// The batches behind the superblock, by the rule of docs/disk-format.md, section 6.
Task<Status> read_journal(Device& meta, const disk::Superblock& superblock, StoreDump& dump) {
  disk::BatchHeader expected;
  expected.position = superblock.journal_position;
  expected.run = superblock.run;
  expected.sequence = {superblock.sequence.value + 1};
  expected.chain = superblock.chain;
  const AlignedBytes buffer(limits::kMaxBatchSize);
  for (;;) {
    Status read =
        co_await read_ring(meta, superblock, expected.position, buffer.bytes().first(disk::kPageSize));
    OBRAZ_CO_TRY(read);
    const auto header = disk::decode_batch_header(superblock.uuid, buffer.bytes().first(disk::kPageSize));
    if (!header) {
      dump.journal_end = "no batch there";
      co_return Status();
    }
    if (const char* reason = misfit(*header, expected)) {
      dump.journal_end = reason;
      co_return Status();
    }
    const uint64_t whole = round_up(header->length_bytes, disk::kPageSize);
    read = co_await read_ring(meta, superblock, expected.position, buffer.bytes().first(whole));
    OBRAZ_CO_TRY(read);
    if (!disk::batch_verifies(*header, buffer.bytes().first(header->length_bytes))) {
      dump.journal_end = "the batch there is torn: its checksum does not fit";
      co_return Status();
    }
    JournalBatch batch;
    batch.header = *header;
    batch.page = disk::kJournalFirstPage + expected.position % superblock.journal_bytes / disk::kPageSize;
    count_records(buffer.bytes().first(header->length_bytes).subspan(disk::BatchHeader::kSize), batch);
    dump.journal.push_back(std::move(batch));
    expected.position += whole;
    ++expected.sequence.value;
    expected.chain = header->checksum;
  }
}

}  // namespace

Task<Answer<StoreDump>> read_dump(Device& meta, Device& data) {
  StoreDump dump;
  dump.meta_bytes = meta.size_bytes();
  dump.data_bytes = data.size_bytes();
  if (dump.meta_bytes < disk::kJournalFirstPage * disk::kPageSize || dump.data_bytes < kClusterSize)
    co_return refuse(ErrorCode::not_found, "store", "meta or data is too short to belong to a store");

  const AlignedBytes buffer(disk::kPageSize);
  const Bytes page = buffer.bytes();
  for (size_t i = 0; i < dump.superblocks.size(); ++i) {
    const uint64_t number = disk::kSuperblockPages[i];
    Status read = co_await meta.read(number * disk::kPageSize, page);
    dump.superblocks[i] = read ? disk::decode_superblock(page, Page{number}) : Failure(read.error());
    const auto& superblock = dump.superblocks[i];
    if (superblock &&
        (dump.newest < 0 || superblock->generation > dump.superblocks[size_t(dump.newest)]->generation))
      dump.newest = int(i);
  }
  Status read = co_await data.read(0, page);
  dump.label = read ? disk::decode_label(page) : Failure(read.error());
  if (dump.newest < 0)
    co_return dump;

  const disk::Superblock newest = *dump.superblocks[size_t(dump.newest)];
  if (newest.pages > dump.meta_bytes / disk::kPageSize) {
    dump.journal_end = "not read: meta is shorter than its superblock says";
    co_return dump;
  }
  read = co_await read_journal(meta, newest, dump);
  if (!read)
    co_return cannot_read("meta", read.error());
  co_return dump;
}

}  // namespace obraz
