#include "config.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>

#include "base/bytes.h"
#include "base/memory.h"
#include "base/size.h"
#include "man_page.h"

namespace obraz {
namespace {

constexpr int kWrongCommandLine = 2;

const ManPage kManual{
    .section = 8,
    .title = "a block storage daemon: disks, snapshots and images, served over NBD",
    .description =
        R"(obrazd keeps virtual disks in one local store, turns them into snapshots and images in constant time, and serves each
of them over NBD. It is driven with obraz(1) over the control socket.

The store is a directory with two entries, meta and data, each a file or a symbolic link to a block device. Starting is
recovery: after a crash or a power cut nothing needs to be repaired. The daemon says "ready" on standard output, and to
the service manager, when it serves.

SIGTERM and SIGINT stop it: clients are served what they have asked for, imports and exports are cancelled, and the store is
closed so that the next start has nothing to replay.)",
    .sections = {
        {"CONFIGURATION FILE",
         R"(Lines of NAME=VALUE with the names of the options above, without their dashes; # and ; begin comments. Options of the
command line win over it.

  store=/var/lib/obraz
  nbd-tcp=127.0.0.1:10809)"},
        {"EXIT STATUS",
         "0 after a clean stop, 1 when something refused to start or to close, 2 for a wrong command line or "
         "configuration file."},
        {"SEE ALSO", "obraz(1), obraz-store(8)"}}};

struct Bounds {
  uint64_t least, most;
};

void add_size(CLI::App& app, const std::string& name, uint64_t& into, Bounds bounds,
              const std::string& description) {
  app.add_option_function<std::string>(
         name,
         [&into, name, bounds](const std::string& text) {
           const auto bytes = parse_size(text);
           if (!bytes)
             throw CLI::ValidationError(name, "a size is digits and K, M, G or T, for instance 64G");
           if (uint64_t(*bytes) < bounds.least || uint64_t(*bytes) > bounds.most)
             throw CLI::ValidationError(name, fmt::format("must be between {} and {}",
                                                          exact_size(bounds.least), exact_size(bounds.most)));
           into = uint64_t(*bytes);
         },
         description)
      ->type_name("SIZE")
      ->default_str(exact_size(into));
}

std::string absolute(const std::string& path) {
  return std::filesystem::absolute(path).lexically_normal().string();
}

}  // namespace

uint64_t default_clone_cache_size() {
  return round_down(std::min(usable_memory() / limits::kCloneCacheShare, limits::kMaxDefaultCloneCache),
                    limits::MiB);
}

std::expected<Config, int> parse_config(int argc, char** argv) {
  Config config;
  CLI::App app("obrazd, a block storage daemon: disks, snapshots and images, served over NBD", "obrazd");
  app.set_config("--config", "", "a file of NAME=VALUE lines, with the names of these options")
      ->type_name("FILE");
  app.allow_config_extras(false);
  app.add_option("--store", config.store_path, "the directory of the store; made and formatted when absent")
      ->type_name("DIR")
      ->default_str("./obraz-data");
  app.add_option("--control", config.control_path, "the control socket (default: control.sock in the store)")
      ->type_name("PATH");
  app.add_option("--nbd-unix", config.nbd_unix_path, "the NBD socket (default: nbd.sock in the store)")
      ->type_name("PATH");
  app.add_option("--nbd-tcp", config.nbd_tcp, "serve NBD there too; may repeat")
      ->type_name("HOST:PORT")
      ->allow_extra_args(false);
  add_size(app, "--data-size", config.data_size, {limits::kMinDataSize, limits::kMaxDataSize},
           "size of the data of a store that is made; taken as it fills");
  add_size(app, "--journal-size", config.journal_size, {limits::kMinJournalSize, limits::kMaxJournalSize},
           "size of its journal");
  add_size(app, "--node-cache", config.node_cache_size, {limits::MiB, limits::TiB},
           "memory for mapping nodes");
  add_size(
      app, "--clone-cache", config.clone_cache_size, {0, limits::TiB},
      "memory for data that several disks share, at most (default: an eighth of what there is); 0: none");
  add_size(app, "--buffer-memory", config.buffer_memory, {limits::kDefaultBufferArena / 2, limits::TiB},
           "memory for requests in flight");
  add_size(app, "--checksum-rate", config.checksum_rate, {0, limits::TiB},
           "bytes a second to read for the checksums of new snapshots and images, a quarter of it while "
           "clients read or "
           "write; 0: they get none");
  add_size(app, "--digest-rate", config.digest_rate, {0, limits::TiB},
           "bytes a second to read for the digests of new images; 0: they get one when they are verified");
  add_size(app, "--scrub-rate", config.scrub_rate, {0, limits::TiB},
           "bytes a second to read to verify them again; 0: only what is used is verified");
  app.add_option("--scrub-days", config.scrub_days,
                 "days from the start of one such pass to that of the next")
      ->check(CLI::Range(1u, 365u))
      ->capture_default_str();
  app.add_option("--max-sessions", config.max_sessions, "NBD clients at once")
      ->check(CLI::Range(1u, limits::kMaxSessions))
      ->capture_default_str();
  app.add_option("--spin", config.spin_us,
                 "microseconds to look for a client's next request, or for a lone request's device, before "
                 "sleeping, as long as that finds something; 0: sleep at once")
      ->check(CLI::Range(uint64_t(0), limits::kMaxSpinUs))
      ->capture_default_str();
  app.add_option("--audit-log", config.audit_log,
                 "append who did what to this file, a line of JSON each (default: the log)")
      ->type_name("FILE");
  app.add_flag("--debug", config.debug, "log more");
  add_documentation_flags(app, kManual);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return std::unexpected(app.exit(error) == 0 ? 0 : kWrongCommandLine);
  }
  config.data_size_given = app.count("--data-size") > 0;
  if (config.store_path.empty()) {
    fmt::print(stderr, "--store: the path is empty\n");
    return std::unexpected(kWrongCommandLine);
  }
  config.store_path = absolute(config.store_path);
  if (!config.audit_log.empty())
    config.audit_log = absolute(config.audit_log);
  config.control_path =
      absolute(config.control_path.empty() ? config.store_path + "/control.sock" : config.control_path);
  config.nbd_unix_path =
      absolute(config.nbd_unix_path.empty() ? config.store_path + "/nbd.sock" : config.nbd_unix_path);
  return config;
}

}  // namespace obraz
