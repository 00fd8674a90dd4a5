// Copies an import source into a volume: several reads in flight, several writes in flight, the same buffers
// for both. Holes of the source are not read, and blocks of zeros are not written: the volume must read as
// zeros before.
//
// Ends with a flush, so that on success everything is durable. On a refusal, cancellation among them, what
// has been written so far stays in the volume: delete it. No read or write is under way any more when this
// returns. Thread: the worker's that opened the source; the reactor runs on another and goes on running until
// the return.
#pragma once

#include <stop_token>

#include "image/progress.h"
#include "image/source.h"
#include "io/reactor.h"
#include "store/volume.h"

namespace obraz {

// The volume has at least the source's size rounded up to 4 MiB; what lies beyond the source's end stays
// zeros.
Answer<void> copy_to_volume(ImportSource& source, Reactor& reactor, Volume target, Progress& progress,
                            std::stop_token stop = {});

}  // namespace obraz
