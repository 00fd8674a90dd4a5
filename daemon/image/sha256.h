// Sha256: the hash of that name (FIPS 180-4), of bytes that come in pieces. OpenSSL computes it.
//
// Thread: any, one at a time.
#pragma once

#include <array>
#include <memory>
#include <string>

#include "base/bytes.h"

namespace obraz {

class Sha256 {
 public:
  using Value = std::array<std::byte, 32>;

  Sha256();
  Sha256(Sha256&&) = default;
  Sha256& operator=(Sha256&&) = default;
  ~Sha256() = default;

  void add(ConstBytes bytes);
  // Of all that was added since the beginning or the last time; it begins anew.
  Value finish();

 private:
  struct Free {
    void operator()(void* context) const;
  };
  void begin();

  std::unique_ptr<void, Free> context_;
};

// 64 hexadecimal digits, small ones.
std::string hex(const Sha256::Value& value);

}  // namespace obraz
