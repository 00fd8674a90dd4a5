#include "client/tree.h"

#include <algorithm>
#include <map>
#include <string>
#include <tuple>

#include "base/size.h"

namespace obraz::client {
namespace {

constexpr int kMaxDrawnDepth = 24;  // what is deeper is drawn at this depth

class Builder {
 public:
  explicit Builder(std::vector<v1::TreeVolume> volumes) : volumes_(std::move(volumes)) {
    std::ranges::sort(volumes_, {}, [](const v1::TreeVolume& volume) {
      return std::tuple(volume.created_at().seconds(), volume.created_at().nanos(), volume.id());
    });
    for (size_t i = 0; i < volumes_.size(); ++i)
      by_id_.emplace(volumes_[i].id(), i);
    for (size_t i = 0; i < volumes_.size(); ++i)
      if (by_id_.contains(volumes_[i].source_id()))
        children_[volumes_[i].source_id()].push_back(i);
    taken_.resize(volumes_.size());
  }

  v1::Tree build() {
    for (size_t i = 0; i < volumes_.size(); ++i)
      if (!by_id_.contains(volumes_[i].source_id()))
        take_all(i);
    for (size_t i = 0; i < volumes_.size(); ++i)
      take_all(i);  // what is its own ancestor; nothing that a daemon says
    return std::move(tree_);
  }

 private:
  // Chains may be long, so not by recursion.
  void take_all(size_t root) {
    struct Next {
      size_t at;
      std::string parent;
      int depth;
    };
    std::vector<Next> next = {{root, "", 0}};
    while (!next.empty()) {
      const Next now = std::move(next.back());
      next.pop_back();
      if (taken_[now.at])
        continue;
      taken_[now.at] = true;
      v1::TreeVolume& volume = *tree_.add_volumes();
      volume = volumes_[now.at];
      volume.set_parent_id(now.parent);
      volume.set_depth(now.depth);
      const auto children = children_.find(volume.id());
      if (children == children_.end())
        continue;
      for (size_t i = children->second.size(); i-- > 0;)
        next.push_back({children->second[i], volume.id(), now.depth + 1});
    }
  }

  std::vector<v1::TreeVolume> volumes_;
  std::map<std::string, size_t> by_id_;
  std::map<std::string, std::vector<size_t>> children_;
  std::vector<bool> taken_;
  v1::Tree tree_;
};

std::string bytes_text(bool known, int64_t bytes) {
  return known ? format_size(uint64_t(std::max<int64_t>(bytes, 0))) : "-";
}

// Of a root: what it was made of, which is not here.
std::string origin(const v1::TreeVolume& volume) {
  if (!volume.parent_id().empty())
    return "";
  return volume.source_id().empty() ? volume.source_kind() : volume.source_kind() + " " + volume.source_id();
}

}  // namespace

v1::Tree tree_of(std::vector<v1::TreeVolume> volumes) {
  return Builder(std::move(volumes)).build();
}

std::vector<Row> tree_rows(const v1::Tree& tree) {
  std::vector<Row> rows = {{"VOLUME", "ID", "STATUS", "SIZE", "ALONE", "SHARED", "MADE OF"}};
  const auto& volumes = tree.volumes();
  // From the end: whether one of the same depth follows before one that is less deep.
  std::vector<std::string> branches(size_t(volumes.size()));
  std::vector<bool> follows(size_t(kMaxDrawnDepth) + 1);
  for (int i = volumes.size(); i-- > 0;) {
    const size_t depth = size_t(std::clamp(volumes[i].depth(), 0, kMaxDrawnDepth));
    std::fill(follows.begin() + long(depth) + 1, follows.end(), false);
    std::string& branch = branches[size_t(i)];
    for (size_t level = 1; level < depth; ++level)
      branch += follows[level] ? "│  " : "   ";
    if (depth > 0)
      branch += follows[depth] ? "├─ " : "└─ ";
    follows[depth] = true;
  }
  for (int i = 0; i < volumes.size(); ++i) {
    const v1::TreeVolume& volume = volumes[i];
    rows.push_back(
        {branches[size_t(i)] + volume.kind() + "/" + (volume.name().empty() ? volume.id() : volume.name()),
         volume.id(), v1::ResourceStatus_Name(volume.status()), bytes_text(true, volume.size()),
         bytes_text(volume.has_exclusive_bytes(), volume.exclusive_bytes()),
         bytes_text(volume.has_shared_bytes(), volume.shared_bytes()), origin(volume)});
  }
  return rows;
}

}  // namespace obraz::client
