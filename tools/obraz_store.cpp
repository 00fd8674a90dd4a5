// obraz-store: the offline tool. Makes a store, checks one, and shows its roots. It takes the locks that the
// daemon takes (shared ones where it only reads), so it never looks at a store that is in use.
//
// Exit status: 0 when all is well; 1 for problems found, and when no store was made; 2 for a wrong command
// line and for a store that cannot be opened to look at: none is there, it is in use, or not for this user.
// Thread: the main thread is the reactor.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "base/limits.h"
#include "base/size.h"
#include "io/reactor.h"
#include "io/sync.h"
#include "man_page.h"
#include "store/check.h"
#include "store_directory.h"
#include "tools/store_dump.h"

namespace obraz {
namespace {

constexpr int kFine = 0, kRefused = 1, kCannotOpen = 2, kWrongCommandLine = 2;

struct Arguments {
  std::string directory;
  uint64_t data_bytes = limits::kDefaultDataSize;
  uint64_t journal_bytes = limits::kDefaultJournalSize;
  bool read_data = false, json = false;
  DumpOptions dump;
};

int refused(const std::string& message, int status = kRefused) {
  fmt::print(stderr, "obraz-store: {}\n", message);
  return status;
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
      "{} volumes ({}), {} resources, {} nodes, {} clusters ({}); checkpoint {}, {} records replayed, {} "
      "subtrees to reclaim",
      report.volumes, format_size(report.volume_bytes), report.resources, report.nodes, report.clusters,
      format_size(report.cluster_bytes), report.generation, report.replayed_records, report.to_reclaim);
}

// Where, and what: the two sides of the first colon.
void show_problem(DumpWriter& out, std::string_view line) {
  const size_t colon = std::min(line.find(": "), line.size());
  out.begin(nullptr, DumpWriter::Layout::line);
  out.text("place", line.substr(0, colon));
  out.text("problem", line.substr(std::min(colon + 2, line.size())));
  out.end();
}

void show_as_json(const std::string& directory, const CheckReport& report) {
  DumpWriter out(stdout, true);
  out.begin(nullptr, DumpWriter::Layout::lines);
  out.text("store", directory);
  out.flag("clean", report.clean());
  out.field("problem_count", report.problem_count);
  out.field("problems_not_listed", report.problem_count - report.problems.size());
  out.begin_list("problems");
  for (const std::string& problem : report.problems)
    show_problem(out, problem);
  out.end();
  out.begin_list("notes");
  for (const std::string& note : report.notes)
    show_problem(out, note);
  out.end();
  out.field("volumes", report.volumes);
  out.field("volume_bytes", report.volume_bytes);
  out.field("resources", report.resources);
  out.field("nodes", report.nodes);
  out.field("clusters", report.clusters);
  out.field("cluster_bytes", report.cluster_bytes);
  out.field("checkpoint", report.generation);
  out.field("replayed_records", report.replayed_records);
  out.field("to_reclaim", report.to_reclaim);
  out.end();
}

void show_as_text(const std::string& directory, const CheckReport& report) {
  for (const std::string& problem : report.problems)
    fmt::print("{}\n", problem);
  if (report.problem_count > report.problems.size())
    fmt::print("… and {} more\n", report.problem_count - report.problems.size());
  for (const std::string& note : report.notes)
    fmt::print("note: {}\n", note);
  if (report.clean())
    fmt::print("{}: clean: {}\n", directory, summary(report));
  else
    fmt::print("{}: {} {}: {}\n", directory, report.problem_count,
               report.problem_count == 1 ? "problem" : "problems", summary(report));
}

Task<int> check(Reactor& reactor, const Arguments& arguments) {
  const auto devices = open_to_read(reactor, arguments.directory);
  if (!devices)
    co_return refused(devices.error().message, kCannotOpen);
  CheckOptions options;
  options.read_data = arguments.read_data;
  options.superblock_may_be_torn = false;
  Result<CheckReport> report = co_await check_store(reactor, *devices->meta, *devices->data, options);
  if (!report)
    co_return refused(fmt::format("{} cannot be checked: {}", arguments.directory, describe(report.error())),
                      kCannotOpen);
  if (arguments.json)
    show_as_json(arguments.directory, *report);
  else
    show_as_text(arguments.directory, *report);
  co_return report->clean() ? kFine : kRefused;
}

Task<int> dump(Reactor& reactor, const Arguments& arguments) {
  const auto devices = open_to_read(reactor, arguments.directory);
  if (!devices)
    co_return refused(devices.error().message, kCannotOpen);
  DumpWriter out(stdout, arguments.json);
  const Answer<DumpOutcome> outcome =
      co_await dump_store(*devices->meta, *devices->data, arguments.dump, out);
  if (!outcome)
    co_return refused(fmt::format("{}: {}", arguments.directory, outcome.error().message), kCannotOpen);
  if (!outcome->superblock)
    co_return refused(fmt::format("{}: neither superblock is valid", arguments.directory));
  if (arguments.dump.volume && !outcome->volume)
    co_return refused(
        fmt::format("{}: the checkpoint has no volume {}", arguments.directory, *arguments.dump.volume));
  if (outcome->unreadable > 0)
    co_return refused(fmt::format("{}: {} pieces cannot be read or do not verify", arguments.directory,
                                  outcome->unreadable));
  co_return kFine;
}

// --- the command line
// ------------------------------------------------------------------------------------------------
const ManPage kManual{
    .section = 8,
    .title = "the offline tool for stores of obrazd",
    .description =
        R"(obraz-store makes stores, verifies them and shows what is in them. It works on stores that no daemon has open: it takes the
lock that obrazd(8) takes, a shared one where it only reads.

check names each problem by its place, the page of meta or the cluster of data, the volumes and offsets that it belongs to,
what was expected and what was found.)",
    .sections = {{"EXIT STATUS",
                  "0 when all is well, 1 for problems found and when no store was made, 2 for a wrong "
                  "command line and for a "
                  "store that cannot be looked at: none is there, it is in use, or not for this user."},
                 {"SEE ALSO", "obrazd(8), obraz(1)"}}};

class CommandLine {
 public:
  CommandLine() {
    app_.require_subcommand(1);
    add_documentation_flags(app_, kManual);
    CLI::App* make = leaf("format", "make an empty store in a new or empty directory", format);
    size(make, "--data-size", arguments_.data_bytes, "room for data, taken as it fills",
         {limits::kMinDataSize, limits::kMaxDataSize});
    size(make, "--journal-size", arguments_.journal_bytes,
         "a longer one makes fewer checkpoints and longer recoveries",
         {limits::kMinJournalSize, limits::kMaxJournalSize});
    CLI::App* look = leaf("check", "look for damage and contradictions; changes nothing", check);
    look->add_flag("--data", arguments_.read_data, "read all data in use, too");
    look->add_flag("--json", arguments_.json, "print one JSON object");
    CLI::App* show = leaf("dump", "show superblocks, journal, tables, trees and resources as they are", dump);
    show->add_flag("--json", arguments_.json, "print one JSON document");
    show->add_flag("--slots", arguments_.dump.slots, "show the slots of every leaf, too");
    show->add_option("--volume", arguments_.dump.volume, "show the tree of this volume only, with its slots")
        ->type_name("NUMBER");
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
