#include "catalog/codes.h"

#include <fmt/core.h>

#include "proto/text.h"

namespace obraz {

v1::Error::Code code_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument:
    case ErrorCode::out_of_range:
    case ErrorCode::unsupported:
    case ErrorCode::protocol:
      return v1::Error::INVALID_ARGUMENT;
    case ErrorCode::not_found:
      return v1::Error::NOT_FOUND;
    case ErrorCode::already_exists:
      return v1::Error::ALREADY_EXISTS;
    case ErrorCode::failed_precondition:
      return v1::Error::FAILED_PRECONDITION;
    case ErrorCode::permission_denied:
      return v1::Error::PERMISSION_DENIED;
    case ErrorCode::no_space:
    case ErrorCode::resource_exhausted:
      return v1::Error::RESOURCE_EXHAUSTED;
    case ErrorCode::cancelled:
      return v1::Error::CANCELLED;
    case ErrorCode::read_only:
    case ErrorCode::disconnected:
    case ErrorCode::unavailable:
      return v1::Error::UNAVAILABLE;
    case ErrorCode::corruption:
      return v1::Error::DATA_LOSS;
    case ErrorCode::io:
      return v1::Error::INTERNAL;
  }
  return v1::Error::INTERNAL;
}

v1::Error to_message(const Refusal& refusal) {
  v1::Error message;
  message.set_code(code_of(refusal.code));
  // Sentences quote what was asked for, and may cut it anywhere; a message with a broken character would not
  // arrive.
  message.set_field(valid_utf8(refusal.field));
  message.set_message(valid_utf8(refusal.message));
  return message;
}

Refusal refusal_of(const Error& error, std::string_view what) {
  const char* advice = "";
  if (error.code == ErrorCode::no_space)
    advice = "; the store is full: delete something and try again";
  else if (error.code == ErrorCode::read_only)
    advice = "; the store has failed and is read-only until the daemon is restarted, see obraz status";
  else if (error.code == ErrorCode::unavailable)
    advice = "; the daemon is stopping";
  return Refusal{error.code, "", fmt::format("{} failed: {}{}", what, describe(error), advice)};
}

}  // namespace obraz
