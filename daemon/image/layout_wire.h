// What is said between the daemon and obraz-layout, on a socket that keeps messages apart (SOCK_SEQPACKET).
//
//   obraz-layout   'R' offset:u64 length:u32    asks for a range
//   daemon         'D'                          its bytes are in the file, at that offset
//   obraz-layout   'L' layout                   the answer, and the last message
//
// Integers are little-endian; the layout is what encode_layout() makes. The file is a sparse one in memory,
// of the disk's size, which obraz-layout can read and not write; libblkid takes it for the disk. Ranges begin
// at multiples of kPage, and end at one or at the end.
#pragma once

#include <optional>
#include <vector>

#include "base/bytes.h"
#include "image/layout.h"

namespace obraz::layout_wire {

constexpr char kVersion[] = "1";  // the argument of obraz-layout, which runs with no other
constexpr int kSocket = 3, kFile = 4;
constexpr uint64_t kPage = 4096;
constexpr size_t kRequestSize = 1 + 8 + 4;
constexpr std::byte kRequest{'R'}, kDone{'D'}, kLayout{'L'};

// The layout keeps to the invariants of layout.h.
std::vector<std::byte> encode_layout(const DiskLayout& layout);
// Nothing unless every part of it does, and nothing is left over.
std::optional<DiskLayout> decode_layout(ConstBytes bytes);

}  // namespace obraz::layout_wire
