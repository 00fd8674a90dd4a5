#include "base/memory.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>

namespace obraz {
namespace {

// "/a/b" of the line "0::/a/b"; empty when there is none.
std::string control_group(const std::string& root) {
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("0::/"))
      return line.substr(3);
  return {};
}

}  // namespace

uint64_t usable_memory(const std::string& root) {
  uint64_t bytes =
      uint64_t(std::max(::sysconf(_SC_PHYS_PAGES), 1l)) * uint64_t(std::max(::sysconf(_SC_PAGESIZE), 1l));
  std::string group = control_group(root);
  while (!group.empty()) {
    std::ifstream file(root + "/sys/fs/cgroup" + group + "/memory.max");
    if (uint64_t limit = 0; file >> limit)  // or "max"
      bytes = std::min(bytes, limit);
    group.resize(group.find_last_of('/'));
  }
  std::ifstream file(root + "/sys/fs/cgroup/memory.max");  // in a namespace, the root may have one
  if (uint64_t limit = 0; file >> limit)
    bytes = std::min(bytes, limit);
  return bytes;
}

}  // namespace obraz
