#include "image/format.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>

namespace obraz {
namespace {

using namespace std::string_view_literals;

constexpr std::array<const char*, 6> kNames = {"raw", "qcow2", "vmdk", "vpc", "vhdx", "vdi"};
constexpr size_t kEndBytes = 512;

bool has_at(const std::string& bytes, size_t offset, std::string_view magic) {
  return bytes.size() >= offset + magic.size() &&
         std::string_view(bytes).substr(offset, magic.size()) == magic;
}

struct Magic {
  size_t offset;
  std::string_view bytes;
  const char* words;
};

constexpr Magic kUnsupported[] = {
    {0, "QFI\xfb\0\0\0\1"sv, "a qcow (version 1) image; convert it to qcow2 first"},
    {0, "QED\0"sv, "a QED image; convert it to qcow2 first"},
    {0, "COWD"sv, "a VMware COW (version 3) disk; convert it to a monolithic sparse vmdk first"},
    {0, "\xbe\xba\xfe\xca\0\0\0\0"sv,
     "a VMware SE sparse disk; convert it to a monolithic sparse vmdk first"},
    {0, "# Disk DescriptorFile"sv,
     "a vmdk descriptor, which names other files; convert it to one monolithic sparse or stream-optimized "
     "vmdk first"},
    {0, "WithoutFreeSpace"sv, "a Parallels image; convert it to qcow2 first"},
    {0, "WithouFreSpacExt"sv, "a Parallels image; convert it to qcow2 first"},
    {0, "LUKS\xba\xbe"sv, "encrypted (LUKS)"},
    {0, "\x1f\x8b\x08"sv, "a gzip file; decompress it first"},
    {0,
     "\xfd"
     "7zXZ\0"sv,
     "an xz file; decompress it first"},
    {0, "\x28\xb5\x2f\xfd"sv, "a zstd file; decompress it first"},
    {0, "BZh"sv, "a bzip2 file; decompress it first"},
    {0, "PK\3\4"sv, "a zip archive; unpack it first"},
    {0, "7z\xbc\xaf\x27\x1c"sv, "a 7z archive; unpack it first"},
    {257, "ustar"sv, "a tar archive (an OVA appliance is one); unpack it and import the disk image inside"},
};

}  // namespace

const char* name_of(ImageFormat format) {
  return kNames[size_t(format)];
}

std::optional<ImageFormat> parse_image_format(std::string_view name) {
  if (name == "vhd")
    return ImageFormat::vpc;
  for (size_t i = 0; i < kNames.size(); ++i)
    if (name == kNames[i])
      return ImageFormat(i);
  return std::nullopt;
}

Answer<FileEnds> FileEnds::read(const FileView& file) {
  FileEnds ends;
  const size_t length = size_t(std::min<uint64_t>(file.size_bytes, kEndBytes));
  ends.head.resize(length);
  ends.tail.resize(length);
  OBRAZ_ASK(file.read(0, std::as_writable_bytes(std::span(ends.head)), "its beginning"));
  OBRAZ_ASK(file.read(file.size_bytes - length, std::as_writable_bytes(std::span(ends.tail)), "its end"));
  return ends;
}

std::optional<ImageFormat> recognise(const FileEnds& ends) {
  if (has_at(ends.head, 0, "QFI\xfb"sv) && !has_at(ends.head, 4, "\0\0\0\1"sv))
    return ImageFormat::qcow2;
  if (has_at(ends.head, 0, "KDMV"sv))
    return ImageFormat::vmdk;
  if (has_at(ends.head, 0, "vhdxfile"sv))
    return ImageFormat::vhdx;
  if (has_at(ends.head, 0x40, "\x7f\x10\xda\xbe"sv))
    return ImageFormat::vdi;
  if (has_at(ends.head, 0, "conectix"sv) ||
      (ends.tail.size() == kEndBytes && has_at(ends.tail, 0, "conectix"sv)))
    return ImageFormat::vpc;
  return std::nullopt;
}

std::optional<std::string> recognise_unsupported(const FileEnds& ends) {
  for (const Magic& magic : kUnsupported)
    if (has_at(ends.head, magic.offset, magic.bytes))
      return magic.words;
  if (ends.tail.size() == kEndBytes && has_at(ends.tail, 0, "koly"sv))
    return "an Apple disk image (dmg); convert it to raw first";
  return std::nullopt;
}

Answer<ImageFormat> settle_format(const FileEnds& ends, std::optional<ImageFormat> wanted,
                                  std::string_view name) {
  const auto found = recognise(ends);
  if (wanted && found && *wanted != *found)
    return refuse(ErrorCode::invalid_argument, "format",
                  fmt::format("the format was given as {}, but the source is a {} image", name_of(*wanted),
                              name_of(*found)));
  if (found)
    return *found;
  if (wanted == ImageFormat::raw)
    return ImageFormat::raw;
  if (const auto words = recognise_unsupported(ends))
    return refuse_source(fmt::format("the source is {}", *words));
  if (wanted)
    return refuse_source(fmt::format("the source is no {0} image: it has no {0} header", name_of(*wanted)));
  const size_t dot = name.rfind('.');
  if (dot != std::string_view::npos) {
    std::string suffix(name.substr(dot + 1));
    std::ranges::transform(suffix, suffix.begin(), [](unsigned char c) { return char(std::tolower(c)); });
    const auto named = parse_image_format(suffix);
    if (named && *named != ImageFormat::raw)
      return refuse_source(
          fmt::format("the source is named like a {} image but has no such header: it is damaged, "
                      "truncated or of an unknown format; give the format raw to take its bytes as "
                      "they are",
                      suffix));
  }
  return ImageFormat::raw;
}

}  // namespace obraz
