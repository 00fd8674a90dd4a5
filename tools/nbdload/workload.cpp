#include "tools/nbdload/workload.h"

#include <bit>

namespace obraz::load {

Workload::Workload(const WorkloadOptions& options)
    : options_(options),
      places_(options.length / (options.once_per ? options.once_per : options.block_size)),
      random_(options.seed),
      walk_size_(std::bit_ceil(places_)) {
  walk_ = random_() % walk_size_;
}

uint64_t Workload::next_block() {
  if (options_.once_per == 0)
    return (options_.sequential ? issued_++ : random_()) % places_;
  ++issued_;
  if (options_.sequential)
    return issued_ - 1;
  for (;;) {
    // A full cycle through the next power of two (Hull and Dobell: odd increment, multiplier 1 modulo 4). Its
    // low bits repeat soon, so they are mixed with the high ones, one to one.
    walk_ = (walk_ * 6364136223846793005u + 1442695040888963407u) % walk_size_;
    const unsigned half = unsigned(std::bit_width(walk_size_)) / 2;
    uint64_t place = walk_ ^ walk_ >> half;
    place = place * 0x9e3779b97f4a7c15u % walk_size_;
    place ^= place >> half;
    if (place < places_)
      return place;
  }
}

std::optional<Request> Workload::next() {
  if (options_.flush_every != 0 && writes_since_flush_ >= options_.flush_every) {
    writes_since_flush_ = 0;
    return Request{Kind::flush, 0};
  }
  if (options_.once_per != 0 && issued_ == places_)
    return std::nullopt;
  const bool read = random_() % 100 < options_.read_percent;
  writes_since_flush_ += !read;
  const uint64_t unit = options_.once_per ? options_.once_per : options_.block_size;
  return Request{read ? Kind::read : Kind::write, options_.offset + next_block() * unit};
}

}  // namespace obraz::load
