// Which random runs to make: from the environment, or as many as the kind of build can do in about a minute.
// Thread: any.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>

namespace obraz::test {

inline std::optional<std::string> text_from_env(const char* name) {
  const char* text = std::getenv(name);
  return text && *text ? std::optional<std::string>(text) : std::nullopt;
}

inline uint64_t number_from_env(const char* name, uint64_t otherwise) {
  const auto text = text_from_env(name);
  return text ? std::strtoull(text->c_str(), nullptr, 10) : otherwise;
}

// Sanitizers and unoptimized builds are several times slower: they make fewer runs.
inline uint64_t scaled(uint64_t runs) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__OPTIMIZE__)
  return std::max<uint64_t>(runs / 10, 1);
#else
  return runs;
#endif
}

}  // namespace obraz::test
