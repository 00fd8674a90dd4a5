// Fuzzes what opens a store: superblocks, label, tables, index pages, mapping nodes, journal. A small store
// with something of everything in it is built once; the input edits a copy of it, and then it is checked,
// opened and used.
//
// The first byte chooses: bit 0, which store (left behind by a crash, with a journal to replay, or closed);
// bit 1, whether the checksums are made right again after the edits, without which few edits would get past
// them; bit 2, that the batches of the journal are left alone by that. The rest are edits, each of a byte
// that chooses its kind and its arguments:
//   0  place, length, bytes      bytes are put at the place
//   1  place, from               a slot (16 bytes) is copied from one place to another
//   2  place, one signed byte    is added to the 8 bytes at the place
//   3  place, from               a page is copied over another
//   4  place, one byte           the bit is turned
// A place is a page, 1 byte: one of those in use, in order; and an offset in it, 2 bytes.
//
// Beyond not crashing: the checker ends; opening ends in a store or in an error that says why; a store that
// opens ends every request; a store in which the checker finds nothing works, stays right, and opens again.
#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "store/check.h"
#include "store/disk_format.h"
#include "store/store.h"
#include "support/sim_device.h"
#include "support/sim_loop.h"

using namespace obraz;
using namespace obraz::test;
using disk::kPageSize;
using disk::PageRef;
using disk::Superblock;

namespace {

constexpr uint64_t KiB = limits::KiB, MiB = limits::MiB, GiB = limits::GiB;
constexpr uint64_t kDataBytes = limits::kMinDataSize, kJournalBytes = limits::kMinJournalSize;
constexpr uint64_t kMetaBytes = 256 * kPageSize + kJournalBytes + 2 * MiB;
constexpr StoreOptions kOptions{.node_cache_bytes = 48 * kPageSize,  // so that nodes are read again
                                .reclaim_step_nodes = 1,
                                .slab_bytes = MiB,
                                .sum_bytes_per_s = limits::TiB,
                                .scrub_bytes_per_s = limits::TiB};
// Resumptions that one store may take from opening to closing, far above what any has needed.
constexpr uint64_t kEnough = 400'000;

struct Devices {
  SimImage meta, data;
};

void must(const Status& status) {
  OBRAZ_CHECK(status.has_value());
}

// Ends when the task does; never in more steps than are sane.
template <typename T>
T run(SimLoop& loop, Task<T> task) {
  std::optional<T> result;
  struct Keep {
    static Task<void> run(Task<T> task, std::optional<T>* result) {
      T value = co_await std::move(task);
      result->emplace(std::move(value));
    }
  };
  Gate gate(loop);
  gate.spawn(Keep::run(std::move(task), &result));
  const uint64_t last = loop.steps() + kEnough;
  loop.run_until([&] { return result.has_value() || loop.steps() > last; });
  OBRAZ_CHECK(result.has_value());  // else a hang, or a deadlock
  loop.run_until([&] { return gate.count() == 0; });
  return std::move(*result);
}

// --- the store to begin with
// ---------------------------------------------------------------------------------------------------

// Not coroutines: GCC 12 destroys temporaries with contents twice when they stand beside a co_await.
template <typename... Changes>
Task<Status> commit(Store& store, Changes... changes) {
  Transaction transaction;
  (transaction.push_back(std::move(changes)), ...);
  return store.commit(std::move(transaction));
}
Task<Status> put(Store& store, const char* key, size_t length) {
  return commit(store, PutResource{key, std::string(length, 'v')});
}
Task<Status> forget(Store& store, const std::string& key) {
  return commit(store, RemoveResource{key});
}
Task<Status> create(Store& store, VolumeId id, uint64_t size_bytes) {
  return commit(store, CreateVolume{id, size_bytes},
                PutResource{"volume/" + std::to_string(id.value), "a disk"});
}
Task<Status> clone(Store& store, VolumeId id, VolumeId source, VolumeKind kind, uint64_t size_bytes) {
  return commit(store, CloneVolume{id, source, kind, size_bytes});
}
Task<Status> remove(Store& store, VolumeId id) {
  return commit(store, DeleteVolume{id});
}
Task<Status> revert(Store& store, VolumeId id, VolumeId source) {
  return commit(store, RevertVolume{id, source});
}

Task<void> fill(Store& store, VolumeId id, uint64_t first, uint64_t step, unsigned count, uint64_t length) {
  const auto volume = store.open_volume(id);
  OBRAZ_CHECK(volume.has_value());
  Volume target = *volume;
  const std::vector<std::byte> bytes(length, std::byte(id.value * 16 + 1));
  for (unsigned i = 0; i < count; ++i) {
    const Status status = co_await target.write(first + i * step, bytes);
    must(status);
  }
}

Task<void> fill_first(Store& store) {
  const VolumeId large = store.new_volume_id(), small = store.new_volume_id(), doomed = store.new_volume_id();
  Status status = co_await create(store, large, 5 * GiB);  // three levels
  must(status);
  status = co_await create(store, small, 4 * MiB);
  must(status);
  status = co_await create(store, doomed, 64 * MiB);
  must(status);
  co_await fill(store, large, 0, 1 * GiB + 20 * MiB, 4, 8 * KiB);
  co_await fill(store, large, 64 * KiB, 60 * KiB, 4, 20 * KiB);
  co_await fill(store, small, 0, 128 * KiB, 6, 64 * KiB);
  co_await fill(store, doomed, 0, 16 * MiB, 4, 4 * KiB);
  const VolumeId snapshot = store.new_volume_id(), image = store.new_volume_id();
  status = co_await clone(store, snapshot, large, VolumeKind::frozen, 5 * GiB);
  must(status);
  status = co_await clone(store, image, small, VolumeKind::frozen, 4 * MiB);
  must(status);
  co_await fill(store, large, 4 * KiB, 64 * KiB, 3, 4 * KiB);  // own and base
  co_await fill(store, small, 16 * KiB, 128 * KiB, 3, 4 * KiB);
  status = co_await put(store, "note", 5000);
  must(status);
  status = co_await put(store, "gone", 1);
  must(status);
  status = co_await store.checkpoint();
  must(status);
  status = co_await remove(store, doomed);  // its nodes are still to be reclaimed
  must(status);
  status = co_await store.checkpoint();
  must(status);
}

Task<void> fill_journal(Store& store) {
  const auto volumes = store.volumes();
  const VolumeId large = volumes[0].id, small = volumes[1].id, snapshot = volumes[2].id,
                 image = volumes[3].id;
  co_await fill(store, large, 2 * GiB, 64 * KiB, 2, 4 * KiB);
  const VolumeId disk = store.new_volume_id(), later = store.new_volume_id();
  Status status = co_await clone(store, disk, image, VolumeKind::disk, 40 * MiB);
  must(status);
  co_await fill(store, disk, 8 * KiB, 64 * KiB, 2, 4 * KiB);
  status = co_await clone(store, later, small, VolumeKind::frozen, 4 * MiB);
  must(status);
  auto opened = store.open_volume(large);
  OBRAZ_CHECK(opened.has_value());
  Volume target = *opened;
  status = co_await target.discard(16 * MiB, 2 * GiB);
  must(status);
  status = co_await commit(store, RevertVolume{small, image}, ResizeVolume{disk, 80 * MiB});
  must(status);
  status = co_await remove(store, snapshot);
  must(status);
  status = co_await put(store, "note", 300);
  must(status);
  status = co_await store.flush();
  must(status);
}

Task<Status> whole(Task<void> task) {
  co_await std::move(task);
  co_return Status();
}

Devices build(bool closed) {
  SimLoop loop;
  SimDevice meta(loop, {.size_bytes = kMetaBytes}), data(loop, {.size_bytes = kDataBytes});
  FormatOptions format;
  format.journal_bytes = kJournalBytes;
  for (size_t i = 0; i < format.uuid.bytes.size(); ++i)
    format.uuid.bytes[i] = std::byte(0x10 + i);
  must(run(loop, Store::format(meta, data, format)));
  StoreOptions options = kOptions;
  options.reclaim_pause_us = 3'600'000'000;  // nothing is taken apart meanwhile
  auto store = run(loop, Store::open(loop, meta, data, options));
  OBRAZ_CHECK(store.has_value());
  must(run(loop, whole(fill_first(**store))));
  OBRAZ_CHECK(loop.run_until([&] { return (*store)->stats().volumes_to_sum == 0; }));
  if (closed) {
    must(run(loop, (*store)->close()));
    return {meta.contents(), data.contents()};
  }
  must(run(loop, whole(fill_journal(**store))));
  Devices devices{meta.contents(), data.contents()};
  struct Abandon {
    static Task<Status> run(Store* store) {
      co_await store->abandon();
      co_return Status();
    }
  };
  must(run(loop, Abandon::run(store->get())));
  return devices;
}

struct Base {
  Devices devices;
  std::vector<uint64_t> pages;  // of meta, with something in them; UINT64_MAX: the label of data
};

const Base& base(bool closed) {
  static const auto make = [](bool closed) {
    Base base{build(closed), {}};
    std::vector<std::byte> page(kPageSize);
    for (uint64_t at = 0; at < kMetaBytes / kPageSize; ++at) {
      base.devices.meta.read(at * kPageSize, page);
      if (!is_zero(page))
        base.pages.push_back(at);
    }
    base.pages.push_back(UINT64_MAX);
    OBRAZ_CHECK(base.pages.size() > 20 && base.pages.size() < 250);
    return base;
  };
  static const Base bases[2] = {make(false), make(true)};
  return bases[closed];
}

// --- the edits
// -----------------------------------------------------------------------------------------------------------------

class Input {
 public:
  Input(const uint8_t* data, size_t size) : at_(data), end_(data + size) {}
  explicit operator bool() const { return at_ < end_; }
  uint8_t byte() { return at_ < end_ ? *at_++ : 0; }
  uint16_t two() {
    const uint8_t low = byte();
    return uint16_t(low | byte() << 8);
  }

 private:
  const uint8_t *at_, *end_;
};

struct Place {
  SimImage* image;
  uint64_t page, offset;
  uint64_t at() const { return page * kPageSize + offset; }
};

// Pages beyond those in use are free ones; the first few of them can be edited, too.
Place take_place(Input& input, const Base& base, Devices& devices) {
  const uint8_t number = input.byte();
  const uint64_t offset = input.two() % kPageSize;
  if (number >= base.pages.size())
    return {&devices.meta, kMetaBytes / kPageSize - 1 - (number - base.pages.size()), offset};
  const uint64_t page = base.pages[number];
  return page == UINT64_MAX ? Place{&devices.data, 0, offset} : Place{&devices.meta, page, offset};
}

void edit(Input& input, const Base& base, Devices& devices) {
  const uint8_t kind = input.byte() % 5;
  const Place to = take_place(input, base, devices);
  std::vector<std::byte> bytes;
  uint64_t at = to.at();
  switch (kind) {
    case 0: {
      bytes.resize(1 + input.byte() % 64);
      for (std::byte& byte : bytes)
        byte = std::byte(input.byte());
      break;
    }
    case 1: {
      const Place from = take_place(input, base, devices);
      bytes.resize(16);
      at = round_down(at, 16);
      from.image->read(round_down(from.at(), 16), bytes);
      break;
    }
    case 2: {
      bytes.resize(8);
      at = to.page * kPageSize + std::min<uint64_t>(to.offset, kPageSize - 8);
      to.image->read(at, bytes);
      store_le<uint64_t>(bytes.data(),
                         load_le<uint64_t>(bytes.data()) + uint64_t(int64_t(int8_t(input.byte()))));
      break;
    }
    case 3: {
      const Place from = take_place(input, base, devices);
      bytes.resize(kPageSize);
      at = to.page * kPageSize;
      from.image->read(from.page * kPageSize, bytes);
      break;
    }
    default:
      bytes.resize(1);
      to.image->read(at, bytes);
      bytes[0] ^= std::byte(1u << input.byte() % 8);
  }
  bytes.resize(std::min<uint64_t>(bytes.size(), (to.page + 1) * kPageSize - at));
  to.image->write(at, bytes);
}

// --- right checksums
// -----------------------------------------------------------------------------------------------------------

// What a header's own checksum is made of.
uint32_t checksum_without_field(ConstBytes bytes) {
  static constexpr std::array<std::byte, 4> zeros{};
  return crc32c(bytes.subspan(16), crc32c(zeros, crc32c(bytes.first(12))));
}

class Reseal {
 public:
  Reseal(Devices& devices, bool journal) : devices_(devices), journal_(journal) {}

  void all() {
    seal_label();
    uint64_t newest = 0;
    std::vector<std::byte> newest_page;
    for (const uint64_t at : disk::kSuperblockPages) {
      auto page = read(at);
      if (std::memcmp(page.data(), Superblock::kMagic, 8) != 0)
        continue;
      uuid_bytes(page);
      for (unsigned id = 0; id < disk::kTables; ++id) {
        std::byte* root = &page[Superblock::kTableRootsOffset + id * Superblock::kTableRootSize];
        const unsigned levels = unsigned(root[24]);
        mend(root, levels == 0 ? disk::kTypeTablePage : disk::type_of_index(levels - 1), id);
      }
      mend(&page[Superblock::kSumsOffset],
           disk::type_of_node(disk::sum_root_level(kDataBytes / kClusterSize)), disk::kTables);
      store_le<uint32_t>(&page[12], checksum_without_field(page));
      devices_.meta.write(at * kPageSize, page);
      if (newest_page.empty() || load_le<uint64_t>(&page[64]) > newest) {
        newest = load_le<uint64_t>(&page[64]);
        newest_page = page;
      }
    }
    if (journal_ && !newest_page.empty())
      seal_journal(newest_page);
  }

 private:
  std::vector<std::byte> read(uint64_t page) const {
    std::vector<std::byte> bytes(kPageSize);
    devices_.meta.read(page * kPageSize, bytes);
    return bytes;
  }
  void uuid_bytes(ConstBytes page) { std::memcpy(uuid_.bytes.data(), &page[16], 16); }

  // A reference: page (8), checksum (4). Puts in the checksum that the page has once all below it is right.
  // No page is gone through twice in the same role, and none while it is being gone through.
  void mend(std::byte* ref, uint32_t type, unsigned table) {
    const uint64_t page = load_le<uint64_t>(ref);
    if (page == 0 || page >= kMetaBytes / kPageSize)
      return;
    const auto [known, fresh] = sums_.try_emplace({page, type}, load_le<uint32_t>(ref + 8));
    if (fresh) {
      auto bytes = read(page);
      mend_below(bytes, type, table);
      devices_.meta.write(page * kPageSize, bytes);
      sums_[{page, type}] = disk::page_checksum(uuid_, Page{page}, type, bytes);
    }
    store_le<uint32_t>(ref + 8, sums_[{page, type}]);
  }
  void mend_below(Bytes bytes, uint32_t type, unsigned table) {
    const auto slots = [&](uint32_t below) {
      for (size_t at = 0; at < kPageSize; at += disk::kSlotSize)
        mend(&bytes[at], below, table);
    };
    if (type > disk::kTypeTablePage)
      slots(type - 1);
    else if (type < disk::kTypeTablePage && disk::has_children(type))
      slots(type - 1);
    else if (type == disk::kTypeTablePage && table == disk::kVolumes)
      for (size_t at = 0; at < kPageSize; at += disk::kVolumeEntrySize)
        mend(&bytes[at + 16], disk::type_of_node(unsigned(bytes[at + 28]) % 4), table);
    else if (type == disk::kTypeTablePage && table == disk::kDrops)
      for (size_t at = 0; at < kPageSize; at += disk::kDropEntrySize)
        mend(&bytes[at], disk::type_of_node(load_le<uint32_t>(&bytes[at + 12]) % 4), table);
  }

  void seal_label() {
    std::vector<std::byte> label(kPageSize);
    devices_.data.read(0, label);
    store_le<uint32_t>(&label[12], checksum_without_field(label));
    devices_.data.write(0, label);
  }

  // The batches that follow the checkpoint, as a chain again.
  void seal_journal(ConstBytes superblock) {
    const uint64_t size = kJournalBytes, first = disk::kJournalFirstPage * kPageSize;
    uint64_t position = load_le<uint64_t>(&superblock[96]);
    auto chain = load_le<uint32_t>(&superblock[88]);
    for (uint64_t done = 0; done < size;) {
      const auto ring = [&](auto&& transfer, auto bytes) {  // of which a part may lie at the ring's start
        const uint64_t at = position % size, front = std::min<uint64_t>(bytes.size(), size - at);
        transfer(first + at, bytes.first(front));
        transfer(first, bytes.subspan(front));
      };
      const auto get = [&](uint64_t at, Bytes bytes) { devices_.meta.read(at, bytes); };
      std::vector<std::byte> batch(disk::BatchHeader::kSize);
      ring(get, Bytes(batch));
      const auto length = load_le<uint32_t>(&batch[60]);
      if (std::memcmp(batch.data(), disk::BatchHeader::kMagic, 8) != 0 || length < disk::BatchHeader::kSize ||
          length > limits::kMaxBatchSize)
        return;
      batch.resize(length);
      ring(get, Bytes(batch));
      store_le<uint32_t>(&batch[56], chain);
      chain = checksum_without_field(batch);
      store_le<uint32_t>(&batch[12], chain);
      ring([&](uint64_t at, ConstBytes bytes) { devices_.meta.write(at, bytes); }, ConstBytes(batch));
      position += round_up(uint64_t(length), kPageSize);
      done += round_up(uint64_t(length), kPageSize);
    }
  }

  Devices& devices_;
  bool journal_;
  Uuid uuid_;
  std::map<std::pair<uint64_t, uint32_t>, uint32_t> sums_;
};

// --- the use of what opens
// ------------------------------------------------------------------------------------------------------

struct Session {
  Store& store;
  bool right;  // the checker found nothing

  // Every error has a name; that of damage has no place in a store without any.
  void saw(const Status& status) const {
    if (status)
      return;
    OBRAZ_CHECK(status.error().text != nullptr);
    OBRAZ_CHECK(
        !right || status.error().code == ErrorCode::no_space ||
        status.error().code == ErrorCode::out_of_range || status.error().code == ErrorCode::read_only ||
        status.error().code == ErrorCode::already_exists || status.error().code == ErrorCode::not_found ||
        status.error().code == ErrorCode::invalid_argument ||
        status.error().code == ErrorCode::failed_precondition);
  }
};

Task<void> look(const Session* s, Volume volume) {
  const uint64_t size = volume.size_bytes(), piece = std::min<uint64_t>(size, 20 * KiB);
  std::vector<std::byte> bytes(piece);
  for (const uint64_t at : {uint64_t(0), round_down(size / 2, 512), size - piece}) {
    std::vector<Extent> extents;
    const Status status = co_await volume.read(at, Bytes(bytes).first(std::min(piece, size - at)), &extents);
    s->saw(status);
  }
  std::vector<Extent> extents;
  const Status status = co_await volume.block_status(0, std::min(size, 6 * GiB), 64, extents);
  s->saw(status);
  OBRAZ_CHECK(!status || (!extents.empty() && extents.size() <= 64));
}

Task<void> change(const Session* s, Volume volume) {
  const uint64_t size = volume.size_bytes();
  const std::vector<std::byte> bytes(10'000, std::byte(7));
  const ConstBytes some(bytes);
  Status status = co_await volume.write(0, some.first(std::min<uint64_t>(size, 4096)));
  s->saw(status);
  status = co_await volume.write(size / 2 / 512 * 512, some.first(std::min<uint64_t>(size / 2, bytes.size())),
                                 true);
  s->saw(status);
  status = co_await volume.zero(std::min<uint64_t>(size, 128 * KiB), std::min<uint64_t>(size, 256 * KiB), {});
  s->saw(status);
  Volume::ZeroOptions keep;
  keep.keep_allocated = true;
  status = co_await volume.zero(0, std::min<uint64_t>(size, 64 * KiB), keep);
  s->saw(status);
  status = co_await volume.discard(size / 4, size / 4);
  s->saw(status);
}

bool visit_all(Extent) {
  return true;
}

Task<Status> use(const Session* s) {
  Store& store = s->store;
  auto volumes = store.volumes();
  if (volumes.size() > 8)
    volumes.resize(8);
  Status status;
  for (const VolumeInfo& info : volumes) {
    const auto volume = store.open_volume(info.id);
    OBRAZ_CHECK(volume.has_value());
    co_await look(s, *volume);
    const VolumeId copy = store.new_volume_id();
    status = co_await clone(store, copy, info.id, VolumeKind::frozen, info.size_bytes);
    s->saw(status);
    if (info.kind == VolumeKind::disk)
      co_await change(s, *volume);
    const auto frozen = store.open_volume(copy);
    if (frozen && info.size_bytes <= 6 * GiB) {
      status = co_await store.diff(*volume, *frozen, visit_all);
      s->saw(status);
      const auto usage = co_await store.usage(*volume);
      s->saw(usage ? Status() : Status(Failure(usage.error())));
    }
    if (frozen && info.kind == VolumeKind::disk && info.id.value % 2 == 0) {
      status = co_await revert(store, info.id, copy);
      s->saw(status);
    }
  }
  status = co_await store.checkpoint();
  s->saw(status);
  // New nodes and clusters, beside those that the damaged counts call free.
  const VolumeId fresh = store.new_volume_id();
  status = co_await create(store, fresh, 64 * MiB);
  s->saw(status);
  status = co_await put(store, "new", 9000);
  s->saw(status);
  if (const auto volume = store.open_volume(fresh)) {
    Volume target = *volume;
    const std::vector<std::byte> bytes(192 * KiB, std::byte(9));
    for (const uint64_t at : {uint64_t(0), 17 * MiB, 40 * MiB}) {
      status = co_await target.write(at, bytes);
      s->saw(status);
    }
    co_await look(s, target);
  }
  for (const VolumeInfo& info : volumes)
    if (info.id.value % 2 == 1) {
      status = co_await remove(store, info.id);
      s->saw(status);
    }
  const auto resources = store.resources();
  for (const auto& [key, value] : resources)
    if (key.size() % 2 == 0) {
      status = co_await forget(store, key);
      s->saw(status);
    }
  for (int i = 0; i < 2; ++i) {
    status = co_await store.checkpoint();
    s->saw(status);
  }
  for (const VolumeInfo& info : store.volumes()) {
    const auto volume = store.open_volume(info.id);
    if (volume && info.id.value < 16)
      co_await look(s, *volume);
  }
  status = co_await store.flush();
  s->saw(status);
  co_return Status();
}

bool may_refuse(ErrorCode code) {
  return code == ErrorCode::corruption || code == ErrorCode::not_found || code == ErrorCode::unsupported ||
         code == ErrorCode::no_space;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  log::set_level(log::Level(0));
  if (size == 0 || size > 4096)
    return 0;
  Input input(data, size);
  const unsigned choice = input.byte();
  const Base& begin = base((choice & 1) != 0);
  Devices devices = begin.devices;
  while (input)
    edit(input, begin, devices);
  if (choice & 2)
    Reseal(devices, (choice & 4) == 0).all();

  SimLoop loop;
  SimDevice meta(loop, {.size_bytes = kMetaBytes}, devices.meta);
  SimDevice label(loop, {.size_bytes = kDataBytes}, devices.data);
  const auto checked = run(loop, check_store(loop, meta, label, CheckOptions{.read_data = true}));
  OBRAZ_CHECK(checked || may_refuse(checked.error().code));
  const bool right = checked && checked->clean();

  auto opened = run(loop, Store::open(loop, meta, label, kOptions));
  if (!opened) {
    OBRAZ_CHECK(may_refuse(opened.error().code) && opened.error().text[0] != 0);
    OBRAZ_CHECK(!right || opened.error().code == ErrorCode::no_space);
    return 0;
  }
  OBRAZ_CHECK(checked.has_value());  // what the checker cannot read does not open
  Store& store = **opened;
  const Session session{store, right};
  must(run(loop, use(&session)));
  OBRAZ_CHECK(!right || store.health() == StoreHealth::ok);
  const Status closed = run(loop, store.close());
  OBRAZ_CHECK(!right || closed.has_value());
  opened->reset();
  const auto after = run(loop, check_store(loop, meta, label, CheckOptions{}));
  OBRAZ_CHECK(!right || (after && after->clean()));
  auto again = run(loop, Store::open(loop, meta, label, kOptions));
  OBRAZ_CHECK(again || (!right && may_refuse(again.error().code)));
  if (again)
    static_cast<void>(run(loop, (*again)->close()));
  return 0;
}
