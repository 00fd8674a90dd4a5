#include "catalog/entry.h"

namespace obraz {

uint64_t size_bytes_of(const v1::ResourceRecord& record) {
  switch (record.resource_case()) {
    case v1::ResourceRecord::kDisk:
      return uint64_t(record.disk().size());
    case v1::ResourceRecord::kSnapshot:
      return uint64_t(record.snapshot().disk_size());
    case v1::ResourceRecord::kImage:
      return uint64_t(record.image().size());
    default:
      return 0;
  }
}

std::string Entry::title() const {
  const std::string name = this->name();
  return std::string(word_for(kind)).append(" ").append(name.empty() ? id() : name);
}

}  // namespace obraz
