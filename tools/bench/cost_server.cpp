// bench_cost_server CASE: serves one case of tools/bench/cost, which runs it, and prints what it has counted
// as one line of JSON.
//
// All of the server is the real one: Session, Store, FileDevice, Reactor. The files of the store are in
// memory
// (/dev/shm), the client is at the other end of a socket pair, on the same thread (cost_ring.cpp): the server
// goes as far as it can, then the client, and so on. So a case does the same in every run, on every machine,
// and a difference of a few instructions is one of the code.
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cerrno>
#include <thread>

#include "base/log.h"
#include "cost_client.h"
#include "cost_meter.h"
#include "cost_ring.h"
#include "harness.h"
#include "nbd/session.h"
#include "nbd/sessions.h"
#include "store/store.h"

namespace obraz::bench {
namespace {

using nbd::Command;

constexpr uint64_t kVolumeBytes = 256 * limits::MiB;
constexpr uint64_t kDataBytes = 4 * limits::GiB, kJournalBytes = 64 * limits::MiB;
constexpr size_t kArenaBytes = 64 * limits::MiB;
constexpr unsigned kDeadlineSeconds = 300;

// What the disk has before the case: all of it in its image, also with checksums there; all of it written by
// itself; the first block of each cluster written by itself, the others nowhere.
enum class Disk { of_image, of_summed_image, own, own_first_blocks };

// The cache of clones: none; there, but keeping nothing that this disk reads alone; empty; with all that the
// disk shares.
enum class Cache { off, for_others, empty, full };

struct Case {
  const char* name;
  Disk disk;
  Load load;
  uint64_t warm_up, rounds;
  Cache cache = Cache::off;
};

std::vector<Case> cases() {
  constexpr uint64_t KiB = limits::KiB, MiB = limits::MiB;
  const auto all = [](uint64_t stride) { return kVolumeBytes / stride; };
  const auto reads = [&](uint32_t length, uint64_t depth, bool structured) {
    return Load{Command::read, length, depth, false, length, all(length), structured};
  };
  const auto writes = [&](uint32_t length, uint64_t depth, uint64_t stride, bool flush = false) {
    return Load{Command::write, length, depth, flush, stride, all(stride), false};
  };
  std::vector<Case> list;
  const auto add = [&list](const char* name, Disk disk, const Load& load, uint64_t warm_up, uint64_t rounds,
                           Cache cache = Cache::off) {
    list.push_back({name, disk, load, warm_up, rounds, cache});
  };
  add("read-4k-qd1", Disk::own, reads(4 * KiB, 1, false), 512, 1024);
  add("read-4k-qd32", Disk::own, reads(4 * KiB, 32, false), 32, 64);
  add("read-4k-qd1-structured", Disk::own, reads(4 * KiB, 1, true), 512, 1024);
  add("read-4k-qd32-structured", Disk::own, reads(4 * KiB, 32, true), 32, 64);
  add("read-4k-qd1-image", Disk::of_image, reads(4 * KiB, 1, false), 512, 1024);
  add("read-4k-qd32-image", Disk::of_image, reads(4 * KiB, 32, false), 32, 64);
  add("read-4k-qd32-image-checksums", Disk::of_summed_image, reads(4 * KiB, 32, false), 32, 64);
  add("read-128k-qd8", Disk::own, reads(128 * KiB, 8, false), 16, 64);
  add("read-128k-qd8-structured", Disk::own, reads(128 * KiB, 8, true), 16, 64);
  add("read-128k-qd8-image-checksums", Disk::of_summed_image, reads(128 * KiB, 8, false), 16, 64);
  // With the cache of clones, in which what a disk has alone has no place.
  add("read-4k-qd32-beside-cache", Disk::own, reads(4 * KiB, 32, false), 32, 64, Cache::empty);
  add("read-4k-qd32-image-alone", Disk::of_summed_image, reads(4 * KiB, 32, false), 32, 64,
      Cache::for_others);
  add("read-4k-qd32-image-filling", Disk::of_summed_image, reads(4 * KiB, 32, false), 32, 64, Cache::empty);
  add("read-4k-qd32-image-cached", Disk::of_summed_image, reads(4 * KiB, 32, false), 32, 64, Cache::full);
  add("read-128k-qd8-image-alone", Disk::of_summed_image, reads(128 * KiB, 8, false), 16, 64,
      Cache::for_others);
  add("read-128k-qd8-image-filling", Disk::of_summed_image, reads(128 * KiB, 8, false), 16, 64, Cache::empty);
  add("read-128k-qd8-image-cached", Disk::of_summed_image, reads(128 * KiB, 8, false), 16, 64, Cache::full);
  add("overwrite-4k-qd32-beside-cache", Disk::own, writes(4 * KiB, 32, 4 * KiB), 32, 64, Cache::empty);
  add("read-1m-qd4", Disk::own, reads(MiB, 4, false), 16, 32);
  add("read-1m-qd4-structured", Disk::own, reads(MiB, 4, true), 16, 32);
  add("overwrite-4k-qd1", Disk::own, writes(4 * KiB, 1, 4 * KiB), 512, 1024);
  add("overwrite-4k-qd32", Disk::own, writes(4 * KiB, 32, 4 * KiB), 32, 64);
  add("overwrite-4k-flush", Disk::own, writes(4 * KiB, 1, 4 * KiB, true), 512, 1024);
  Load unaligned_reads = reads(4 * KiB, 32, false), unaligned_writes = writes(4 * KiB, 32, 64 * KiB);
  unaligned_reads.stride = 64 * KiB;
  unaligned_reads.places = all(64 * KiB);
  unaligned_reads.shift = unaligned_writes.shift = 512;
  add("unaligned-read-4k-qd32", Disk::own, unaligned_reads, 32, 64);
  add("unaligned-overwrite-4k-qd32", Disk::own, unaligned_writes, 32, 64);
  add("overwrite-1m-qd4", Disk::own, writes(MiB, 4, MiB), 16, 32);
  Load second_blocks = writes(4 * KiB, 32, 64 * KiB);
  second_blocks.shift = 4 * KiB;
  add("new-block-4k-qd32", Disk::own_first_blocks, second_blocks, 64, 32);
  add("first-write-4k-qd1", Disk::of_image, writes(4 * KiB, 1, 64 * KiB), 2048, 1024);
  add("first-write-4k-qd32", Disk::of_image, writes(4 * KiB, 32, 64 * KiB), 64, 32);
  add("first-write-4k-flush", Disk::of_image, writes(4 * KiB, 1, 64 * KiB, true), 2048, 1024);
  add("first-write-1m-qd4", Disk::of_image, writes(MiB, 4, MiB), 32, 16);
  add("trim-64k-qd32", Disk::own, {Command::trim, 64 * KiB, 32, false, 64 * KiB, all(64 * KiB)}, 64, 32);
  add("zero-64k-qd32", Disk::own, {Command::write_zeroes, 64 * KiB, 32, false, 64 * KiB, all(64 * KiB)}, 64,
      32);
  return list;
}

class Bench {
 public:
  explicit Bench(const Case& what)
      : case_(what),
        meta_(file_in_memory(Store::meta_bytes_for(kDataBytes, kJournalBytes))),
        data_(file_in_memory(kDataBytes)),
        pool_(harness_.reactor(), kArenaBytes) {
    harness_.reactor().register_arena(pool_.arena());
    harness_.run(open_store(this));
    harness_.run(make_disk(this));
  }
  ~Bench() {
    harness_.run(store_->close());
    store_.reset();
  }

  // The session from its beginning to its end. `thread`: the client waits on a thread of its own, and nothing
  // is counted here.
  void serve(bool thread) {
    int sockets[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0)
      must(fail_os(errno, "cannot make a pair of sockets"));
    CostClient client(
        sockets[1], case_.load, case_.warm_up, case_.rounds, [thread] { thread ? void() : meter::start(); },
        [this, thread] { thread ? void() : meter::stop(case_.name); });
    nbd::Sessions sessions(harness_.reactor(), pool_, *store_);
    nbd::Adoption adoption;
    adoption.socket = nbd::Descriptor(sockets[0]);
    adoption.terms = {.exported = {.volume = disk_, .size_bytes = kVolumeBytes, .name = "disk"},
                      .structured = case_.load.structured};
    adoption.ended = [this] { harness_.reactor().stop(); };
    sessions.adopt(std::move(adoption));
    if (thread) {
      std::thread runs([&client] { client.run(); });
      harness_.reactor().run();
      runs.join();
    } else {
      meter::instrument();
      run_outside(&client);
      harness_.reactor().run();
      run_outside(nullptr);
    }
    harness_.run(stop(&sessions));
  }

 private:
  std::unique_ptr<FileDevice> file_in_memory(uint64_t size_bytes) {
    const nbd::Descriptor file(::memfd_create("cost", MFD_CLOEXEC));
    if (!file || ::ftruncate(file.get(), off_t(size_bytes)) != 0)
      must(fail_os(errno, "cannot make a file in memory"));
    auto device = FileDevice::open(harness_.reactor(), fmt::format("/proc/self/fd/{}", file.get()), {});
    if (!device)
      must(Failure(device.error()));
    return std::move(*device);
  }
  static Task<Status> stop(nbd::Sessions* sessions) {
    co_await sessions->stop();
    co_return Status();
  }
  static Task<Status> open_store(Bench* bench) {
    const Status status = co_await Store::format(*bench->meta_, *bench->data_,
                                                 {.uuid = Uuid::random(), .journal_bytes = kJournalBytes});
    OBRAZ_CO_TRY(status);
    StoreOptions options;
    options.commit_interval_us = 3600 * 1'000'000ull;  // what happens by time would happen at any time
    options.sum_bytes_per_s = bench->case_.disk == Disk::of_summed_image ? limits::TiB : 0;
    options.scrub_bytes_per_s = 0;
    options.clone_cache_bytes = bench->case_.cache == Cache::off ? 0 : 2 * kVolumeBytes;
    options.clones_kept_for_one = bench->case_.cache == Cache::for_others ? 0 : kVolumeBytes;
    auto opened = co_await Store::open(bench->harness_.reactor(), *bench->meta_, *bench->data_, options);
    OBRAZ_CO_TRY(opened);
    bench->store_ = std::move(*opened);
    co_return Status();
  }
  // `length` bytes at every multiple of `stride`.
  static Task<Status> fill(Volume volume, uint64_t length, uint64_t stride) {
    const std::unique_ptr<std::byte, decltype(&std::free)> bytes(
        static_cast<std::byte*>(std::aligned_alloc(kBlockSize, length)), std::free);
    std::fill_n(bytes.get(), length, std::byte{0x5a});
    Status status;
    for (uint64_t at = 0; at < kVolumeBytes && status; at += stride) {
      for (uint64_t block = 0; block < length; block += kBlockSize)
        store_le<uint64_t>(bytes.get() + block, word_at(at + block));
      status = co_await volume.write(at, {bytes.get(), length});
    }
    OBRAZ_CO_TRY(status);
    co_return co_await volume.flush();
  }
  static Task<Status> read_all(Volume volume) {
    const std::unique_ptr<std::byte, decltype(&std::free)> bytes(
        static_cast<std::byte*>(std::aligned_alloc(kBlockSize, limits::kMaxCachedRead)), std::free);
    Status status;
    for (uint64_t at = 0; at < kVolumeBytes && status; at += limits::kMaxCachedRead)
      status = co_await volume.read(at, {bytes.get(), limits::kMaxCachedRead});
    co_return status;
  }
  static Task<Status> make_disk(Bench* bench) {
    Store& store = *bench->store_;
    const VolumeId first = store.new_volume_id();
    Transaction create;
    create.push_back(CreateVolume{first, kVolumeBytes});
    Status status = co_await store.commit(std::move(create));
    OBRAZ_CO_TRY(status);
    const bool sparse = bench->case_.disk == Disk::own_first_blocks;
    status = co_await fill(*store.open_volume(first), sparse ? kBlockSize : 4 * limits::MiB,
                           sparse ? 64 * limits::KiB : 4 * limits::MiB);
    OBRAZ_CO_TRY(status);
    bench->disk_ = first;
    if (bench->case_.disk == Disk::of_image || bench->case_.disk == Disk::of_summed_image) {
      const VolumeId image = store.new_volume_id();
      bench->disk_ = store.new_volume_id();
      Transaction clone;
      clone.push_back(CloneVolume{image, first, VolumeKind::frozen, kVolumeBytes});
      clone.push_back(CloneVolume{bench->disk_, image, VolumeKind::disk, kVolumeBytes});
      status = co_await store.commit(std::move(clone));
      OBRAZ_CO_TRY(status);
      Timer timer(bench->harness_.reactor());
      while (bench->case_.disk == Disk::of_summed_image && !store.volume_info(image)->summed)
        co_await timer.wait_us(1000);
    }
    if (bench->case_.cache == Cache::full)
      status = co_await read_all(*store.open_volume(bench->disk_));
    OBRAZ_CO_TRY(status);
    co_return co_await store.checkpoint();
  }

  const Case case_;
  Harness harness_;
  std::unique_ptr<FileDevice> meta_, data_;
  BufferPool pool_;
  std::unique_ptr<Store> store_;
  VolumeId disk_;
};

void print_counts(const Case& what) {
  const meter::Counts& c = meter::counts;
  fmt::print(
      "{{\"case\": \"{}\", \"requests\": {}, \"allocations\": {}, \"allocated_bytes\": {}, \"enters\": {}, "
      "\"enters_waiting\": {}, \"operations\": {}, \"device_reads\": {}, \"device_writes\": {}, "
      "\"device_flushes\": {}, \"device_others\": {}, \"stacks\": {}}}\n",
      what.name, what.rounds * what.load.depth, c.allocations, c.allocated_bytes, c.enters, c.enters_waiting,
      c.operations, c.device_reads, c.device_writes, c.device_flushes, c.device_others, meter::traces_json());
}

}  // namespace
}  // namespace obraz::bench

int main(int argc, char** argv) {
  using namespace obraz::bench;
  CLI::App app("Serves one case of tools/bench/cost and prints what it has counted.");
  std::string name;
  bool list = false, trace = false, thread = false;
  uint64_t times = 1;
  app.add_option("CASE", name);
  app.add_flag("--list", list, "the names of all cases");
  app.add_flag("--trace-allocations", trace, "keep the stack of every allocation");
  app.add_flag("--thread", thread, "the client on a thread of its own; for strace, nothing is counted");
  app.add_option("--times", times, "as many requests after the warm-up");
  CLI11_PARSE(app, argc, argv);
  const std::vector<Case> all = cases();
  if (list) {
    for (const Case& one : all)
      fmt::print("{}\n", one.name);
    return 0;
  }
  const auto found = std::ranges::find(all, name, &Case::name);
  if (found == all.end()) {
    std::fprintf(stderr, "bench_cost_server: there is no such case\n");
    return 2;
  }
  ::alarm(kDeadlineSeconds);
  obraz::log::set_level(obraz::log::Level::warning);
  if (trace)
    meter::trace_allocations();
  Case chosen = *found;
  chosen.rounds *= times;
  {
    Bench bench(chosen);
    bench.serve(thread);
  }
  if (!thread)
    print_counts(chosen);
  return 0;
}
