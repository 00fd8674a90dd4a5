// A store whose data device swallows what is written, for benchmarks of metadata on more data than most
// machines hold. Its metadata is a file, read and written as by the daemon.
#pragma once

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <string>

#include "harness.h"
#include "io/device.h"
#include "store/store.h"

namespace obraz::bench {

class NullDevice final : public Device {
 public:
  explicit NullDevice(uint64_t size_bytes) : size_bytes_(size_bytes) {}
  uint64_t size_bytes() const override { return size_bytes_; }
  Task<Status> read(uint64_t, Bytes into) override {
    // The store wants its label back.
    std::ranges::copy(ConstBytes(label_).first(std::min(into.size(), label_.size())), into.begin());
    co_return Status();
  }
  Task<Status> write(uint64_t offset, ConstBytes from) override {
    if (offset == 0)
      std::ranges::copy(from.first(label_.size()), label_.begin());
    co_return Status();
  }
  Task<Status> flush() override { co_return Status(); }
  Task<Status> discard(uint64_t, uint64_t) override { co_return Status(); }
  Task<Status> allocate(uint64_t, uint64_t) override { co_return Status(); }

 private:
  const uint64_t size_bytes_;
  std::array<std::byte, kBlockSize> label_{};
};

struct NullStore {
  static constexpr uint64_t kJournalBytes = 64 * limits::MiB, kPiece = 4 * limits::MiB;

  Harness harness;
  std::unique_ptr<FileDevice> meta;
  NullDevice data;
  std::unique_ptr<Store> store;
  std::unique_ptr<std::byte, decltype(&std::free)> bytes{
      static_cast<std::byte*>(std::aligned_alloc(kBlockSize, kPiece)),
      std::free};  // to write and to read into

  NullStore(const std::string& folder, const char* name, uint64_t data_bytes)
      : meta(harness.file(folder, name, Store::meta_bytes_for(data_bytes, kJournalBytes))),
        data(data_bytes) {}

  Task<Status> open() {
    auto opened =
        co_await Store::open(harness.reactor(), *meta, data, {.sum_bytes_per_s = 0, .scrub_bytes_per_s = 0});
    OBRAZ_CO_TRY(opened);
    store = std::move(*opened);
    co_return Status();
  }
  Task<Status> format_and_open() {
    const Status status =
        co_await Store::format(*meta, data, {.uuid = Uuid::random(), .journal_bytes = kJournalBytes});
    OBRAZ_CO_TRY(status);
    co_return co_await open();
  }
  Task<Status> create_disk(VolumeId id, uint64_t size_bytes) {
    Transaction create;
    create.push_back(CreateVolume{id, size_bytes});
    co_return co_await store->commit(std::move(create));
  }
  // A clone as the catalog makes it, with a resource.
  Task<Status> clone(VolumeId id, VolumeId source, VolumeKind kind) {
    const uint64_t size_bytes = store->volume_info(source)->size_bytes;
    Transaction create;
    create.push_back(CloneVolume{id, source, kind, size_bytes});
    create.push_back(PutResource{"resource/" + std::to_string(id.value), std::string(300, 'r')});
    co_return co_await store->commit(std::move(create));
  }
  // A piece at every step, flushed.
  Task<Status> write(VolumeId id, uint64_t begin, uint64_t end, uint64_t piece, uint64_t step) {
    Volume volume = *store->open_volume(id);
    for (uint64_t at = begin; at < end; at += step) {
      const Status status = co_await volume.write(at, {bytes.get(), piece});
      OBRAZ_CO_TRY(status);
    }
    co_return co_await volume.flush();
  }
  void close() {
    harness.run(close_store());
    store.reset();
  }

 private:
  Task<Status> close_store() { co_return co_await store->close(); }
};

}  // namespace obraz::bench
