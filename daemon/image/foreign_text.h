// Text that a disk or its guest wrote - labels, names of partitions - for a terminal, a log or an API: valid
// UTF-8 without control characters, breaks of lines, and characters that change the direction of what
// follows.
#pragma once

#include <string>
#include <string_view>

namespace obraz {

// What is no such text becomes '?', byte by byte; what is longer than `limit` bytes is cut off between
// characters. Blanks at both ends go.
std::string clean_text(std::string_view foreign, size_t limit);

// Whether it is such text already, of at most `limit` bytes.
bool is_clean_text(std::string_view text, size_t limit);

}  // namespace obraz
