#include "image/sha256.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include "base/check.h"

namespace obraz {
namespace {

// Found once: asking for it by name takes longer than a small hash.
const EVP_MD* algorithm() {
  static EVP_MD* const found = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  OBRAZ_CHECK(found != nullptr);
  return found;
}

EVP_MD_CTX* of(void* context) {
  return static_cast<EVP_MD_CTX*>(context);
}

}  // namespace

void Sha256::Free::operator()(void* context) const {
  EVP_MD_CTX_free(of(context));
}

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  OBRAZ_CHECK(context_ != nullptr);
  begin();
}

void Sha256::begin() {
  OBRAZ_CHECK(EVP_DigestInit_ex2(of(context_.get()), algorithm(), nullptr) == 1);
}

void Sha256::add(ConstBytes bytes) {
  OBRAZ_CHECK(EVP_DigestUpdate(of(context_.get()), bytes.data(), bytes.size()) == 1);
}

Sha256::Value Sha256::finish() {
  Value value;
  unsigned length = 0;
  OBRAZ_CHECK(
      EVP_DigestFinal_ex(of(context_.get()), reinterpret_cast<unsigned char*>(value.data()), &length) == 1 &&
      length == value.size());
  begin();
  return value;
}

std::string hex(const Sha256::Value& value) {
  std::string text;
  for (const std::byte byte : value)
    text += fmt::format("{:02x}", uint8_t(byte));
  return text;
}

}  // namespace obraz
