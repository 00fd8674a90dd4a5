// The one table from error codes to codes of the control protocol, and what goes with it. Pure; any thread.
#pragma once

#include <string_view>

#include "base/refusal.h"
#include "base/result.h"
#include "obraz/v1/error.pb.h"

namespace obraz {

v1::Error::Code code_of(ErrorCode code);
v1::Error to_message(const Refusal& refusal);
// What the store answered, as a sentence that begins with `what` failed.
Refusal refusal_of(const Error& error, std::string_view what);

}  // namespace obraz
