#include "base/uuid.h"

#include <fmt/format.h>
#include <sys/random.h>

#include "base/check.h"

namespace obraz {

Uuid Uuid::random() {
  Uuid uuid;
  OBRAZ_CHECK(::getrandom(uuid.bytes.data(), uuid.bytes.size(), 0) == ssize_t(uuid.bytes.size()));
  uuid.bytes[6] = (uuid.bytes[6] & std::byte{0x0f}) | std::byte{0x40};
  uuid.bytes[8] = (uuid.bytes[8] & std::byte{0x3f}) | std::byte{0x80};
  return uuid;
}

std::string Uuid::to_string() const {
  std::string out;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10)
      out += '-';
    out += fmt::format("{:02x}", unsigned(bytes[i]));
  }
  return out;
}

}  // namespace obraz
