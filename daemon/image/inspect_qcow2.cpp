// qcow2, versions 2 and 3 (QEMU docs/interop/qcow2). All integers are big-endian.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <vector>

#include "base/limits.h"
#include "image/inspect.h"

namespace obraz {
namespace {

constexpr auto kFormat = ImageFormat::qcow2;
constexpr uint64_t kOffsetMask = 0x00ff'ffff'ffff'fe00;  // bits 9–55 of L1 and L2 entries
constexpr uint64_t kCompressed = 1ull << 62;
constexpr uint64_t kReadsAsZeros = 1;
constexpr uint64_t kIncompatibleDirty = 1, kIncompatibleCorrupt = 2, kIncompatibleDataFile = 4;
constexpr uint64_t kIncompatibleCompression = 8, kIncompatibleExtendedL2 = 16;
constexpr uint64_t kMaxRefcountTable = 8 * limits::MiB;  // what QEMU takes
constexpr uint32_t kMaxSnapshots = 65536;                // likewise
constexpr uint64_t kSnapshotHeader = 40;
constexpr uint32_t kExtensionEnd = 0, kExtensionDataFile = 0x4441'5441, kExtensionEncryption = 0x0537'be77;

struct Header {
  uint32_t version, cluster_bits, crypt_method, l1_entries, refcount_clusters, snapshots, refcount_order,
      length;
  uint64_t backing_offset, size, l1_offset, refcount_offset, snapshots_offset, incompatible;
  uint8_t compression;
  uint64_t cluster_size() const { return uint64_t(1) << cluster_bits; }
  bool extended_l2() const { return incompatible & kIncompatibleExtendedL2; }
  uint64_t l2_entry_size() const { return extended_l2() ? 16 : 8; }
  uint64_t l2_entries() const { return cluster_size() / l2_entry_size(); }
};

Answer<Header> read_header(const FileView& file) {
  std::byte bytes[112] = {};
  OBRAZ_ASK(file.read(0, Bytes(bytes, 72), "the qcow2 header"));
  Header h{};
  h.version = load_be<uint32_t>(bytes + 4);
  if (h.version != 2 && h.version != 3)
    return refuse_source(fmt::format("qcow2 version {} is unknown; 2 and 3 can be imported", h.version));
  h.length = 72;
  h.refcount_order = 4;
  if (h.version == 3) {
    OBRAZ_ASK(file.read(72, Bytes(bytes + 72, 32), "the qcow2 header"));
    h.incompatible = load_be<uint64_t>(bytes + 72);
    h.refcount_order = load_be<uint32_t>(bytes + 96);
    h.length = load_be<uint32_t>(bytes + 100);
    if (h.length > 104) {
      OBRAZ_ASK(file.read(104, Bytes(bytes + 104, 8), "the qcow2 header"));
      h.compression = load_be<uint8_t>(bytes + 104);
    }
  }
  h.backing_offset = load_be<uint64_t>(bytes + 8);
  h.cluster_bits = load_be<uint32_t>(bytes + 20);
  h.size = load_be<uint64_t>(bytes + 24);
  h.crypt_method = load_be<uint32_t>(bytes + 32);
  h.l1_entries = load_be<uint32_t>(bytes + 36);
  h.l1_offset = load_be<uint64_t>(bytes + 40);
  h.refcount_offset = load_be<uint64_t>(bytes + 48);
  h.refcount_clusters = load_be<uint32_t>(bytes + 56);
  h.snapshots = load_be<uint32_t>(bytes + 60);
  h.snapshots_offset = load_be<uint64_t>(bytes + 64);
  return h;
}

Answer<void> check_foreign(const Header& h) {
  if (h.backing_offset != 0)
    return refuse_source(
        "the qcow2 image has a backing file; flatten it first (qemu-img convert) so that it names no other "
        "file");
  if (h.incompatible & kIncompatibleDataFile)
    return refuse_source("the qcow2 image keeps its data in another file; convert it to one file first");
  if (h.crypt_method != 0)
    return refuse_source("the qcow2 image is encrypted; decrypt it first");
  if (h.incompatible & kIncompatibleCorrupt)
    return refuse_damaged(kFormat, "it is marked as corrupt; repair it with qemu-img check -r all");
  const uint64_t known = kIncompatibleDirty | kIncompatibleCompression | kIncompatibleExtendedL2;
  if (h.incompatible & ~known)
    return refuse_source(
        fmt::format("the qcow2 image needs features that are unknown (bits {:#x})", h.incompatible & ~known));
  const bool typed = h.incompatible & kIncompatibleCompression;
  if (h.compression > 1 || (typed != (h.compression != 0)))
    return refuse_source(fmt::format("the qcow2 image has the unknown compression type {}", h.compression));
  return {};
}

Answer<void> check_shape(const FileView& file, const Header& h) {
  if (h.cluster_bits < 9 || h.cluster_bits > 21 || (h.extended_l2() && h.cluster_bits < 14))
    return refuse_damaged(kFormat, fmt::format("its clusters have 2^{} bytes", h.cluster_bits));
  if (h.refcount_order > 6)
    return refuse_damaged(kFormat, fmt::format("its reference counts have 2^{} bits", h.refcount_order));
  if (h.version == 3 && (h.length < 104 || h.length % 8 != 0 || h.length > h.cluster_size()))
    return refuse_damaged(kFormat, fmt::format("its header has {} bytes", h.length));
  OBRAZ_ASK(check_virtual_size(h.size));
  if (h.size % 512 != 0)
    return refuse_damaged(kFormat, fmt::format("its disk has {} bytes, not whole sectors", h.size));

  const uint64_t cluster = h.cluster_size();
  const uint64_t l1_needed = divide_up(divide_up(h.size, cluster), h.l2_entries());
  if (h.l1_entries < l1_needed || uint64_t(h.l1_entries) * 8 > limits::kMaxFormatTable)
    return refuse_damaged(kFormat,
                          fmt::format("its L1 table has {} entries, {} are needed", h.l1_entries, l1_needed));
  const uint64_t refcount_bytes = h.refcount_clusters * cluster;
  if (h.refcount_clusters == 0 || refcount_bytes > kMaxRefcountTable)
    return refuse_damaged(kFormat, fmt::format("its refcount table has {} clusters", h.refcount_clusters));
  if (h.snapshots > kMaxSnapshots)
    return refuse_damaged(kFormat, fmt::format("it has {} internal snapshots", h.snapshots));

  struct Region {
    const char* name;
    uint64_t offset, length;
  };
  const Region regions[] = {{"L1 table", h.l1_offset, uint64_t(h.l1_entries) * 8},
                            {"refcount table", h.refcount_offset, refcount_bytes},
                            {"snapshot table", h.snapshots_offset, h.snapshots * kSnapshotHeader}};
  for (const Region& region : regions) {
    if (region.length == 0)
      continue;
    if (region.offset % cluster != 0 || region.offset < cluster)
      return refuse_damaged(kFormat,
                            fmt::format("its {} is said to be at byte {}", region.name, region.offset));
    if (!file.holds(region.offset, region.length))
      return refuse_source(fmt::format(
          "the qcow2 image is truncated or damaged: its {} would end beyond the file", region.name));
  }
  return {};
}

// Header extensions between the header and the end of the first cluster; unknown ones may be ignored, by the
// format.
Answer<void> check_extensions(const FileView& file, const Header& h) {
  std::vector<std::byte> bytes(std::min(h.cluster_size(), file.size_bytes));
  OBRAZ_ASK(file.read(0, bytes, "the first cluster"));
  for (uint64_t at = h.length; at + 8 <= bytes.size();) {
    const uint32_t type = load_be<uint32_t>(&bytes[at]);
    const uint32_t length = load_be<uint32_t>(&bytes[at + 4]);
    if (type == kExtensionEnd)
      break;
    if (type == kExtensionDataFile)
      return refuse_source("the qcow2 image names an external data file; convert it to one file first");
    if (type == kExtensionEncryption)
      return refuse_source("the qcow2 image is encrypted; decrypt it first");
    if (length > bytes.size() - at - 8)
      return refuse_damaged(kFormat, "a header extension does not end");
    at += 8 + round_up(length, 8);
  }
  return {};
}

// Whether everything that the entries of one L2 table name is in the file.
class L2Check {
 public:
  L2Check(const FileView& file, const Header& h) : file_(file), h_(h) {}

  Answer<void> check(const std::vector<std::byte>& table, uint64_t guest_offset) const {
    for (uint64_t i = 0; i < h_.l2_entries() && guest_offset < h_.size;
         ++i, guest_offset += h_.cluster_size()) {
      const std::byte* at = &table[i * h_.l2_entry_size()];
      const uint64_t entry = load_be<uint64_t>(at);
      const uint64_t bitmap = h_.extended_l2() ? load_be<uint64_t>(at + 8) : 0;
      if (entry == 0 && bitmap == 0)
        continue;
      if (entry & kCompressed)
        OBRAZ_ASK(check_compressed(entry));
      else
        OBRAZ_ASK(check_standard(entry, bitmap, std::min(h_.cluster_size(), h_.size - guest_offset)));
    }
    return {};
  }

 private:
  Answer<void> check_compressed(uint64_t entry) const {
    const unsigned offset_bits = 62 - (h_.cluster_bits - 8);
    const uint64_t offset = entry & ((uint64_t(1) << offset_bits) - 1);
    const uint64_t sectors = ((entry & ~(3ull << 62)) >> offset_bits) + 1;
    // Its length is known in sectors of 512 bytes only, the last of which the file need not fill.
    const uint64_t end = round_down(offset, 512) + sectors * 512;
    if (offset >= file_.size_bytes || end > round_up(file_.size_bytes, 512))
      return refuse_truncated(kFormat, file_, end);
    return {};
  }

  Answer<void> check_standard(uint64_t entry, uint64_t bitmap, uint64_t length) const {
    const uint64_t offset = entry & kOffsetMask;
    if (offset % h_.cluster_size() != 0)
      return refuse_damaged(kFormat, fmt::format("a cluster is said to be at byte {}", offset));
    if (h_.extended_l2()) {
      const auto allocated = uint32_t(bitmap), zero = uint32_t(bitmap >> 32);
      if ((allocated & zero) != 0 || (allocated != 0 && offset == 0))
        return refuse_damaged(kFormat, "a subcluster is both data and zeros, or data without a place");
      const uint64_t used = h_.cluster_size() / 32 * (32 - unsigned(std::countl_zero(allocated)));
      length = std::min(length, used);
    } else if (h_.version == 3 && (entry & kReadsAsZeros)) {
      length = 0;
    }
    if (offset != 0 && length != 0 && !file_.holds(offset, length))
      return refuse_truncated(kFormat, file_, offset + length);
    return {};
  }

  const FileView& file_;
  const Header& h_;
};

Answer<void> check_mapping(const FileView& file, const Header& h, const std::stop_token& stop) {
  const uint64_t span = h.cluster_size() * h.l2_entries();
  std::vector<std::byte> l1(divide_up(h.size, span) * 8), l2(h.cluster_size());
  OBRAZ_ASK(file.read(h.l1_offset, l1, "the L1 table"));
  uint64_t needed = 0;
  for (uint64_t i = 0; i < l1.size() / 8; ++i)
    needed += (load_be<uint64_t>(&l1[i * 8]) & kOffsetMask) != 0 ? h.cluster_size() : 0;
  OBRAZ_ASK(check_tables(kFormat, file, needed));
  const L2Check check(file, h);
  for (uint64_t i = 0; i < l1.size() / 8; ++i) {
    const uint64_t offset = load_be<uint64_t>(&l1[i * 8]) & kOffsetMask;
    if (offset == 0)
      continue;
    if (stop.stop_requested())
      return refuse_cancelled();
    if (offset % h.cluster_size() != 0)
      return refuse_damaged(kFormat, fmt::format("an L2 table is said to be at byte {}", offset));
    OBRAZ_ASK(file.read(offset, l2, "an L2 table"));
    OBRAZ_ASK(check.check(l2, i * span));
  }
  return {};
}

}  // namespace

Answer<Inspection> inspect_qcow2(const FileView& file, const std::stop_token& stop) {
  auto header = read_header(file);
  if (!header)
    return std::unexpected(std::move(header.error()));
  OBRAZ_ASK(check_foreign(*header));
  OBRAZ_ASK(check_shape(file, *header));
  OBRAZ_ASK(check_extensions(file, *header));
  OBRAZ_ASK(check_mapping(file, *header, stop));
  return Inspection{.virtual_size = header->size};
}

}  // namespace obraz
