#include "sim/world.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/log.h"
#include "store/check.h"

namespace obraz::test {
namespace {

// The world whose bugs the process may die of: its seed and trace are printed then, too.
World* current = nullptr;

void print_current() {
  if (current)
    std::fprintf(stderr, "%s\n", current->trace().c_str());
}

void on_abort(int signal) {
  print_current();
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

uint64_t meta_size(const WorldOptions& options) {
  return options.meta_bytes ? options.meta_bytes
                            : Store::meta_bytes_for(options.data_bytes, options.journal_bytes);
}

// Formatting is the same every time; its outcome is kept.
const std::pair<SimImage, SimImage>& formatted(const WorldOptions& options) {
  static std::map<std::array<uint64_t, 3>, std::pair<SimImage, SimImage>> kept;
  auto [it, fresh] = kept.try_emplace({options.data_bytes, options.journal_bytes, meta_size(options)});
  if (fresh) {
    SimLoop loop;
    SimDevice meta(loop, {.size_bytes = meta_size(options)}), data(loop, {.size_bytes = options.data_bytes});
    FormatOptions format;
    format.journal_bytes = options.journal_bytes;
    for (size_t i = 0; i < format.uuid.bytes.size(); ++i)
      format.uuid.bytes[i] = std::byte(0x10 + i);
    const Status status = loop.run(Store::format(meta, data, format));
    OBRAZ_CHECK(status.has_value());
    it->second = {meta.durable(), data.durable()};  // a format that was acknowledged is durable
  }
  return it->second;
}

}  // namespace

ClientBuffer::ClientBuffer(size_t size, size_t shift)
    : memory_(static_cast<std::byte*>(std::aligned_alloc(kBlockSize, round_up(size + shift, kBlockSize)))),
      bytes_(memory_ + shift, size) {
  OBRAZ_CHECK(memory_);
}

ClientBuffer::~ClientBuffer() {
  std::free(memory_);
}

World::World(const WorldOptions& options)
    : options(options),
      random(options.seed),
      loop({.seed = options.seed, .shuffle = options.shuffle}),
      meta(loop,
           {.size_bytes = meta_size(options),
            .seed = options.seed * 2,
            .name = "meta",
            .max_latency_us = options.max_latency_us,
            .slow = options.slow,
            .garbage = options.garbage,
            .power = &power},
           formatted(options).first),
      data(loop,
           {.size_bytes = options.data_bytes,
            .seed = options.seed * 2 + 1,
            .name = "data",
            .max_latency_us = options.max_latency_us,
            .slow = options.slow,
            .power = &power},
           formatted(options).second),
      unclaimed_(loop) {
  current = this;
  if (!std::getenv("OBRAZ_SIM_LOG"))  // thousands of stores fail as they should
    log::set_level(log::Level(0));
  loop.on_stuck = print_current;
  std::signal(SIGABRT, on_abort);
  std::signal(SIGSEGV, on_abort);
}

World::~World() {
  if (store) {
    if (power.is_on())
      power.kill();
    loop.join();
    loop.run(store->abandon());
    store.reset();
  }
  current = nullptr;
}

bool World::open() {
  OBRAZ_CHECK(!store);
  auto opened = loop.run(Store::open(loop, meta, data, options.store));
  if (opened) {
    store = std::move(*opened);
    return true;
  }
  if (power.is_on())
    fail("the store does not open: " + describe(opened.error()));
  return false;
}

void World::close() {
  if (!store)
    return;
  const Status status = loop.run(store->close());
  if (!status && power.is_on() && !tolerated(status.error()))
    fail("the store does not close: " + describe(status.error()));
  store.reset();
}

void World::crash(const Survival* survival) {
  if (power.is_on()) {
    say(survival ? "POWER CUT" : "KILL");
    survival ? power.cut(*survival) : power.kill();
  } else {
    say("POWER WAS CUT");
  }
  loop.join();
  if (store) {
    loop.run(store->abandon());
    store.reset();
  }
  loop.run_until_idle();
  OBRAZ_CHECK(busy_.empty());
  in_use_.clear();
  oracle.crashed();
  power.restart();
}

void World::fail(std::string problem) {
  if (problem_.empty()) {
    say("PROBLEM: " + problem);
    problem_ = std::move(problem);
  }
}

void World::say(std::string line) {
  trace_.push_back(fmt::format("{:>9} {:>5}  {}", loop.now_us(), power.operations(), line));
}

std::string World::trace() const {
  constexpr size_t kLines = 400;
  std::string out =
      fmt::format("seed {}: time in us, device operations since the last start, event\n", options.seed);
  const size_t skip = trace_.size() > kLines ? trace_.size() - kLines : 0;
  if (skip > 0)
    out += fmt::format("… {} earlier lines\n", skip);
  for (size_t i = skip; i < trace_.size(); ++i)
    out += trace_[i] + "\n";
  return out;
}

// --- judging
// --------------------------------------------------------------------------------------------------------------

namespace {

Task<Problem> verify_volume(World& world, uint64_t number) {
  auto volume = world.store->open_volume({number});
  if (!volume)
    co_return fmt::format("volume {} cannot be opened: {}", number, describe(volume.error()));
  const uint64_t piece = std::min(volume->size_bytes(), limits::kMaxRequestSize);
  ClientBuffer all(piece);  // holes leave it untouched, so it costs what is there
  for (uint64_t offset = 0; offset < volume->size_bytes(); offset += piece) {
    const Bytes bytes = all.bytes().first(std::min(piece, volume->size_bytes() - offset));
    std::vector<Extent> extents;
    const Status status = co_await volume->read(offset, bytes, &extents);
    if (!status)
      co_return fmt::format("volume {} at {:#x} cannot be read: {}", number, offset,
                            describe(status.error()));
    uint64_t at = offset;
    for (const Extent& extent : extents) {
      if (extent.offset != at || extent.length == 0 || extent.length > offset + bytes.size() - at)
        co_return fmt::format("volume {} at {:#x}: extents do not cover the read", number, at);
      Problem problem;
      if (extent.zero)
        problem = world.oracle.recovered_zeros(number, at, extent.length);
      else
        problem = world.oracle.recovered_bytes(number, at, bytes.subspan(at - offset, extent.length));
      if (problem)
        co_return problem;
      at += extent.length;
    }
    if (at != offset + bytes.size())
      co_return fmt::format("volume {} at {:#x}: extents end too early", number, at);
  }
  co_return std::nullopt;
}

}  // namespace

Task<DamageFound> read_what_is_left(World& world) {
  DamageFound found;
  constexpr uint64_t kPiece = kClusterSize;
  ClientBuffer buffer(kPiece);
  for (const VolumeInfo& info : world.store->volumes()) {
    const uint64_t number = info.id.value;
    auto volume = world.store->open_volume({number});
    if (!volume) {
      world.fail(fmt::format("volume {} cannot be opened: {}", number, describe(volume.error())));
      co_return found;
    }
    if (const Problem problem =
            world.oracle.recovered_volume(number, info.size_bytes, info.kind == VolumeKind::frozen)) {
      world.fail(*problem);
      co_return found;
    }
    std::vector<Extent> extents;
    const Status status = co_await volume->block_status(0, volume->size_bytes(), 1 << 16, extents);
    for (uint64_t offset = 0; offset < volume->size_bytes();) {
      // Where the mapping is whole, what was never written is passed over.
      const auto hole = std::ranges::find_if(extents, [&](const Extent& extent) {
        return extent.hole && extent.offset <= offset && offset < extent.offset + extent.length;
      });
      if (status && hole != extents.end()) {
        const uint64_t end = hole->offset + hole->length;
        if (const Problem problem = world.oracle.recovered_zeros(number, offset, end - offset))
          world.fail(*problem);
        offset = end;
        continue;
      }
      const Status read = co_await volume->read(offset, buffer.bytes());
      if (!read) {
        ++found.errors;
        found.damaged.insert(number);
        if (read.error().code != ErrorCode::corruption)
          world.fail(fmt::format("volume {} at {:#x}: {}", number, offset, describe(read.error())));
      } else {
        ++found.right;
        if (const Problem problem = world.oracle.recovered_bytes(number, offset, buffer.bytes()))
          world.fail(*problem);
      }
      offset += kPiece;
    }
  }
  co_return found;
}

void World::verify() {
  if (!problem_.empty() || !store)
    return;
  if (store->health() != StoreHealth::ok)
    return fail("health is not ok: " + store->health_reason());
  std::map<uint64_t, VolumeInfo> found;
  for (const VolumeInfo& info : store->volumes())
    found[info.id.value] = info;
  std::set<uint64_t> all;
  for (const auto& [number, info] : found)
    all.insert(number);
  for (const uint64_t number : oracle.volumes())
    all.insert(number);
  for (const uint64_t number : all) {
    const auto there = found.find(number);
    const bool exists = there != found.end();
    if (auto problem =
            oracle.recovered_volume(number, exists ? std::optional(there->second.size_bytes) : std::nullopt,
                                    exists && there->second.kind == VolumeKind::frozen))
      return fail(*problem);
  }
  std::map<std::string, std::string> resources;
  for (const auto& [key, value] : store->resources())
    resources[key] = value;
  if (auto problem = oracle.recovered_resources(resources))
    return fail(*problem);
  for (const auto& [number, info] : found)  // one transaction made both
    if (!resources.contains(fmt::format("volume/{}", number)))
      return fail(fmt::format("volume {} is there without its resource", number));
  for (const auto& [key, value] : resources)
    if (key.starts_with("volume/") && !found.contains(std::stoull(key.substr(7))))
      return fail(key + " is there without its volume");
  for (const auto& [number, info] : found)
    if (auto problem = loop.run(verify_volume(*this, number)))
      return fail(*problem);
}

void World::check_devices(const char* when) {
  if (!problem_.empty())
    return;
  const auto report = loop.run(check_store(loop, meta, data, CheckOptions{}));
  if (!report)
    return fail(fmt::format("checker, {}: {}", when, describe(report.error())));
  for (size_t i = 0; i < std::min<size_t>(report->problems.size(), 30); ++i)
    say("checker: " + report->problems[i]);
  if (!report->clean())
    fail(fmt::format("checker, {}: {} problems, first: {}", when, report->problems.size(),
                     report->problems.front()));
}

void World::check() {
  close();
  check_devices("after a clean close");
  if (problem_.empty())
    open();
}

}  // namespace obraz::test
