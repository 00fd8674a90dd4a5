// Writes a volume into a new file, raw (sparse) or qcow2: several reads in flight, holes not read, zeros not
// written.
//
// The file appears under its name only when it is whole and durable; an existing one is never overwritten; a
// refusal, cancellation among them, leaves no trace. Only its owner may read it. No read
// or write is under way any more when this returns. Thread: a worker's, which lives as long as the call; the
// reactor runs on another and goes on running until the return. The volume should be frozen: of a live disk,
// parts of different age are written.
#pragma once

#include <stop_token>
#include <string>

#include "base/file_identity.h"
#include "image/format.h"
#include "image/progress.h"
#include "io/reactor.h"
#include "store/volume.h"

namespace obraz {

struct ExportTarget {
  std::string path;
  ImageFormat format = ImageFormat::raw;  // raw or qcow2
  FileIdentityRef as = nullptr;           // whose rights count when it is made, and whose it is
};

Answer<void> export_volume(Reactor& reactor, Volume source, const ExportTarget& target, Progress& progress,
                           std::stop_token stop = {});

}  // namespace obraz
