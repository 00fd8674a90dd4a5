// bench_open [FOLDER]: how long a store takes from being opened to its first answer, with 1 TiB mapped by a
// disk, an image of it, and 10,000 disks made of that image: after a clean stop, and after the death of the
// process with much in the journal.
//
// The metadata is a file in FOLDER (default: the current one; some 2 GiB), read and written as by the daemon;
// the data device swallows what is written. The first answer is a read of the last disk. Memory is what the
// process has when the store is open, less what it had before.
#include <benchmark/benchmark.h>
#include <malloc.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <string>

#include "harness.h"
#include "null_device.h"
#include "store/store.h"

namespace obraz {
namespace {

constexpr uint64_t kMapped = limits::TiB, kDisks = 10'000, kInJournal = 20'000;
constexpr uint64_t kDataBytes = kMapped + 64 * limits::GiB, kJournalBytes = 64 * limits::MiB;
constexpr uint64_t kPiece = 4 * limits::MiB;

struct Free {
  void operator()(std::byte* bytes) const { std::free(bytes); }
};

uint64_t resident_bytes() {
  uint64_t size = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> size >> resident;
  return resident * 4096;
}

struct Bench {
  bench::Harness harness;
  std::unique_ptr<FileDevice> meta;
  bench::NullDevice data{kDataBytes};
  std::unique_ptr<Store> store;
  std::unique_ptr<std::byte, Free> bytes{static_cast<std::byte*>(std::aligned_alloc(kBlockSize, kPiece))};
  VolumeId last;
  uint64_t crashes = 0;

  Task<Status> open_store() {
    auto opened =
        co_await Store::open(harness.reactor(), *meta, data, {.sum_bytes_per_s = 0, .scrub_bytes_per_s = 0});
    OBRAZ_CO_TRY(opened);
    store = std::move(*opened);
    co_return Status();
  }
  Task<Status> write_all(VolumeId id, uint64_t begin, uint64_t end, uint64_t piece, uint64_t step) {
    Volume volume = *store->open_volume(id);
    for (uint64_t at = begin; at < end; at += step) {
      const Status status = co_await volume.write(at, {bytes.get(), piece});
      OBRAZ_CO_TRY(status);
    }
    co_return co_await volume.flush();
  }
  Task<Status> fill() {
    Status status =
        co_await Store::format(*meta, data, {.uuid = Uuid::random(), .journal_bytes = kJournalBytes});
    OBRAZ_CO_TRY(status);
    status = co_await open_store();
    OBRAZ_CO_TRY(status);
    const VolumeId disk = store->new_volume_id(), image = store->new_volume_id();
    Transaction create;
    create.push_back(CreateVolume{disk, kMapped});
    status = co_await store->commit(std::move(create));
    OBRAZ_CO_TRY(status);
    status = co_await write_all(disk, 0, kMapped, kPiece, kPiece);
    OBRAZ_CO_TRY(status);
    Transaction freeze;
    freeze.push_back(CloneVolume{image, disk, VolumeKind::frozen, kMapped});
    status = co_await store->commit(std::move(freeze));
    for (uint64_t i = 0; i < kDisks && status; ++i) {
      last = store->new_volume_id();
      Transaction clone;
      clone.push_back(CloneVolume{last, image, VolumeKind::disk, kMapped});
      clone.push_back(PutResource{"resource/" + std::to_string(last.value), std::string(300, 'r')});
      status = co_await store->commit(std::move(clone));
    }
    co_return status;
  }
  Task<Status> close() { co_return co_await store->close(); }
  Task<Status> abandon() {
    co_await store->abandon();
    co_return Status();
  }
  Task<Status> first_answer() {
    Status status = co_await open_store();
    OBRAZ_CO_TRY(status);
    Volume volume = *store->open_volume(last);
    co_return co_await volume.read(kMapped / 2, {bytes.get(), kBlockSize});
  }
};

std::optional<Bench> made;

void open(benchmark::State& state, bool clean) {
  uint64_t memory = 0, replayed = 0;
  for (auto _ : state) {
    if (clean) {
      made->harness.run(made->close());
    } else {
      // Each time elsewhere, so that there is something to record.
      made->harness.run(made->write_all(made->last, made->crashes * kInJournal * kClusterSize,
                                        (made->crashes + 1) * kInJournal * kClusterSize, kBlockSize,
                                        kClusterSize));
      ++made->crashes;
      made->harness.run(made->abandon());
    }
    made->store.reset();
    ::malloc_trim(0);  // what the store before had
    const uint64_t before = resident_bytes();
    const auto begin = std::chrono::steady_clock::now();
    made->harness.run(made->first_answer());
    state.SetIterationTime(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    memory = resident_bytes() - std::min(before, resident_bytes());
    replayed = made->store->stats().replayed_records;
  }
  state.counters["MiB"] = double(memory) / double(limits::MiB);
  state.counters["replayed"] = double(replayed);
}

}  // namespace
}  // namespace obraz

int main(int argc, char** argv) {
  using namespace obraz;
  benchmark::Initialize(&argc, argv);
  made.emplace();
  made->meta = made->harness.file(argc > 1 ? argv[1] : ".", "bench_open",
                                  Store::meta_bytes_for(kDataBytes, kJournalBytes));
  made->harness.run(made->fill());
  for (const bool clean : {true, false})
    benchmark::RegisterBenchmark(clean ? "after_a_clean_stop" : "after_a_crash",
                                 [clean](benchmark::State& state) { open(state, clean); })
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
  benchmark::RunSpecifiedBenchmarks();
  made->harness.run(made->close());
  made->store.reset();
  made.reset();
}
