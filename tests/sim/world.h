// World: one machine of a simulation — loop, power, two devices, the store on them, the oracle beside it —
// and the requests of clients, each of which tells the oracle what it does and what came of it.
//
// A run ends at the first problem: it is kept in problem(), and every request after it does nothing, so that
// the run unwinds. The same happens when the power is off. Thread: the test's.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "store/store.h"
#include "support/oracle.h"
#include "support/sim_device.h"
#include "support/sim_loop.h"

namespace obraz::test {

struct WorldOptions {
  uint64_t seed = 1;
  uint64_t data_bytes = limits::kMinDataSize;
  uint64_t journal_bytes = limits::kMinJournalSize;
  uint64_t meta_bytes = 0;  // 0: as much as a store of this size is given
  StoreOptions store{.slab_bytes = 1 << 20, .sum_bytes_per_s = limits::TiB, .scrub_bytes_per_s = 0};
  uint64_t max_latency_us = 50;
  double slow = 0;
  bool shuffle = false;
  bool garbage = true;   // in torn writes of metadata
  bool aligned = false;  // all that is written, as the fast path wants it; else about half
};

// A page-aligned buffer, moved off alignment by `shift` bytes.
class ClientBuffer {
 public:
  explicit ClientBuffer(size_t size, size_t shift = 0);
  ClientBuffer(const ClientBuffer&) = delete;
  ~ClientBuffer();
  Bytes bytes() const { return bytes_; }

 private:
  std::byte* memory_;
  Bytes bytes_;
};

class World {
 public:
  explicit World(const WorldOptions& options);
  ~World();

  // --- the store's life
  // ------------------------------------------------------------------------------------------------- Opens;
  // false, and a problem unless the power went meanwhile, when that fails.
  bool open();
  // Closes cleanly; a problem when that fails with the power on.
  void close();
  // The machine loses its power, or the process dies (survival null), now if it has not happened yet; all
  // clients end.
  void crash(const Survival* survival);
  // Judges everything the open store has against the oracle.
  void verify();
  // Closes the store, runs the checker over both devices, and opens it again.
  void check();
  // The checker over the devices as they are; the store is not open.
  void check_devices(const char* when);

  bool down() const { return !power.is_on() || !problem_.empty(); }
  void fail(std::string problem);
  const std::string& problem() const { return problem_; }
  // What was done, the newest last.
  void say(std::string line);
  std::string trace() const;

  // --- clients' requests; each returns whether it was done
  // ----------------------------------------------------------------
  Task<uint64_t> create(uint64_t size_bytes);  // the new volume, or 0
  Task<uint64_t> clone(uint64_t source, VolumeKind kind, uint64_t size_bytes = 0);
  Task<uint64_t> snapshot(uint64_t disk) { return clone(disk, VolumeKind::frozen); }
  Task<std::vector<uint64_t>> snapshot_all(std::vector<uint64_t> disks);  // at one instant
  Task<bool> remove(uint64_t volume);
  Task<bool> revert(uint64_t disk, uint64_t snapshot);
  Task<bool> resize(uint64_t disk, uint64_t size_bytes);
  Task<bool> put(std::string key, std::string value);  // nothing while another put of the key is in flight
  Task<bool> write(uint64_t volume, uint64_t offset, uint64_t length, bool fua = false);
  Task<bool> zero(uint64_t volume, uint64_t offset, uint64_t length, Volume::ZeroOptions options = {});
  Task<bool> discard(uint64_t volume, uint64_t offset, uint64_t length, bool fua = false);
  Task<bool> read(uint64_t volume, uint64_t offset, uint64_t length);
  // Every extent that is said to be zero must read so.
  Task<bool> block_status(uint64_t volume, uint64_t offset, uint64_t length);
  // Between frozen volumes: every block that differs must be named. `exactly`: and no other.
  Task<bool> diff(uint64_t a, uint64_t b, bool exactly = false);
  Task<bool> flush();
  Task<bool> checkpoint();
  Task<void> sleep_us(uint64_t duration_us);

  // Live volumes of the kind that nobody is deleting.
  std::vector<uint64_t> usable(VolumeKind kind) const;
  // Whether an error is to be expected: none is, unless the test says so.
  std::function<bool(const Error&)> tolerated = [](const Error&) { return false; };
  bool may_be_full = false;  // no_space is an answer

  WorldOptions options;
  std::mt19937_64 random;
  SimLoop loop;
  PowerSupply power;
  SimDevice meta, data;
  Oracle oracle;
  std::unique_ptr<Store> store;
  uint64_t requests = 0, refused = 0;  // with no_space

 private:
  struct Busy {
    uint64_t volume, first, end;  // blocks
    bool partial;
  };
  // Waits until no other change of these blocks makes what a partial one leaves around it unknown.
  class Claim;
  bool conflicts(const Busy& busy) const;
  Task<std::list<Busy>::iterator> claim(uint64_t volume, uint64_t offset, uint64_t length);
  void unclaim(std::list<Busy>::iterator place);
  // Tells the oracle how a request ended.
  bool conclude(const char* what, uint64_t volume, const Status& status);
  Result<Volume> handle(uint64_t volume);
  std::string resource_of(uint64_t volume, const char* kind) const;

  std::string problem_;
  std::vector<std::string> trace_;
  std::list<Busy> busy_;
  Event unclaimed_;
  std::map<uint64_t, unsigned> in_use_;  // as the source of a clone or revert: not to be deleted
  std::set<std::string> keys_in_flight_;
  uint32_t version_ = 0;
};

struct DamageFound {
  uint64_t right = 0, errors = 0;
  std::set<uint64_t> damaged;  // volumes
};
// Reads everything of a damaged store in small pieces, so that an error hides as little as possible. What is
// read must be right, and an error must be that of damage.
Task<DamageFound> read_what_is_left(World& world);

// A scenario, run against a world until it ends or the world goes down.
using Script = std::function<Task<void>(World&)>;

}  // namespace obraz::test
