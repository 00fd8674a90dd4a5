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
#include <cstdlib>
#include <optional>
#include <string>

#include "base/log.h"
#include "harness.h"
#include "null_device.h"
#include "store/store.h"

namespace obraz {
namespace {

constexpr uint64_t kSmall = 1 * limits::MiB, kLarge = 100 * limits::GiB;
constexpr uint64_t kDataBytes = 256 * limits::GiB, kJournalBytes = 64 * limits::MiB;

using bench::Harness;
using bench::must;

struct Bench {
  Harness harness;
  std::unique_ptr<FileDevice> meta;
  bench::NullDevice data{kDataBytes};
  std::unique_ptr<Store> store;
  VolumeId disks[2], images[2];  // of kSmall, of kLarge

  Task<Status> make_disk(VolumeId id, uint64_t mapped) {
    Transaction create;
    create.push_back(CreateVolume{id, std::max(mapped, limits::kMinVolumeSize)});
    Status status = co_await store->commit(std::move(create));
    OBRAZ_CO_TRY(status);
    Volume volume = *store->open_volume(id);
    const uint64_t piece = std::min(mapped, 4 * limits::MiB);
    const std::unique_ptr<std::byte, decltype(&std::free)> bytes(
        static_cast<std::byte*>(std::aligned_alloc(kBlockSize, piece)), std::free);
    for (uint64_t at = 0; at < mapped && status; at += piece)
      status = co_await volume.write(at, {bytes.get(), piece});
    OBRAZ_CO_TRY(status);
    co_return co_await volume.flush();
  }
  Task<Status> clone(VolumeId id, VolumeId source, VolumeKind kind) {
    const uint64_t size_bytes = store->volume_info(source)->size_bytes;
    Transaction create;
    create.push_back(CloneVolume{id, source, kind, size_bytes});
    create.push_back(PutResource{"resource/" + std::to_string(id.value), std::string(300, 'r')});
    co_return co_await store->commit(std::move(create));
  }
  Task<Status> remove(VolumeId id) {
    Transaction remove;
    remove.push_back(DeleteVolume{id});
    remove.push_back(RemoveResource{"resource/" + std::to_string(id.value)});
    co_return co_await store->commit(std::move(remove));
  }
  static Task<Status> open_store(Bench& bench) {
    Status status = co_await Store::format(*bench.meta, bench.data,
                                           {.uuid = Uuid::random(), .journal_bytes = kJournalBytes});
    OBRAZ_CO_TRY(status);
    auto opened = co_await Store::open(bench.harness.reactor(), *bench.meta, bench.data,
                                       {.sum_bytes_per_s = 0, .scrub_bytes_per_s = 0});
    OBRAZ_CO_TRY(opened);
    bench.store = std::move(*opened);
    for (unsigned i = 0; i < 2 && status; ++i) {
      bench.disks[i] = bench.store->new_volume_id();
      bench.images[i] = bench.store->new_volume_id();
      status = co_await bench.make_disk(bench.disks[i], i == 0 ? kSmall : kLarge);
      if (status)
        status = co_await bench.clone(bench.images[i], bench.disks[i], VolumeKind::frozen);
    }
    co_return status;
  }
};

std::optional<Bench> stores;

void create(benchmark::State& state, VolumeId source, VolumeKind kind) {
  for (auto _ : state) {
    const VolumeId id = stores->store->new_volume_id();
    const auto begin = std::chrono::steady_clock::now();
    stores->harness.run(stores->clone(id, source, kind));
    state.SetIterationTime(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    stores->harness.run(stores->remove(id));
  }
}

}  // namespace
}  // namespace obraz

int main(int argc, char** argv) {
  using namespace obraz;
  benchmark::Initialize(&argc, argv);
  stores.emplace();
  stores->meta = stores->harness.file(argc > 1 ? argv[1] : ".", "bench_create",
                                      Store::meta_bytes_for(kDataBytes, kJournalBytes));
  stores->harness.run(Bench::open_store(*stores));
  const char* sizes[] = {"1MiB", "100GiB"};
  for (unsigned i = 0; i < 2; ++i) {
    const auto add = [&](const char* what, VolumeId source, VolumeKind kind) {
      benchmark::RegisterBenchmark((std::string(what) + "/" + sizes[i]).c_str(),
                                   [=](benchmark::State& state) { create(state, source, kind); })
          ->UseManualTime()
          ->Unit(benchmark::kMicrosecond);
    };
    add("disk_from_image", stores->images[i], VolumeKind::disk);
    add("snapshot_of_disk", stores->disks[i], VolumeKind::frozen);
    add("image_from_image", stores->images[i], VolumeKind::frozen);
  }
  benchmark::RunSpecifiedBenchmarks();
  stores->harness.run(stores->store->close());
  stores->store.reset();
  stores.reset();
}
