#include "support/oracle.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "support/sim_image.h"
#include "support/stamp.h"

namespace obraz::test {
namespace {

using ContentBytes = std::array<std::byte, kModelBlock>;
constexpr ContentBytes kZeros{};

ConstBytes bytes_of(const std::shared_ptr<const ContentBytes>& content) {
  return content ? *content : kZeros;
}

bool equal(ConstBytes a, ConstBytes b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace

// --- histories
// ----------------------------------------------------------------------------------------------------------

bool Oracle::is_durable(const Change& change) const {
  return !change.failed && change.end != UINT64_MAX && (change.durable || change.end < durable_before_);
}

bool Oracle::is_settled(const Change& change) const {
  return is_durable(change) || (change.end != UINT64_MAX && change.end < durable_before_);
}

std::vector<Oracle::Change> Oracle::allowed_now(const History& history, uint64_t began) const {
  std::vector<Change> out;
  for (const Change& e : history)
    if (std::none_of(history.begin(), history.end(),
                     [&](const Change& f) { return !f.failed && f.end < began && f.begin > e.end; }))
      out.push_back(e);
  return out;
}

std::vector<Oracle::Change> Oracle::allowed_after_crash(const History& history) const {
  std::vector<Change> out;
  for (const Change& e : history)
    if (std::none_of(history.begin(), history.end(),
                     [&](const Change& f) { return is_durable(f) && f.begin > e.end; }))
      out.push_back(e);
  return out;
}

void Oracle::prune(History& history) const {
  const uint64_t oldest_read = reads_.empty() ? UINT64_MAX : *reads_.begin();
  std::vector<Change> kept;
  for (const Change& e : history)
    if (std::none_of(history.begin(), history.end(), [&](const Change& f) {
          return is_durable(f) && f.begin > e.end && f.end < oldest_read;
        }))
      kept.push_back(e);
  history = std::move(kept);
}

Oracle::History& Oracle::history(ModelVolume& volume, uint64_t block) {
  auto [it, fresh] = volume.blocks.try_emplace(block);
  if (fresh) {
    it->second.push_back({0, 0, false, true, nullptr});
    for (const ModelVolume::Wipe& wipe : volume.wipes) {
      if (block < wipe.first_block || block >= wipe.end_block)
        continue;
      it->second.push_back({wipe.ticket, UINT64_MAX, false, false, nullptr});
      in_flight_[wipe.ticket].push_back({volume.number, block});
    }
  }
  return it->second;
}

void Oracle::add(ModelVolume& volume, uint64_t block, Ticket ticket, const std::vector<Content>& contents) {
  History& changes = history(volume, block);
  prune(changes);
  for (const Content& content : contents)
    changes.push_back({ticket, UINT64_MAX, false, false, content});
  in_flight_[ticket].push_back({volume.number, block});
  for (auto& [number, clone] : volumes_) {  // clones being made may see it
    if (clone.state != ModelVolume::State::creating || clone.source != volume.number)
      continue;
    History& seen = history(clone, block);
    const uint64_t at = seen.back().begin;
    for (const Content& content : contents)
      seen.push_back({at, at, false, false, content});
  }
}

// --- volumes
// ------------------------------------------------------------------------------------------------------------

void Oracle::create_begins(uint64_t volume, uint64_t size_bytes) {
  OBRAZ_CHECK(!knows(volume));
  ModelVolume& made = volumes_[volume];
  made.number = volume;
  made.sizes = {size_bytes};
}

void Oracle::clone_begins(uint64_t volume, uint64_t source, bool frozen, uint64_t size_bytes) {
  create_begins(volume, size_bytes);
  ModelVolume& made = volumes_.at(volume);
  made.frozen = frozen;
  made.source = source;
  const uint64_t now = ++clock_;
  for (const auto& [block, changes] : volumes_.at(source).blocks) {
    History& copy = made.blocks[block];
    for (const Change& change : allowed_now(changes, now))
      copy.push_back({now, now, false, false, change.content});
  }
}

void Oracle::creation_ends(uint64_t volume, bool done) {
  if (!done) {
    volumes_.erase(volume);
    return;
  }
  ModelVolume& made = volumes_.at(volume);
  made.state = ModelVolume::State::live;
  for (auto& [block, changes] : made.blocks)
    for (Change& change : changes)
      change.durable = true;
}

void Oracle::delete_begins(uint64_t volume) {
  volumes_.at(volume).state = ModelVolume::State::deleting;
}

void Oracle::delete_ends(uint64_t volume, bool done) {
  if (done)
    volumes_.erase(volume);
  else
    volumes_.at(volume).state = ModelVolume::State::live;
}

Oracle::Ticket Oracle::revert_begins(uint64_t volume, uint64_t source) {
  const Ticket ticket = ++clock_;
  in_flight_[ticket];
  ModelVolume& target = volumes_.at(volume);
  const ModelVolume& from = volumes_.at(source);
  for (const auto& [block, changes] : from.blocks) {
    std::vector<Content> contents;
    for (const Change& change : allowed_now(changes, ticket))
      contents.push_back(change.content);
    add(target, block, ticket, contents);
  }
  for (const uint64_t block : touched_blocks(volume))
    if (!from.blocks.contains(block))
      add(target, block, ticket, {nullptr});
  target.wipes.push_back({ticket, 0, UINT64_MAX});
  target.sizes.push_back(from.size_bytes());
  return ticket;
}

void Oracle::revert_ends(uint64_t volume, Ticket ticket, bool done) {
  ends(ticket, done ? Outcome::durable : Outcome::failed);
  ModelVolume& target = volumes_.at(volume);
  if (done)
    target.sizes = {target.sizes.back()};
  else
    target.sizes.pop_back();
}

void Oracle::resize_begins(uint64_t volume, uint64_t size_bytes) {
  volumes_.at(volume).sizes.push_back(size_bytes);
}

void Oracle::resize_ends(uint64_t volume, bool done) {
  auto& sizes = volumes_.at(volume).sizes;
  if (done)
    sizes = {sizes.back()};
  else
    sizes.pop_back();
}

std::vector<uint64_t> Oracle::volumes() const {
  std::vector<uint64_t> out;
  for (const auto& [number, volume] : volumes_)
    out.push_back(number);
  return out;
}

std::vector<uint64_t> Oracle::touched_blocks(uint64_t volume) const {
  std::vector<uint64_t> out;
  for (const auto& [block, changes] : volumes_.at(volume).blocks)
    out.push_back(block);
  return out;
}

// --- data
// -----------------------------------------------------------------------------------------------------------------

Oracle::Ticket Oracle::change_begins(uint64_t number, uint64_t offset, uint64_t length,
                                     const std::byte* bytes) {
  const Ticket ticket = ++clock_;
  in_flight_[ticket];
  ModelVolume& target = volumes_.at(number);
  if (!bytes) {  // whole blocks; those without a history stay without
    const uint64_t first = divide_up(offset, kModelBlock), end = (offset + length) / kModelBlock;
    for (auto it = target.blocks.lower_bound(first); it != target.blocks.end() && it->first < end; ++it)
      add(target, it->first, ticket, {nullptr});
    if (first < end)
      target.wipes.push_back({ticket, first, end});
  }
  for (uint64_t at = offset; at < offset + length;) {
    const uint64_t block = at / kModelBlock, in_block = at % kModelBlock;
    const uint64_t n = std::min(kModelBlock - in_block, offset + length - at);
    std::vector<Content> contents;
    if (n == kModelBlock && !bytes) {
      at = round_down(offset + length, kModelBlock);
      continue;
    }
    // Around a partial write stands whatever stood there.
    std::vector<Content> below{nullptr};
    if (n < kModelBlock) {
      below.clear();
      for (const Change& change : allowed_now(history(target, block), ticket))
        below.push_back(change.content);
    }
    for (const Content& base : below) {
      auto made = std::make_shared<ContentBytes>();
      std::memcpy(made->data(), bytes_of(base).data(), kModelBlock);
      if (bytes)
        std::memcpy(made->data() + in_block, bytes + (at - offset), n);
      else
        std::memset(made->data() + in_block, 0, n);
      contents.push_back(std::move(made));
    }
    add(target, block, ticket, contents);
    at += n;
  }
  return ticket;
}

Oracle::Ticket Oracle::write_begins(uint64_t volume, uint64_t offset, ConstBytes bytes) {
  return change_begins(volume, offset, bytes.size(), bytes.data());
}

Oracle::Ticket Oracle::zero_begins(uint64_t volume, uint64_t offset, uint64_t length) {
  return change_begins(volume, offset, length, nullptr);
}

Oracle::Ticket Oracle::discard_begins(uint64_t volume, uint64_t offset, uint64_t length) {
  const uint64_t first = round_up(offset, kModelBlock), last = round_down(offset + length, kModelBlock);
  return change_begins(volume, first, last > first ? last - first : 0, nullptr);
}

void Oracle::ends(Ticket ticket, Outcome outcome) {
  const auto found = in_flight_.find(ticket);
  OBRAZ_CHECK(found != in_flight_.end());
  const uint64_t now = ++clock_;
  for (const Place& place : found->second) {
    const auto volume = volumes_.find(place.volume);
    if (volume == volumes_.end())
      continue;  // deleted meanwhile
    for (Change& change : volume->second.blocks.at(place.block)) {
      if (change.begin != ticket || change.end != UINT64_MAX)
        continue;
      change.end = now;
      change.failed = outcome == Outcome::failed;
      change.durable = outcome == Outcome::durable;
    }
  }
  in_flight_.erase(found);
  for (auto& [number, volume] : volumes_)
    std::erase_if(volume.wipes, [ticket](const ModelVolume::Wipe& wipe) { return wipe.ticket == ticket; });
}

void Oracle::flush_ends(Ticket began) {
  durable_before_ = std::max(durable_before_, began);
}

Problem Oracle::judge(const ModelVolume& volume, const std::vector<Change>& allowed, uint64_t place,
                      ConstBytes bytes) const {
  while (!bytes.empty()) {
    const uint64_t in_block = place % kModelBlock;
    const size_t n = std::min<size_t>(bytes.size(), kSectorSize - place % kSectorSize);
    const ConstBytes found = bytes.first(n);
    if (std::none_of(allowed.begin(), allowed.end(), [&](const Change& change) {
          return equal(bytes_of(change.content).subspan(in_block, n), found);
        })) {
      std::string text = fmt::format("volume {} at {:#x} holds {}; allowed:", volume.number, place,
                                     describe_stamp(found, place));
      for (const Change& change : allowed)
        text += fmt::format(" [{}{}]", describe_stamp(bytes_of(change.content).subspan(in_block, n), place),
                            change.failed              ? ", failed"
                            : change.end == UINT64_MAX ? ", in flight"
                                                       : "");
      return text;
    }
    bytes = bytes.subspan(n);
    place += n;
  }
  return {};
}

void Oracle::pin(History& history, ConstBytes bytes) {
  Content content;
  if (!is_zero(bytes)) {
    auto made = std::make_shared<ContentBytes>();
    std::memcpy(made->data(), bytes.data(), kModelBlock);
    content = std::move(made);
  }
  const uint64_t now = ++clock_;
  history = {{now, now, false, true, std::move(content)}};
}

Problem Oracle::read_ends(uint64_t number, Ticket began, uint64_t offset, ConstBytes bytes) {
  Problem problem = read_shows(number, began, offset, bytes);
  reads_.erase(began);
  return problem;
}

std::optional<std::vector<std::byte>> Oracle::certain(uint64_t number, uint64_t block) const {
  const auto& blocks = volumes_.at(number).blocks;
  const auto found = blocks.find(block);
  if (found == blocks.end())
    return std::vector<std::byte>(kModelBlock);
  const auto allowed = allowed_now(found->second, clock_ + 1);
  if (allowed.size() != 1)
    return std::nullopt;
  const ConstBytes bytes = bytes_of(allowed.front().content);
  return std::vector<std::byte>(bytes.begin(), bytes.end());
}

Problem Oracle::read_shows_zeros(uint64_t number, Ticket began, uint64_t offset, uint64_t length) {
  const uint64_t end = offset + length;
  for (const uint64_t block : touched_blocks(number)) {
    const uint64_t first = std::max(offset, block * kModelBlock),
                   last = std::min(end, (block + 1) * kModelBlock);
    if (first >= last)
      continue;
    if (Problem problem = read_shows(number, began, first, ConstBytes(kZeros).first(last - first)))
      return problem;
  }
  return {};
}

Problem Oracle::read_shows(uint64_t number, Ticket began, uint64_t offset, ConstBytes bytes) {
  static const std::vector<Change> kNever{{0, 0, false, true, nullptr}};
  const bool oldest = *reads_.begin() == began;  // older reads may still show older changes
  ModelVolume& target = volumes_.at(number);
  for (uint64_t at = 0; at < bytes.size();) {
    const uint64_t place = offset + at;
    const uint64_t n = std::min(kModelBlock - place % kModelBlock, bytes.size() - at);
    const ConstBytes part = bytes.subspan(at, n);
    const auto found = target.blocks.find(place / kModelBlock);
    const auto allowed = found == target.blocks.end() ? kNever : allowed_now(found->second, began);
    if (Problem problem = judge(target, allowed, place, part))
      return problem;
    at += n;
    if (found == target.blocks.end() || n < kModelBlock || target.state == ModelVolume::State::creating)
      continue;
    History& changes = found->second;
    const bool quiet =
        std::all_of(changes.begin(), changes.end(), [&](const Change& change) { return change.end < began; });
    const auto later = allowed_after_crash(changes);
    if (oldest && quiet && later.size() > 1 &&
        std::all_of(later.begin(), later.end(), [&](const Change& change) { return is_settled(change); }))
      pin(changes, part);
  }
  return {};
}

// --- resources
// ------------------------------------------------------------------------------------------------------------

void Oracle::put_begins(const std::string& key, std::optional<std::string> value) {
  auto [it, fresh] = resources_.try_emplace(key);
  if (fresh)
    it->second.push_back(std::nullopt);
  it->second.push_back(std::move(value));
}

void Oracle::put_ends(const std::string& key, bool done) {
  auto& values = resources_.at(key);
  if (done)
    values.erase(values.begin(), values.end() - 1);
  else
    values.pop_back();
}

// --- crash
// ----------------------------------------------------------------------------------------------------------------

void Oracle::crashed() {
  reads_.clear();
  while (!in_flight_.empty())
    ends(in_flight_.begin()->first, Outcome::failed);
}

Problem Oracle::recovered_volume(uint64_t number, std::optional<uint64_t> size_bytes, bool frozen) {
  if (!knows(number))
    return size_bytes ? Problem(fmt::format("volume {} was deleted or never made, and is there", number))
                      : Problem();
  ModelVolume& volume = volumes_.at(number);
  if (!size_bytes) {
    if (volume.state == ModelVolume::State::live)
      return fmt::format("volume {} is gone", number);
    volumes_.erase(number);
    return {};
  }
  if (volume.frozen != frozen)
    return fmt::format("volume {} has become {}", number, frozen ? "frozen" : "writable");
  if (std::find(volume.sizes.begin(), volume.sizes.end(), *size_bytes) == volume.sizes.end())
    return fmt::format("volume {} has {:#x} bytes, not {:#x}", number, *size_bytes, volume.size_bytes());
  volume.sizes = {*size_bytes};
  volume.state = ModelVolume::State::live;
  volume.source = 0;
  return {};
}

Problem Oracle::recovered_resources(const std::map<std::string, std::string>& resources) {
  for (const auto& [key, value] : resources)
    if (!resources_.contains(key))
      return fmt::format("resource {} was never made, and is there", key);
  for (auto it = resources_.begin(); it != resources_.end();) {
    const auto found = resources.find(it->first);
    const auto value = found == resources.end() ? std::nullopt : std::optional(found->second);
    if (std::find(it->second.begin(), it->second.end(), value) == it->second.end())
      return fmt::format("resource {} is {}, not {}", it->first, value.value_or("(absent)"),
                         it->second.back().value_or("(absent)"));
    it->second = {value};
    it = value ? std::next(it) : resources_.erase(it);
  }
  return {};
}

Problem Oracle::recovered_bytes(uint64_t number, uint64_t offset, ConstBytes bytes) {
  OBRAZ_CHECK(offset % kModelBlock == 0 && bytes.size() % kModelBlock == 0);
  ModelVolume& volume = volumes_.at(number);
  for (uint64_t at = 0; at < bytes.size(); at += kModelBlock) {
    const ConstBytes part = bytes.subspan(at, kModelBlock);
    const auto found = volume.blocks.find((offset + at) / kModelBlock);
    if (found == volume.blocks.end()) {
      if (!is_zero(part))
        return fmt::format("volume {} at {:#x} was never written and holds {}", number, offset + at,
                           describe_stamp(part, offset + at));
      continue;
    }
    if (Problem problem = judge(volume, allowed_after_crash(found->second), offset + at, part))
      return problem;
    pin(found->second, part);
  }
  return {};
}

Problem Oracle::recovered_zeros(uint64_t number, uint64_t offset, uint64_t length) {
  ModelVolume& volume = volumes_.at(number);
  const uint64_t end = (offset + length) / kModelBlock;
  for (auto it = volume.blocks.lower_bound(offset / kModelBlock);
       it != volume.blocks.end() && it->first < end; ++it)
    if (Problem problem = recovered_bytes(number, it->first * kModelBlock, kZeros))
      return problem;
  return {};
}

}  // namespace obraz::test
