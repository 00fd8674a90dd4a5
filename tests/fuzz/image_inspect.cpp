// Fuzzes what decides on a foreign image file before another program opens it: the recognition of its format
// and the inspection of its headers and tables.
//
// The input stands for a sparse file, so that a short one can have tables at large offsets: a byte that
// chooses, 8 bytes for the file's size, then pieces, each of 6 bytes for its offset, 2 for its length, and
// its bytes. Integers are little-endian. The lower bits of the first byte are the format that the caller
// gives, bit 7 asks for right checksums: without it no input would get behind those of vhd and vhdx.
//
// Beyond not crashing: what passes has a size within the limits, what is refused is refused in a sentence
// that can be printed, and nothing but the size of what is in the file decides how long it takes.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/limits.h"
#include "image/inspect.h"

using namespace obraz;

namespace {

// Most files are small, for tables of many MiB take their time; what a header says is not bound by it.
constexpr uint64_t kMaxFileSize = 16 * limits::MiB, kMaxLargeFileSize = 8 * limits::TiB;
constexpr unsigned kLargeFile = 0x40, kMendChecksums = 0x80;
constexpr size_t kFront = 1 + 8, kPieceFront = 6 + 2;

OwnedFd make_file(ConstBytes input, uint64_t& size_bytes) {
  OwnedFd fd(::memfd_create("image", MFD_CLOEXEC));
  const bool large = (unsigned(input[0]) & kLargeFile) != 0;
  size_bytes = load_le<uint64_t>(&input[1]) % ((large ? kMaxLargeFileSize : kMaxFileSize) + 1);
  OBRAZ_CHECK(fd && ::ftruncate(fd.get(), off_t(size_bytes)) == 0);
  for (input = input.subspan(kFront); input.size() >= kPieceFront;) {
    uint64_t offset = load_le<uint32_t>(&input[0]) | uint64_t(load_le<uint16_t>(&input[4])) << 32;
    const size_t length = std::min<size_t>(load_le<uint16_t>(&input[6]), input.size() - kPieceFront);
    const ConstBytes piece = input.subspan(kPieceFront, length);
    input = input.subspan(kPieceFront + length);
    offset = std::min(offset, size_bytes);
    OBRAZ_CHECK(write_fully(fd.get(), piece.first(std::min<uint64_t>(length, size_bytes - offset)), offset) ==
                0);
  }
  return fd;
}

// Writes the CRC-32C of a vhdx structure into its bytes 4 to 7.
void mend_vhdx(const FileView& file, uint64_t offset, size_t length, const char* signature) {
  std::vector<std::byte> bytes(length);
  if (!file.holds(offset, length) || read_fully(file.fd, bytes, offset) != 0 ||
      std::memcmp(bytes.data(), signature, 4) != 0)
    return;
  std::fill_n(bytes.begin() + 4, 4, std::byte(0));
  store_le<uint32_t>(&bytes[4], crc32c(bytes));
  OBRAZ_CHECK(write_fully(file.fd, bytes, offset) == 0);
}

// Writes the one's complement of the sum of a vhd structure's bytes into its field.
void mend_vpc(const FileView& file, uint64_t offset, size_t length, size_t field, const char* signature) {
  std::vector<std::byte> bytes(length);
  if (!file.holds(offset, length) || read_fully(file.fd, bytes, offset) != 0 ||
      std::memcmp(bytes.data(), signature, 8) != 0)
    return;
  std::fill_n(bytes.begin() + ptrdiff_t(field), 4, std::byte(0));
  uint32_t sum = 0;
  for (const std::byte byte : bytes)
    sum += uint32_t(byte);
  store_be<uint32_t>(&bytes[field], ~sum);
  OBRAZ_CHECK(write_fully(file.fd, bytes, offset) == 0);
}

void mend(const FileView& file) {
  using limits::KiB;
  for (const uint64_t offset : {64 * KiB, 128 * KiB})
    mend_vhdx(file, offset, 4 * KiB, "head");
  for (const uint64_t offset : {192 * KiB, 256 * KiB})
    mend_vhdx(file, offset, 64 * KiB, "regi");
  if (file.size_bytes < 512)
    return;
  std::byte place[8];
  if (read_fully(file.fd, place, file.size_bytes - 512 + 16) == 0)
    mend_vpc(file, load_be<uint64_t>(place), 1024, 36, "cxsparse");
  mend_vpc(file, 0, 512, 64, "conectix");
  mend_vpc(file, file.size_bytes - 512, 512, 64, "conectix");
}

void judge(const Refusal& refusal) {
  OBRAZ_CHECK(refusal.code == ErrorCode::invalid_argument);
  OBRAZ_CHECK(refusal.field == "source" || refusal.field == "format");
  OBRAZ_CHECK(!refusal.message.empty() && refusal.message.size() < 1000);
  for (const char c : refusal.message)
    OBRAZ_CHECK(uint8_t(c) >= 0x20 && uint8_t(c) <= 0x7e);
}

void try_inspect(ImageFormat format, const FileView& file) {
  const auto inspection = inspect(format, file, {});
  if (!inspection)
    return judge(inspection.error());
  OBRAZ_CHECK(inspection->virtual_size > 0 && inspection->virtual_size <= limits::kMaxVolumeSize);
  // Of a vdi, its reader rounds it up.
  OBRAZ_CHECK(inspection->virtual_size % 512 == 0 || format == ImageFormat::vdi);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < kFront)
    return 0;
  uint64_t size_bytes = 0;
  const OwnedFd fd = make_file({reinterpret_cast<const std::byte*>(data), size}, size_bytes);
  if (size_bytes == 0)
    return 0;  // refused before anything is read
  const FileView file{fd.get(), size_bytes};
  if (data[0] & kMendChecksums)
    mend(file);
  std::optional<ImageFormat> given;
  if (const unsigned choice = data[0] % 8; choice >= 1 && choice <= 6)
    given = ImageFormat(choice - 1);

  const auto ends = FileEnds::read(file);
  OBRAZ_CHECK(ends.has_value());
  const auto settled = settle_format(*ends, given, "name.vhdx");
  if (!settled)
    judge(settled.error());
  else if (*settled != ImageFormat::raw)
    try_inspect(*settled, file);
  // An inspector has to stand on its own: between the two looks the file may become another.
  if (given && *given != ImageFormat::raw && !settled)
    try_inspect(*given, file);
  return 0;
}
