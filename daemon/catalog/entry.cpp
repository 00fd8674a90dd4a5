#include "catalog/entry.h"

namespace obraz {

uint64_t Entry::size_bytes() const {
  switch (kind) {
    case Kind::disk:
      return uint64_t(record.disk().size());
    case Kind::snapshot:
      return uint64_t(record.snapshot().disk_size());
    case Kind::image:
      return uint64_t(record.image().size());
    case Kind::folder:
      return 0;
  }
  OBRAZ_CHECK(!"a kind");
}

std::string Entry::title() const {
  const std::string name = this->name();
  return std::string(word_for(kind)).append(" ").append(name.empty() ? id() : name);
}

}  // namespace obraz
