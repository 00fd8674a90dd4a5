// Little- and big-endian integers at unaligned places in byte buffers. Every on-disk and on-wire structure is
// encoded and decoded with these, so no structure is ever laid over foreign bytes.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace obraz {

using Bytes = std::span<std::byte>;
using ConstBytes = std::span<const std::byte>;

template <std::unsigned_integral T>
constexpr T swap_bytes(T value) {
  if constexpr (sizeof(T) == 1)
    return value;
  else if constexpr (sizeof(T) == 2)
    return __builtin_bswap16(value);
  else if constexpr (sizeof(T) == 4)
    return __builtin_bswap32(value);
  else
    return __builtin_bswap64(value);
}

template <std::unsigned_integral T>
T load_le(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return std::endian::native == std::endian::little ? value : swap_bytes(value);
}

template <std::unsigned_integral T>
void store_le(std::byte* at, T value) {
  if constexpr (std::endian::native != std::endian::little)
    value = swap_bytes(value);
  std::memcpy(at, &value, sizeof value);
}

template <std::unsigned_integral T>
T load_be(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return std::endian::native == std::endian::big ? value : swap_bytes(value);
}

template <std::unsigned_integral T>
void store_be(std::byte* at, T value) {
  if constexpr (std::endian::native != std::endian::big)
    value = swap_bytes(value);
  std::memcpy(at, &value, sizeof value);
}

// Whether all bytes are zero.
bool is_zero(ConstBytes bytes);

constexpr uint64_t round_down(uint64_t value, uint64_t unit) {
  return value / unit * unit;
}
constexpr uint64_t round_up(uint64_t value, uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}
constexpr uint64_t divide_up(uint64_t value, uint64_t unit) {
  return (value + unit - 1) / unit;
}

}  // namespace obraz
