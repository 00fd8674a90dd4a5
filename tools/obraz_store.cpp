// obraz-store: the offline tool. Makes a store, checks one, and shows its roots. It takes the locks that the
// daemon takes (shared ones where it only reads), so it never looks at a store that is in use.
//
// Exit status: 0 when all is well, 1 for a refusal and for problems found, 2 for a wrong command line.
// Thread: the main thread is the reactor.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "base/limits.h"
#include "base/size.h"
#include "io/reactor.h"
#include "io/sync.h"
#include "store/check.h"
#include "store_directory.h"
#include "tools/store_dump.h"

namespace obraz {
namespace {

constexpr int kFine = 0, kRefused = 1, kWrongCommandLine = 2;

struct Arguments {
  std::string directory;
  uint64_t data_bytes = limits::kDefaultDataSize;
  uint64_t journal_bytes = limits::kDefaultJournalSize;
  bool read_data = false, json = false;
};

int refused(const std::string& message) {
  fmt::print(stderr, "obraz-store: {}\n", message);
  return kRefused;
}

Answer<StoreDevices> open_to_read(Reactor& reactor, const std::string& directory) {
  auto devices = open_existing_store(reactor, directory, true);
  if (devices)
    return devices;
  if (devices.error().code == ErrorCode::not_found)
    return refuse(ErrorCode::not_found, "store",
                  fmt::format("{} holds no store ({})", directory, devices.error().message));
  if (devices.error().code == ErrorCode::failed_precondition)
    return refuse(
        ErrorCode::failed_precondition, "store",
        fmt::format("the store {} is in use: a running obrazd or another obraz-store holds its lock. Stop it "
                    "first",
                    directory));
  return devices;
}

// --- the commands
// ----------------------------------------------------------------------------------------------------
using Command = Task<int> (*)(Reactor& reactor, const Arguments& arguments);

Task<int> format(Reactor& reactor, const Arguments& arguments) {
  const NewStore what{arguments.data_bytes, arguments.journal_bytes};
  Answer<StoreDevices> devices = co_await format_store_directory(reactor, arguments.directory, what);
  if (!devices)
    co_return refused(devices.error().message);
  fmt::print("{}: a new store, {} of data\n", arguments.directory, format_size(devices->data->size_bytes()));
  co_return kFine;
}

std::string summary(const CheckReport& report) {
  return fmt::format(
      "{} volumes, {} resources, {} nodes, {} clusters; checkpoint {}, {} records replayed, {} subtrees to "
      "reclaim",
      report.volumes, report.resources, report.nodes, report.clusters, report.generation,
      report.replayed_records, report.to_reclaim);
}

Task<int> check(Reactor& reactor, const Arguments& arguments) {
  const auto devices = open_to_read(reactor, arguments.directory);
  if (!devices)
    co_return refused(devices.error().message);
  CheckOptions options;
  options.read_data = arguments.read_data;
  Result<CheckReport> report = co_await check_store(reactor, *devices->meta, *devices->data, options);
  if (!report)
    co_return refused(fmt::format("{} cannot be checked: {}", arguments.directory, describe(report.error())));
  for (const std::string& problem : report->problems)
    fmt::print("{}\n", problem);
  if (report->problem_count > report->problems.size())
    fmt::print("… and {} more\n", report->problem_count - report->problems.size());
  if (report->clean()) {
    fmt::print("{}: clean: {}\n", arguments.directory, summary(*report));
    co_return kFine;
  }
  fmt::print("{}: {} {}: {}\n", arguments.directory, report->problem_count,
             report->problem_count == 1 ? "problem" : "problems", summary(*report));
  co_return kRefused;
}

Task<int> dump(Reactor& reactor, const Arguments& arguments) {
  const auto devices = open_to_read(reactor, arguments.directory);
  if (!devices)
    co_return refused(devices.error().message);
  Answer<StoreDump> dump = co_await read_dump(*devices->meta, *devices->data);
  if (!dump)
    co_return refused(fmt::format("{}: {}", arguments.directory, dump.error().message));
  fmt::print("{}", arguments.json ? dump_as_json(*dump) : dump_as_text(*dump));
  if (dump->newest < 0)
    co_return refused(fmt::format("{}: neither superblock is valid", arguments.directory));
  co_return kFine;
}

// --- the command line
// ------------------------------------------------------------------------------------------------
class CommandLine {
 public:
  CommandLine() {
    app_.require_subcommand(1);
    CLI::App* make = leaf("format", "make an empty store in a new or empty directory", format);
    size(make, "--data-size", arguments_.data_bytes, "room for data, taken as it fills",
         {limits::kMinDataSize, limits::kMaxDataSize});
    size(make, "--journal-size", arguments_.journal_bytes,
         "a longer one makes fewer checkpoints and longer recoveries",
         {limits::kMinJournalSize, limits::kMaxJournalSize});
    leaf("check", "look for damage and contradictions; changes nothing", check)
        ->add_flag("--data", arguments_.read_data, "read all data in use, too");
    leaf("dump", "show superblocks and journal as they are", dump)
        ->add_flag("--json", arguments_.json, "print one JSON document");
  }

  CLI::App& app() { return app_; }
  Command command() const { return command_; }
  const Arguments& arguments() const { return arguments_; }

 private:
  struct Bounds {
    uint64_t least, most;
  };
  CLI::App* leaf(const std::string& name, const std::string& description, Command command) {
    CLI::App* leaf = app_.add_subcommand(name, description);
    leaf->add_option("DIR", arguments_.directory, "the directory of the store")
        ->required()
        ->check(
            CLI::Validator([](std::string& text) { return text.empty() ? "the path is empty" : ""; }, ""));
    leaf->callback([this, command] { command_ = command; });
    return leaf;
  }
  static void size(CLI::App* leaf, const std::string& name, uint64_t& into, const std::string& description,
                   Bounds bounds) {
    leaf->add_option_function<std::string>(
            name,
            [&into, name, bounds](const std::string& text) {
              const auto bytes = parse_size(text);
              if (!bytes)
                throw CLI::ValidationError(name, "a size is digits and K, M, G or T, for instance 64G");
              if (uint64_t(*bytes) < bounds.least || uint64_t(*bytes) > bounds.most)
                throw CLI::ValidationError(name,
                                           fmt::format("must be between {} and {}", exact_size(bounds.least),
                                                       exact_size(bounds.most)));
              into = uint64_t(*bytes);
            },
            description)
        ->type_name("SIZE")
        ->default_str(exact_size(into));
  }

  CLI::App app_{"obraz-store, the offline tool for stores of obrazd", "obraz-store"};
  Arguments arguments_;
  Command command_ = nullptr;
};

Task<void> run_command(Reactor& reactor, const CommandLine& line, int& status) {
  status = co_await line.command()(reactor, line.arguments());
  reactor.stop();
}

int run(int argc, char** argv) {
  CommandLine line;
  try {
    line.app().parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return line.app().exit(error) == 0 ? kFine : kWrongCommandLine;
  }
  const auto reactor = Reactor::create();
  if (!reactor)
    return refused(fmt::format("cannot start: {}; the kernel must have io_uring (Linux 6.1 or later)",
                               describe(reactor.error())));
  int status = kRefused;
  Gate tasks(**reactor);
  (*reactor)->post([&] { tasks.spawn(run_command(**reactor, line, status)); });
  (*reactor)->run();
  if (std::fflush(stdout) != 0 || std::ferror(stdout))
    return refused("cannot write what was found to standard output");
  return status;
}

}  // namespace
}  // namespace obraz

int main(int argc, char** argv) {
  return obraz::run(argc, argv);
}
