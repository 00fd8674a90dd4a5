// For every scenario the power is cut before, during and after its first device operation, its second, and so
// on to its last; a second time during the recovery from that; and then everything acknowledged must be
// there.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "sim/scenarios.h"
#include "sim/seeds.h"

namespace obraz::test {
namespace {

struct CutRun {
  CutPoint cut;
  Survival survival;
  CutPoint in_recovery;  // operation 0: killed right after it instead
};

Survival survival_of(uint64_t index) {
  switch (index % 4) {
    case 0:
      return {0, 0};  // only what was flushed
    case 1:
      return {1, 0};  // everything, what was in flight included
    case 2:
      return {0.5, 0.3};
    default:
      return {0.2, 0.1};
  }
}

// What a client would still expect of a store that has just recovered.
Task<void> go_on(World& w) {
  for (const uint64_t disk : w.usable(VolumeKind::disk)) {
    co_await w.write(disk, 20'000, 30'000);
    const uint64_t snapshot = co_await w.snapshot(disk);
    co_await w.write(disk, 24 * 1024, 4096);
    co_await w.remove(snapshot);
  }
  co_await w.flush();
}

std::string play(const Scenario& scenario, const CutRun& run, uint64_t seed, uint64_t& recovery_operations) {
  WorldOptions options = scenario.options;
  options.seed = seed;
  World world(options);
  world.may_be_full = true;
  world.power.arm(run.cut, run.survival);
  if (world.open())
    world.loop.run(scenario.script(world));
  world.crash(&run.survival);
  if (world.problem().empty())
    world.check_devices("after the power cut");
  world.power.restart();  // counts from here
  world.power.arm(run.in_recovery, run.survival);
  world.open();
  recovery_operations = world.power.operations();
  world.power.arm({}, run.survival);
  if (world.power.is_on()) {  // the recovery was not cut: what it shows must be there after the next one, too
    world.verify();
    world.crash(nullptr);
  } else {
    world.crash(&run.survival);
  }
  if (world.problem().empty() && world.open()) {
    world.verify();
    world.loop.run(go_on(world));
    world.check();
    world.verify();
    world.close();
  }
  if (world.problem().empty())
    return {};
  static constexpr const char* kWhen[] = {"before", "during", "after"};
  return fmt::format("{}: cut {} operation {}, in recovery {} {}, survival {} {}\n{}\n{}", scenario.name,
                     kWhen[int(run.cut.when)], run.cut.operation, kWhen[int(run.in_recovery.when)],
                     run.in_recovery.operation, run.survival.keep, run.survival.torn, world.problem(),
                     world.trace());
}

class PowerCutSweep : public testing::TestWithParam<Scenario> {};

INSTANTIATE_TEST_SUITE_P(Scenarios, PowerCutSweep, testing::ValuesIn(scenarios()),
                         [](const auto& info) { return info.param.name; });

// How many device operations the scenario takes; it must itself be right.
uint64_t count_operations(const Scenario& scenario, uint64_t seed) {
  WorldOptions options = scenario.options;
  options.seed = seed;
  World world(options);
  world.may_be_full = true;
  if (world.open())
    world.loop.run(scenario.script(world));
  const uint64_t total = world.power.operations();
  world.check();
  world.verify();
  world.close();
  EXPECT_EQ(world.problem(), "") << world.trace();
  return total;
}

TEST_P(PowerCutSweep, WhatWasAcknowledgedIsThere) {
  const Scenario& scenario = GetParam();
  const uint64_t seed = number_from_env("OBRAZ_SIM_SEED", 1);
  const uint64_t total = count_operations(scenario, seed);
  ASSERT_FALSE(HasFailure());
  const uint64_t points = total * 3, budget = number_from_env("OBRAZ_SIM_SWEEP_RUNS", scaled(3000));
  const uint64_t stride = divide_up(points, budget);
  uint64_t recovery_operations = 0, runs = 0;
  for (uint64_t i = seed % stride; i < points; i += stride, ++runs) {
    CutRun run;
    run.cut = {i / 3 + 1, CutPoint::When(i % 3)};
    run.survival = survival_of(i / 3 + i);
    if (runs % 2 == 1 && recovery_operations > 0)
      run.in_recovery = {1 + runs / 2 % recovery_operations, CutPoint::When(runs / 2 % 3)};
    uint64_t operations = 0;
    const std::string problem = play(scenario, run, seed, operations);
    ASSERT_TRUE(problem.empty()) << problem;
    recovery_operations = std::max(recovery_operations, operations);
  }
  RecordProperty("operations", int(total));
  RecordProperty("runs", int(runs));
}

// The process dies at every operation; what the next one shows may have been in a volatile cache only, and it
// has made it durable: a power cut right after it opened takes nothing away.
TEST_P(PowerCutSweep, WhatIsShownAfterADeathOfTheProcessStays) {
  const Scenario& scenario = GetParam();
  const uint64_t seed = number_from_env("OBRAZ_SIM_SEED", 1);
  const uint64_t total = count_operations(scenario, seed);
  ASSERT_FALSE(HasFailure());
  const uint64_t points = total * 2, budget = number_from_env("OBRAZ_SIM_SWEEP_RUNS", scaled(1000));
  const Survival nothing{.keep = 0, .torn = 0};
  for (uint64_t i = 0; i < points; i += divide_up(points, budget)) {
    WorldOptions options = scenario.options;
    options.seed = seed + i;  // what is in flight lands or not
    World world(options);
    world.may_be_full = true;
    world.power.arm({i / 2 + 1, i % 2 ? CutPoint::When::during : CutPoint::When::after, true}, nothing);
    if (world.open())
      world.loop.run(scenario.script(world));
    world.crash(nullptr);
    world.open();
    world.verify();
    world.crash(&nothing);
    if (world.problem().empty() && world.open()) {
      world.verify();
      world.check();
      world.verify();
      world.close();
    }
    ASSERT_TRUE(world.problem().empty())
        << world.problem() << "\n"
        << scenario.name << ": killed " << (i % 2 ? "during" : "after") << " operation " << i / 2 + 1 << "\n"
        << world.trace();
  }
}

}  // namespace
}  // namespace obraz::test
