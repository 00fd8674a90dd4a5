// Sizes as people write them: digits, then nothing, K, M, G or T (powers of 1024, either case).
// Pure; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace obraz {

// Bytes. Nothing when it is not a size. What does not fit 63 bits becomes INT64_MAX, which every limit
// refuses.
std::optional<int64_t> parse_size(std::string_view text);

// At most four significant digits and a unit, for people: "512 B", "4 MiB", "1.5 GiB".
std::string format_size(uint64_t bytes);

// In the form that parse_size() reads, exact: "4M", "4097".
std::string exact_size(uint64_t bytes);

}  // namespace obraz
