// bench_read [FOLDER]: what verifying checksums costs a read of an image, and what the cache of clones saves
// and costs. The same image lies in several stores on files in FOLDER (default: the current one): without and
// with checksums, both without the cache; with checksums and a cache that holds all of it (cached), or a
// small part, so that nearly every read fills it and evicts from it (filling); and as a disk's own data with
// the cache on, which then has nothing to do (private; compare with none). 4 KiB at random places, one or 32
// at a time, 128 KiB, and 1 MiB one after the other, four at a time. And with a node cache of 256 KiB, which
// holds neither the mapping nor the checksums. Time is of one read; CPU is the time of the one thread that
// does all of it.
//
// Compare within one run: --benchmark_repetitions=9 --benchmark_enable_random_interleaving=true
// --benchmark_report_aggregates_only=true, and the medians.
#include <benchmark/benchmark.h>

#include <time.h>

#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "harness.h"
#include "store/store.h"

namespace obraz {
namespace {

using bench::Harness;
using bench::must;

constexpr uint64_t kImageBytes = 1 * limits::GiB;
constexpr uint64_t kDataBytes = 2 * limits::GiB, kJournalBytes = 64 * limits::MiB;

struct Memory {
  explicit Memory(size_t size)
      : bytes(static_cast<std::byte*>(std::aligned_alloc(kBlockSize, size)), std::free), size(size) {
    std::mt19937_64 random(size);
    for (size_t i = 0; i < size; i += 8)
      store_le<uint64_t>(bytes.get() + i, random());
  }
  std::unique_ptr<std::byte, decltype(&std::free)> bytes;
  size_t size;
};

struct Kind {
  const char* name;
  bool checksums = false;
  uint64_t clone_cache = 0;
  bool shared = true;
};

constexpr Kind kKinds[] = {{"none"},
                           {"checksums", true},
                           {"cached", true, 2 * limits::GiB},
                           {"filling", true, 32 * limits::MiB},
                           {"private", false, 2 * limits::GiB, false}};

struct OneStore {
  Kind kind;
  std::unique_ptr<FileDevice> meta, data;
  std::unique_ptr<Store> store;
  VolumeId image;

  Task<Status> open(Harness* harness, uint64_t node_cache) {
    StoreOptions options;
    options.clone_cache_bytes = kind.clone_cache;
    options.clones_kept_for_one = limits::TiB;
    options.sum_bytes_per_s = kind.checksums ? limits::TiB : 0;
    options.scrub_bytes_per_s = 0;
    options.node_cache_bytes = node_cache;
    auto opened = co_await Store::open(harness->reactor(), *meta, *data, options);
    OBRAZ_CO_TRY(opened);
    store = std::move(*opened);
    co_return Status();
  }
  Task<Status> make(Harness* harness) {
    Status status =
        co_await Store::format(*meta, *data, {.uuid = Uuid::random(), .journal_bytes = kJournalBytes});
    OBRAZ_CO_TRY(status);
    status = co_await open(harness, limits::kDefaultNodeCacheSize);
    OBRAZ_CO_TRY(status);
    const VolumeId disk = store->new_volume_id();
    image = store->new_volume_id();
    Transaction create;
    create.push_back(CreateVolume{disk, kImageBytes});
    status = co_await store->commit(std::move(create));
    OBRAZ_CO_TRY(status);
    Volume volume = *store->open_volume(disk);
    const Memory piece(4 * limits::MiB);
    for (uint64_t at = 0; at < kImageBytes && status; at += piece.size)
      status = co_await volume.write(at, {piece.bytes.get(), piece.size});
    OBRAZ_CO_TRY(status);
    if (!kind.shared) {
      image = disk;
      co_return co_await store->checkpoint();
    }
    Transaction clone;
    clone.push_back(CloneVolume{image, disk, VolumeKind::frozen, kImageBytes});
    status = co_await store->commit(std::move(clone));
    OBRAZ_CO_TRY(status);
    Timer timer(harness->reactor());
    while (kind.checksums && !store->volume_info(image)->summed)
      co_await timer.wait_us(1000);
    volume = *store->open_volume(image);
    for (uint64_t at = 0; at < kImageBytes && status; at += limits::kMaxCachedRead)
      status = co_await volume.read(at, {piece.bytes.get(), limits::kMaxCachedRead});
    OBRAZ_CO_TRY(status);
    co_return co_await store->checkpoint();
  }
  Task<Status> open_again(Harness* harness, uint64_t node_cache) {
    const Status status = co_await store->close();
    OBRAZ_CO_TRY(status);
    store.reset();
    co_return co_await open(harness, node_cache);
  }
};

struct Work {
  uint64_t length, at_once;
  bool random;
};

Task<void> reader(Volume volume, Work work, uint64_t* next, uint64_t reads, std::mt19937_64* random,
                  Bytes into, Status* status) {
  while (*next < reads && *status) {
    const uint64_t number = (*next)++;
    const uint64_t place = work.random ? (*random)() : number;
    const Status read = co_await volume.read(place % (kImageBytes / work.length) * work.length, into);
    if (!read)
      *status = read;
  }
}

Task<Status> read_some(Harness* harness, Volume volume, Work work, uint64_t reads, std::mt19937_64* random,
                       const Memory* memory) {
  Status status;
  uint64_t next = 0;
  Gate gate(harness->reactor());
  for (uint64_t i = 0; i < work.at_once; ++i)
    gate.spawn(reader(volume, work, &next, reads, random,
                      Bytes(memory->bytes.get() + i * work.length, work.length), &status));
  co_await gate.close();
  co_return status;
}

void measure(benchmark::State& state, Harness& harness, OneStore& one, Work work) {
  static uint64_t seed = 0;  // other places each time, or a cache of any size would know them
  std::mt19937_64 random(++seed);
  const Memory memory(work.at_once * work.length);
  const uint64_t batch = 8 * work.at_once;  // reads of one iteration
  const auto cpu_us = [] {
    timespec now;
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return double(now.tv_sec) * 1e6 + double(now.tv_nsec) / 1e3;
  };
  const double begin = cpu_us();
  for (auto _ : state)
    harness.run(read_some(&harness, *one.store->open_volume(one.image), work, batch, &random, &memory));
  const auto reads = double(uint64_t(state.iterations()) * batch);
  state.counters["cpu_us_per_read"] = (cpu_us() - begin) / reads;
  state.counters["reads_per_s"] = benchmark::Counter(reads, benchmark::Counter::kIsRate);
}

}  // namespace
}  // namespace obraz

int main(int argc, char** argv) {
  using namespace obraz;
  benchmark::Initialize(&argc, argv);
  const std::string folder = argc > 1 ? argv[1] : ".";
  Harness harness;
  const auto make = [&](OneStore& one, const Kind& kind) {
    one.kind = kind;
    one.meta = harness.file(folder, "meta", Store::meta_bytes_for(kDataBytes, kJournalBytes));
    one.data = harness.file(folder, "data", kDataBytes);
    harness.run(one.make(&harness));
  };
  OneStore stores[std::size(kKinds)];
  for (size_t i = 0; i < std::size(kKinds); ++i)
    make(stores[i], kKinds[i]);
  const std::pair<const char*, Work> works[] = {{"4KiB_random_QD1", {4 * limits::KiB, 1, true}},
                                                {"4KiB_random_QD32", {4 * limits::KiB, 32, true}},
                                                {"128KiB_random_QD8", {128 * limits::KiB, 8, true}},
                                                {"1MiB_sequential_QD4", {1 * limits::MiB, 4, false}}};
  for (const auto& [name, work] : works)
    for (OneStore& one : stores)
      benchmark::RegisterBenchmark(
          (std::string(name) + "/" + one.kind.name).c_str(),
          [&, work = work](benchmark::State& state) { measure(state, harness, one, work); })
          ->UseRealTime()
          ->Unit(benchmark::kMicrosecond);
  // The same images, with a node cache that holds little of the mapping and less of the checksums.
  OneStore small[2];
  for (const bool checksums : {false, true}) {
    make(small[checksums], kKinds[checksums]);
    harness.run(small[checksums].open_again(&harness, limits::MiB / 4));
    benchmark::RegisterBenchmark(
        (std::string("4KiB_random_QD32_small_node_cache") + (checksums ? "/checksums" : "/none")).c_str(),
        [&, checksums](benchmark::State& state) {
          measure(state, harness, small[checksums], {4 * limits::KiB, 32, true});
        })
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
  }
  benchmark::RunSpecifiedBenchmarks();
  for (const std::span<OneStore> all : {std::span<OneStore>(stores), std::span<OneStore>(small)})
    for (OneStore& one : all) {
      harness.run(one.store->close());
      one.store.reset();
    }
}
