#include "image/copy.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <vector>

#include "base/limits.h"
#include "image/block_runs.h"
#include "image/volume_access.h"

namespace obraz {
namespace {

constexpr uint64_t kChunk = limits::kImportRequestSize;

Task<Status> write_runs(Volume& volume, uint64_t offset, ConstBytes bytes,
                        const std::vector<BlockRun>& runs) {
  for (size_t i = 0; i < runs.size(); ++i) {
    const BlockRun run = runs[i];
    Status status = co_await volume.write(offset + run.offset, bytes.subspan(run.offset, run.length));
    OBRAZ_CO_TRY(status);
  }
  co_return Status();
}

Task<Status> tell_size(Volume& volume, uint64_t& size_bytes) {
  size_bytes = volume.size_bytes();
  co_return Status();
}

// The next piece of the source to read: runs of data, cut into chunks of whole units; zeros are passed over.
class ChunkWalk {
 public:
  explicit ChunkWalk(ImportSource& source)
      : source_(source),
        unit_(std::max(kBlockSize, source.alignment())),
        most_(round_down(std::min(kChunk, source.max_request()), unit_)) {}

  struct Chunk {
    uint64_t offset = 0, length = 0;  // length 0: the end
  };
  Answer<Chunk> next(Progress& progress, const StopSignal& stop) {
    const uint64_t size = source_.size_bytes();
    while (at_ < size) {
      if (index_ == extents_.size()) {
        extents_.clear();
        index_ = 0;
        OBRAZ_ASK(source_.extents(at_, size - at_, extents_, stop));
      }
      const SourceExtent& extent = extents_[index_];
      const uint64_t end = extent.offset + extent.length;
      if (end <= at_) {
        ++index_;
        continue;
      }
      if (extent.zero) {
        const uint64_t whole = end == size ? size : round_down(end, unit_);
        if (whole > at_) {
          progress.bytes_done += whole - at_;
          at_ = whole;
          continue;
        }
      }
      // Of zeros that end inside a unit, that unit is read; of data, up to the end of its last unit.
      const uint64_t boundary = at_ / kChunk * kChunk + kChunk;
      const uint64_t wanted = std::min({round_up(end, unit_), boundary, at_ + most_, size});
      const Chunk chunk{at_, wanted - at_};
      at_ = wanted;
      return chunk;
    }
    return Chunk{size, 0};
  }

 private:
  ImportSource& source_;
  const uint64_t unit_, most_;
  std::vector<SourceExtent> extents_;
  size_t index_ = 0;
  uint64_t at_ = 0;  // everything before has been handed out or passed over; a multiple of unit_, or the end
};

class Copier {
 public:
  Copier(ImportSource& source, Reactor& reactor, Volume target, Progress& progress, const StopSignal& stop)
      : source_(source),
        access_(reactor, std::move(target)),
        progress_(progress),
        stop_(stop),
        walk_(source),
        memory_(kChunk * limits::kImportRequests) {
    for (size_t i = 0; i < slots_.size(); ++i)
      slots_[i].buffer = memory_.bytes().subspan(i * kChunk, kChunk);
  }

  Answer<void> run() {
    auto answer = copy();
    if (!answer)
      source_.abandon();  // before the buffers can go
    access_.drain();
    if (!answer)
      return answer;
    progress_.phase = CopyPhase::flushing;
    const Status flushed = access_.run([](Volume& volume) { return volume.flush(); });
    if (!flushed)
      return refuse_error(flushed.error(), "make the import durable");
    OBRAZ_ASK(source_.finish());
    progress_.phase = CopyPhase::done;
    return {};
  }

 private:
  struct Slot {
    enum class State { idle, reading, writing } state = State::idle;
    Bytes buffer;
    Transfer read;
    std::vector<BlockRun> runs;
    VolumeAccess::Operation write;
  };

  Answer<void> copy() {
    OBRAZ_ASK(check_target());
    for (bool ended = false;;) {
      access_.collect();
      size_t reading = 0, writing = 0;
      for (Slot& slot : slots_) {
        OBRAZ_ASK(settle(slot));
        while (slot.state == Slot::State::idle && !ended) {
          if (stop_.requested())
            return refuse_cancelled();
          const auto chunk = walk_.next(progress_, stop_);
          if (!chunk)
            return std::unexpected(chunk.error());
          ended = chunk->length == 0;
          if (!ended)
            OBRAZ_ASK(read(slot, *chunk));
        }
        reading += slot.state == Slot::State::reading;
        writing += slot.state == Slot::State::writing;
      }
      if (reading + writing == 0)
        return {};
      OBRAZ_ASK(reading > 0 ? source_.wait(stop_, access_.fd()) : access_.wait(stop_));
    }
  }

  Answer<void> check_target() {
    uint64_t size = 0;
    const Status told = access_.run([&size](Volume& volume) { return tell_size(volume, size); });
    if (!told)
      return refuse_error(told.error(), "import into the new volume");
    OBRAZ_CHECK(size >= round_up(source_.size_bytes(), kBlockSize));
    progress_.bytes_total = source_.size_bytes();
    progress_.phase = CopyPhase::copying;
    return {};
  }

  Answer<void> read(Slot& slot, const ChunkWalk::Chunk& chunk) {
    slot.read = {.offset = chunk.offset, .bytes = slot.buffer.first(chunk.length)};
    slot.state = Slot::State::reading;
    OBRAZ_ASK(source_.start_read(slot.read));
    return settle(slot);
  }

  // Takes a slot as far as it gets without waiting: from its read to its write to rest.
  Answer<void> settle(Slot& slot) {
    if (slot.state == Slot::State::reading && slot.read.done) {
      if (slot.read.os_error == EPIPE)
        return refuse(ErrorCode::failed_precondition, "source", "the source was shortened while it was read");
      if (slot.read.os_error != 0)
        return std::unexpected(source_.explain_failed(slot.read));
      if (slot.read.offset == 0)
        OBRAZ_ASK(source_.check_beginning(slot.read.bytes));
      start_write(slot);
    }
    if (slot.state == Slot::State::writing && slot.write.done) {
      if (!slot.write.status)
        return refuse_error(slot.write.status.error(),
                            fmt::format("write the image at byte {}", slot.read.offset));
      for (const BlockRun& run : slot.runs)
        progress_.bytes_written += run.length;
      rest(slot);
    }
    return {};
  }

  void start_write(Slot& slot) {
    // The end of a source may lie inside a block; the volume goes on with zeros.
    const size_t length = slot.read.bytes.size(), whole = round_up(length, kBlockSize);
    std::ranges::fill(slot.buffer.subspan(length, whole - length), std::byte(0));
    slot.runs = data_runs(slot.buffer.first(whole));
    if (slot.runs.empty()) {
      rest(slot);
      return;
    }
    slot.state = Slot::State::writing;
    slot.write.start = [&slot](Volume& volume) {
      return write_runs(volume, slot.read.offset, slot.buffer, slot.runs);
    };
    access_.start(slot.write);
  }

  void rest(Slot& slot) {
    progress_.bytes_done += slot.read.bytes.size();
    slot.state = Slot::State::idle;
  }

  ImportSource& source_;
  VolumeAccess access_;
  Progress& progress_;
  const StopSignal& stop_;
  ChunkWalk walk_;
  AlignedBytes memory_;
  std::array<Slot, limits::kImportRequests> slots_;
};

}  // namespace

Answer<void> copy_to_volume(ImportSource& source, Reactor& reactor, Volume target, Progress& progress,
                            std::stop_token token) {
  const StopSignal stop(std::move(token));
  return Copier(source, reactor, std::move(target), progress, stop).run();
}

}  // namespace obraz
