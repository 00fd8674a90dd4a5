// What a foreign image file says of itself, read by our own parsers from the descriptor that will be used,
// before any other program opens the file. A file is refused when it names another file (backing file,
// parent, external data, further extents), is encrypted, is cut off (a table or a cluster it needs lies
// beyond its end), contradicts its own specification, or has a size beyond limits::kMaxVolumeSize.
//
// Invariants: nothing is written; memory is bounded by three times limits::kMaxFormatTable; a file of any
// content ends in an answer, in time proportional to the tables it really holds: a table named twice is
// damage. Thread: a worker's.
#pragma once

#include <cstdint>
#include <stop_token>

#include "image/file_view.h"
#include "image/format.h"

namespace obraz {

struct Inspection {
  uint64_t virtual_size = 0;  // bytes of the disk inside
  // vpc only: which of the footer's two sizes is meant; handed on to the program that reads it.
  bool size_from_geometry = false;
};

Answer<Inspection> inspect_qcow2(const FileView& file, const std::stop_token& stop);
Answer<Inspection> inspect_vmdk(const FileView& file, const std::stop_token& stop);
Answer<Inspection> inspect_vpc(const FileView& file, const std::stop_token& stop);
Answer<Inspection> inspect_vhdx(const FileView& file, const std::stop_token& stop);
Answer<Inspection> inspect_vdi(const FileView& file, const std::stop_token& stop);

// The one of the five that the format asks for; not for raw.
Answer<Inspection> inspect(ImageFormat format, const FileView& file, const std::stop_token& stop);

// A virtual size as a header states it: neither nothing nor beyond the limit.
Answer<void> check_virtual_size(uint64_t size_bytes);

// Tables that take more room together than the file has are the same ones over and over: a short file would
// take hours to look through.
Answer<void> check_tables(ImageFormat format, const FileView& file, uint64_t needed_bytes);

// "the FORMAT image is damaged: WHAT".
std::unexpected<Refusal> refuse_damaged(ImageFormat format, const std::string& what);
// Data of the disk would lie beyond the end of the file.
std::unexpected<Refusal> refuse_truncated(ImageFormat format, const FileView& file, uint64_t needed_bytes);

}  // namespace obraz
