// The clients' requests of a World.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "sim/world.h"
#include "support/stamp.h"

namespace obraz::test {
namespace {

constexpr std::byte kUntouched{0xcc};

std::string range(uint64_t volume, uint64_t offset, uint64_t length) {
  return fmt::format("volume {} [{:#x}, +{:#x})", volume, offset, length);
}

// A read's extents cover it in order; what they say is zero was left alone, and is made zeros here.
Problem settle_extents(const std::vector<Extent>& extents, uint64_t offset, Bytes bytes) {
  uint64_t at = offset;
  for (const Extent& extent : extents) {
    if (extent.offset != at || extent.length == 0 || extent.length > offset + bytes.size() - at)
      return fmt::format("extents are out of order at {:#x}", at);
    if (extent.hole && !extent.zero)
      return fmt::format("the hole at {:#x} is not zero", at);
    if (extent.zero) {
      const Bytes part = bytes.subspan(at - offset, extent.length);
      if (std::any_of(part.begin(), part.end(), [](std::byte byte) { return byte != kUntouched; }))
        return fmt::format("the zeros at {:#x} were written into the buffer", at);
      std::memset(part.data(), 0, part.size());
    }
    at += extent.length;
  }
  if (at != offset + bytes.size())
    return fmt::format("extents end at {:#x}", at);
  return {};
}

}  // namespace

std::vector<uint64_t> World::usable(VolumeKind kind) const {
  std::vector<uint64_t> out;
  for (const uint64_t number : oracle.volumes()) {
    const ModelVolume& volume = oracle.volume(number);
    if (volume.state == ModelVolume::State::live && volume.frozen == (kind == VolumeKind::frozen))
      out.push_back(number);
  }
  return out;
}

// --- which changes of a block may be in flight together
// --------------------------------------------------------------------

bool World::conflicts(const Busy& busy) const {
  return std::any_of(busy_.begin(), busy_.end(), [&](const Busy& other) {
    return other.volume == busy.volume && other.first < busy.end && busy.first < other.end &&
           (other.partial || busy.partial);
  });
}

Task<std::list<World::Busy>::iterator> World::claim(uint64_t volume, uint64_t offset, uint64_t length) {
  const Busy busy{volume, offset / kModelBlock, divide_up(offset + length, kModelBlock),
                  offset % kModelBlock != 0 || length % kModelBlock != 0};
  while (conflicts(busy))
    co_await unclaimed_.wait();
  co_return busy_.insert(busy_.end(), busy);
}

void World::unclaim(std::list<Busy>::iterator place) {
  busy_.erase(place);
  unclaimed_.notify_all();
}

// --- ends
// -------------------------------------------------------------------------------------------------------------------

bool World::conclude(const char* what, uint64_t volume, const Status& status) {
  if (status)
    return true;
  say(fmt::format("  {} of {} failed: {}", what, volume, describe(status.error())));
  if (!power.is_on())
    return false;
  const bool going =
      volume != 0 && (!oracle.knows(volume) || oracle.volume(volume).state == ModelVolume::State::deleting);
  if (status.error().code == ErrorCode::no_space && may_be_full)
    ++refused;
  else if (!(status.error().code == ErrorCode::not_found && going) && !tolerated(status.error()))
    fail(fmt::format("{} of volume {} failed: {}", what, volume, describe(status.error())));
  return false;
}

Result<Volume> World::handle(uint64_t volume) {
  return store->open_volume({volume});
}

// --- volumes
// ----------------------------------------------------------------------------------------------------------------

std::string World::resource_of(uint64_t volume, const char* kind) const {
  return fmt::format("{} {} of seed {}", kind, volume, options.seed);
}

// Whether a failed transaction may yet turn out to have happened.
static bool is_open_question(World& world) {
  return !world.power.is_on() || world.store->health() == StoreHealth::failed;
}

Task<uint64_t> World::create(uint64_t size_bytes) {
  if (down())
    co_return 0;
  ++requests;
  const VolumeId id = store->new_volume_id();
  const std::string key = fmt::format("volume/{}", id.value), value = resource_of(id.value, "disk");
  say(fmt::format("CREATE {} of {:#x} bytes", id.value, size_bytes));
  oracle.create_begins(id.value, size_bytes);
  oracle.put_begins(key, value);
  Transaction changes;
  changes.push_back(CreateVolume{id, size_bytes});
  changes.push_back(PutResource{key, value});
  const Status status = co_await store->commit(std::move(changes));
  const bool done = conclude("create", id.value, status);
  if (!done && is_open_question(*this))
    co_return 0;
  oracle.creation_ends(id.value, done);
  oracle.put_ends(key, done);
  if (done)
    say(fmt::format("  created {}", id.value));
  co_return done ? id.value : 0;
}

Task<uint64_t> World::clone(uint64_t source, VolumeKind kind, uint64_t size_bytes) {
  if (down() || !oracle.knows(source))
    co_return 0;
  ++requests;
  const VolumeId id = store->new_volume_id();
  const auto& sizes = oracle.volume(source).sizes;
  size_bytes = std::max(size_bytes, *std::max_element(sizes.begin(), sizes.end()));
  const bool frozen = kind == VolumeKind::frozen;
  const std::string key = fmt::format("volume/{}", id.value),
                    value = resource_of(id.value, frozen ? "frozen" : "disk");
  say(fmt::format("CLONE {} -> {} {}", source, id.value, frozen ? "frozen" : "disk"));
  ++in_use_[source];
  oracle.clone_begins(id.value, source, frozen, size_bytes);
  oracle.put_begins(key, value);
  Transaction changes;
  changes.push_back(CloneVolume{id, {source}, kind, size_bytes});
  changes.push_back(PutResource{key, value});
  const Status status = co_await store->commit(std::move(changes));
  --in_use_[source];
  const bool done = conclude("clone", id.value, status);
  if (!done && is_open_question(*this))
    co_return 0;
  oracle.creation_ends(id.value, done);
  oracle.put_ends(key, done);
  if (done)
    say(fmt::format("  cloned {}", id.value));
  co_return done ? id.value : 0;
}

Task<std::vector<uint64_t>> World::snapshot_all(std::vector<uint64_t> disks) {
  std::vector<uint64_t> made;
  if (down() || !std::all_of(disks.begin(), disks.end(), [&](uint64_t disk) { return oracle.knows(disk); }))
    co_return made;
  ++requests;
  Transaction changes;
  std::string line = "SNAPSHOT";
  std::vector<std::string> keys;
  for (const uint64_t disk : disks) {
    const VolumeId id = store->new_volume_id();
    const auto& sizes = oracle.volume(disk).sizes;
    const uint64_t size = *std::max_element(sizes.begin(), sizes.end());
    keys.push_back(fmt::format("volume/{}", id.value));
    ++in_use_[disk];
    oracle.clone_begins(id.value, disk, true, size);
    oracle.put_begins(keys.back(), resource_of(id.value, "frozen"));
    changes.push_back(CloneVolume{id, {disk}, VolumeKind::frozen, size});
    changes.push_back(PutResource{keys.back(), resource_of(id.value, "frozen")});
    made.push_back(id.value);
    line += fmt::format(" {}->{}", disk, id.value);
  }
  // All or none: a crash that keeps some of them shows as a group that contradicts this resource.
  const std::string group = fmt::format("group/{}", made.front());
  std::string members;
  for (const uint64_t number : made)
    members += fmt::format("{} ", number);
  oracle.put_begins(group, members);
  changes.push_back(PutResource{group, members});
  say(line);
  const Status status = co_await store->commit(std::move(changes));
  for (const uint64_t disk : disks)
    --in_use_[disk];
  const bool done = conclude("snapshot", made.front(), status);
  if (!done && is_open_question(*this))
    co_return std::vector<uint64_t>();
  for (const uint64_t number : made)
    oracle.creation_ends(number, done);
  for (const std::string& key : keys)
    oracle.put_ends(key, done);
  oracle.put_ends(group, done);
  if (!done)
    made.clear();
  co_return made;
}

Task<bool> World::remove(uint64_t volume) {
  if (down() || !oracle.knows(volume) || oracle.volume(volume).state != ModelVolume::State::live ||
      in_use_[volume] > 0)
    co_return false;
  ++requests;
  say(fmt::format("DELETE {}", volume));
  const std::string key = fmt::format("volume/{}", volume);
  oracle.delete_begins(volume);
  oracle.put_begins(key, std::nullopt);
  Transaction changes;
  changes.push_back(DeleteVolume{{volume}});
  changes.push_back(RemoveResource{key});
  const Status status = co_await store->commit(std::move(changes));
  const bool done = conclude("delete", 0, status);
  if (!done && is_open_question(*this))
    co_return false;
  oracle.delete_ends(volume, done);
  oracle.put_ends(key, done);
  if (done)
    say(fmt::format("  deleted {}", volume));
  co_return done;
}

Task<bool> World::revert(uint64_t disk, uint64_t snapshot) {
  if (down() || !oracle.knows(disk) || !oracle.knows(snapshot))
    co_return false;
  ++in_use_[disk];
  ++in_use_[snapshot];
  // Partial writes on any block of the disk wait for it, and it for them.
  const auto claimed = co_await claim(disk, 0, limits::kMaxVolumeSize);
  bool done = false;
  if (!down()) {
    ++requests;
    say(fmt::format("REVERT {} to {}", disk, snapshot));
    const auto ticket = oracle.revert_begins(disk, snapshot);
    Transaction changes;
    changes.push_back(RevertVolume{{disk}, {snapshot}});
    const Status status = co_await store->commit(std::move(changes));
    done = conclude("revert", disk, status);
    if (done || !is_open_question(*this)) {
      oracle.revert_ends(disk, ticket, done);
      say(fmt::format("  reverted {}", disk));
    }
  }
  unclaim(claimed);
  --in_use_[disk];
  --in_use_[snapshot];
  co_return done;
}

Task<bool> World::resize(uint64_t disk, uint64_t size_bytes) {
  if (down() || !oracle.knows(disk))
    co_return false;
  ++requests;
  ++in_use_[disk];
  say(fmt::format("RESIZE {} to {:#x}", disk, size_bytes));
  oracle.resize_begins(disk, size_bytes);
  Transaction changes;
  changes.push_back(ResizeVolume{{disk}, size_bytes});
  const Status status = co_await store->commit(std::move(changes));
  --in_use_[disk];
  const bool done = conclude("resize", disk, status);
  if (done || !is_open_question(*this))
    oracle.resize_ends(disk, done);
  co_return done;
}

Task<bool> World::put(std::string key, std::string value) {
  if (down() || !keys_in_flight_.insert(key).second)
    co_return false;
  ++requests;
  say(fmt::format("PUT {} ({} bytes)", key, value.size()));
  oracle.put_begins(key, value);
  Transaction changes;
  changes.push_back(PutResource{key, value});
  const Status status = co_await store->commit(std::move(changes));
  keys_in_flight_.erase(key);
  const bool done = conclude("put", 0, status);
  if (done || !is_open_question(*this))
    oracle.put_ends(key, done);
  co_return done;
}

// --- data
// -------------------------------------------------------------------------------------------------------------------

Task<bool> World::write(uint64_t volume, uint64_t offset, uint64_t length, bool fua) {
  const auto claimed = co_await claim(volume, offset, length);
  bool done = false;
  if (!down() && oracle.knows(volume)) {
    ++requests;
    auto target = handle(volume);
    const bool aligned = options.aligned || random() % 2 == 0;  // congruent with its offset
    ClientBuffer buffer(length, aligned ? offset % kBlockSize : random() % kBlockSize);
    const uint32_t version = ++version_;
    stamp(buffer.bytes(), volume, offset, version);
    say(fmt::format("WRITE {} version {}{}", range(volume, offset, length), version, fua ? " FUA" : ""));
    const auto ticket = oracle.write_begins(volume, offset, buffer.bytes());
    Status status = target ? Status() : Failure(target.error());
    if (target)
      status = co_await target->write(offset, buffer.bytes(), fua);
    done = conclude("write", volume, status);
    if (done)
      say(fmt::format("  wrote version {}", version));
    if (done || power.is_on())
      oracle.ends(ticket,
                  done ? fua ? Oracle::Outcome::durable : Oracle::Outcome::done : Oracle::Outcome::failed);
  }
  unclaim(claimed);
  co_return done;
}

Task<bool> World::zero(uint64_t volume, uint64_t offset, uint64_t length, Volume::ZeroOptions zero_options) {
  const auto claimed = co_await claim(volume, offset, length);
  bool done = false;
  if (!down() && oracle.knows(volume)) {
    ++requests;
    auto target = handle(volume);
    say(fmt::format("ZERO {}{}{}", range(volume, offset, length), zero_options.fua ? " FUA" : "",
                    zero_options.keep_allocated ? " NO_HOLE" : ""));
    const auto ticket = oracle.zero_begins(volume, offset, length);
    Status status = target ? Status() : Failure(target.error());
    if (target)
      status = co_await target->zero(offset, length, zero_options);
    done = conclude("zero", volume, status);
    if (done)
      say(fmt::format("  zeroed {}", range(volume, offset, length)));
    if (done || power.is_on())
      oracle.ends(ticket, done ? zero_options.fua ? Oracle::Outcome::durable : Oracle::Outcome::done
                               : Oracle::Outcome::failed);
  }
  unclaim(claimed);
  co_return done;
}

Task<bool> World::discard(uint64_t volume, uint64_t offset, uint64_t length, bool fua) {
  const auto claimed = co_await claim(volume, offset, length);
  bool done = false;
  if (!down() && oracle.knows(volume)) {
    ++requests;
    auto target = handle(volume);
    say(fmt::format("DISCARD {}{}", range(volume, offset, length), fua ? " FUA" : ""));
    const auto ticket = oracle.discard_begins(volume, offset, length);
    Status status = target ? Status() : Failure(target.error());
    if (target)
      status = co_await target->discard(offset, length, fua);
    done = conclude("discard", volume, status);
    if (done)
      say(fmt::format("  discarded {}", range(volume, offset, length)));
    if (done || power.is_on())
      oracle.ends(ticket,
                  done ? fua ? Oracle::Outcome::durable : Oracle::Outcome::done : Oracle::Outcome::failed);
  }
  unclaim(claimed);
  co_return done;
}

Task<bool> World::read(uint64_t volume, uint64_t offset, uint64_t length) {
  if (down() || !oracle.knows(volume))
    co_return false;
  ++requests;
  auto target = handle(volume);
  if (!target)
    co_return conclude("open", volume, Failure(target.error()));
  ClientBuffer buffer(length, random() % 2 == 0 ? offset % kBlockSize : random() % kBlockSize);
  std::memset(buffer.bytes().data(), int(kUntouched), length);
  const bool sparse = random() % 2 == 0;
  std::vector<Extent> extents;
  const auto began = oracle.read_begins();
  say(fmt::format("READ {}{}", range(volume, offset, length), sparse ? " sparse" : ""));
  const Status status = co_await target->read(offset, buffer.bytes(), sparse ? &extents : nullptr);
  if (!conclude("read", volume, status) || !oracle.knows(volume)) {
    oracle.read_fails(began);
    co_return bool(status);
  }
  Problem problem;
  if (sparse)
    problem = settle_extents(extents, offset, buffer.bytes());
  if (problem)
    oracle.read_fails(began);
  else
    problem = oracle.read_ends(volume, began, offset, buffer.bytes());
  if (problem)
    fail(fmt::format("READ {}: {}", range(volume, offset, length), *problem));
  co_return !problem;
}

Task<bool> World::block_status(uint64_t volume, uint64_t offset, uint64_t length) {
  if (down() || !oracle.knows(volume))
    co_return false;
  ++requests;
  auto target = handle(volume);
  if (!target)
    co_return conclude("open", volume, Failure(target.error()));
  const auto began = oracle.read_begins();
  const size_t most = 1 + random() % 20;
  std::vector<Extent> extents;
  const Status status = co_await target->block_status(offset, length, most, extents);
  if (!conclude("block status", volume, status) || !oracle.knows(volume)) {
    oracle.read_fails(began);
    co_return bool(status);
  }
  uint64_t at = offset;
  Problem problem;
  if (extents.empty() || extents.size() > most)
    problem = fmt::format("{} extents", extents.size());
  for (size_t i = 0; i < extents.size() && !problem; ++i) {
    const Extent& extent = extents[i];
    if (extent.offset != at || extent.length == 0 || extent.length > offset + length - at)
      problem = fmt::format("extents are out of order at {:#x}", at);
    else if (i > 0 && extents[i - 1].hole == extent.hole && extents[i - 1].zero == extent.zero)
      problem = fmt::format("extents of one kind are not merged at {:#x}", at);
    else if (extent.zero)
      problem = oracle.read_shows_zeros(volume, began, at, extent.length);
    else if (extent.hole)
      problem = fmt::format("the hole at {:#x} is not zero", at);
    at += extent.length;
  }
  oracle.read_fails(began);
  if (problem)
    fail(fmt::format("STATUS {}: {}", range(volume, offset, length), *problem));
  co_return !problem;
}

Task<bool> World::diff(uint64_t a, uint64_t b, bool exactly) {
  if (down() || !oracle.knows(a) || !oracle.knows(b))
    co_return false;
  ++requests;
  ++in_use_[a];
  ++in_use_[b];
  auto left = handle(a), right = handle(b);
  Status status;
  std::vector<Extent> extents;
  if (!left || !right) {
    status = Failure(left ? right.error() : left.error());
  } else {
    say(fmt::format("DIFF {} {}", a, b));
    status = co_await store->diff(*left, *right, [&extents](Extent extent) {
      extents.push_back(extent);
      return true;
    });
  }
  --in_use_[a];
  --in_use_[b];
  if (!conclude("diff", a, status))
    co_return false;
  std::set<uint64_t> named;
  uint64_t end = 0;
  for (const Extent& extent : extents) {
    if (extent.offset % kModelBlock != 0 || extent.length % kModelBlock != 0 || extent.length == 0 ||
        (extent.offset <= end && end != 0))
      fail(fmt::format("DIFF {} {}: bad extent at {:#x}", a, b, extent.offset));
    end = extent.offset + extent.length;
    for (uint64_t at = extent.offset; at < end; at += kModelBlock)
      named.insert(at / kModelBlock);
  }
  if (end > std::max(oracle.volume(a).size_bytes(), oracle.volume(b).size_bytes()))
    fail(fmt::format("DIFF {} {}: beyond the end", a, b));
  std::set<uint64_t> touched;
  for (const uint64_t volume : {a, b})
    for (const uint64_t block : oracle.touched_blocks(volume))
      touched.insert(block);
  for (const uint64_t block : touched) {
    const auto was = oracle.certain(a, block), is = oracle.certain(b, block);
    if (was && is && *was != *is && !named.contains(block))
      fail(fmt::format("DIFF {} {}: block {:#x} differs and is not named", a, b, block));
    if (exactly && was && is && *was == *is && named.contains(block))
      fail(fmt::format("DIFF {} {}: block {:#x} does not differ and is named", a, b, block));
  }
  if (exactly)
    for (const uint64_t block : named)
      if (!touched.contains(block))
        fail(fmt::format("DIFF {} {}: block {:#x} was never written and is named", a, b, block));
  co_return true;
}

Task<bool> World::flush() {
  if (down())
    co_return false;
  ++requests;
  say("FLUSH");
  const auto began = oracle.flush_begins();
  const auto disks = usable(VolumeKind::disk);
  Status status;
  Result<Volume> through = disks.empty() ? fail_os(0, "") : handle(disks[random() % disks.size()]);
  if (through && random() % 2 == 0)
    status = co_await through->flush();
  else
    status = co_await store->flush();
  // The volume it went through may have been deleted meanwhile; then nothing was promised.
  if (!status && status.error().code == ErrorCode::not_found)
    co_return false;
  const bool done = conclude("flush", 0, status);
  if (done) {
    oracle.flush_ends(began);
    say("  flushed");
  }
  co_return done;
}

Task<bool> World::checkpoint() {
  if (down())
    co_return false;
  say("CHECKPOINT");
  const Status status = co_await store->checkpoint();
  if (status)
    say("  checkpoint is durable");
  co_return conclude("checkpoint", 0, status);
}

Task<void> World::sleep_us(uint64_t duration_us) {
  Timer timer(loop);
  co_await timer.wait_us(duration_us);
}

}  // namespace obraz::test
