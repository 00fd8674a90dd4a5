#include "image/layout_wire.h"

#include <cstring>

#include "base/check.h"
#include "image/foreign_text.h"

namespace obraz::layout_wire {
namespace {

// The same walk over a layout writes it and reads it, so the two cannot differ.
class Encoder {
 public:
  template <typename T>
  void number(const T& value, T = {}) {
    std::byte bytes[sizeof(T)];
    store_le<T>(bytes, value);
    bytes_.insert(bytes_.end(), bytes, bytes + sizeof bytes);
  }
  void flag(const bool& value) { number<uint8_t>(value); }
  template <typename E>
  void choice(const E& value, E) {
    number<uint8_t>(uint8_t(value));
  }
  void text(const std::string& value, size_t limit) {
    OBRAZ_CHECK(is_clean_text(value, limit));
    number<uint16_t>(uint16_t(value.size()));
    const auto* at = reinterpret_cast<const std::byte*>(value.data());
    bytes_.insert(bytes_.end(), at, at + value.size());
  }
  void count(const std::vector<Partition>& partitions, size_t limit) {
    OBRAZ_CHECK(partitions.size() <= limit);
    number<uint16_t>(uint16_t(partitions.size()));
  }
  std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

class Decoder {
 public:
  explicit Decoder(ConstBytes bytes) : rest_(bytes) {}
  template <typename T>
  void number(T& value, T most = T(-1)) {
    if (rest_.size() < sizeof(T))
      return fail();
    value = load_le<T>(rest_.data());
    rest_ = rest_.subspan(sizeof(T));
    if (value > most)
      fail();
  }
  void flag(bool& value) {
    uint8_t byte = 0;
    number<uint8_t>(byte, 1);
    value = byte == 1;
  }
  template <typename E>
  void choice(E& value, E last) {
    uint8_t byte = 0;
    number<uint8_t>(byte, uint8_t(last));
    value = good_ ? E(byte) : E();
  }
  void text(std::string& value, size_t limit) {
    uint16_t length = 0;
    number<uint16_t>(length, uint16_t(limit));
    if (!good_ || rest_.size() < length)
      return fail();
    value.assign(reinterpret_cast<const char*>(rest_.data()), length);
    rest_ = rest_.subspan(length);
    if (!is_clean_text(value, limit))
      fail();
  }
  void count(std::vector<Partition>& partitions, size_t limit) {
    uint16_t number_of = 0;
    number<uint16_t>(number_of, uint16_t(limit));
    partitions.resize(good_ ? number_of : 0);
  }
  bool good() const { return good_ && rest_.empty(); }

 private:
  void fail() {
    good_ = false;
    rest_ = {};
  }
  ConstBytes rest_;
  bool good_ = true;
};

template <typename Walker, typename System>
void walk_file_system(Walker& walker, System& system) {
  walker.text(system.type, limits::kMaxLayoutIdentifier);
  walker.text(system.label, limits::kMaxLayoutText);
  walker.text(system.uuid, limits::kMaxLayoutIdentifier);
}

template <typename Walker, typename Layout>
void walk(Walker& walker, Layout& layout) {
  walker.choice(layout.table, PartitionTable::gpt);
  walker.text(layout.table_id, limits::kMaxLayoutIdentifier);
  walker.count(layout.partitions, limits::kMaxPartitions);
  for (auto& partition : layout.partitions) {
    walker.template number<uint32_t>(partition.number);
    // Two of them do not overflow together.
    walker.template number<uint64_t>(partition.offset, INT64_MAX);
    walker.template number<uint64_t>(partition.length, INT64_MAX);
    walker.text(partition.type, limits::kMaxLayoutIdentifier);
    walker.text(partition.name, limits::kMaxPartitionName);
    walker.text(partition.uuid, limits::kMaxLayoutIdentifier);
    walker.flag(partition.active);
    walk_file_system(walker, partition.file_system);
  }
  walk_file_system(walker, layout.file_system);
  walker.choice(layout.boot, BootMethod::both);
  walker.choice(layout.windows.content, WindowsContent::boot);
  walker.choice(layout.windows.evidence, WindowsEvidence::system_files);
  walker.template number<uint32_t>(layout.windows.partition);
  walker.flag(layout.incomplete);
}

WindowsContent content_of(WindowsEvidence evidence) {
  if (evidence == WindowsEvidence::none)
    return WindowsContent::none;
  return evidence < WindowsEvidence::efi_boot_manager ? WindowsContent::data : WindowsContent::boot;
}

// What one part says of another.
bool is_consistent(const DiskLayout& layout) {
  if (layout.table == PartitionTable::none && !layout.partitions.empty())
    return false;
  if (layout.windows.content != content_of(layout.windows.evidence))
    return false;
  if (layout.windows.partition == 0)
    return true;
  for (const Partition& partition : layout.partitions)
    if (partition.number == layout.windows.partition)
      return layout.windows.content != WindowsContent::none;
  return false;
}

}  // namespace

std::vector<std::byte> encode_layout(const DiskLayout& layout) {
  Encoder encoder;
  walk(encoder, layout);
  return encoder.take();
}

std::optional<DiskLayout> decode_layout(ConstBytes bytes) {
  DiskLayout layout;
  Decoder decoder(bytes);
  walk(decoder, layout);
  if (!decoder.good() || !is_consistent(layout))
    return std::nullopt;
  return layout;
}

}  // namespace obraz::layout_wire
