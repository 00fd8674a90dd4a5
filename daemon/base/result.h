// Result<T>: what the world does wrong is a value. Error is small and owns nothing, so the data path does not
// allocate; sentences for people are composed at the boundary (control, client, tools).
#pragma once

#include <expected>
#include <string>

namespace obraz {

enum class ErrorCode : unsigned char {
  invalid_argument,     // the request itself is wrong
  out_of_range,         // beyond the end of a volume or device
  not_found,            //
  already_exists,       //
  failed_precondition,  // right in itself, wrong in this state
  permission_denied,    //
  no_space,             // the store, or the file system below it, is full
  resource_exhausted,   // another limit was reached (limits.h)
  read_only,            // a frozen volume, or a store that has failed
  io,                   // the device answered with an error; os_error says which
  corruption,           // bytes on a disk are not what they must be
  unsupported,          //
  cancelled,            //
  unavailable,          // stopping, or not ready yet
  disconnected,         // the peer is gone
  protocol,             // the peer broke the protocol; the stream is lost
};

struct Error {
  ErrorCode code;
  int os_error = 0;       // an errno value, or 0
  const char* text = "";  // static storage: what was being done or found, without trailing punctuation

  friend bool operator==(const Error& a, const Error& b) { return a.code == b.code; }
};

template <typename T>
using Result = std::expected<T, Error>;
using Status = Result<void>;
using Failure = std::unexpected<Error>;

[[nodiscard]] inline Failure fail(ErrorCode code, const char* text) {
  return Failure(Error{code, 0, text});
}

// An error of the operating system; ENOSPC and EDQUOT become no_space, all others io.
[[nodiscard]] Failure fail_os(int os_error, const char* text);

const char* name_of(ErrorCode code);
// One line: text, code and the system's own words.
std::string describe(const Error& error);

}  // namespace obraz

// Hands an error on to the caller; the second form is for coroutines.
#define OBRAZ_TRY(expression)                                     \
  do {                                                            \
    if (auto obraz_try_ = (expression); !obraz_try_) [[unlikely]] \
      return ::obraz::Failure(obraz_try_.error());                \
  } while (false)
#define OBRAZ_CO_TRY(result)                        \
  do {                                              \
    if (!(result)) [[unlikely]]                     \
      co_return ::obraz::Failure((result).error()); \
  } while (false)
