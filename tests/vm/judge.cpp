// power_cut_judge HISTORY BEFORE AFTER SOCKET FROZEN: is this what a power cut between two marks may leave?
//
// The daemon behind SOCKET serves the store as the cut left it. HISTORY is that of power_cut_workload; the
// cut came after mark BEFORE (0: the beginning) and before mark AFTER (0: the end). So
//
//   - a volume whose making was acknowledged before BEFORE is there unless its deletion was sent before
//   AFTER; one whose
//     deletion was acknowledged is not; what was sent in between is there or not, the volumes of one call
//     together;
//   - a sector of a disk holds what the last flush acknowledged before BEFORE covered, or what was written
//   later and
//     before AFTER, or as much of it as was zeroed;
//   - a snapshot, image or disk made from another volume began as that was at some moment of the call: with
//   everything
//     that had been acknowledged when it was sent, and nothing that was sent after its answer;
//   - a frozen volume that was acknowledged is the same at every cut. FROZEN keeps a checksum of each, from
//   cut to cut.
//
// What is served and no line of HISTORY explains is wrong, too. Exit status 1 and up to ten sentences if
// anything is.

#include <fmt/core.h>
#include <libnbd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "stamp.h"

namespace obraz::vm {
namespace {

[[noreturn]] void die(const std::string& sentence) {
  fmt::print(stderr, "power_cut_judge: {}\n", sentence);
  std::exit(1);
}

unsigned problems = 0;
void wrong(const std::string& sentence) {
  if (++problems <= 10)
    fmt::print("WRONG: {}\n", sentence);
}

// One write, or zeroing, of one block. `acknowledged` is the line of the history, 0 when there is none.
// Versions that a volume began with, or that the death of a daemon has left, have none: it is not known which
// of them it was.
struct Version {
  uint64_t write;
  bool zeros;
  uint64_t acknowledged;
};

// What a block may hold, oldest first. Nothing at all means zeros, which every empty disk begins with.
using Block = std::vector<Version>;

struct Volume {
  std::vector<Block> blocks;
  std::set<uint64_t> open;            // blocks with more than one version: those that a flush can settle
  uint64_t making = 0, deletion = 0;  // requests
  bool made_for_sure = false, deleted_for_sure = false;

  bool must_be_there() const { return made_for_sure && deletion == 0; }
  bool may_be_there() const { return !deleted_for_sure; }
};

struct Request {
  std::string what;
  std::vector<std::string> volumes;
  uint64_t block = 0, count = 0, line = 0;
};

class Model {
 public:
  void read(const std::string& path, uint64_t before, uint64_t after);

  std::map<std::string, Volume> volumes;
  std::map<uint64_t, Request> requests;

 private:
  void issued(uint64_t number, std::istringstream& words);
  void acknowledged(uint64_t number);
  void add(const std::string& volume, Version version, uint64_t block);
  void killed();
  void make(uint64_t number, const std::string& name, const std::string& source, uint64_t blocks);
  static void forget_before(Volume& volume, uint64_t line);

  uint64_t line_ = 0;
  bool sure_ = true;  // before the mark that the cut has behind it
  // Volumes that are being made, by their source: writes to that may still get into them.
  std::multimap<std::string, std::string> copying_;
};

void Model::read(const std::string& path, uint64_t before, uint64_t after) {
  std::ifstream file(path);
  std::string line;
  sure_ = before > 0;
  bool complete = after == 0;
  while (std::getline(file, line)) {
    ++line_;
    std::istringstream words(line);
    std::string sort;
    uint64_t number = 0;
    words >> sort >> number;
    if (sort == "+") {
      issued(number, words);
    } else if (sort == "-") {
      acknowledged(number);
    } else if (sort == "killed") {
      killed();
    } else if (sort == "mark") {
      sure_ = sure_ && number < before;
      if (number == after) {
        complete = true;
        break;
      }
    } else {
      die("a line of the history is not understood: " + line);
    }
  }
  if (!complete || sure_)
    die("the history does not have these marks");
}

// A write of `version`, also to the volumes that are being made from this one.
void Model::add(const std::string& name, Version version, uint64_t block) {
  Volume& volume = volumes.at(name);
  Block& list = volume.blocks.at(block);
  if (list.empty())
    list.push_back({0, true, 1});
  list.push_back(version);
  volume.open.insert(block);
  const auto [begin, end] = copying_.equal_range(name);
  for (auto at = begin; at != end; ++at) {
    Block& copy = volumes.at(at->second).blocks.at(block);
    if (copy.empty())
      copy.push_back({0, true, 0});
    copy.push_back(version);
    copy.back().acknowledged = 0;
    volumes.at(at->second).open.insert(block);
  }
}

void Model::make(uint64_t number, const std::string& name, const std::string& source, uint64_t blocks) {
  Volume& volume = volumes[name];
  volume.making = number;
  volume.blocks.resize(blocks);
  if (source == "-")
    return;
  const Volume& from = volumes.at(source);
  for (uint64_t block = 0; block < blocks; ++block) {
    const Block& versions = from.blocks.at(block);
    auto first = versions.begin();
    for (auto at = versions.begin(); at != versions.end(); ++at)
      if (at->acknowledged > 0)
        first = at;
    volume.blocks[block].assign(first, versions.end());
    for (Version& version : volume.blocks[block])
      version.acknowledged = 0;
    if (volume.blocks[block].size() > 1)
      volume.open.insert(block);
  }
  copying_.emplace(source, name);
}

void Model::issued(uint64_t number, std::istringstream& words) {
  Request& request = requests[number];
  std::string volume;
  words >> request.what >> volume;
  request.volumes.push_back(volume);
  request.line = line_;
  if (request.what == "new") {
    std::string source;
    uint64_t blocks = 0;
    words >> source >> blocks;
    make(number, volume, source, blocks);
  } else if (request.what == "delete") {
    volumes.at(volume).deletion = number;
  } else if (request.what != "flush") {
    words >> request.block >> request.count;
    for (uint64_t i = 0; i < request.count; ++i)
      add(volume, {number, request.what == "zero", 0}, request.block + i);
  }
}

// Whatever is durable from `line` on: of each block the last version acknowledged before it, and later ones.
void Model::forget_before(Volume& volume, uint64_t line) {
  for (auto at = volume.open.begin(); at != volume.open.end();) {
    Block& block = volume.blocks[*at];
    auto last = block.begin();
    for (auto version = block.begin(); version != block.end(); ++version)
      if (version->acknowledged > 0 && version->acknowledged < line)
        last = version;
    block.erase(block.begin(), last);
    at = block.size() == 1 ? volume.open.erase(at) : std::next(at);
  }
}

// A flush of the next daemon cannot save what died with this one.
void Model::killed() {
  for (auto& [name, volume] : volumes)
    for (const uint64_t block : volume.open)
      for (Version& version : volume.blocks[block])
        version.acknowledged = 0;
}

void Model::acknowledged(uint64_t number) {
  const Request& request = requests.at(number);
  for (const std::string& name : request.volumes) {
    Volume& volume = volumes.at(name);
    if (request.what == "new") {
      volume.made_for_sure = sure_;
      std::erase_if(copying_, [&](const auto& entry) { return entry.second == name; });
    } else if (request.what == "delete") {
      volume.deleted_for_sure = sure_;
    } else if (request.what == "flush") {
      if (sure_)
        forget_before(volume, request.line);
    } else {
      for (uint64_t i = 0; i < request.count; ++i) {
        Block& block = volume.blocks[request.block + i];
        const auto version = std::ranges::find(block, number, &Version::write);
        version->acknowledged = line_;
        if (request.what == "fua" && sure_) {
          block.erase(block.begin(), version);
          if (block.size() == 1)
            volume.open.erase(request.block + i);
        }
      }
    }
  }
}

// --- the store as it is
// ---------------------------------------------------------------------------------------------

class Connection {
 public:
  Connection(const std::string& socket, const std::string& export_name) : nbd_(nbd_create(), nbd_close) {
    nbd_set_opt_mode(get(), true);
    nbd_set_export_name(get(), export_name.c_str());
    if (nbd_connect_unix(get(), socket.c_str()) != 0)
      die(nbd_get_error());
  }
  nbd_handle* get() { return nbd_.get(); }

 private:
  std::unique_ptr<nbd_handle, void (*)(nbd_handle*)> nbd_;
};

std::set<std::string> served(const std::string& socket) {
  std::set<std::string> names;
  Connection connection(socket, "");
  const nbd_list_callback callback = {[](void* set, const char* name, const char*) {
                                        static_cast<std::set<std::string>*>(set)->insert(name);
                                        return 0;
                                      },
                                      &names, nullptr};
  if (nbd_opt_list(connection.get(), callback) < 0 || nbd_opt_abort(connection.get()) != 0)
    die(nbd_get_error());
  return names;
}

class Contents {
 public:
  Contents(const Model& model, std::string name) : model_(model), name_(std::move(name)) {}

  // Reads all of the volume; its checksum.
  uint64_t judge(const std::string& socket) {
    const Volume& volume = model_.volumes.at(name_);
    Connection connection(socket, name_);
    if (nbd_opt_go(connection.get()) != 0)
      die(fmt::format("{}: {}", name_, nbd_get_error()));
    const int64_t size = nbd_get_size(connection.get());
    if (size != int64_t(volume.blocks.size() * kBlock)) {
      wrong(fmt::format("{} has {} bytes instead of {}", name_, size, volume.blocks.size() * kBlock));
      return 0;
    }
    uint64_t checksum = 14695981039346656037u;  // FNV-1a, of words
    std::vector<unsigned char> bytes(256 * kBlock);
    for (uint64_t block = 0; block < volume.blocks.size(); ++block) {
      if (block % 256 == 0 &&
          nbd_pread(connection.get(), bytes.data(), bytes.size(), block * kBlock, 0) != 0) {
        wrong(fmt::format("{} cannot be read at block {}: {}", name_, block, nbd_get_error()));
        return 0;
      }
      for (uint64_t i = 0; i < kSectorsPerBlock; ++i) {
        const unsigned char* sector = bytes.data() + (block % 256 * kSectorsPerBlock + i) * kSector;
        const auto found = read_sector(sector, block * kSectorsPerBlock + i);
        judge_sector(volume.blocks[block], block, i, found);
        checksum = (checksum ^ found.value_or(~0u)) * 1099511628211u;
      }
    }
    nbd_shutdown(connection.get(), 0);
    return checksum;
  }

 private:
  // Says so once for each block.
  void judge_sector(const Block& allowed, uint64_t block, uint64_t sector, std::optional<uint64_t> found) {
    if (allowed.empty() ? found == 0 : std::ranges::any_of(allowed, [&](const Version& version) {
          return version.zeros ? found == 0 : found == version.write;
        }))
      return;
    if (last_wrong_ == block)
      return;
    last_wrong_ = block;
    std::string sentence = fmt::format("{} block {} sector {} holds ", name_, block, sector);
    if (!found)
      sentence += "what nobody wrote there";
    else if (*found == 0)
      sentence += "zeros";
    else
      sentence += fmt::format("write {} of {}", *found,
                              model_.requests.contains(*found) ? model_.requests.at(*found).volumes.front()
                                                               : "a time after the cut");
    sentence += ", but may hold";
    for (const Version& version : allowed)
      sentence +=
          version.zeros ? fmt::format(" zeros ({})", version.write) : fmt::format(" {}", version.write);
    wrong(sentence + (allowed.empty() ? " zeros" : ""));
  }

  const Model& model_;
  std::string name_;
  std::optional<uint64_t> last_wrong_;
};

void judge_names(const Model& model, const std::set<std::string>& names) {
  std::map<uint64_t, std::pair<unsigned, unsigned>> calls;  // volumes that are there, and are not, by call
  for (const auto& [name, volume] : model.volumes) {
    const bool there = names.contains(name);
    if (!there && volume.must_be_there())
      wrong(name + " was acknowledged and is not there");
    if (there && !volume.may_be_there())
      wrong(name + " was deleted and is there");
    if (volume.deletion == 0)
      ++(there ? calls[volume.making].first : calls[volume.making].second);
  }
  for (const auto& [call, volumes] : calls)
    if (volumes.first > 0 && volumes.second > 0)
      wrong(fmt::format("of the volumes of call {}, {} are there and {} are not", call, volumes.first,
                        volumes.second));
  for (const std::string& name : names)
    if (!model.volumes.contains(name))
      wrong(name + " is there, and nobody has made it");
}

int run(const std::vector<std::string>& words) {
  const std::string &socket = words[3], &frozen_path = words[4];
  Model model;
  model.read(words[0], std::stoull(words[1]), std::stoull(words[2]));
  const std::set<std::string> names = served(socket);
  judge_names(model, names);

  std::map<std::string, uint64_t> frozen;
  {
    std::ifstream file(frozen_path);
    for (std::string name; file >> name;)
      file >> frozen[name];
  }
  for (const std::string& name : names) {
    const auto volume = model.volumes.find(name);
    if (volume == model.volumes.end())
      continue;
    const uint64_t checksum = Contents(model, name).judge(socket);
    if (name.starts_with("disk/") || !volume->second.made_for_sure || problems > 0)
      continue;
    const auto [known, fresh] = frozen.emplace(name, checksum);
    if (!fresh && known->second != checksum)
      wrong(name + " has changed since an earlier cut");
  }
  std::ofstream file(frozen_path);
  for (const auto& [name, checksum] : frozen)
    file << name << ' ' << checksum << '\n';
  if (problems == 0)
    fmt::print("{} volumes are what they may be\n", names.size());
  return problems == 0 ? 0 : 1;
}

}  // namespace
}  // namespace obraz::vm

int main(int argc, char** argv) {
  if (argc != 6) {
    fmt::print(stderr, "usage: power_cut_judge HISTORY BEFORE AFTER SOCKET FROZEN\n");
    return 2;
  }
  return obraz::vm::run({argv + 1, argv + argc});
}
