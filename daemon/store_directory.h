// The directory of a store: `meta` and `data`, each a file or a symlink to a block device, and how they come
// to be.
//
// Invariants: nothing in a directory that is not a store is touched, unless it is empty or holds nothing but
// what an interrupted format left; a store is formatted under other names and gets its own when it is whole,
// so a crash leaves a store or what the next start removes. Thread: the reactor's.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/refusal.h"
#include "io/file_device.h"
#include "io/reactor.h"
#include "io/task.h"

namespace obraz {

struct StoreDevices {
  std::unique_ptr<FileDevice> meta, data;
};

struct NewStore {
  uint64_t data_bytes = 0;     // rounded up to 64 KiB
  uint64_t journal_bytes = 0;  //
};

// Opens and locks the devices of the store in `path`, which is made and formatted as `otherwise` says when it
// is absent or empty. Refuses what is not a store, and one that another process has open.
Task<Answer<StoreDevices>> open_store_directory(Reactor& reactor, std::string path, NewStore otherwise);

// Only ever makes a new one; refuses a directory that holds anything.
Task<Answer<StoreDevices>> format_store_directory(Reactor& reactor, std::string path, NewStore what);

// Only ever opens one that is there.
Answer<StoreDevices> open_existing_store(Reactor& reactor, const std::string& path, bool read_only);

}  // namespace obraz
