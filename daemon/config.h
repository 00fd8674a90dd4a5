// Config: what the operator asked of obrazd, from the command line and the file named by --config.
//
// Options of the command line win over the file, whose lines are NAME=VALUE with the long names of the
// options.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <vector>

#include "base/limits.h"

namespace obraz {

// A share of the memory that the process may use, up to a limit.
uint64_t default_clone_cache_size();

struct Config {
  std::string store_path = "obraz-data";          // made absolute, as are the sockets'
  std::string control_path;                       // default: control.sock in the store
  std::string nbd_unix_path;                      // default: nbd.sock in the store
  std::vector<std::string> nbd_tcp;               // HOST:PORT
  uint64_t data_size = limits::kDefaultDataSize;  // of a store that is made
  bool data_size_given = false;
  uint64_t journal_size = limits::kDefaultJournalSize;  // likewise
  uint64_t node_cache_size = limits::kDefaultNodeCacheSize;
  uint64_t clone_cache_size = default_clone_cache_size();  // 0: none
  uint64_t buffer_memory = limits::kDefaultBufferArena;
  uint64_t checksum_rate = limits::kDefaultSumRate;   // bytes per second; 0: off
  uint64_t digest_rate = limits::kDefaultDigestRate;  // likewise
  uint64_t scrub_rate = limits::kDefaultScrubRate;    // likewise
  unsigned scrub_days = limits::kDefaultScrubDays;
  unsigned max_sessions = limits::kMaxSessions;
  uint64_t spin_us = limits::kDefaultSpinUs;  // before sleeping, when requests come back to back
  std::string audit_log;                      // a file; empty: the log
  bool debug = false;                         // log more
};

// The other way: the exit status, after help or what is wrong has been printed.
std::expected<Config, int> parse_config(int argc, char** argv);

}  // namespace obraz
