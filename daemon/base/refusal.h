// Refusal: an error told to a person — composed at the boundary (catalog, image, control), never on the data
// path.
#pragma once

#include <expected>
#include <string>

#include "base/result.h"

namespace obraz {

struct Refusal {
  ErrorCode code = ErrorCode::invalid_argument;
  std::string field;    // the request's field at fault, snake_case as in proto/; empty when none is
  std::string message;  // a sentence a person can act on
};

template <typename T>
using Answer = std::expected<T, Refusal>;

inline std::unexpected<Refusal> refuse(ErrorCode code, std::string field, std::string message) {
  return std::unexpected(Refusal{code, std::move(field), std::move(message)});
}

}  // namespace obraz
