// The checker from its entry: superblocks and label, then the steps in their order, each of which needs what
// the ones before it found (checker.h).
#include "store/check.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/crc32c.h"
#include "store/checker.h"

namespace obraz {
namespace checking {

using disk::kPageSize;

std::string sums(uint32_t expected, uint32_t found) {
  return fmt::format("checksum {:08x} expected, {:08x} found", expected, found);
}

Task<Status> read_at(Device* device, uint64_t offset, Bytes into) {
  if (offset + into.size() > device->size_bytes())
    co_return fail(ErrorCode::io, "lies beyond the end of the device");
  const Status status = co_await device->read(offset, into);
  co_return status;
}

Task<Status> load_node(Checker* c, Missing missing) {
  if ((missing.ref.page.value + 1) * kPageSize > c->meta.size_bytes())
    co_return fail(ErrorCode::io, "lies beyond the end of the device");
  const Status status = co_await c->core->state.cache().load(missing.ref, missing.level);
  co_return status;
}

namespace {

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

// The state that recovery would serve, or where it would refuse, the checkpoint as far as it can be read.
Task<void> recover(Checker* c) {
  co_await read_tables(c);
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
}  // namespace checking

Task<Result<CheckReport>> check_store(Executor& executor, Device& meta, Device& data, CheckOptions options) {
  using namespace checking;
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
