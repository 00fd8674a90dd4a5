#include "store/write_behind.h"

#include <algorithm>
#include <boost/container/small_vector.hpp>

#include "store/marks.h"

namespace obraz {
namespace {

constexpr uint64_t kPutAtOnce = 8;  // in the background: others want the device, too

}  // namespace

WriteBehind::WriteBehind(Executor& executor, Device& device, uint64_t most_blocks)
    : executor_(executor),
      device_(device),
      kept_(most_blocks),
      contents_(most_blocks * kBlockSize),
      changed_(executor),
      gate_(executor) {
  for (size_t index = most_blocks; index-- > 0;)
    free_.push_back(uint32_t(index));
  places_.reserve(most_blocks * 2);
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
    if (found == places_.end() || kept_[found->second].writing)
      return false;
  }
  return true;
}

bool WriteBehind::write_later(uint64_t offset, ConstBytes from) {
  OBRAZ_CHECK(offset % kBlockSize == 0 && from.size() % kBlockSize == 0);
  // A write that may find no space must be able to say so to whoever asked for it.
  if (stopping_ || !error_ || !device_.can_allocate())
    return false;
  size_t fresh = 0;
  for (uint64_t at = offset; at < offset + from.size(); at += kBlockSize) {
    const auto found = places_.find(at);
    if (found != places_.end() && kept_[found->second].writing)  // the device reads that memory
      return false;
    fresh += found == places_.end();
  }
  if (fresh > free_.size())
    return false;
  marks::hit(fresh > 0 ? Mark::write_kept : Mark::kept_block_replaced);
  for (; !from.empty(); from = from.subspan(kBlockSize), offset += kBlockSize) {
    auto found = places_.find(offset);
    if (found == places_.end()) {
      found = places_.emplace(offset, free_.back()).first;
      free_.pop_back();
      kept_[found->second] = {offset, next_number_++, true, false};
    }
    std::copy_n(from.data(), kBlockSize, content(found->second).data());
  }
  if (is_crowded() && !thinning_)
    gate_.spawn(thin_out());
  return true;
}

// --- writing what is kept
// ----------------------------------------------------------------------------------------------------------

void WriteBehind::put(size_t index) {
  kept_[index].writing = true;
  ++writing_;
  gate_.spawn(put_now(index));
}

Task<void> WriteBehind::put_now(size_t index) {
  const Status status = co_await device_.write(kept_[index].offset, content(index));
  --writing_;
  kept_[index].writing = false;
  if (status) {
    places_.erase(kept_[index].offset);
    kept_[index].used = false;
    free_.push_back(uint32_t(index));
  } else if (error_) {
    error_ = status;
  }
  changed_.notify_all();
}

// Many at a time, and then none for a while: between them a flush of the device has little to do.
Task<void> WriteBehind::thin_out() {
  thinning_ = true;
  marks::hit(Mark::kept_blocks_thinned_out);
  while (!stopping_ && error_ && !is_thinned()) {
    const Kept* oldest = nullptr;
    for (const Kept& kept : kept_)
      if (kept.used && !kept.writing && (!oldest || kept.number < oldest->number))
        oldest = &kept;
    if (oldest && writing_ < kPutAtOnce)
      put(size_t(oldest - kept_.data()));
    else
      co_await changed_.wait();
  }
  thinning_ = false;
}

Task<Status> WriteBehind::flush() {
  return places_.empty() && error_ ? device_.flush() : flush_kept();
}

Task<Status> WriteBehind::flush_kept() {
  const uint64_t mark = next_number_;
  const auto any = [this, mark] {
    return std::ranges::any_of(kept_, [mark](const Kept& kept) { return kept.used && kept.number < mark; });
  };
  if (stopping_)
    co_return fail(ErrorCode::unavailable, "the store is closing");
  for (size_t index = 0; index < kept_.size(); ++index)
    if (kept_[index].used && !kept_[index].writing)
      put(index);
  while (error_ && any())
    co_await changed_.wait();
  if (!error_)
    co_return error_;
  co_return co_await device_.flush();
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

// What is kept goes first: should this write fail, the place holds what it held.
Task<Status> WriteBehind::write_after(uint64_t offset, ConstBytes from) {
  marks::hit(Mark::write_waited_for_kept);
  while (error_ && !stopping_ && touches(offset, from.size())) {
    for (uint64_t at = offset; at < offset + from.size(); at += kBlockSize)
      if (const auto found = places_.find(at); found != places_.end() && !kept_[found->second].writing)
        put(found->second);
    co_await changed_.wait();
  }
  if (!error_)
    co_return error_;
  if (touches(offset, from.size()))
    co_return fail(ErrorCode::unavailable, "the store is closing");
  co_return co_await device_.write(offset, from);
}

Task<Status> WriteBehind::discard(uint64_t offset, uint64_t length) {
  return touches(offset, length) ? discard_after(offset, length) : device_.discard(offset, length);
}

Task<Status> WriteBehind::discard_after(uint64_t offset, uint64_t length) {
  marks::hit(Mark::kept_block_discarded);
  for (Kept& kept : kept_)
    if (kept.used && !kept.writing && kept.offset >= offset && kept.offset < offset + length) {
      places_.erase(kept.offset);
      kept.used = false;
      free_.push_back(uint32_t(&kept - kept_.data()));
    }
  changed_.notify_all();
  while (error_ && !stopping_ && touches(offset, length))
    co_await changed_.wait();
  co_return co_await device_.discard(offset, length);
}

}  // namespace obraz
