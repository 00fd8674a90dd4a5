// ImageTransfer: the blocking work of imports and exports, as the jobs see it. main has the one real
// implementation, tests have another.
//
// Thread: a worker's, the same for all calls of one job, the destruction of its source included.
#pragma once

#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>

#include "base/file_identity.h"
#include "base/refusal.h"
#include "image/progress.h"
#include "obraz/v1/layout.pb.h"
#include "store/types.h"

namespace obraz {

class ImageTransfer {
 public:
  virtual ~ImageTransfer() = default;

  // Something opened to be imported; closed by its destructor.
  class Source {
   public:
    virtual ~Source() = default;
    virtual uint64_t size_bytes() const = 0;
    virtual std::string format() const = 0;  // empty for what an NBD server offers
  };
  // What is to be imported, as the request has it.
  struct SourceSpec {
    std::string location;
    std::string format;  // empty: detected
    std::string sha256;  // of a file; empty: any
    FileIdentityRef as;  // whose rights to files count
  };
  struct TargetSpec {
    std::string path;
    std::string format;
    FileIdentityRef as;
  };
  // A stop that was requested ends each of them soon, with `cancelled`. The progress is of reading for the
  // SHA-256.
  virtual Answer<std::unique_ptr<Source>> open(const SourceSpec& source, Progress& progress,
                                               std::stop_token stop) = 0;
  virtual Answer<void> import(Source& source, VolumeId into, Progress& progress, std::stop_token stop) = 0;
  // What is on a volume.
  virtual Answer<v1::Layout> examine(VolumeId volume, std::stop_token stop) = 0;
  // The digest of what a volume holds. In the background it gives way to others.
  enum class Pace : uint8_t { at_once, background };
  virtual Answer<std::string> digest(VolumeId volume, Pace pace, Progress& progress,
                                     std::stop_token stop) = 0;
  // Leaves no file behind when it fails.
  virtual Answer<void> export_to(VolumeId from, const TargetSpec& target, Progress& progress,
                                 std::stop_token stop) = 0;
};

}  // namespace obraz
