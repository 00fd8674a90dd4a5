#include "base/result.h"

#include <cerrno>
#include <system_error>

namespace obraz {

Failure fail_os(int os_error, const char* text) {
  const bool full = os_error == ENOSPC || os_error == EDQUOT;
  return Failure(Error{full ? ErrorCode::no_space : ErrorCode::io, os_error, text});
}

const char* name_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument:
      return "invalid argument";
    case ErrorCode::out_of_range:
      return "out of range";
    case ErrorCode::not_found:
      return "not found";
    case ErrorCode::already_exists:
      return "already exists";
    case ErrorCode::failed_precondition:
      return "failed precondition";
    case ErrorCode::permission_denied:
      return "permission denied";
    case ErrorCode::no_space:
      return "no space";
    case ErrorCode::resource_exhausted:
      return "limit reached";
    case ErrorCode::read_only:
      return "read-only";
    case ErrorCode::io:
      return "I/O error";
    case ErrorCode::corruption:
      return "corruption";
    case ErrorCode::unsupported:
      return "unsupported";
    case ErrorCode::cancelled:
      return "cancelled";
    case ErrorCode::unavailable:
      return "unavailable";
    case ErrorCode::disconnected:
      return "disconnected";
    case ErrorCode::protocol:
      return "protocol error";
  }
  return "unknown error";
}

std::string describe(const Error& error) {
  std::string line = *error.text ? std::string(error.text) + ": " : std::string();
  line += name_of(error.code);
  if (error.os_error != 0)
    line += " (" + std::generic_category().message(error.os_error) + ")";
  return line;
}

}  // namespace obraz
