#include "image/inspect.h"

#include <fmt/format.h>

#include "base/check.h"
#include "base/limits.h"

namespace obraz {

Answer<Inspection> inspect(ImageFormat format, const FileView& file, const std::stop_token& stop) {
  switch (format) {
    case ImageFormat::qcow2:
      return inspect_qcow2(file, stop);
    case ImageFormat::vmdk:
      return inspect_vmdk(file, stop);
    case ImageFormat::vpc:
      return inspect_vpc(file, stop);
    case ImageFormat::vhdx:
      return inspect_vhdx(file, stop);
    case ImageFormat::vdi:
      return inspect_vdi(file, stop);
    case ImageFormat::raw:
      break;
  }
  check_failed("raw files have no header to inspect", __FILE__, __LINE__);
}

Answer<void> check_virtual_size(uint64_t size_bytes) {
  if (size_bytes == 0)
    return refuse_source("the source is empty: its disk has no bytes");
  if (size_bytes > limits::kMaxVolumeSize)
    return refuse_source(fmt::format("the disk inside has {} bytes, more than the limit of {}", size_bytes,
                                     limits::kMaxVolumeSize));
  return {};
}

Answer<void> check_tables(ImageFormat format, const FileView& file, uint64_t needed_bytes) {
  if (needed_bytes <= file.size_bytes)
    return {};
  return refuse_damaged(format,
                        fmt::format("its tables take {} bytes together, the file has {}; some are named "
                                    "twice",
                                    needed_bytes, file.size_bytes));
}

std::unexpected<Refusal> refuse_damaged(ImageFormat format, const std::string& what) {
  return refuse_source(fmt::format("the {} image is damaged: {}", name_of(format), what));
}

std::unexpected<Refusal> refuse_truncated(ImageFormat format, const FileView& file, uint64_t needed_bytes) {
  return refuse_source(fmt::format("the {} image is truncated: it needs {} bytes, the file has {}",
                                   name_of(format), needed_bytes, file.size_bytes));
}

}  // namespace obraz
