// Every scenario again, with an error of the device at its first operation of a kind, its second, and so on.
// What may fail: a request whose own data could not be read or written. What must: the store as a whole
// (read-only until it is reopened), once a flush or a write of metadata has failed. What must never: anything
// that was acknowledged.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <tuple>

#include "sim/scenarios.h"
#include "sim/seeds.h"

namespace obraz::test {
namespace {

enum class Which : uint8_t { meta, data };

struct Fault {
  Which device;
  IoKind kind;
  int os_error;
  bool fails_store;
};

constexpr Fault kFaults[] = {
    {Which::data, IoKind::write, EIO, false},    {Which::data, IoKind::write, ENOSPC, false},
    {Which::data, IoKind::read, EIO, false},     {Which::data, IoKind::discard, EIO, false},
    {Which::data, IoKind::allocate, EIO, false}, {Which::data, IoKind::allocate, ENOSPC, false},
    {Which::data, IoKind::flush, EIO, true},     {Which::meta, IoKind::flush, EIO, true},
    {Which::meta, IoKind::write, EIO, true},     {Which::meta, IoKind::write, ENOSPC, true},
    {Which::meta, IoKind::read, EIO, false},
};

std::string name_of(const Fault& fault) {
  return fmt::format("{}_{}_{}", fault.device == Which::meta ? "meta" : "data", test::name_of(fault.kind),
                     fault.os_error == EIO ? "EIO" : "ENOSPC");
}

void PrintTo(const Fault& fault, std::ostream* out) {
  *out << name_of(fault);
}

// Once the store has failed, everything that would have to change it is refused, and says why.
Task<Problem> expect_failed(World& w) {
  if (w.store->health() != StoreHealth::failed)
    co_return "the store has not failed";
  if (w.store->health_reason().empty())
    co_return "the store does not say why it failed";
  const Status flushed = co_await w.store->flush();
  if (flushed)
    co_return "a flush was acknowledged after the failure";
  Transaction changes;
  changes.push_back(PutResource{"late", "x"});
  const Status committed = co_await w.store->commit(std::move(changes));
  if (committed)
    co_return "a transaction was acknowledged after the failure";
  const auto disks = w.usable(VolumeKind::disk);
  for (const uint64_t disk : disks) {
    auto volume = w.store->open_volume({disk});
    if (!volume)
      co_return "a volume cannot be opened after the failure: " + describe(volume.error());
    ClientBuffer buffer(kBlockSize);
    const Status written = co_await volume->write(0, buffer.bytes());
    if (written || written.error().code != ErrorCode::read_only)
      co_return "a write was not refused as read-only after the failure";
  }
  co_return std::nullopt;
}

class IoError : public testing::TestWithParam<std::tuple<Scenario, Fault>> {
 protected:
  // Whether the n-th operation of the kind was reached.
  bool play(uint64_t n, uint64_t seed) {
    const auto& [scenario, fault] = GetParam();
    WorldOptions options = scenario.options;
    options.seed = seed;
    World world(options);
    world.may_be_full = true;
    uint64_t failed_requests = 0;
    world.tolerated = [&](const Error& error) {
      ++failed_requests;
      return error.code == ErrorCode::io || error.code == ErrorCode::read_only ||
             error.code == ErrorCode::no_space ||
             (fault.fails_store && error.code == ErrorCode::out_of_range);  // a resize before it failed
    };
    SimDevice& device = fault.device == Which::meta ? world.meta : world.data;
    device.fail(fault.kind, n, fault.os_error);
    auto opened = world.loop.run(Store::open(world.loop, world.meta, world.data, options.store));
    if (opened) {
      world.store = std::move(*opened);
      world.loop.run(scenario.script(world));
      if (device.counters(fault.kind).failures == 0)
        return false;
      if (fault.fails_store) {
        if (const Problem problem = world.loop.run(expect_failed(world)))
          world.fail(*problem);
      } else if (world.store->health() == StoreHealth::failed) {
        world.fail("the store has failed: " + world.store->health_reason());
      } else if (fault.device == Which::data && failed_requests > 1) {
        world.fail(fmt::format("{} requests failed of one error", failed_requests));
      }
    } else {
      EXPECT_GT(device.counters(fault.kind).failures, 0u) << describe(opened.error());
    }
    device.heal();
    const Survival survival{.keep = double(n % 3) / 2, .torn = 0};
    world.crash(&survival);
    if (world.problem().empty() && world.open()) {
      world.verify();
      world.check();
      world.verify();
      world.close();
    }
    EXPECT_EQ(world.problem(), "") << scenario.name << ", error at operation " << n << " of its kind\n"
                                   << world.trace();
    return true;
  }
};

INSTANTIATE_TEST_SUITE_P(Scenarios, IoError,
                         testing::Combine(testing::ValuesIn(scenarios()), testing::ValuesIn(kFaults)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param).name) + "_" +
                                  name_of(std::get<1>(info.param));
                         });

TEST_P(IoError, IsConfinedAndNothingAcknowledgedIsLost) {
  // All of the first operations, then ever fewer: what follows repeats what came before.
  const uint64_t full = scaled(60);
  uint64_t reached = 0;
  for (uint64_t n = 1; n < 5000; n += n < full ? 1 : n / full + 1) {
    if (!play(n, 1 + n % 3))
      break;
    ++reached;
    if (HasFailure())
      return;
  }
  RecordProperty("errors", int(reached));
}

}  // namespace
}  // namespace obraz::test
