#include "store/journal.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"
#include "store/marks.h"

namespace obraz {

using disk::BatchHeader;
using disk::kPageSize;

namespace {

constexpr uint64_t kLandedRoom = 2 * Journal::cost_of(limits::kMaxStuckBlocks * disk::kBlockRecordSize);

}  // namespace

AlignedBytes::AlignedBytes(size_t size) : size_(round_up(size, kBlockSize)) {
  data_.reset(static_cast<std::byte*>(std::aligned_alloc(kBlockSize, size_)));
  OBRAZ_CHECK(data_);
  std::memset(data_.get(), 0, size_);
}

void AlignedBytes::Free::operator()(std::byte* data) const {
  std::free(data);
}

Journal::Journal(Device& meta, const disk::Superblock& s)
    : meta_(meta),
      uuid_(s.uuid),
      size_(s.journal_bytes),
      run_(s.run),
      position_(s.journal_position),
      tail_(s.journal_position),
      sequence_(s.sequence),
      chain_(s.chain) {}

bool Journal::try_reserve(uint64_t cost) {
  if (used() + reserved_ + cost > size_)
    return false;
  reserved_ += cost;
  return true;
}

uint64_t Journal::staged_bytes() const {
  return full_batches_bytes_ + (batches_.empty() ? 0 : cost_of(batches_.back().size()));
}

void Journal::stage(std::span<const disk::Record> records) {
  size_t size = 0;
  for (const auto& record : records)
    size += disk::encoded_size(record);
  OBRAZ_CHECK(size <= kMaxRecordBytes);
  if (batches_.size() == closed_ || batches_.back().size() + size > kMaxRecordBytes) {
    full_batches_bytes_ = staged_bytes();
    batches_.push_back(std::exchange(spare_batch_, {}));
  }
  for (const auto& record : records)
    disk::encode(record, batches_.back());
}

bool Journal::can_carry(size_t blocks) const {
  if (batches_.size() > 1)
    return false;
  const uint64_t size = blocks * disk::kBlockRecordSize + (batches_.empty() ? 0 : batches_.back().size());
  const uint64_t kept = carries_ ? 0 : kLandedRoom;
  return size <= kMaxRecordBytes && position_ - tail_ + reserved_ + cost_of(size) + kept <= size_;
}

bool Journal::can_carry_on(size_t blocks) const {
  return used() + cost_of(blocks * disk::kBlockRecordSize) <= size_;
}

Journal::Sealed Journal::seal(bool landed, std::span<const disk::BlockRecord> blocks) {
  head_.clear();
  if (landed)
    disk::encode(disk::LandedRecord{}, head_);
  for (const auto& block : blocks)
    disk::encode(block, head_);
  // A batch of their own where there is none with room for them.
  if (!head_.empty() &&
      (closed_ == 0 || head_.size() + batches_.front().size() > kMaxRecordBytes + disk::kLandedRecordSize)) {
    batches_.insert(batches_.begin(), std::exchange(spare_batch_, {}));
    ++closed_;
  }
  const bool carries = !blocks.empty() || (carries_ && !landed);
  if (carries_ && !carries)
    reserved_ -= kLandedRoom;
  if (!carries_ && carries)
    reserved_ += kLandedRoom;
  carries_ = carries;
  Sealed sealed;
  sealed.position = position_;
  if (const uint64_t most = staged_bytes() + cost_of(head_.size()); sealed_.size() < most)
    sealed_ = AlignedBytes(most);
  sealed.batches = closed_;
  size_t at = 0;
  const Sequence durable = sequence_;  // one commit at a time: those before have ended
  for (const auto& batch : std::span(batches_).first(closed_)) {
    const Bytes bytes = sealed_.bytes().subspan(at, BatchHeader::kSize + head_.size() + batch.size());
    auto end = std::ranges::copy(head_, bytes.begin() + BatchHeader::kSize).out;
    std::ranges::copy(batch, end);
    head_.clear();
    ++sequence_.value;
    chain_ = disk::seal_batch(uuid_, {sequence_, position_, run_, chain_, durable, 0, 0}, bytes);
    const size_t padded = round_up(bytes.size(), kPageSize);
    std::ranges::fill(sealed_.bytes().subspan(at + bytes.size(), padded - bytes.size()), std::byte{0});
    at += padded;
    position_ += padded;
  }
  sealed.bytes = sealed_.bytes().first(at);
  OBRAZ_CHECK(position_ - tail_ <= size_);
  if (sealed.batches > 1)
    marks::hit(Mark::journal_several_batches);
  if (closed_ > 0) {
    spare_batch_ = std::move(batches_.front());
    spare_batch_.clear();
  }
  batches_.erase(batches_.begin(), batches_.begin() + ptrdiff_t(std::exchange(closed_, 0)));
  full_batches_bytes_ = 0;
  for (size_t i = 0; i + 1 < batches_.size(); ++i)
    full_batches_bytes_ += cost_of(batches_[i].size());
  return sealed;
}

// One or, around the end of the ring, two device operations.
Task<Status> Journal::transfer(uint64_t position, Bytes bytes, Way way) {
  while (!bytes.empty()) {
    const uint64_t length = std::min<uint64_t>(bytes.size(), size_ - position % size_);
    const bool last = length == bytes.size();
    if (!last)
      marks::hit(way == Way::read ? Mark::journal_read_wrapped : Mark::journal_write_wrapped);
    Status status;
    if (way == Way::read)
      status = co_await meta_.read(place(position), bytes.first(length));
    else if (last)
      status = co_await meta_.write_and_flush(place(position), bytes.first(length));
    else
      status = co_await meta_.write(place(position), bytes.first(length));
    OBRAZ_CO_TRY(status);
    bytes = bytes.subspan(length);
    position += length;
  }
  co_return Status();
}

Task<Status> Journal::write_and_flush(const Sealed& sealed) {
  return transfer(sealed.position, sealed.bytes, Way::write_and_flush);
}

Task<Result<Journal::Batch>> Journal::read_next() {
  Batch batch;
  if (position_ - tail_ + kPageSize > size_)
    co_return std::move(batch);
  AlignedBytes first(kPageSize);
  Status status = co_await transfer(position_, first.bytes(), Way::read);
  OBRAZ_CO_TRY(status);
  const auto header = disk::decode_batch_header(uuid_, first.bytes());
  if (!header || header->run != run_ || header->position != position_ ||
      header->sequence.value != sequence_.value + 1 || header->chain != chain_) {
    if (header)
      marks::hit(Mark::journal_stale_tail);
    co_return std::move(batch);
  }
  const uint64_t padded = round_up(header->length_bytes, kPageSize);
  if (position_ - tail_ + padded > size_)
    co_return std::move(batch);
  AlignedBytes all(padded);
  status = co_await transfer(position_, all.bytes(), Way::read);
  OBRAZ_CO_TRY(status);
  if (!disk::batch_verifies(*header, all.bytes().first(header->length_bytes))) {
    marks::hit(Mark::journal_torn_tail);
    co_return std::move(batch);
  }
  ConstBytes rest = all.bytes().subspan(BatchHeader::kSize, header->length_bytes - BatchHeader::kSize);
  while (!rest.empty()) {
    auto record = disk::decode_record(rest);
    if (!record)
      co_return Failure(record.error());
    batch.records.push_back(std::move(*record));
  }
  if (batch.records.empty())
    co_return fail(ErrorCode::corruption, "journal: an empty batch");
  sequence_ = header->sequence;
  chain_ = header->checksum;
  position_ += padded;
  batch.bytes = std::move(all);
  co_return std::move(batch);
}

Task<Status> Journal::check_end() {
  constexpr uint64_t kChunk = limits::MiB;
  AlignedBytes chunk(kChunk);
  const uint64_t end = tail_ + size_;
  for (uint64_t at = position_ + kPageSize; at + kPageSize <= end;) {
    const uint64_t length = std::min(kChunk, end - at);
    Status status = co_await transfer(at, chunk.bytes().first(length), Way::read);
    OBRAZ_CO_TRY(status);
    for (uint64_t unit = 0; unit < length; unit += kPageSize) {
      const auto header = disk::decode_batch_header(uuid_, chunk.bytes().subspan(unit, kPageSize));
      if (!header || header->run != run_ || header->position != at + unit || header->durable <= sequence_ ||
          header->sequence <= header->durable || at + unit + header->length_bytes > end)
        continue;
      AlignedBytes all(round_up(header->length_bytes, kPageSize));
      status = co_await transfer(at + unit, all.bytes(), Way::read);
      OBRAZ_CO_TRY(status);
      if (!disk::batch_verifies(*header, all.bytes().first(header->length_bytes)))
        continue;
      log::error("journal: batch {} at page {} of meta is damaged or missing, and batch {} after it is whole",
                 sequence_.value + 1, place(position_) / kPageSize, header->sequence.value);
      co_return fail(ErrorCode::corruption, "journal: a batch that was durable is damaged");
    }
    at += length;
  }
  co_return Status();
}

}  // namespace obraz
