// What `obraz-store dump` shows: the roots of a store and the journal behind the newest of them, as they lie
// on the devices. Nothing is replayed, followed or repaired, so it also tells of stores that do not open.
//
// Invariant: only reads. Thread: the reactor's.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/refusal.h"
#include "io/device.h"
#include "io/task.h"
#include "store/disk_format.h"

namespace obraz {

struct JournalBatch {
  disk::BatchHeader header;
  uint64_t page = 0;                                   // where it starts
  std::map<std::string, uint64_t, std::less<>> kinds;  // of record → how many
  uint64_t records = 0;
  bool malformed = false;  // its checksum fits, but what comes after these records is none
};

struct StoreDump {
  uint64_t meta_bytes = 0, data_bytes = 0;                 // of the devices
  std::array<Result<disk::Superblock>, 2> superblocks = {  // at disk::kSuperblockPages
      fail(ErrorCode::not_found, "not read"), fail(ErrorCode::not_found, "not read")};
  Result<disk::Label> label = fail(ErrorCode::not_found, "not read");
  int newest = -1;                    // index of the superblock that counts; -1: none is valid
  std::vector<JournalBatch> journal;  // the batches that follow it, in order
  std::string journal_end;            // why the next place does not hold one more
};

// Refuses devices that are too short to hold a store, and ones that cannot be read.
Task<Answer<StoreDump>> read_dump(Device& meta, Device& data);

// For people, and for programs: one document.
std::string dump_as_text(const StoreDump& dump);
std::string dump_as_json(const StoreDump& dump);

}  // namespace obraz
