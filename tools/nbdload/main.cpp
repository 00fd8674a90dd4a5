// nbdload URI...: a load generator for NBD servers. Prints requests per second, throughput, latencies and its
// own processor time, as a table or as JSON. Exit status: 0; 1 when the server fails, answers an error or
// does not give back what was written; 2 for a wrong command line.
#include <fmt/core.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <string>

#include "base/limits.h"
#include "base/size.h"
#include "tools/nbdload/run.h"

namespace obraz::load {
namespace {

constexpr double kShares[] = {0.5, 0.9, 0.99, 0.999};
constexpr const char* kShareNames[] = {"p50", "p90", "p99", "p99.9"};

double per_second(uint64_t count, const RunResult& result) {
  return result.seconds > 0 ? double(count) / result.seconds : 0;
}

uint64_t all_requests(const RunResult& result) {
  return result.requests[0] + result.requests[1] + result.requests[2];
}

double client_cpu_us(const RunResult& result) {
  const uint64_t requests = all_requests(result);
  return requests == 0 ? 0 : result.client_cpu_seconds * 1e6 / double(requests);
}

void print_table(const RunResult& result) {
  fmt::print("{:>6} {:>12} {:>10} {:>10}", "", "requests/s", "MB/s", "mean us");
  for (const char* name : kShareNames)
    fmt::print(" {:>10}", std::string(name) + " us");
  fmt::print(" {:>10}\n", "max us");
  for (size_t kind = 0; kind < kKinds; ++kind) {
    if (result.requests[kind] == 0)
      continue;
    const Histogram& latency = result.latency_ns[kind];
    fmt::print("{:>6} {:>12.0f} {:>10.1f} {:>10.1f}", kKindNames[kind],
               per_second(result.requests[kind], result), per_second(result.bytes[kind], result) / 1e6,
               latency.mean() / 1e3);
    for (const double share : kShares)
      fmt::print(" {:>10.1f}", double(latency.percentile(share)) / 1e3);
    fmt::print(" {:>10.1f}\n", double(latency.max()) / 1e3);
  }
  fmt::print("{} requests in {:.2f} s; {:.2f} us of the client's processor time for each",
             all_requests(result), result.seconds, client_cpu_us(result));
  if (result.verified_blocks > 0)
    fmt::print("; {} blocks verified", result.verified_blocks);
  fmt::print("\n");
}

void print_json(const RunResult& result) {
  fmt::print(
      "{{\"export_bytes\": {}, \"seconds\": {:.6f}, \"requests\": {}, \"client_cpu_us_per_request\": {:.3f}, "
      "\"verified_blocks\": {}",
      result.export_bytes, result.seconds, all_requests(result), client_cpu_us(result),
      result.verified_blocks);
  for (size_t kind = 0; kind < kKinds; ++kind) {
    const Histogram& latency = result.latency_ns[kind];
    fmt::print(
        ", \"{}\": {{\"requests\": {}, \"bytes\": {}, \"requests_per_s\": {:.1f}, \"bytes_per_s\": {:.0f}, "
        "\"latency_us\": {{\"mean\": {:.3f}, \"max\": {:.3f}",
        kKindNames[kind], result.requests[kind], result.bytes[kind],
        per_second(result.requests[kind], result), per_second(result.bytes[kind], result),
        latency.mean() / 1e3, double(latency.max()) / 1e3);
    for (size_t i = 0; i < std::size(kShares); ++i)
      fmt::print(", \"{}\": {:.3f}", kShareNames[i], double(latency.percentile(kShares[i])) / 1e3);
    fmt::print("}}}}");
  }
  if (!result.intervals.empty()) {
    fmt::print(", \"begin_s\": {:.6f}, \"intervals\": [", double(result.begin_ns) / 1e9);
    for (size_t i = 0; i < result.intervals.size(); ++i)
      fmt::print("{}[{}, {:.3f}]", i == 0 ? "" : ", ", result.intervals[i].requests,
                 double(result.intervals[i].max_latency_ns) / 1e3);
    fmt::print("]");
  }
  fmt::print("}}\n");
}

void add_size(CLI::App& app, const std::string& name, uint64_t& into, const std::string& description) {
  app.add_option_function<std::string>(
         name,
         [&into, name](const std::string& text) {
           const auto bytes = parse_size(text);
           if (!bytes || *bytes == INT64_MAX)
             throw CLI::ValidationError(name, "a size is digits and K, M, G or T, for instance 4K");
           into = uint64_t(*bytes);
         },
         description)
      ->type_name("SIZE");
}

int run(int argc, char** argv) {
  RunOptions options;
  WorkloadOptions& workload = options.workload;
  std::string pattern = "random";
  options.seconds = 10;
  bool json = false;
  CLI::App app("a load generator for NBD servers", "nbdload");
  app.add_option("uri", options.uris,
                 "NBD URIs, for instance nbd+unix:///disk/vm1?socket=/run/obraz/nbd.sock; several have the "
                 "same load at once, each its own")
      ->required();
  app.add_option(
      "--busy", options.busy,
      "only so many of several URIs at a time, the next ones after 0.1 s; the others stay connected");
  app.add_option("--connections", options.connections, "connections to each URI")
      ->check(CLI::Range(1u, 1024u))
      ->capture_default_str();
  app.add_option("--depth", options.depth, "requests in flight on each")
      ->check(CLI::Range(1u, 4096u))
      ->capture_default_str();
  app.add_option("--pattern", pattern, "where requests go")
      ->check(CLI::IsMember({"random", "sequential"}))
      ->capture_default_str();
  add_size(app, "--block-size", workload.block_size, "bytes of one request (4K)");
  add_size(app, "--offset", workload.offset, "where the range begins that is used (0)");
  add_size(app, "--length", workload.length, "its length (to the end of the export)");
  auto* percent = app.add_option("--read-percent", workload.read_percent,
                                 "reads among 100 requests; the others are writes")
                      ->check(CLI::Range(0u, 100u))
                      ->capture_default_str();
  uint64_t write_once_per = 0;
  add_size(
      app, "--write-once-per", write_once_per,
      "one write into each piece of this size, at its start, and then the end: first writes into clusters");
  add_size(app, "--read-once-per", workload.once_per, "the same with reads");
  app.get_option("--write-once-per")->excludes(percent)->excludes("--read-once-per");
  app.get_option("--read-once-per")->excludes(percent);
  app.add_option("--flush-every", workload.flush_every, "a flush after so many writes");
  app.add_flag("--fua", options.fua, "writes with FUA");
  app.add_flag("--verify", options.verify,
               "compare what is read with what this run has written, and read it all at the end");
  app.add_option("--seconds", options.seconds, "how long to measure; 0: until the requests are done")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  app.add_option("--warmup", options.warmup_seconds, "seconds of load before that")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  app.add_option("--requests", options.requests, "end after so many requests");
  app.add_option("--seed", workload.seed, "draws places and kinds")->capture_default_str();
  app.add_flag("--json", json, "print JSON");
  app.add_flag("--announce", options.announce,
               "print the line \"begin\" when all connections are there, before the first request");
  app.add_option("--interval", options.interval_ms,
                 "with --json, also requests and worst latency (us) in each stretch of so many milliseconds");
  try {
    app.parse(argc, argv);
    workload.sequential = pattern == "sequential";
    if (write_once_per != 0) {
      workload.once_per = write_once_per;
      workload.read_percent = 0;
    }
    if (workload.block_size < 512 || workload.block_size > limits::kMaxRequestSize ||
        workload.block_size % 512 != 0)
      throw CLI::ValidationError("--block-size", "must be a multiple of 512, from 512 to 32M");
    if (workload.offset % workload.block_size != 0 || workload.length % workload.block_size != 0)
      throw CLI::ValidationError("--offset and --length", "must be multiples of the block size");
    if (workload.once_per % workload.block_size != 0)
      throw CLI::ValidationError("--write-once-per and --read-once-per",
                                 "must be a multiple of the block size");
    if (options.seconds == 0 && options.requests == 0 && workload.once_per == 0)
      throw CLI::ValidationError("--seconds",
                                 "0 needs an end: --requests, --write-once-per or --read-once-per");
    constexpr uint64_t kMaxPayload = 4 * limits::GiB;
    if (workload.block_size * options.depth * options.connections * options.uris.size() > kMaxPayload)
      throw CLI::ValidationError("--depth", "more than 4 GiB in flight");
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (rlimit files{}; ::getrlimit(RLIMIT_NOFILE, &files) == 0) {  // each connection takes one
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
  const auto result = run_load(options);
  if (!result) {
    fmt::print(stderr, "nbdload: {}\n", result.error());
    return 1;
  }
  json ? print_json(*result) : print_table(*result);
  return 0;
}

}  // namespace
}  // namespace obraz::load

int main(int argc, char** argv) {
  return obraz::load::run(argc, argv);
}
