// simulate: random histories of the store (history.h), as many as asked for, on several processors.
//
//   simulate                      the number that a test run makes, and every coverage mark must be hit
//   simulate --seed N             one history again; its trace is printed when something is wrong
//   simulate --seeds A-B          these; --seeds A- goes on until it is told to end (SIGINT, SIGTERM)
//   simulate --jobs N             on so many processors (default: all)
//   simulate --marks              every mark must be hit in this run, too
//
// Exit status: 0 nothing was wrong, 1 something was (the seed is named; a run of it alone repeats it), 2 a
// wrong command line.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "base/check.h"
#include "sim/history.h"
#include "sim/seeds.h"
#include "store/marks.h"

namespace obraz::test {
namespace {

constexpr uint64_t kSeeds = 6000;

// What the workers share; each of the counts is written by one worker.
struct Shared {
  std::atomic<uint64_t> next{1};
  std::atomic<bool> stop{false};
};
struct Worker {
  HistoryTally tally;
  std::array<uint64_t, marks::kCount> marks;
  uint64_t seed;  // at work on it
};

Shared* shared = nullptr;

void on_signal(int) {
  shared->stop = true;
}

template <typename T>
T* map_shared(size_t count) {
  void* memory =
      ::mmap(nullptr, sizeof(T) * count, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  OBRAZ_CHECK(memory != MAP_FAILED);
  return static_cast<T*>(memory);
}

// In a process of its own: whether all went well.
bool work(Worker& worker, uint64_t last) {
  while (!shared->stop) {
    const uint64_t seed = shared->next++;
    if (seed > last)
      break;
    worker.seed = seed;
    const std::string problem = run_history(seed, worker.tally);
    worker.marks = marks::counts;
    if (!problem.empty()) {
      std::printf("seed %llu (again: simulate --seed %llu): %s\n", static_cast<unsigned long long>(seed),
                  static_cast<unsigned long long>(seed), problem.c_str());
      std::fflush(stdout);
      shared->stop = true;
      return false;
    }
  }
  return true;
}

void print_tally(const char* what, uint64_t HistoryTally::*count, const std::vector<Worker*>& workers) {
  unsigned long long sum = 0;
  for (const Worker* worker : workers)
    sum += worker->tally.*count;
  std::printf("%-24s %llu\n", what, sum);
}

int simulate(uint64_t first, uint64_t last, unsigned jobs, bool all_marks) {
  shared = new (map_shared<Shared>(1)) Shared;
  shared->next = first;
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  std::vector<Worker*> workers;
  std::vector<pid_t> processes;
  for (unsigned i = 0; i < jobs; ++i) {
    workers.push_back(new (map_shared<Worker>(1)) Worker{});
    const pid_t process = ::fork();
    OBRAZ_CHECK(process >= 0);
    if (process == 0)
      ::_exit(work(*workers.back(), last) ? 0 : 1);
    processes.push_back(process);
  }
  bool good = true;
  for (unsigned i = 0; i < jobs; ++i) {
    int status = 0;
    while (::waitpid(processes[i], &status, 0) < 0) {
    }
    if (status == 0)
      continue;
    good = false;
    shared->stop = true;
    if (WIFSIGNALED(status))
      std::printf("seed %llu: ended by signal %d\n", static_cast<unsigned long long>(workers[i]->seed),
                  WTERMSIG(status));
  }
  print_tally("histories", &HistoryTally::histories, workers);
  print_tally("requests", &HistoryTally::requests, workers);
  print_tally("power cuts", &HistoryTally::power_cuts, workers);
  print_tally("deaths of the process", &HistoryTally::kills, workers);
  print_tally("recoveries", &HistoryTally::recoveries, workers);
  print_tally("runs of the checker", &HistoryTally::checks, workers);
  print_tally("errors of devices", &HistoryTally::errors, workers);
  print_tally("histories with damage", &HistoryTally::damages, workers);
  print_tally("histories with rotten data", &HistoryTally::rotten, workers);
  for (size_t mark = 0; mark < marks::kCount; ++mark) {
    unsigned long long sum = 0;
    for (const Worker* worker : workers)
      sum += worker->marks[mark];
    if (sum > 0)
      continue;
    std::printf("mark not hit: %s\n", marks::kNames[mark]);
    good = good && !all_marks;
  }
  return good ? 0 : 1;
}

}  // namespace
}  // namespace obraz::test

int main(int argc, char** argv) {
  using namespace obraz::test;
  uint64_t seed = 0;
  std::string seeds;
  unsigned jobs = std::max(1u, std::thread::hardware_concurrency());
  // Slow builds make fewer runs, and do not get everywhere.
  uint64_t first = 1, last = scaled(kSeeds);
  bool all_marks = last == kSeeds;
  CLI::App app("random histories of the store against an oracle");
  app.add_option("--seed", seed, "one history");
  app.add_option("--seeds", seeds, "A-B, or A- without an end")->excludes("--seed");
  app.add_option("--jobs", jobs, "processes")->check(CLI::Range(1u, 1024u));
  bool marks_wanted = false;
  app.add_flag("--marks", marks_wanted, "fail when a coverage mark is not hit");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (seed != 0) {
    first = last = seed;
    jobs = 1;
    all_marks = false;
  } else if (!seeds.empty()) {
    const size_t dash = seeds.find('-');
    first = std::strtoull(seeds.c_str(), nullptr, 10);
    last = dash == std::string::npos  ? first
           : dash + 1 == seeds.size() ? UINT64_MAX - 1
                                      : std::strtoull(seeds.c_str() + dash + 1, nullptr, 10);
    if (first == 0 || last < first) {
      std::fprintf(stderr, "simulate: --seeds takes A-B or A-, from 1\n");
      return 2;
    }
    all_marks = false;
  }
  return simulate(first, last, jobs, all_marks || marks_wanted);
}
