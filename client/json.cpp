#include "client/json.h"

#include <fmt/format.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/timestamp.pb.h>
#include <time.h>

#include <map>
#include <vector>

namespace obraz::client {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

std::string indent(unsigned depth) {
  return std::string(size_t(2) * depth, ' ');
}

std::string enumerator(const google::protobuf::EnumValueDescriptor* value) {
  return json_string(value->name());
}

// A field that is not repeated, or (index ≥ 0) one element of one that is.
std::string value_of(const Message& message, const FieldDescriptor* field, int index, unsigned depth) {
  const Reflection& get = *message.GetReflection();
  const bool one = index >= 0;
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return fmt::to_string(one ? get.GetRepeatedInt32(message, field, index) : get.GetInt32(message, field));
    case FieldDescriptor::CPPTYPE_INT64:
      return fmt::to_string(one ? get.GetRepeatedInt64(message, field, index) : get.GetInt64(message, field));
    case FieldDescriptor::CPPTYPE_UINT32:
      return fmt::to_string(one ? get.GetRepeatedUInt32(message, field, index)
                                : get.GetUInt32(message, field));
    case FieldDescriptor::CPPTYPE_UINT64:
      return fmt::to_string(one ? get.GetRepeatedUInt64(message, field, index)
                                : get.GetUInt64(message, field));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return fmt::to_string(one ? get.GetRepeatedDouble(message, field, index)
                                : get.GetDouble(message, field));
    case FieldDescriptor::CPPTYPE_FLOAT:
      return fmt::to_string(one ? get.GetRepeatedFloat(message, field, index) : get.GetFloat(message, field));
    case FieldDescriptor::CPPTYPE_BOOL:
      return (one ? get.GetRepeatedBool(message, field, index) : get.GetBool(message, field)) ? "true"
                                                                                              : "false";
    case FieldDescriptor::CPPTYPE_ENUM:
      return enumerator(one ? get.GetRepeatedEnum(message, field, index) : get.GetEnum(message, field));
    case FieldDescriptor::CPPTYPE_STRING:
      return json_string(one ? get.GetRepeatedString(message, field, index) : get.GetString(message, field));
    case FieldDescriptor::CPPTYPE_MESSAGE: {
      const Message& inner =
          one ? get.GetRepeatedMessage(message, field, index) : get.GetMessage(message, field);
      if (const auto* time = dynamic_cast<const google::protobuf::Timestamp*>(&inner))
        return json_string(rfc3339(*time));
      return to_json(inner, depth);
    }
  }
  return "null";
}

std::string joined(const std::vector<std::string>& members, char open, char close, unsigned depth) {
  if (members.empty())
    return {open, close};
  std::string text(1, open);
  for (size_t i = 0; i < members.size(); ++i)
    text += (i ? ",\n" : "\n") + indent(depth + 1) + members[i];
  return text + "\n" + indent(depth) + close;
}

std::string map_of(const Message& message, const FieldDescriptor* field, unsigned depth) {
  const Reflection& get = *message.GetReflection();
  std::map<std::string, std::string> sorted;  // a map has no order of its own
  for (int i = 0; i < get.FieldSize(message, field); ++i) {
    const Message& entry = get.GetRepeatedMessage(message, field, i);
    const auto* descriptor = entry.GetDescriptor();
    sorted.emplace(value_of(entry, descriptor->map_key(), -1, 0),
                   value_of(entry, descriptor->map_value(), -1, depth + 1));
  }
  std::vector<std::string> members;
  for (const auto& [key, value] : sorted)
    members.push_back(key + ": " + value);
  return joined(members, '{', '}', depth);
}

std::string list_of(const Message& message, const FieldDescriptor* field, unsigned depth) {
  std::vector<std::string> members;
  for (int i = 0; i < message.GetReflection()->FieldSize(message, field); ++i)
    members.push_back(value_of(message, field, i, depth + 1));
  return joined(members, '[', ']', depth);
}

}  // namespace

std::string json_string(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    switch (c) {
      case '"':
        quoted += "\\\"";
        break;
      case '\\':
        quoted += "\\\\";
        break;
      case '\n':
        quoted += "\\n";
        break;
      case '\r':
        quoted += "\\r";
        break;
      case '\t':
        quoted += "\\t";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20)
          quoted += fmt::format("\\u{:04x}", static_cast<unsigned char>(c));
        else
          quoted += c;
    }
  }
  return quoted + "\"";
}

std::string rfc3339(const google::protobuf::Timestamp& time) {
  const time_t seconds = time.seconds();
  tm utc{};
  ::gmtime_r(&seconds, &utc);
  std::string text = fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}", utc.tm_year + 1900, utc.tm_mon + 1,
                                 utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec);
  const int nanos = time.nanos();
  if (nanos % 1000 != 0)
    text += fmt::format(".{:09}", nanos);
  else if (nanos % 1'000'000 != 0)
    text += fmt::format(".{:06}", nanos / 1000);
  else if (nanos != 0)
    text += fmt::format(".{:03}", nanos / 1'000'000);
  return text + "Z";
}

std::string to_json(const Message& message, unsigned depth) {
  const auto* descriptor = message.GetDescriptor();
  std::vector<std::string> members;
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const FieldDescriptor* field = descriptor->field(i);
    std::string value;
    if (field->is_map())
      value = map_of(message, field, depth + 1);
    else if (field->is_repeated())
      value = list_of(message, field, depth + 1);
    else if (field->has_presence() && !message.GetReflection()->HasField(message, field))
      continue;
    else
      value = value_of(message, field, -1, depth + 1);
    members.push_back(json_string(field->name()) + ": " + value);
  }
  return joined(members, '{', '}', depth);
}

}  // namespace obraz::client
