// Reads, writes, zeros and trims of volumes. A write is done in windows; each goes: order (RangeLock),
// admission, plan (what every cluster's slot says now), space, device I/O, record. Only the last step changes
// state.
#include <algorithm>
#include <cstring>

#include "base/log.h"
#include "store/cached_read.h"
#include "store/core.h"
#include "store/marks.h"

namespace obraz {
namespace {

uint16_t mask_of(unsigned first_block, unsigned end_block) {
  return uint16_t(((1u << end_block) - 1) & ~((1u << first_block) - 1));
}

Failure deleted() {
  return fail(ErrorCode::not_found, "the volume was deleted");
}

Failure closing() {
  return fail(ErrorCode::unavailable, "the store is closing");
}

constexpr uint64_t kBounceSize = 1 * limits::MiB;

// Appends to a list of extents, merging neighbours of one kind.
void add_extent(std::vector<Extent>& out, Extent next) {
  if (!out.empty() && out.back().hole == next.hole && out.back().zero == next.zero &&
      out.back().offset + out.back().length == next.offset)
    out.back().length += next.length;
  else
    out.push_back(next);
}

}  // namespace

Status StoreCore::check_range(const VolumeState& volume, uint64_t offset, uint64_t length) const {
  if (volume.deleted)
    return deleted();
  if (offset > volume.size_bytes || length > volume.size_bytes - offset)
    return obraz::fail(ErrorCode::out_of_range, "beyond the end of the volume");
  return {};
}

// Whoever calls has looked the reference up just now, without waiting since. The page is not reused under the
// load: who gives up a node has it in memory, and so waits for the same load.
Task<Status> StoreCore::load_missing(const Missing& missing, VolumeState& volume) {
  const Status status = co_await state.cache().load(missing.ref, missing.level);
  if (!status && status.error().code == ErrorCode::corruption) {
    ++damaged_events;
    if (!std::exchange(volume.damaged, true))
      log::error("store: volume {} is damaged: page {} of meta: {}", volume.id.value, missing.ref.page.value,
                 describe(status.error()));
  }
  co_return status;
}

Task<Result<LeafView>> StoreCore::leaf(VolumePtr volume, VirtualCluster cluster) {
  for (;;) {
    if (volume->deleted)
      co_return deleted();
    const LeafView view = state.leaf_of(*volume, cluster);
    if (!view.missing)
      co_return view;
    const Status status = co_await load_missing(*view.missing, *volume);
    OBRAZ_CO_TRY(status);
  }
}

// --- device I/O
// ------------------------------------------------------------------------------------------------------

// Neighbours on the device and in memory are one operation.
void StoreCore::append(Segments& segments, const Segment& next) {
  if (!segments.empty()) {
    Segment& last = segments.back();
    if (last.write == next.write && last.device_offset + last.bytes.size() == next.device_offset &&
        last.bytes.data() + last.bytes.size() == next.bytes.data()) {
      last.bytes = Bytes(last.bytes.data(), last.bytes.size() + next.bytes.size());
      return;
    }
  }
  segments.push_back(next);
}

Task<Status> StoreCore::write_segment(Segment segment) {
  const Status done = co_await data.write(segment.device_offset, segment.bytes);
  if (done)
    unflushed.add(segment.device_offset, segment.bytes);
  else  // some of it may be there
    unflushed.add_unknown();
  co_return done;
}

Task<Status> StoreCore::transfer_one(const Segment& segment) {
  return segment.write ? write_segment(segment) : data.read(segment.device_offset, segment.bytes);
}

Task<Status> StoreCore::transfer(const Segments& segments) {
  return segments.size() == 1 ? transfer_one(segments[0]) : transfer_all(segments);
}

Task<void> StoreCore::transfer_beside(const Segment& segment, Status& status) {
  const Status done = co_await transfer_one(segment);
  if (!done)
    status = done;
}

Task<Status> StoreCore::transfer_all(const Segments& segments) {
  Status status;
  constexpr size_t kAtOnce = 64;
  for (size_t at = 0; at < segments.size() && status; at += kAtOnce) {
    const size_t end = std::min(at + kAtOnce, segments.size());
    Gate gate(executor);
    for (size_t i = at; i < end; ++i)
      gate.spawn(transfer_beside(segments[i], status));
    co_await gate.close();
  }
  co_return status;
}

// --- reading
// ---------------------------------------------------------------------------------------------------------

Task<Status> StoreCore::read(VolumePtr volume, uint64_t offset, Bytes into, std::vector<Extent>* extents,
                             ReadFrom from) {
  if (extents)
    extents->clear();
  const bool direct = offset % kBlockSize == 0 && into.size() % kBlockSize == 0 &&
                      reinterpret_cast<uintptr_t>(into.data()) % kBlockSize == 0;
  return direct ? read_piece(std::move(volume), offset, into, true, extents, from)
                : read_bounced(std::move(volume), offset, into, extents, from);
}

// What the device cannot read into the caller's buffer goes through one of our own, of bounded size.
Task<Status> StoreCore::read_bounced(VolumePtr volume, uint64_t offset, Bytes into,
                                     std::vector<Extent>* extents, ReadFrom from) {
  do {
    const uint64_t length = std::min<uint64_t>(into.size(), kBounceSize - offset % kBlockSize);
    const Status status = co_await read_piece(volume, offset, into.first(length), false, extents, from);
    OBRAZ_CO_TRY(status);
    offset += length;
    into = into.subspan(length);
  } while (!into.empty());
  co_return Status();
}

// Appends to `extents`. Not direct: at most kBounceSize from the start of the first block.
Task<Status> StoreCore::read_piece(VolumePtr volume, uint64_t offset, Bytes into, bool direct,
                                   std::vector<Extent>* extents, ReadFrom from) {
  const Gate::Pass pass(operations);
  if (!pass)
    co_return closing();
  Status status = check_range(*volume, offset, into.size());
  OBRAZ_CO_TRY(status);
  if (into.empty())
    co_return status;
  const uint64_t begin = round_down(offset, kBlockSize), end = round_up(offset + into.size(), kBlockSize);
  AlignedBytes bounce;
  if (!direct)
    bounce = AlignedBytes(end - begin);
  const Bytes target = direct ? into : bounce.bytes();
  IoTracker::Entry entry;  // from before the first look at a slot to the end of the last device read
  entry.begin(io);
  Segments segments;
  ToVerifyList to_verify;
  CachedRead cached(*this, volume->id, end - begin);
  const bool through_cache = from == ReadFrom::anywhere && clone_cache.on();
  for (uint64_t at = begin; at < end;) {
    const VirtualCluster cluster{at / kClusterSize};
    const LeafView view = state.leaf_of(*volume, cluster);
    if (view.missing) {
      status = co_await load_missing(*view.missing, *volume);
      if (status && volume->deleted)
        status = deleted();
      if (!status) {
        end_io(entry);
        co_return status;
      }
      continue;
    }
    const uint64_t view_end = std::min(end, view.end * kClusterSize);
    // Everything up to the next co_await is one instant: the view stays good.
    while (at < view_end) {
      uint64_t run = view_end;
      PhysicalCluster place;
      bool hole = true;
      if (view.leaf) {
        const Slot slot = view.leaf->slot(unsigned(at / kClusterSize % disk::kSlotsPerNode));
        unsigned block = unsigned(at / kBlockSize % kBlocksPerCluster);
        const uint64_t cluster_end = std::min(view_end, round_down(at, kClusterSize) + kClusterSize);
        place = slot.place(block);
        hole = slot.empty();
        run = at + kBlockSize;
        while (run < cluster_end && slot.place(++block) == place)
          run += kBlockSize;
      }
      const Bytes bytes = target.subspan(at - begin, run - at);
      if (place && through_cache && (view.shared || state.cluster_count(place) > 1)) {
        cached.add({place, unsigned(at / kBlockSize % kBlocksPerCluster), bytes}, at, segments, to_verify);
      } else if (place) {
        append(segments, {place.value * kClusterSize + at % kClusterSize, bytes, false});
        if (state.is_summed(place))
          to_verify.push_back({place, at, bytes});
      } else if (!extents) {
        std::ranges::fill(bytes, std::byte{0});
      }
      if (extents) {
        const uint64_t first = std::max(at, offset), last = std::min(run, offset + into.size());
        add_extent(*extents, {first, last - first, !place && hole, !place});
      }
      at = run;
    }
  }
  if (!segments.empty())
    status = co_await transfer(segments);
  if (status && !to_verify.empty()) {
    std::span<const ToVerify> parts(to_verify);
    status = verify_now(*volume, parts);
    if (!parts.empty()) {
      const Status rest = co_await verify(*volume, parts);
      status = rest ? status : rest;
    }
  }
  if (cached.used())
    status = co_await cached.finish(*volume, status);
  end_io(entry);
  OBRAZ_CO_TRY(status);
  if (direct)
    co_return status;
  if (!extents) {
    std::copy_n(target.data() + (offset - begin), into.size(), into.data());
    co_return status;
  }
  for (const Extent& extent : *extents) {
    const uint64_t first = std::max(extent.offset, offset);
    if (!extent.zero && extent.offset + extent.length > offset)
      std::copy_n(target.data() + (first - begin), extent.offset + extent.length - first,
                  into.data() + (first - offset));
  }
  co_return status;
}

Task<Status> StoreCore::cache(VolumePtr volume, uint64_t offset, uint64_t length) {
  const Status status = check_range(*volume, offset, length);
  OBRAZ_CO_TRY(status);
  for (uint64_t at = offset; at < offset + length;) {
    const auto view = co_await leaf(volume, {at / kClusterSize});
    OBRAZ_CO_TRY(view);
    at = view->end * kClusterSize;
  }
  co_return status;
}

Task<Status> StoreCore::block_status(VolumePtr volume, uint64_t offset, uint64_t length, size_t max_extents,
                                     std::vector<Extent>& out) {
  const Status status = check_range(*volume, offset, length);
  OBRAZ_CO_TRY(status);
  const uint64_t end = offset + length;
  for (uint64_t at = offset; at < end;) {
    const auto view = co_await leaf(volume, {at / kClusterSize});
    OBRAZ_CO_TRY(view);
    const uint64_t view_end = std::min(end, view->end * kClusterSize);
    if (!view->leaf) {
      add_extent(out, {at, view_end - at, true, true});
      at = view_end;
    }
    while (at < view_end) {
      const Slot slot = view->leaf->slot(unsigned(at / kClusterSize % disk::kSlotsPerNode));
      if (slot.empty()) {
        const uint64_t run = std::min(view_end, round_down(at, kClusterSize) + kClusterSize);
        add_extent(out, {at, run - at, true, true});
        at = run;
      } else {
        const uint64_t run = std::min(view_end, round_down(at, kBlockSize) + kBlockSize);
        add_extent(out, {at, run - at, false, !slot.place(unsigned(at / kBlockSize % kBlocksPerCluster))});
        at = run;
      }
      if (out.size() > max_extents) {
        out.pop_back();
        co_return Status();
      }
    }
    if (out.size() > max_extents) {
      out.pop_back();
      co_return Status();
    }
  }
  co_return Status();
}

// --- writing
// ---------------------------------------------------------------------------------------------------------

struct StoreCore::Window {
  struct Piece {
    VirtualCluster cluster;
    Slot slot;
    uint16_t mask = 0;
    WriteKind kind = WriteKind::in_place;
    PhysicalCluster target;
  };
  VolumePtr volume;
  uint64_t offset = 0;
  ConstBytes from;
  uint64_t generation = 0;
  boost::container::small_vector<Piece, 16> pieces;
  Clusters clusters;  // taken for this window, not yet in any slot
  uint64_t first_block() const { return offset / kBlockSize; }
  uint64_t end_block() const { return divide_up(offset + from.size(), kBlockSize); }
  bool in_place() const {
    return std::ranges::all_of(pieces, [](const Piece& p) { return p.kind == WriteKind::in_place; });
  }
  bool copies() const {
    return std::ranges::any_of(pieces, [](const Piece& p) { return p.kind == WriteKind::copy; });
  }
  // Beside the neighbour before, so that what is written together lies together.
  uint64_t hint() const {
    for (const auto& piece : pieces)
      if (piece.slot.own && piece.kind != WriteKind::in_place)
        return piece.slot.own.value + 1;
    return 0;
  }
  // Whether the device can write all of it from where it is.
  bool direct() const {
    return offset % kBlockSize == 0 && from.size() % kBlockSize == 0 &&
           reinterpret_cast<uintptr_t>(from.data()) % kBlockSize == 0;
  }
  uint64_t needed() const {
    return uint64_t(std::ranges::count_if(
        pieces, [](const Piece& p) { return p.kind != WriteKind::in_place && p.kind != WriteKind::first; }));
  }
};

Task<Status> StoreCore::write(VolumePtr volume, uint64_t offset, ConstBytes from, bool fua) {
  const Gate::Pass pass(operations);
  if (!pass)
    co_return closing();
  Status status = check_range(*volume, offset, from.size());
  OBRAZ_CO_TRY(status);
  if (volume->kind != VolumeKind::disk)
    co_return obraz::fail(ErrorCode::read_only, "a frozen volume cannot be written");
  status = check_usable();
  OBRAZ_CO_TRY(status);
  while (!from.empty()) {
    // Windows end at multiples of their size, so that a leaf is rarely cut.
    const uint64_t length =
        std::min<uint64_t>(from.size(), limits::kWindowSize - offset % limits::kWindowSize);
    status = co_await write_window(volume, offset, from.first(length));
    OBRAZ_CO_TRY(status);
    offset += length;
    from = from.subspan(length);
  }
  if (fua)
    status = co_await join_commit();
  co_return status;
}

// What every cluster of the window is at this instant, and so how it is written; or what must be loaded to
// know.
std::optional<Missing> StoreCore::look(Window& w) {
  w.pieces.clear();
  LeafView view;
  for (uint64_t block = w.first_block(); block < w.end_block();) {
    const VirtualCluster cluster{block / kBlocksPerCluster};
    const uint64_t end = std::min(w.end_block(), (cluster.value + 1) * kBlocksPerCluster);
    if (cluster.value >= view.end) {
      view = state.leaf_of(*w.volume, cluster);
      if (view.missing)
        return view.missing;
    }
    Window::Piece piece;
    piece.cluster = cluster;
    if (view.leaf)
      piece.slot = view.leaf->slot(disk::slot_index(cluster, 0));
    piece.mask = mask_of(unsigned(block % kBlocksPerCluster), unsigned(end - 1) % kBlocksPerCluster + 1);
    if (view.leaf && piece.slot.own && state.is_summed(piece.slot.own) &&
        state.cluster_count(piece.slot.own) == 1)
      marks::hit(Mark::last_owner_redirected);
    piece.kind = write_kind(piece.slot, piece.mask, view.leaf && state.is_shared(view, piece.slot));
    piece.target = piece.slot.own;
    w.pieces.push_back(piece);
    block = end;
  }
  return {};
}

bool StoreCore::plan_now(Window& w) {
  return check_range(*w.volume, w.offset, w.from.size()) && !look(w);
}

// The same, with what must be loaded. Nothing has changed between the last look and the return.
Task<Status> StoreCore::plan(Window& w) {
  for (;;) {
    Status status = check_range(*w.volume, w.offset, w.from.size());
    OBRAZ_CO_TRY(status);
    const auto missing = look(w);
    if (!missing)
      co_return Status();
    status = co_await load_missing(*missing, *w.volume);
    OBRAZ_CO_TRY(status);
  }
}

// Space for what the plan needs, which is true at this instant. Whether there was enough; then every piece
// has its target.
bool StoreCore::prepare_now(Window& w) {
  const uint64_t needed = w.needed();
  if (!take_clusters(needed, w.hint(), w.clusters))
    return false;
  size_t next = 0;
  for (auto& piece : w.pieces)
    if (piece.kind != WriteKind::in_place && piece.kind != WriteKind::first)
      piece.target = w.clusters[next++];
  for (; w.clusters.size() > next; w.clusters.pop_back())
    give_back(w.clusters.back());
  return true;
}

// The same, with waiting; ends with a plan that is true at the return and has its targets.
Task<Status> StoreCore::prepare(Window& w) {
  for (;;) {
    Status status = co_await plan(w);
    OBRAZ_CO_TRY(status);
    if (prepare_now(w))
      co_return status;
    status = co_await allocate_clusters(w.needed(), w.hint(), w.clusters);
    OBRAZ_CO_TRY(status);
  }
}

Task<Status> StoreCore::write_window(const VolumePtr& volume, uint64_t offset, ConstBytes from) {
  Window w;
  w.volume = volume;
  w.offset = offset;
  w.from = from;
  const bool whole_blocks = offset % kBlockSize == 0 && from.size() % kBlockSize == 0;
  bool exclusive = !whole_blocks;
  if (!exclusive) {
    if (!plan_now(w)) {
      const Status planned = co_await plan(w);
      OBRAZ_CO_TRY(planned);
    }
    exclusive = !w.in_place();
  }
  RangeLock::Holder holder;
  Admission admission;
  Status status;
  for (;;) {
    co_await volume->locks.acquire({w.first_block(), w.end_block(), exclusive}, holder);
    if (!plan_now(w)) {
      status = co_await plan(w);
      OBRAZ_CO_TRY(status);
    }
    if (w.in_place())
      break;
    if (!exclusive) {  // it was in place when we looked; a snapshot came while we waited
      marks::hit(Mark::in_place_lost_to_snapshot);
      holder.release();
      exclusive = true;
      continue;
    }
    // A window lies in at most two leaves; each may need its whole path made.
    const Cost cost{.record_bytes = w.pieces.size() * disk::kMapRecordSize,
                    .node_pages = 2 * State::kPagesPerRecord};
    const bool at_once = admit_now(cost, admission);
    if (!at_once) {
      status = co_await admit(cost, admission);
      OBRAZ_CO_TRY(status);
    }
    if (!at_once || !prepare_now(w))  // after a wait the plan may have become another
      status = co_await prepare(w);
    break;
  }
  IoTracker::Entry entry, volume_entry;
  if (status)
    status = check_usable();
  if (status) {
    // From here to the record the request counts as in flight: for the drop rule, and for snapshots of the
    // disk.
    entry.begin(io);
    volume_entry.begin(volume->writes);
    w.generation = volume->generation;
    for (const auto& piece : w.pieces) {
      if (clone_cache.on())
        clone_cache.drop(piece.target);  // from here on it changes, or becomes another one
      switch (piece.kind) {
        case WriteKind::in_place:
          ++counters.writes_in_place;
          break;
        case WriteKind::first:
          ++counters.writes_first;
          break;
        case WriteKind::allocate:
          ++counters.writes_allocating;
          break;
        case WriteKind::to_base:
          ++counters.writes_to_base;
          marks::hit(Mark::own_turned_base);
          break;
        case WriteKind::copy:
          ++counters.writes_copying;
          marks::hit(Mark::bounded_copy);
          break;
      }
    }
    if (w.copies())
      status = co_await copy_own(w);
    if (status && w.direct()) {
      Segments segments;
      gather(w, segments);
      if (!write_later(w, segments))
        status = co_await transfer(segments);
    } else if (status) {
      status = co_await move_data(w);
    }
    while (status && !w.in_place()) {
      const auto missing = record(w);
      if (missing && !*missing)
        break;
      status = missing ? co_await load_missing(**missing, *volume) : Failure(missing.error());
    }
  }
  for (PhysicalCluster cluster : w.clusters)
    give_back(cluster);
  volume_entry.end();
  end_io(entry);
  co_return status;
}

// The one copy of the system: the own blocks that a copying write does not replace.
Task<Status> StoreCore::copy_own(Window& w) {
  for (size_t i = 0; i < w.pieces.size(); ++i) {
    const Window::Piece piece = w.pieces[i];
    const uint16_t mask =
        piece.kind == WriteKind::copy ? blocks_to_copy(piece.slot, piece.mask) : uint16_t(0);
    if (mask == 0)
      continue;
    AlignedBytes buffer(kClusterSize);
    for (const bool writing : {false, true}) {
      Segments segments;
      const PhysicalCluster cluster = writing ? piece.target : piece.slot.own;
      for (unsigned block = 0; block < kBlocksPerCluster; ++block)
        if (mask >> block & 1)
          append(segments, {cluster.value * kClusterSize + block * kBlockSize,
                            buffer.bytes().subspan(block * kBlockSize, kBlockSize), writing});
      Status status = co_await transfer(segments);
      // What has rotted is not given a new place, and with it the look of being whole.
      for (unsigned block = 0; !writing && block < kBlocksPerCluster && status; ++block)
        if ((mask >> block & 1) && state.is_summed(cluster)) {
          const ToVerify part{cluster, piece.cluster.value * kClusterSize + block * kBlockSize,
                              buffer.bytes().subspan(block * kBlockSize, kBlockSize)};
          status = co_await verify(*w.volume, {&part, 1});
        }
      OBRAZ_CO_TRY(status);
    }
  }
  co_return Status();
}

// `offset`: of the block in the volume.
Task<Status> StoreCore::read_block(VolumeState& volume, const Slot& slot, uint64_t offset, Bytes into) {
  const PhysicalCluster place = slot.place(unsigned(offset / kBlockSize % kBlocksPerCluster));
  if (!place) {
    std::ranges::fill(into, std::byte{0});
    co_return Status();
  }
  Status status = co_await data.read(place.value * kClusterSize + offset % kClusterSize, into);
  if (status && state.is_summed(place)) {
    const ToVerify part{place, offset, into};
    status = co_await verify(volume, {&part, 1});
  }
  co_return status;
}

// The payload from where it is to its targets.
void StoreCore::gather(const Window& w, Segments& segments) {
  const std::byte* memory = w.from.data();
  for (const auto& piece : w.pieces) {
    const auto first = unsigned(std::countr_zero(piece.mask));
    const size_t length = size_t(std::popcount(piece.mask)) * kBlockSize;
    // The device only reads from it.
    append(segments, {piece.target.value * kClusterSize + first * kBlockSize,
                      Bytes(const_cast<std::byte*>(memory), length), true});
    memory += length;
  }
}

// A little that a commit must record before it means anything need not be on the device before that; nor what
// replaces it while it is not. All of it or nothing: whether it was taken.
bool StoreCore::write_later(const Window& w, const Segments& segments) {
  if (w.from.size() > limits::kMaxCarriedWrite || segments.size() != 1)
    return false;
  const Segment& segment = segments[0];
  if (w.in_place() && !data.keeps(segment.device_offset, segment.bytes.size()))
    return false;
  if (!data.write_later(segment.device_offset, segment.bytes))
    return false;
  unflushed.add(segment.device_offset, segment.bytes);
  return true;
}

// The payload to its targets. Partial blocks at the ends are filled up with what the block holds now; the
// rest goes from where it is, when that is aligned like the disk.
Task<Status> StoreCore::move_data(Window& w) {
  const uint64_t end = w.offset + w.from.size();
  AlignedBytes ends[2], all;
  Segments segments;
  const bool congruent = (reinterpret_cast<uintptr_t>(w.from.data()) - w.offset) % kBlockSize == 0;
  if (!congruent) {
    all = AlignedBytes(round_up(w.offset % kBlockSize + w.from.size(), kBlockSize));
    std::ranges::copy(w.from, all.bytes().begin() + ptrdiff_t(w.offset % kBlockSize));
  }
  unsigned used_ends = 0;
  for (size_t i = 0; i < w.pieces.size(); ++i) {
    const Window::Piece piece = w.pieces[i];
    const uint64_t cluster_start = piece.cluster.value * kClusterSize;
    for (uint64_t at = std::max(w.offset, cluster_start); at < std::min(end, cluster_start + kClusterSize);) {
      const uint64_t block_start = round_down(at, kBlockSize);
      const uint64_t piece_end = std::min(end, cluster_start + kClusterSize);
      const uint64_t device = piece.target.value * kClusterSize + (block_start - cluster_start);
      const uint64_t block_end = std::min(block_start + kBlockSize, piece_end);
      if (at != block_start || block_end != block_start + kBlockSize) {
        OBRAZ_CHECK(used_ends < 2);
        AlignedBytes& bounce = ends[used_ends++];
        bounce = AlignedBytes(kBlockSize);
        const Status status = co_await read_block(*w.volume, piece.slot, block_start, bounce.bytes());
        OBRAZ_CO_TRY(status);
        std::copy_n(w.from.data() + (at - w.offset), block_end - at,
                    bounce.bytes().data() + (at - block_start));
        append(segments, {device, bounce.bytes(), true});
        at = block_end;
        continue;
      }
      const uint64_t whole_end = round_down(piece_end, kBlockSize);
      const std::byte* memory = congruent ? w.from.data() + (at - w.offset)
                                          : all.bytes().data() + (at - round_down(w.offset, kBlockSize));
      // The device only reads from it.
      append(segments, {device, Bytes(const_cast<std::byte*>(memory), whole_end - at), true});
      at = whole_end;
    }
  }
  co_return co_await transfer(segments);
}

// The slots as they are now that the data is there. The range is ours alone, so only a revert or a delete can
// have changed them; then the write was as if before it. Returns what must be loaded first, and then nothing
// has been done.
Result<std::optional<Missing>> StoreCore::record(Window& w) {
  if (w.volume->deleted || w.volume->generation != w.generation) {
    marks::hit(w.volume->deleted ? Mark::delete_under_write : Mark::revert_under_write);
    return std::optional<Missing>();
  }
  boost::container::small_vector<disk::Record, 16> records;
  for (const auto& piece : w.pieces) {
    if (piece.kind == WriteKind::in_place)
      continue;
    records.push_back(disk::MapRecord{w.volume->id, piece.cluster,
                                      after_write(piece.slot, piece.kind, piece.mask, piece.target)});
    if (auto missing = state.needs(records.back()))
      return missing;
  }
  const Status usable = check_usable();
  if (!usable)
    return Failure(usable.error());
  stage(records);
  w.clusters.clear();  // the slots have them
  return std::optional<Missing>();
}

// --- zeros and trims
// -------------------------------------------------------------------------------------------------

Status StoreCore::check_change(const VolumeState& volume, uint64_t offset, uint64_t length) const {
  const Status inside = check_range(volume, offset, length);
  if (!inside)
    return inside;
  if (volume.kind != VolumeKind::disk)
    return obraz::fail(ErrorCode::read_only, "a frozen volume cannot be changed");
  return check_usable();
}

Task<Status> StoreCore::discard(VolumePtr volume, uint64_t offset, uint64_t length, bool fua) {
  Status status = check_change(*volume, offset, length);
  OBRAZ_CO_TRY(status);
  const uint64_t first = divide_up(offset, kBlockSize);
  // The end of a volume that is no multiple of a block counts as a whole one.
  const uint64_t end = offset + length == volume->size_bytes ? divide_up(offset + length, kBlockSize)
                                                             : (offset + length) / kBlockSize;
  if (first < end)
    status = co_await deallocate(volume, first, end);
  if (status && fua)
    status = co_await join_commit();
  co_return status;
}

Task<Status> StoreCore::zero(VolumePtr volume, uint64_t offset, uint64_t length, bool keep_allocated,
                             bool fua) {
  Status status = check_change(*volume, offset, length);
  OBRAZ_CO_TRY(status);
  const uint64_t end = offset + length;
  if (keep_allocated || round_up(offset, kBlockSize) >= round_down(end, kBlockSize)) {
    AlignedBytes zeros(std::min<uint64_t>(length + kBlockSize, limits::MiB));
    for (uint64_t at = offset; at < end;) {
      const uint64_t shift = at % kBlockSize;
      const uint64_t part = std::min<uint64_t>(end - at, zeros.size() - shift);
      status = co_await write(volume, at, zeros.bytes().subspan(shift, part), false);
      OBRAZ_CO_TRY(status);
      at += part;
    }
  } else {
    const uint64_t first = round_up(offset, kBlockSize), last = round_down(end, kBlockSize);
    if (first > offset)
      status = co_await zero(volume, offset, first - offset, true, false);
    OBRAZ_CO_TRY(status);
    status = co_await deallocate(volume, first / kBlockSize, last / kBlockSize);
    OBRAZ_CO_TRY(status);
    if (end > last)
      status = co_await zero(volume, last, end - last, true, false);
    OBRAZ_CO_TRY(status);
  }
  if (fua)
    status = co_await join_commit();
  co_return status;
}

// Gives up whole blocks: whole subtrees in one record, the rest slot by slot. No device I/O.
Task<Status> StoreCore::deallocate(VolumePtr volume, uint64_t first_block, uint64_t end_block) {
  RangeLock::Holder holder;
  co_await volume->locks.acquire({first_block, end_block, true}, holder);
  const uint64_t generation = volume->generation;
  const uint64_t volume_end = volume->clusters() * kBlocksPerCluster;
  // A range that reaches the end of the volume reaches the end of every subtree there.
  const uint64_t reach = end_block >= volume_end ? UINT64_MAX : end_block;
  constexpr size_t kRecords = 64;
  for (uint64_t block = first_block; block < end_block;) {
    Admission admission;
    Status status = co_await admit({.record_bytes = kRecords * disk::kMapRecordSize,
                                    .node_pages = State::kPagesPerRecord,
                                    .essential = true},
                                   admission);
    OBRAZ_CO_TRY(status);
    const VirtualCluster cluster{block / kBlocksPerCluster};
    const auto view = co_await leaf_or_subtree(volume, cluster, block, reach);
    OBRAZ_CO_TRY(view);
    status = check_usable();
    OBRAZ_CO_TRY(status);
    if (volume->generation != generation) {
      marks::hit(Mark::revert_under_trim);
      co_return Status();  // as if before the revert
    }
    if (view->drop_level) {
      const unsigned level = *view->drop_level;
      const disk::Record record =
          disk::DropRangeRecord{volume->id, cluster.value / disk::clusters_per_node(level), level};
      stage({&record, 1});
      block = (cluster.value + disk::clusters_per_node(level)) * kBlocksPerCluster;
      continue;
    }
    if (!view->leaf.leaf) {
      block = view->leaf.end * kBlocksPerCluster;
      continue;
    }
    std::vector<disk::Record> records;
    const uint64_t leaf_end = std::min(end_block, view->leaf.end * kBlocksPerCluster);
    while (block < leaf_end && records.size() < kRecords) {
      const VirtualCluster at{block / kBlocksPerCluster};
      const uint64_t end = std::min(leaf_end, (at.value + 1) * kBlocksPerCluster);
      const Slot slot = view->leaf.leaf->slot(disk::slot_index(at, 0));
      const Slot next = after_zero(
          slot, mask_of(unsigned(block % kBlocksPerCluster), unsigned(end - 1) % kBlocksPerCluster + 1));
      if (next != slot)
        records.push_back(disk::MapRecord{volume->id, at, next});
      block = end;
    }
    if (!records.empty())
      stage(records);
  }
  co_return Status();
}

// The largest subtree that begins at the block and ends within reach, if it is there at all; otherwise the
// leaf.
Task<Result<StoreCore::SubtreeView>> StoreCore::leaf_or_subtree(VolumePtr volume, VirtualCluster cluster,
                                                                uint64_t block, uint64_t reach) {
  for (;;) {
    if (volume->deleted)
      co_return deleted();
    SubtreeView view;
    std::optional<Missing> missing;
    disk::PageRef ref = volume->root;
    for (unsigned level = volume->level;; --level) {
      const uint64_t span = disk::clusters_per_node(level);
      view.leaf.end = (cluster.value / span + 1) * span;
      if (!ref)
        co_return view;
      if (cluster.value % span == 0 && block % kBlocksPerCluster == 0 &&
          view.leaf.end * kBlocksPerCluster <= reach) {
        view.drop_level = level;
        co_return view;
      }
      if (!state.node(ref, level)) {
        missing = Missing{ref, level};
        break;
      }
      if (level == 0) {
        view.leaf = state.leaf_of(*volume, cluster);
        co_return view;
      }
      ref = state.node(ref, level)->child(disk::slot_index(cluster, level));
    }
    const Status status = co_await load_missing(*missing, *volume);
    OBRAZ_CO_TRY(status);
  }
}

}  // namespace obraz
