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
#include <fstream>
#include <optional>
#include <string>

#include "null_store.h"

namespace obraz {
namespace {

constexpr uint64_t kMapped = limits::TiB, kDisks = 10'000, kInJournal = 20'000;
constexpr uint64_t kDataBytes = kMapped + 64 * limits::GiB;

uint64_t resident_bytes() {
  uint64_t size = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> size >> resident;
  return resident * 4096;
}

struct Bench : bench::NullStore {
  VolumeId last;
  uint64_t crashes = 0;

  explicit Bench(const std::string& folder) : NullStore(folder, "bench_open", kDataBytes) {}

  Task<Status> fill() {
    Status status = co_await format_and_open();
    OBRAZ_CO_TRY(status);
    const VolumeId disk = store->new_volume_id(), image = store->new_volume_id();
    status = co_await create_disk(disk, kMapped);
    OBRAZ_CO_TRY(status);
    status = co_await write(disk, 0, kMapped, kPiece, kPiece);
    OBRAZ_CO_TRY(status);
    status = co_await clone(image, disk, VolumeKind::frozen);
    for (uint64_t i = 0; i < kDisks && status; ++i) {
      last = store->new_volume_id();
      status = co_await clone(last, image, VolumeKind::disk);
    }
    co_return status;
  }
  Task<Status> abandon() {
    co_await store->abandon();
    co_return Status();
  }
  Task<Status> first_answer() {
    Status status = co_await open();
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
      made->close();
    } else {
      // Each time elsewhere, so that there is something to record.
      made->harness.run(made->write(made->last, made->crashes * kInJournal * kClusterSize,
                                    (made->crashes + 1) * kInJournal * kClusterSize, kBlockSize,
                                    kClusterSize));
      ++made->crashes;
      made->harness.run(made->abandon());
      made->store.reset();
    }
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
  made.emplace(argc > 1 ? argv[1] : ".");
  made->harness.run(made->fill());
  for (const bool clean : {true, false})
    benchmark::RegisterBenchmark(clean ? "after_a_clean_stop" : "after_a_crash",
                                 [clean](benchmark::State& state) { open(state, clean); })
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
  benchmark::RunSpecifiedBenchmarks();
  made->close();
  made.reset();
}
