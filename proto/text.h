// Text in messages is UTF-8; what is not does not decode at the other end. Pure; any thread.
#pragma once

#include <string>
#include <string_view>

namespace obraz {

bool is_valid_utf8(std::string_view text);
// With every byte that belongs to no character replaced by a question mark.
std::string valid_utf8(std::string_view text);

}  // namespace obraz
