// bench_create [FOLDER]: how long disk, snapshot and image creation take when the source maps 1 MiB, and when
// it maps 100 GiB (property P1: the same).
//
// The metadata is a file in FOLDER (default: the current one), written and flushed as by the daemon; the data
// device swallows what is written, since creation reads and writes no data, and 100 GiB would not fit most
// machines. Each creation is one transaction (volume and resource, as the catalog makes it) from the call to
// its being durable; the deletion that follows each is not timed. Medians are the thing to look at
// (--benchmark_repetitions=9 --benchmark_report_aggregates_only=true).
#include <benchmark/benchmark.h>

#include <chrono>
#include <optional>
#include <string>

#include "null_store.h"

namespace obraz {
namespace {

constexpr uint64_t kSmall = 1 * limits::MiB, kLarge = 100 * limits::GiB;
constexpr uint64_t kDataBytes = 256 * limits::GiB;

struct Bench : bench::NullStore {
  VolumeId disks[2], images[2];  // of kSmall, of kLarge

  explicit Bench(const std::string& folder) : NullStore(folder, "bench_create", kDataBytes) {}

  Task<Status> remove(VolumeId id) {
    Transaction remove;
    remove.push_back(DeleteVolume{id});
    remove.push_back(RemoveResource{"resource/" + std::to_string(id.value)});
    co_return co_await store->commit(std::move(remove));
  }
  Task<Status> fill() {
    Status status = co_await format_and_open();
    for (unsigned i = 0; i < 2 && status; ++i) {
      const uint64_t mapped = i == 0 ? kSmall : kLarge, piece = std::min(mapped, kPiece);
      disks[i] = store->new_volume_id();
      images[i] = store->new_volume_id();
      status = co_await create_disk(disks[i], std::max(mapped, limits::kMinVolumeSize));
      OBRAZ_CO_TRY(status);
      status = co_await write(disks[i], 0, mapped, piece, piece);
      OBRAZ_CO_TRY(status);
      status = co_await clone(images[i], disks[i], VolumeKind::frozen);
    }
    co_return status;
  }
};

std::optional<Bench> made;

void create(benchmark::State& state, VolumeId source, VolumeKind kind) {
  for (auto _ : state) {
    const VolumeId id = made->store->new_volume_id();
    const auto begin = std::chrono::steady_clock::now();
    made->harness.run(made->clone(id, source, kind));
    state.SetIterationTime(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    made->harness.run(made->remove(id));
  }
}

}  // namespace
}  // namespace obraz

int main(int argc, char** argv) {
  using namespace obraz;
  benchmark::Initialize(&argc, argv);
  made.emplace(argc > 1 ? argv[1] : ".");
  made->harness.run(made->fill());
  const char* sizes[] = {"1MiB", "100GiB"};
  for (unsigned i = 0; i < 2; ++i) {
    const auto add = [&](const char* what, VolumeId source, VolumeKind kind) {
      benchmark::RegisterBenchmark((std::string(what) + "/" + sizes[i]).c_str(),
                                   [=](benchmark::State& state) { create(state, source, kind); })
          ->UseManualTime()
          ->Unit(benchmark::kMicrosecond);
    };
    add("disk_from_image", made->images[i], VolumeKind::disk);
    add("snapshot_of_disk", made->disks[i], VolumeKind::frozen);
    add("image_from_image", made->images[i], VolumeKind::frozen);
  }
  benchmark::RunSpecifiedBenchmarks();
  made->close();
  made.reset();
}
