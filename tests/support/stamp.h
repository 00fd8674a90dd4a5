// Stamps: test data that says where it belongs. Every 16 bytes of it name the volume, the place in it and the
// write that put it there, so that bytes found in the wrong place tell whose they are. Thread: any.
#pragma once

#include <cstdint>
#include <string>

#include "base/bytes.h"

namespace obraz::test {

// Fills `out`, the bytes of the volume from `offset` on (any alignment): each 16-byte unit of the volume
// holds its number, the volume and the version.
void stamp(Bytes out, uint64_t volume, uint64_t offset, uint32_t version);

// In words: whose bytes these are ("volume 3 offset 0x5000 version 17", "zeros", "noise"). Reads the first
// whole unit at or after the start; `offset` is the place of `bytes` in its volume.
std::string describe_stamp(ConstBytes bytes, uint64_t offset);

}  // namespace obraz::test
