#include "store/write_behind.h"

#include <algorithm>
#include <boost/container/small_vector.hpp>

#include "base/limits.h"
#include "base/log.h"
#include "store/marks.h"

namespace obraz {
namespace {

constexpr uint64_t kPutAtOnce = 8;  // in the background: others want the device, too

}  // namespace

WriteBehind::WriteBehind(Executor& executor, Device& device, uint64_t most_blocks)
    : executor_(executor),
      device_(device),
      most_(most_blocks),
      kept_(most_blocks + limits::kMaxStuckBlocks),
      contents_(kept_.size() * kBlockSize),
      changed_(executor),
      gate_(executor) {
  for (size_t index = kept_.size(); index-- > 0;)
    free_.push_back(uint32_t(index));
  places_.reserve(kept_.size() * 2);
}

bool WriteBehind::touches(uint64_t offset, uint64_t length) const {
  for (uint64_t at = offset; !places_.empty() && at < offset + length; at += kBlockSize)
    if (places_.contains(at))
      return true;
  return false;
}

bool WriteBehind::keeps(uint64_t offset, uint64_t length) const {
  for (uint64_t at = offset; at < offset + length; at += kBlockSize) {
    const auto found = places_.find(at);
    if (found == places_.end() || kept_[found->second].busy)
      return false;
  }
  return true;
}

size_t WriteBehind::take(uint64_t offset) {
  const uint32_t index = free_.back();
  free_.pop_back();
  places_.emplace(offset, index);
  kept_[index] = {.offset = offset, .number = next_number_++, .used = true};
  return index;
}

void WriteBehind::drop(size_t index) {
  Kept& kept = kept_[index];
  set_stuck(kept, false);
  places_.erase(kept.offset);
  kept = {};
  free_.push_back(uint32_t(index));
}

bool WriteBehind::write_later(uint64_t offset, ConstBytes from) {
  OBRAZ_CHECK(offset % kBlockSize == 0 && from.size() % kBlockSize == 0);
  // A write that may find no space, or whose neighbour found an error, must be able to say so to whoever
  // asked for it.
  if (stopping_ || stuck_ > 0 || !device_.can_allocate())
    return false;
  size_t fresh = 0;
  for (uint64_t at = offset; at < offset + from.size(); at += kBlockSize) {
    const auto found = places_.find(at);
    if (found != places_.end() && kept_[found->second].busy)  // the device reads that memory
      return false;
    fresh += found == places_.end();
  }
  if (places_.size() + fresh > most_)
    return false;
  marks::hit(fresh > 0 ? Mark::write_kept : Mark::kept_block_replaced);
  for (; !from.empty(); from = from.subspan(kBlockSize), offset += kBlockSize) {
    const auto found = places_.find(offset);
    const size_t index = found == places_.end() ? take(offset) : found->second;
    std::copy_n(from.data(), kBlockSize, content(index).data());
  }
  if (is_crowded() && !thinning_)
    gate_.spawn(thin_out());
  return true;
}

// --- blocks that cannot be written
// -------------------------------------------------------------------------------------------------

void WriteBehind::set_stuck(Kept& kept, bool stuck) {
  if (std::exchange(kept.stuck, stuck) == stuck)
    return;
  stuck_ += stuck ? 1 : uint64_t(-1);
  ++stuck_version_;
}

std::vector<disk::BlockRecord> WriteBehind::stuck() const {
  std::vector<disk::BlockRecord> blocks;
  for (size_t index = 0; index < kept_.size(); ++index)
    if (const Kept& kept = kept_[index]; kept.stuck)
      blocks.push_back(
          {{kept.offset / kClusterSize}, uint32_t(kept.offset % kClusterSize / kBlockSize), content(index)});
  return blocks;
}

bool WriteBehind::keep_stuck(uint64_t offset, ConstBytes content) {
  if (stuck_ == limits::kMaxStuckBlocks)
    return false;
  marks::hit(Mark::stuck_in_recovery);
  const size_t index = take(offset);
  std::ranges::copy(content, this->content(index).begin());
  set_stuck(kept_[index], true);
  return true;
}

// --- writing what is kept
// ----------------------------------------------------------------------------------------------------------

void WriteBehind::put(size_t index) {
  kept_[index].busy = true;
  ++writing_;
  gate_.spawn(put_now(index));
}

Task<void> WriteBehind::put_now(size_t index) {
  Kept& kept = kept_[index];
  const Status status = co_await device_.write(kept.offset, content(index));
  --writing_;
  kept.busy = false;
  if (status) {
    drop(index);
  } else if (!kept.stuck) {
    marks::hit(Mark::kept_block_stuck);
    log::error("store: block {} of data cannot be written; it stays in memory and in the journal: {}",
               kept.offset / kBlockSize, describe(status.error()));
    set_stuck(kept, true);
  }
  changed_.notify_all();
}

// Many at a time, and then none for a while: between them a flush of the device has little to do.
Task<void> WriteBehind::thin_out() {
  thinning_ = true;
  marks::hit(Mark::kept_blocks_thinned_out);
  while (!stopping_ && stuck_ == 0 && !is_thinned()) {
    const Kept* oldest = nullptr;
    for (const Kept& kept : kept_)
      if (kept.used && !kept.busy && (!oldest || kept.number < oldest->number))
        oldest = &kept;
    if (oldest && writing_ < kPutAtOnce)
      put(size_t(oldest - kept_.data()));
    else
      co_await changed_.wait();
  }
  thinning_ = false;
}

Task<Status> WriteBehind::flush() {
  return places_.empty() ? device_.flush() : flush_kept();
}

Task<Status> WriteBehind::flush_kept() {
  const uint64_t mark = next_number_;
  const auto on_its_way = [mark](const Kept& kept) {
    return kept.used && kept.number < mark && (kept.busy || !kept.stuck);
  };
  if (stopping_)
    co_return fail(ErrorCode::unavailable, "the store is closing");
  for (size_t index = 0; index < kept_.size(); ++index)
    if (kept_[index].used && !kept_[index].busy)
      put(index);
  while (std::ranges::any_of(kept_, on_its_way))
    co_await changed_.wait();
  // What comes after the flush promises the stuck ones, so nothing takes their place before.
  boost::container::small_vector<Kept*, limits::kMaxStuckBlocks> held;
  for (Kept& kept : kept_)
    if (kept.stuck && !kept.busy) {
      kept.busy = true;
      held.push_back(&kept);
    }
  const Status status = co_await device_.flush();
  for (Kept* kept : held)
    kept->busy = false;
  changed_.notify_all();
  co_return status;
}

Task<void> WriteBehind::stop() {
  stopping_ = true;
  changed_.notify_all();
  return gate_.close();
}

// --- the device
// ----------------------------------------------------------------------------------------------------------

Task<Status> WriteBehind::read(uint64_t offset, Bytes into) {
  return touches(offset, into.size()) ? read_around(offset, into) : device_.read(offset, into);
}

Task<void> WriteBehind::read_run(uint64_t offset, Bytes into, Status& status) {
  const Status done = co_await device_.read(offset, into);
  if (!done)
    status = done;
}

// What is kept is taken at once, for it may be on its way to the device, and gone from here, before a read of
// the device would have come to it.
Task<Status> WriteBehind::read_around(uint64_t offset, Bytes into) {
  marks::hit(Mark::kept_block_read);
  struct Run {
    uint64_t first = 0, end = 0;
  };
  boost::container::small_vector<Run, 8> runs;
  for (uint64_t at = 0; at < into.size(); at += kBlockSize) {
    const auto found = places_.find(offset + at);
    if (found != places_.end())
      std::ranges::copy(content(found->second), into.begin() + ptrdiff_t(at));
    else if (!runs.empty() && runs.back().end == at)
      runs.back().end += kBlockSize;
    else
      runs.push_back({at, at + kBlockSize});
  }
  Status status;
  Gate gate(executor_);
  for (const Run& run : runs)
    gate.spawn(read_run(offset + run.first, into.subspan(run.first, run.end - run.first), status));
  co_await gate.close();
  co_return status;
}

Task<Status> WriteBehind::write(uint64_t offset, ConstBytes from) {
  return touches(offset, from.size()) ? write_after(offset, from) : device_.write(offset, from);
}

// What is kept goes first: should this write fail, the place holds what it held. What is stuck cannot, and
// stays until this write has succeeded.
Task<Status> WriteBehind::write_after(uint64_t offset, ConstBytes from) {
  marks::hit(Mark::write_waited_for_kept);
  boost::container::small_vector<uint32_t, 16> over;
  for (;;) {
    over.clear();
    bool waits = false;
    for (uint64_t at = offset; at < offset + from.size(); at += kBlockSize) {
      const auto found = places_.find(at);
      if (found == places_.end())
        continue;
      const Kept& kept = kept_[found->second];
      if (kept.stuck && !kept.busy) {
        over.push_back(found->second);
        continue;
      }
      waits = true;
      if (!kept.busy)
        put(found->second);
    }
    if (!waits)
      break;
    if (stopping_)
      co_return fail(ErrorCode::unavailable, "the store is closing");
    co_await changed_.wait();
  }
  for (const uint32_t index : over)
    kept_[index].busy = true;
  const Status status = co_await device_.write(offset, from);
  for (const uint32_t index : over) {
    kept_[index].busy = false;
    if (status)
      drop(index);
  }
  if (!over.empty()) {
    marks::hit(Mark::stuck_block_replaced);
    changed_.notify_all();
  }
  co_return status;
}

Task<Status> WriteBehind::discard(uint64_t offset, uint64_t length) {
  return touches(offset, length) ? discard_after(offset, length) : device_.discard(offset, length);
}

Task<Status> WriteBehind::discard_after(uint64_t offset, uint64_t length) {
  marks::hit(Mark::kept_block_discarded);
  while (!stopping_) {
    for (size_t index = 0; index < kept_.size(); ++index)
      if (const Kept& kept = kept_[index];
          kept.used && !kept.busy && kept.offset >= offset && kept.offset < offset + length)
        drop(index);
    changed_.notify_all();
    if (!touches(offset, length))
      break;
    co_await changed_.wait();
  }
  co_return co_await device_.discard(offset, length);
}

}  // namespace obraz
