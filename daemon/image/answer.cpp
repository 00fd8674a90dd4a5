#include "image/answer.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>

namespace obraz {
namespace {

ErrorCode code_of(int os_error) {
  switch (os_error) {
    case ENOENT:
    case ENOTDIR:
      return ErrorCode::not_found;
    case EACCES:
    case EPERM:
    case EROFS:
      return ErrorCode::permission_denied;
    case EEXIST:
      return ErrorCode::already_exists;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return ErrorCode::no_space;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case EAGAIN:
      return ErrorCode::resource_exhausted;
    case ELOOP:
    case ENAMETOOLONG:
    case EINVAL:
    case EISDIR:
      return ErrorCode::invalid_argument;
    default:
      return ErrorCode::io;
  }
}

}  // namespace

std::string printable(std::string_view foreign, size_t limit) {
  std::string text(foreign.substr(0, limit));
  for (char& c : text)
    if (uint8_t(c) < 0x20 || uint8_t(c) > 0x7e)
      c = '?';
  if (foreign.size() > limit)
    text += "...";
  return text;
}

std::unexpected<Refusal> refuse_os(int os_error, std::string field, const std::string& what) {
  char buffer[128];
  return refuse(code_of(os_error), std::move(field),
                fmt::format("cannot {}: {}", what, ::strerror_r(os_error, buffer, sizeof buffer)));
}

std::unexpected<Refusal> refuse_error(const Error& error, const std::string& what) {
  return refuse(error.code, "", fmt::format("cannot {}: {}", what, describe(error)));
}

}  // namespace obraz
