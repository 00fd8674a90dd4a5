// Which random runs to make: from the environment, or as many as the kind of build can do in about a minute.
// Thread: any.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>

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

// OBRAZ_SIM_SEED=n: that one. OBRAZ_SIM_SEEDS=a-b: from a to b. Otherwise 1 … scaled(count).
inline std::pair<uint64_t, uint64_t> seeds_from_env(uint64_t count) {
  if (const auto one = text_from_env("OBRAZ_SIM_SEED")) {
    const uint64_t seed = std::strtoull(one->c_str(), nullptr, 10);
    return {seed, seed};
  }
  if (const auto range = text_from_env("OBRAZ_SIM_SEEDS")) {
    const size_t dash = range->find('-');
    const uint64_t first = std::strtoull(range->c_str(), nullptr, 10);
    return {first, dash == std::string::npos ? first : std::strtoull(range->c_str() + dash + 1, nullptr, 10)};
  }
  return {1, scaled(count)};
}

}  // namespace obraz::test
