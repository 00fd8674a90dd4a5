// How a parser of a file system gets at the bytes of its volume, and how names are compared in those that do
// not tell capitals from small letters.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "base/bytes.h"

namespace obraz {

// Fills the bytes from [offset, offset + into.size()) of the volume. False: there are no such bytes, or no
// more will be given.
using ReadRange = std::function<bool(uint64_t offset, Bytes into)>;

// Negative, 0 or positive, in the order of the UTF-16 units with a to z taken as A to Z. Other letters are as
// they are: our own names, on the left, have none.
inline int compare_names(std::string_view ascii, std::u16string_view name) {
  const auto capital = [](char16_t unit) {
    return unit >= u'a' && unit <= u'z' ? char16_t(unit - u'a' + u'A') : unit;
  };
  for (size_t i = 0; i < ascii.size() && i < name.size(); ++i) {
    const char16_t left = capital(char16_t(uint8_t(ascii[i]))), right = capital(name[i]);
    if (left != right)
      return left < right ? -1 : 1;
  }
  return ascii.size() == name.size() ? 0 : ascii.size() < name.size() ? -1 : 1;
}

}  // namespace obraz
