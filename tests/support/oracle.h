// Oracle: a plain model of all volumes of a store that knows, for each block of 4 KiB, what a read may return
// now and what it may hold after a crash. It is told when every request begins and how it ends, and judges
// what is read.
//
// The rules
// - A change of a block is an interval from its begin to its end. Of two that overlap in time either may be
// the later.
// - A read may return a change unless another one that began after its end had ended before the read began. A
// change
//   that failed may have happened, and never hides others.
// - After a crash a block may hold a change unless another one that began after its end is durable. A change
// is durable
//   when a flush that began after its end has been acknowledged, or when it was acknowledged with FUA.
// - Sectors of 512 bytes are judged on their own: an unflushed or unfinished change may be there in part.
// - A clone holds what a read of its source might have returned at some time between its begin and its
//   acknowledgement, and is durable as a whole from its acknowledgement on; so is every other change of
//   volumes.
// - A block that was read while nothing was in flight on it, and all of whose changes are durable, is from
// then on
//   exactly what was read; so is everything after recovery from a crash: recovery makes what it shows
//   durable.
// - What was never written is zeros.
// The caller serializes partial writes of one block, so that what they leave around them is known.
// Thread: the test's.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/bytes.h"

namespace obraz::test {

constexpr uint64_t kModelBlock = 4096;
using Problem = std::optional<std::string>;  // what is wrong, in words; empty: nothing

class ModelVolume {
 public:
  enum class State : uint8_t { creating, live, deleting };
  uint64_t number = 0;
  State state = State::creating;
  bool frozen = false;
  uint64_t source = 0;          // of a clone being made
  std::vector<uint64_t> sizes;  // the last is the newest; more than one while it is not known which holds
  uint64_t size_bytes() const { return sizes.back(); }

 private:
  friend class Oracle;
  using Content = std::shared_ptr<const std::array<std::byte, kModelBlock>>;  // null: zeros
  struct Change {
    uint64_t begin = 0, end = UINT64_MAX;
    bool failed = false;  // perhaps it happened
    bool durable = false;
    Content content;
  };
  using History = std::vector<Change>;
  std::map<uint64_t, History> blocks;  // by number; absent: zeros since ever
  // What is being zeroed, or reverted to zeros, where nothing was ever written; a later write may still
  // come before it.
  struct Wipe {
    uint64_t ticket = 0, first_block = 0, end_block = 0;
  };
  std::vector<Wipe> wipes;
};

class Oracle {
 public:
  using Ticket = uint64_t;  // of one request in flight
  enum class Outcome : uint8_t { done, durable, failed };

  // --- volumes: begin, then one of done and failed
  // ----------------------------------------------------------------------
  void create_begins(uint64_t volume, uint64_t size_bytes);
  void clone_begins(uint64_t volume, uint64_t source, bool frozen, uint64_t size_bytes);
  void creation_ends(uint64_t volume, bool done);  // failed: it does not exist
  void delete_begins(uint64_t volume);
  void delete_ends(uint64_t volume, bool done);
  Ticket revert_begins(uint64_t volume, uint64_t source);
  void revert_ends(uint64_t volume, Ticket ticket, bool done);
  void resize_begins(uint64_t volume, uint64_t size_bytes);
  void resize_ends(uint64_t volume, bool done);

  // --- data
  // -----------------------------------------------------------------------------------------------------------
  Ticket write_begins(uint64_t volume, uint64_t offset, ConstBytes bytes);
  Ticket zero_begins(uint64_t volume, uint64_t offset, uint64_t length);
  Ticket discard_begins(uint64_t volume, uint64_t offset, uint64_t length);
  void ends(Ticket ticket, Outcome outcome);
  Ticket read_begins() { return *reads_.insert(++clock_).first; }
  Problem read_ends(uint64_t volume, Ticket began, uint64_t offset, ConstBytes bytes);
  // The same for a part of what the read covers; read_ends() or read_fails() follows.
  Problem read_shows(uint64_t volume, Ticket began, uint64_t offset, ConstBytes bytes);
  Problem read_shows_zeros(uint64_t volume, Ticket began, uint64_t offset, uint64_t length);
  void read_fails(Ticket began) { reads_.erase(began); }
  Ticket flush_begins() { return ++clock_; }
  void flush_ends(Ticket began);

  // --- resources
  // ------------------------------------------------------------------------------------------------------
  void put_begins(const std::string& key, std::optional<std::string> value);  // none: removes
  void put_ends(const std::string& key, bool done);

  // --- crash: first crashed(), then recovered_*() for all that the reopened store has, then recovered()
  // ------------------
  void crashed();
  // Judges presence and size; a volume that is not there and need not be is forgotten.
  Problem recovered_volume(uint64_t volume, std::optional<uint64_t> size_bytes, bool frozen);
  Problem recovered_resources(const std::map<std::string, std::string>& resources);
  // Judges and pins the bytes of whole blocks; and those of a range that is all zeros.
  Problem recovered_bytes(uint64_t volume, uint64_t offset, ConstBytes bytes);
  Problem recovered_zeros(uint64_t volume, uint64_t offset, uint64_t length);

  // What a block of a volume holds when that is certain.
  std::optional<std::vector<std::byte>> certain(uint64_t volume, uint64_t block) const;
  bool knows(uint64_t volume) const { return volumes_.contains(volume); }
  const ModelVolume& volume(uint64_t volume) const { return volumes_.at(volume); }
  std::vector<uint64_t> volumes() const;
  // Blocks that were ever written, in order.
  std::vector<uint64_t> touched_blocks(uint64_t volume) const;

 private:
  using Change = ModelVolume::Change;
  using Content = ModelVolume::Content;
  using History = ModelVolume::History;

  History& history(ModelVolume& volume, uint64_t block);
  void add(ModelVolume& volume, uint64_t block, Ticket ticket, const std::vector<Content>& contents);
  Ticket change_begins(uint64_t volume, uint64_t offset, uint64_t length, const std::byte* bytes);
  bool is_durable(const Change& change) const;
  bool is_settled(const Change& change) const;
  std::vector<Change> allowed_now(const History& history, uint64_t began) const;
  std::vector<Change> allowed_after_crash(const History& history) const;
  // Takes out what neither a crash nor a read in flight can show any more.
  void prune(History& history) const;
  // `place`: of `bytes` in the volume; they lie within one block.
  Problem judge(const ModelVolume& volume, const std::vector<Change>& allowed, uint64_t place,
                ConstBytes bytes) const;
  void pin(History& history, ConstBytes bytes);

  uint64_t clock_ = 1, durable_before_ = 0;
  std::map<uint64_t, ModelVolume> volumes_;
  struct Place {
    uint64_t volume, block;
  };
  std::map<Ticket, std::vector<Place>> in_flight_;
  std::set<Ticket> reads_;                                                    // in flight
  std::map<std::string, std::vector<std::optional<std::string>>> resources_;  // the last is the newest
};

}  // namespace obraz::test
