// ImageFormat: the formats of disk image files that can be imported, and how a file's is found from its own
// bytes.
//
// The formats' magic numbers are those of their specifications: qcow2 (QEMU docs/interop/qcow2), VMware
// Virtual Disk Format 5.0, Microsoft VHD 1.0 and VHDX 1.0 ([MS-VHDX]), VirtualBox VDI 1.1. Thread: any.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "image/answer.h"
#include "image/file_view.h"

namespace obraz {

enum class ImageFormat : unsigned char { raw, qcow2, vmdk, vpc, vhdx, vdi };

const char* name_of(ImageFormat format);
std::optional<ImageFormat> parse_image_format(std::string_view name);  // "vhd" is another word for "vpc"

// The first and the last bytes of a file, as far as it has them.
struct FileEnds {
  std::string head, tail;  // at most 512 bytes each

  static Answer<FileEnds> read(const FileView& file);
};

// Which of the formats these bytes begin (or, for vpc, end) with; none: nothing is recognised, so raw or
// unknown.
std::optional<ImageFormat> recognise(const FileEnds& ends);
// A format or wrapping that is recognised but cannot be imported, in words ("a gzip file; decompress it
// first").
std::optional<std::string> recognise_unsupported(const FileEnds& ends);

// Settles the format of a file: `wanted` where it does not contradict the bytes, else what the bytes say.
// `name` is the file's name: one that ends like a foreign format whose magic is missing is refused rather
// than taken as raw.
Answer<ImageFormat> settle_format(const FileEnds& ends, std::optional<ImageFormat> wanted,
                                  std::string_view name);

}  // namespace obraz
