#include "tools/nbdload/stamps.h"

#include "base/bytes.h"

namespace obraz::load {

void Stamps::stamp(uint64_t offset, std::span<std::byte> bytes) {
  const uint32_t version = ++versions_[index(offset)];
  for (size_t at = 0; at < bytes.size(); at += 8)
    store_le<uint64_t>(&bytes[at], word(offset + at, version));
}

bool Stamps::holds(uint64_t offset, std::span<const std::byte> bytes) const {
  const uint32_t version = versions_[index(offset)];
  for (size_t at = 0; at < bytes.size() && version != 0; at += 8)
    if (load_le<uint64_t>(&bytes[at]) != word(offset + at, version))
      return false;
  return true;
}

}  // namespace obraz::load
