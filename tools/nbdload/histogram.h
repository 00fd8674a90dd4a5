// Latencies in bounded memory: buckets of equal relative width (at most 1/64 of the value), so a percentile
// is true to 1.6 % whatever the range. Pure; any thread.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

namespace obraz::load {

class Histogram {
 public:
  void record(uint64_t value) {
    ++counts_[bucket_of(value)];
    ++total_;
    sum_ += value;
    max_ = std::max(max_, value);
  }
  void add(const Histogram& other) {
    for (size_t i = 0; i < counts_.size(); ++i)
      counts_[i] += other.counts_[i];
    total_ += other.total_;
    sum_ += other.sum_;
    max_ = std::max(max_, other.max_);
  }

  uint64_t count() const { return total_; }
  uint64_t max() const { return max_; }
  double mean() const { return total_ == 0 ? 0 : double(sum_) / double(total_); }
  // The least value that this share of all values (0 to 1) does not exceed, rounded up to its bucket's end; 0
  // when there are none.
  uint64_t percentile(double share) const {
    const auto wanted =
        std::clamp<uint64_t>(uint64_t(share * double(total_) + 0.999999), 1, std::max<uint64_t>(1, total_));
    uint64_t seen = 0;
    for (size_t i = 0; i < counts_.size() && total_ > 0; ++i)
      if ((seen += counts_[i]) >= wanted)
        return std::min(end_of(i), max_);
    return 0;
  }

 private:
  static constexpr unsigned kBits = 6;  // 64 buckets for each power of two
  static size_t bucket_of(uint64_t value) {
    if (value < (1u << (kBits + 1)))
      return size_t(value);
    const unsigned shift = unsigned(std::bit_width(value)) - kBits - 1;
    return (size_t(shift) << kBits) + size_t(value >> shift);
  }
  // The largest value of the bucket.
  static uint64_t end_of(size_t bucket) {
    if (bucket < (1u << (kBits + 1)))
      return bucket;
    const unsigned shift = unsigned(bucket >> kBits) - 1;
    const uint64_t top = (bucket & ((1u << kBits) - 1)) | (1u << kBits);
    return ((top + 1) << shift) - 1;
  }

  std::array<uint64_t, size_t(65 - kBits) << kBits> counts_{};
  uint64_t total_ = 0, sum_ = 0, max_ = 0;
};

}  // namespace obraz::load
