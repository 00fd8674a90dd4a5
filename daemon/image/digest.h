// The digest of a disk's content: a SHA-256 tree, so that the same content has the same digest whatever its
// history and however its zeros are kept. docs/image-digest.md defines it.
//
// Thread: a worker's; the reactor runs on another and goes on running until the return.
#pragma once

#include <stop_token>
#include <string>
#include <vector>

#include "base/limits.h"
#include "image/progress.h"
#include "image/sha256.h"
#include "image/stop_signal.h"
#include "io/reactor.h"
#include "store/volume.h"

namespace obraz {

// The tree over content that comes from its beginning to its end, in pieces of whole leaves. Keeps one hash
// for each level.
class ContentDigest {
 public:
  static constexpr uint64_t kLeafSize = 64 * limits::KiB;

  explicit ContentDigest(uint64_t size_bytes);  // of all of it: whole leaves, at least one

  void add(ConstBytes content);
  void add_zeros(uint64_t length);  // takes time by the logarithm of the length
  // When all of it has been added.
  std::string finish();

 private:
  struct Node {
    Sha256::Value hash;
    unsigned level;  // 2^level leaves
  };
  Sha256::Value leaf_hash(ConstBytes leaf);
  Sha256::Value node_hash(const Sha256::Value& left, const Sha256::Value& right);
  void push(Node node);

  const uint64_t size_bytes_;
  Sha256 sha256_;
  std::vector<Sha256::Value> zeros_;  // by level
  std::vector<Node> nodes_;           // of what has come, levels descending
  uint64_t leaves_ = 0;               // that have come
};

// Of what the device holds for the volume. bytes_per_s: at most so many are read; 0: no limit. The progress
// counts bytes of the volume. Errors: what reading gives, and `cancelled`.
Answer<std::string> digest_of_volume(Reactor& reactor, Volume volume, uint64_t bytes_per_s,
                                     Progress& progress, std::stop_token stop = {});

}  // namespace obraz
