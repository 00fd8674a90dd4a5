// A random (version 4) UUID, RFC 9562: names a store in all its structures.
#pragma once

#include <array>
#include <cstddef>
#include <string>

namespace obraz {

struct Uuid {
  std::array<std::byte, 16> bytes{};

  static Uuid random();
  std::string to_string() const;  // 8-4-4-4-12 lower-case hexadecimal digits
  friend bool operator==(const Uuid&, const Uuid&) = default;
};

}  // namespace obraz
