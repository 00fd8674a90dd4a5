// Shorthand for what the image code answers: refusals of a source file and the handing-on of a refusal.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "base/refusal.h"

// Hands a refusal on to the caller.
#define OBRAZ_ASK(expression)                                   \
  do {                                                          \
    if (auto obraz_answer_ = (expression); !obraz_answer_)      \
      return std::unexpected(std::move(obraz_answer_.error())); \
  } while (false)

namespace obraz {

// The source (a file or what an NBD server offers) is not something that can be imported.
inline std::unexpected<Refusal> refuse_source(std::string message) {
  return refuse(ErrorCode::invalid_argument, "source", std::move(message));
}

inline std::unexpected<Refusal> refuse_cancelled() {
  return refuse(ErrorCode::cancelled, "", "the operation was cancelled");
}

// Text that a file or a server wrote, for a sentence of ours: what is no printable ASCII becomes '?', what is
// long is cut off. A terminal will show the sentence.
std::string printable(std::string_view foreign, size_t limit = 64);

// Of a failed system call on `what`: "cannot WHAT: No such file or directory".
std::unexpected<Refusal> refuse_os(int os_error, std::string field, const std::string& what);

// An error of the store, for a person: "cannot WHAT: text".
std::unexpected<Refusal> refuse_error(const Error& error, const std::string& what);

}  // namespace obraz
