#include "image/export.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

#include "base/limits.h"
#include "image/block_runs.h"
#include "image/export_file.h"
#include "image/export_sink.h"
#include "image/volume_access.h"
#include "image/volume_walk.h"

namespace obraz {
namespace {

constexpr uint64_t kChunk = VolumeWalk::kChunk;

class Exporter {
 public:
  Exporter(VolumeAccess& access, Progress& progress, const StopSignal& stop)
      : access_(access),
        progress_(progress),
        stop_(stop),
        walk_(access),
        memory_(kChunk * limits::kImportRequests) {
    for (size_t i = 0; i < slots_.size(); ++i)
      slots_[i].buffer = memory_.bytes().subspan(i * kChunk, kChunk);
  }

  Answer<void> run(int fd, ImageFormat format) {
    OBRAZ_ASK(walk_.begin());
    progress_.bytes_total = walk_.size_bytes();
    auto sink = ExportSink::open(fd, format, walk_.size_bytes(), stop_);
    if (!sink)
      return std::unexpected(std::move(sink.error()));
    sink_ = std::move(*sink);
    progress_.phase = CopyPhase::copying;
    auto answer = copy();
    if (!answer)
      sink_.reset();  // before the buffers can go
    access_.drain();
    OBRAZ_ASK(std::move(answer));
    progress_.phase = CopyPhase::flushing;
    return sink_->finish(stop_);
  }

 private:
  struct Slot {
    enum class State { idle, reading, writing } state = State::idle;
    Bytes buffer;
    uint64_t offset = 0, length = 0;
    VolumeAccess::Operation read;
    std::vector<BlockRun> runs;
    size_t next_run = 0;
    Transfer write;
  };

  Answer<void> copy() {
    for (bool ended = false;;) {
      access_.collect();
      size_t reading = 0, writing = 0;
      for (Slot& slot : slots_) {
        OBRAZ_ASK(settle(slot));
        if (slot.state == Slot::State::idle && !ended) {
          if (stop_.requested())
            return refuse_cancelled();
          OBRAZ_ASK(read_next(slot));
          ended = slot.state == Slot::State::idle;
        }
        reading += slot.state == Slot::State::reading;
        writing += slot.state == Slot::State::writing;
      }
      if (reading + writing == 0)
        return {};
      OBRAZ_ASK(writing > 0 ? sink_->wait(stop_, access_.fd()) : access_.wait(stop_));
    }
  }

  // Starts to read the next chunk of data into the slot; leaves it idle at the end of the volume.
  Answer<void> read_next(Slot& slot) {
    const auto chunk = walk_.next(progress_, stop_);
    if (!chunk)
      return std::unexpected(chunk.error());
    if (chunk->length == 0)
      return {};
    slot.offset = chunk->offset;
    slot.length = chunk->length;
    slot.state = Slot::State::reading;
    slot.read.start = [&slot](Volume& volume) {
      return volume.read(slot.offset, slot.buffer.first(slot.length));
    };
    access_.start(slot.read);
    return {};
  }

  // Takes a slot as far as it gets without waiting: from its read through its writes to rest.
  Answer<void> settle(Slot& slot) {
    if (slot.state == Slot::State::reading && slot.read.done) {
      if (!slot.read.status)
        return refuse_error(slot.read.status.error(), fmt::format("read the volume at byte {}", slot.offset));
      slot.runs = data_runs(slot.buffer.first(slot.length));
      slot.next_run = 0;
      slot.write.done = true;
      slot.write.os_error = 0;
      slot.state = Slot::State::writing;
    }
    while (slot.state == Slot::State::writing && slot.write.done) {
      if (slot.write.os_error != 0)
        return refuse_os(slot.write.os_error, "path",
                         fmt::format("write the file at byte {}", slot.write.offset));
      if (slot.next_run == slot.runs.size()) {
        progress_.bytes_done += slot.length;
        slot.state = Slot::State::idle;
        break;
      }
      const BlockRun run = slot.runs[slot.next_run++];
      slot.write = {.offset = slot.offset + run.offset, .bytes = slot.buffer.subspan(run.offset, run.length)};
      OBRAZ_ASK(sink_->start_write(slot.write));
      progress_.bytes_written += run.length;
    }
    return {};
  }

  VolumeAccess& access_;
  Progress& progress_;
  const StopSignal& stop_;
  std::unique_ptr<ExportSink> sink_;
  VolumeWalk walk_;
  AlignedBytes memory_;
  std::array<Slot, limits::kImportRequests> slots_;
};

}  // namespace

Answer<void> export_volume(Reactor& reactor, Volume source, const ExportTarget& target, Progress& progress,
                           std::stop_token token) {
  const StopSignal stop(std::move(token));
  VolumeAccess access(reactor, std::move(source));
  auto file = ExportFile::create(target.path, target.as);
  if (!file)
    return std::unexpected(std::move(file.error()));
  OBRAZ_ASK(Exporter(access, progress, stop).run(file->fd(), target.format));
  if (stop.requested())
    return refuse_cancelled();
  OBRAZ_ASK(file->commit());
  progress.phase = CopyPhase::done;
  return {};
}

}  // namespace obraz
