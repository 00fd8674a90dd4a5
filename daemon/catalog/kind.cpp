#include "catalog/kind.h"

#include <sys/random.h>

#include "base/check.h"

namespace obraz {
namespace {

constexpr char kOperationDigit = '9';
constexpr size_t kRandomCharacters = 19;

std::string new_id(char first) {
  constexpr std::string_view kAlphabet = "0123456789abcdefghjkmnpqrstvwxyz";
  std::array<unsigned char, kRandomCharacters> random;
  // Never short or interrupted for so few bytes, once the system's pool has been seeded.
  OBRAZ_CHECK(::getrandom(random.data(), random.size(), 0) == ssize_t(random.size()));
  std::string id(1, first);
  for (const unsigned char byte : random)
    id += kAlphabet[byte % kAlphabet.size()];
  return id;
}

}  // namespace

const char* word_for(Kind kind) {
  switch (kind) {
    case Kind::disk:
      return "disk";
    case Kind::snapshot:
      return "snapshot";
    case Kind::image:
      return "image";
    case Kind::folder:
      return "folder";
    case Kind::schedule:
      return "schedule";
  }
  OBRAZ_CHECK(!"a kind");
}

std::optional<Kind> volume_kind_from_word(std::string_view word) {
  for (const Kind kind : kVolumeKinds) {
    if (word == word_for(kind))
      return kind;
  }
  return std::nullopt;
}

std::string new_resource_id(Kind kind) {
  return new_id(char('0' + int(kind)));
}
std::string new_operation_id() {
  return new_id(kOperationDigit);
}
bool is_id(std::string_view text) {
  return !text.empty() && text.front() >= '0' && text.front() <= '9';
}

}  // namespace obraz
