// Messages as JSON for --json: snake_case fields as in proto/, integers as numbers, times as RFC 3339 in UTC.
//
// Every field appears, also when it has its default, but for messages, optional fields and members of a oneof
// that are not set. Pure.
#pragma once

#include <google/protobuf/message.h>

#include <string>
#include <string_view>

namespace google::protobuf {
class Timestamp;
}

namespace obraz::client {

// One document, indented by two spaces, without a line end; `depth`: how far it is already indented.
std::string to_json(const google::protobuf::Message& message, unsigned depth = 0);
// In quotes, escaped.
std::string json_string(std::string_view text);
// 2024-05-06T07:08:09Z, with 3, 6 or 9 digits of fraction where there is one.
std::string rfc3339(const google::protobuf::Timestamp& time);

}  // namespace obraz::client
