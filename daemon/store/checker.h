// The checker from the inside: what is known of a store so far, and the steps that find it out. check.cpp has
// their order, check_tables.cpp, check_journal.cpp, check_walk.cpp and check_data.cpp the steps.
//
// Invariants: nothing is written. Every problem is counted, also where it is no longer listed. What is wrong
// with a node or a cluster waits as a finding, for it is told with where that is used, which only the whole
// walk knows. Thread: the executor's.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "store/check.h"
#include "store/core.h"

namespace obraz::checking {

constexpr uint8_t kUnseen = 0xff;  // level of a page that nothing has named

// What names a node: a slot of a node, or a root (a volume's, or an entry of the drops).
struct Reference {
  uint64_t child;
  uint64_t from;  // page * 256 + slot, or kFromRoot + index of the root
  static constexpr uint64_t kFromRoot = uint64_t(1) << 63;
};

struct Root {
  VolumeId volume;  // none: an entry of the drops, or the checksum tree
  disk::PageRef ref;
  unsigned level = 0;
  bool is_sums() const { return level >= disk::kSumLevel; }
  bool is_dead() const { return !volume && !is_sums(); }
};

struct NodeToRead {
  disk::PageRef ref;
  unsigned level = 0;
  Status read;
};

struct NodeFinding {
  uint64_t page = 0;
  int slot = -1;  // the whole node
  unsigned level = 0;
  std::string text;
};

struct TablePage {
  uint64_t page = 0;
  unsigned table = 0, level = 0;
  uint64_t index = 0;
};

struct Checker {
  Checker(Executor& e, Device& m, Device& d, const CheckOptions& o)
      : executor(e), meta(m), data(d), options(o) {}

  Executor& executor;
  Device& meta;
  Device& data;
  CheckOptions options;
  CheckReport report;

  std::unique_ptr<StoreCore> core;  // only its tables, state and journal are used; it never starts
  bool tables_sound = true;         // as far as recovery judges them
  bool adopted = false;             // the state has been built of the tables
  bool unread = false;              // something that may name nodes or clusters could not be read
  std::array<std::vector<bool>, disk::kTables> unknown;  // by table page
  std::vector<TablePage> table_pages;                    // by page
  std::vector<Root> roots;

  std::vector<uint32_t> pages, clusters;  // references found
  bool walking_dead = false;              // what is found now, no volume reaches
  std::vector<bool> live_clusters;        // that a volume reaches
  std::vector<uint16_t> have_sums;        // by cluster: blocks with a checksum
  std::vector<uint16_t> need_sums;        // by cluster: blocks of which a node says that they have one
  bool sums_unread = false;               // a node of checksums
  std::vector<uint8_t> levels;            // by page, kUnseen
  std::vector<uint32_t> checksums;        // by page, of the first reference
  std::vector<Reference> references;
  // Of nodes of the checksum tree: the parent, and the first cluster relative to the parent's.
  std::unordered_map<uint64_t, std::pair<uint64_t, uint64_t>> sum_parents;
  std::vector<NodeToRead> to_read;  // a stack
  std::vector<NodeFinding> findings;
  uint64_t unlisted_findings = 0;
  std::map<uint64_t, std::string> cluster_findings;
  uint64_t unlisted_clusters = 0;

  const disk::Superblock& superblock() const { return core->superblock; }
  bool is_node_page(uint64_t page) const {
    return page >= superblock().first_node_page().value && page < superblock().pages;
  }
  bool is_summed(Page node) const {
    return node.value < core->state.table(disk::kPageCounts).length_bytes() / 4 &&
           core->state.is_summed(node);
  }
  void problem(std::string line) {
    if (++report.problem_count <= options.max_problems)
      report.problems.push_back(std::move(line));
  }
  void table_problem(std::string line) {
    tables_sound = false;
    problem(std::move(line));
  }
  void finding(NodeFinding what) {
    if (findings.size() < options.max_problems)
      findings.push_back(std::move(what));
    else
      ++unlisted_findings;
  }
  void cluster_finding(uint64_t cluster, std::string text) {
    if (const auto found = cluster_findings.find(cluster); found != cluster_findings.end())
      found->second += "; " + text;
    else if (cluster_findings.size() < options.max_problems)
      cluster_findings.emplace(cluster, std::move(text));
    else
      ++unlisted_clusters;
  }
};

// --- what several steps use (check.cpp)
std::string sums(uint32_t expected, uint32_t found);  // for people
Task<Status> read_at(Device* device, uint64_t offset, Bytes into);
// Beyond the end of `meta` nothing is asked of the device.
Task<Status> load_node(Checker* c, Missing missing);

// --- tables (check_tables.cpp)
// Reads the checkpoint's tables into the state and checks each by itself and against the others. What they
// name goes into `roots` and `table_pages`.
Task<void> read_tables(Checker* c);
std::string describe(const TablePage& at);  // for people

// --- the journal (check_journal.cpp)
// As recovery does it. Nothing is applied to a state that the tables did not build; the batches are read
// still.
Task<void> replay_journal(Checker* c);

// --- the walk (check_walk.cpp)
// What volumes reach first, so that the rest is what only deleted ones did.
Task<void> walk(Checker* c, bool dead);
// Problems of what was found, with where it is used. `references` is sorted by child before.
void report_findings(Checker* c);
// One more pass over the leaves, only when there is something to say about clusters.
Task<void> report_clusters(Checker* c);

// --- counts and data (check_data.cpp)
void check_counts(Checker* c);
Task<void> read_data(Checker* c);

}  // namespace obraz::checking
