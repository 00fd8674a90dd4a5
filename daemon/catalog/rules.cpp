#include "catalog/rules.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/size.h"

namespace obraz::rules {
namespace {

bool is_lower(char c) {
  return c >= 'a' && c <= 'z';
}
bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_label_character(char c) {
  return is_lower(c) || is_digit(c) || std::string_view("-_./\\@").find(c) != std::string_view::npos;
}

// Whether `name` starts with a letter, ends with a letter or digit, and has only those and `others` between.
bool is_identifier(std::string_view name, size_t shortest, std::string_view others) {
  if (name.size() < shortest || name.size() > limits::kMaxNameLength || !is_lower(name.front()))
    return false;
  if (!is_lower(name.back()) && !is_digit(name.back()))
    return false;
  return std::ranges::all_of(
      name, [&](char c) { return is_lower(c) || is_digit(c) || others.find(c) != std::string_view::npos; });
}

std::unexpected<Refusal> invalid(std::string_view field, std::string message) {
  return refuse(ErrorCode::invalid_argument, std::string(field), std::move(message));
}

// What a person sees of a value that broke a rule.
std::string shown(std::string_view value) {
  constexpr size_t kShown = 80;
  std::string text = "\"";
  for (const char c : value.substr(0, kShown))
    text += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  return text + (value.size() > kShown ? "…\"" : "\"");
}

}  // namespace

Answer<void> check_name(std::string_view name, std::string_view field) {
  if (name.empty() || is_identifier(name, 1, "-_"))
    return {};
  return invalid(
      field, fmt::format("the name {} must have 1 to {} characters: a letter a-z first, then letters a-z, "
                         "digits, - or _, and a letter or digit last",
                         shown(name), limits::kMaxNameLength));
}

Answer<void> check_family(std::string_view family) {
  if (family.empty() || is_identifier(family, 3, "-"))
    return {};
  return invalid("family",
                 fmt::format("the family {} must have 3 to {} characters: a letter a-z first, then letters "
                             "a-z, digits or -, and a letter or digit last",
                             shown(family), limits::kMaxNameLength));
}

Answer<void> check_description(std::string_view description) {
  const auto characters = std::ranges::count_if(description, [](char c) { return (c & 0xc0) != 0x80; });
  if (description.size() > 4 * limits::kMaxDescriptionLength || characters > limits::kMaxDescriptionLength)
    return invalid("description", fmt::format("the description has {} characters; at most {} are allowed",
                                              characters, limits::kMaxDescriptionLength));
  return {};
}

Answer<void> check_labels(const std::map<std::string, std::string>& labels) {
  if (labels.size() > limits::kMaxLabels)
    return invalid("labels", fmt::format("there are {} labels; at most {} are allowed", labels.size(),
                                         limits::kMaxLabels));
  for (const auto& [key, value] : labels) {
    if (key.empty() || key.size() > limits::kMaxLabelLength || !is_lower(key.front()) ||
        !std::ranges::all_of(key, is_label_character))
      return invalid("labels",
                     fmt::format("the label key {} must have 1 to {} characters: a letter a-z first, then "
                                 "letters a-z, digits or -_./\\@",
                                 shown(key), limits::kMaxLabelLength));
    if (value.size() > limits::kMaxLabelLength || !std::ranges::all_of(value, is_label_character))
      return invalid("labels",
                     fmt::format("the value {} of the label {} must have at most {} characters: letters a-z, "
                                 "digits or -_./\\@",
                                 shown(value), key, limits::kMaxLabelLength));
  }
  return {};
}

Answer<void> check_idempotency_key(std::string_view key) {
  if (key.size() > limits::kMaxIdempotencyKey ||
      !std::ranges::all_of(key, [](char c) { return c > 0x20 && c < 0x7f; }))
    return invalid("idempotency_key",
                   fmt::format("an idempotency key has at most {} printable ASCII characters "
                               "without spaces",
                               limits::kMaxIdempotencyKey));
  return {};
}

Answer<void> check_product_ids(const google::protobuf::RepeatedPtrField<std::string>& ids) {
  if (size_t(ids.size()) > limits::kMaxProductIds)
    return invalid("product_ids", fmt::format("there are {} product ids; at most {} are allowed", ids.size(),
                                              limits::kMaxProductIds));
  for (const std::string& id : ids)
    if (id.empty() || id.size() > limits::kMaxProductId ||
        !std::ranges::all_of(id, [](char c) { return c > 0x20 && c < 0x7f; }))
      return invalid(
          "product_ids",
          fmt::format("the product id {} must have 1 to {} printable ASCII characters without spaces",
                      shown(id), limits::kMaxProductId));
  return {};
}

Answer<void> check_hardware_generation(v1::HardwareGeneration generation) {
  if (v1::HardwareGeneration_IsValid(generation))
    return {};
  return invalid("hardware_generation", "hardware_generation must be LEGACY or GENERATION_2");
}

Answer<void> check_quota(const v1::Quota& quota) {
  for (const auto& [what, limit] : {std::pair<const char*, int64_t>{"images", quota.images()},
                                    {"disks", quota.disks()},
                                    {"snapshots", quota.snapshots()},
                                    {"bytes", quota.bytes()}})
    if (limit < 0)
      return invalid("quota", fmt::format("quota.{} must not be negative; 0 means no limit", what));
  return {};
}

Answer<std::set<std::string>> update_mask(const google::protobuf::FieldMask& mask,
                                          std::initializer_list<std::string_view> allowed) {
  std::string known;
  for (const std::string_view field : allowed)
    known.append(known.empty() ? "" : ", ").append(field);
  if (mask.paths().empty())
    return invalid("update_mask", fmt::format("update_mask must name what changes, of {}", known));
  std::set<std::string> fields;
  for (const std::string& path : mask.paths()) {
    if (std::ranges::find(allowed, std::string_view(path)) == allowed.end())
      return invalid("update_mask", fmt::format("{} cannot be changed; what can is {}", shown(path), known));
    fields.insert(path);
  }
  return fields;
}

Answer<uint64_t> disk_size(int64_t asked, std::string_view field) {
  if (asked <= 0)
    return invalid(field,
                   fmt::format("the size must be at least 1 byte; it is rounded up to a multiple of {}",
                               exact_size(limits::kVolumeSizeUnit)));
  if (uint64_t(asked) > limits::kMaxVolumeSize)
    return invalid(field, fmt::format("the size {} is too large; a disk has at most {}",
                                      format_size(uint64_t(asked)), exact_size(limits::kMaxVolumeSize)));
  return round_up(uint64_t(asked), limits::kVolumeSizeUnit);
}

Answer<uint64_t> min_disk_size(int64_t asked, uint64_t source_size) {
  if (asked == 0)
    return std::max(source_size, limits::kMinVolumeSize);
  if (asked < 0 || uint64_t(asked) < limits::kMinVolumeSize || uint64_t(asked) > limits::kMaxVolumeSize)
    return invalid("min_disk_size",
                   fmt::format("min_disk_size must be between {} and {}", exact_size(limits::kMinVolumeSize),
                               exact_size(limits::kMaxVolumeSize)));
  if (uint64_t(asked) < source_size)
    return invalid("min_disk_size", fmt::format("min_disk_size must not be below the size of the source, {}",
                                                exact_size(source_size)));
  return round_up(uint64_t(asked), limits::kVolumeSizeUnit);
}

Answer<unsigned> page_size(int64_t asked) {
  if (asked < 0 || asked > int64_t(limits::kMaxPageSize))
    return invalid("page_size", fmt::format("page_size must be between 0 and {}", limits::kMaxPageSize));
  return asked == 0 ? limits::kDefaultPageSize : unsigned(asked);
}

Answer<uint64_t> page_position(std::string_view page_token, uint64_t most) {
  uint64_t position = 0;
  if (page_token.empty())
    return position;
  const char* end = page_token.data() + page_token.size();
  const auto parsed = std::from_chars(page_token.data(), end, position);
  if (parsed.ec != std::errc() || parsed.ptr != end || position > most)
    return invalid("page_token", "page_token must be one that an earlier page answered");
  return position;
}

Answer<void> check_path(std::string_view path, std::string_view field) {
  if (path.empty())
    return invalid(field, "a path is needed");
  if (path.size() > limits::kMaxSourceLength || path.find('\0') != std::string_view::npos)
    return invalid(
        field, fmt::format("a path has at most {} bytes and no NUL among them", limits::kMaxSourceLength));
  if (path.front() != '/')
    return invalid(field, fmt::format("the path {} must be absolute: the daemon opens it", shown(path)));
  return {};
}

bool is_nbd_uri(std::string_view source) {
  constexpr std::array<std::string_view, 6> kSchemes = {"nbd://",       "nbds://",      "nbd+unix://",
                                                        "nbds+unix://", "nbd+vsock://", "nbds+vsock://"};
  return std::ranges::any_of(kSchemes, [&](std::string_view scheme) { return source.starts_with(scheme); });
}

Answer<void> check_import_source(std::string_view source) {
  if (!is_nbd_uri(source))
    return check_path(source, "source");
  if (source.size() > limits::kMaxSourceLength || source.find('\0') != std::string_view::npos)
    return invalid("source",
                   fmt::format("a URI has at most {} bytes and no NUL among them", limits::kMaxSourceLength));
  return {};
}

Answer<void> check_trash_seconds(int64_t seconds) {
  if (seconds >= 0 && seconds <= limits::kMaxTrashSeconds)
    return {};
  return refuse(ErrorCode::invalid_argument, "trash_seconds",
                fmt::format("what is deleted is kept for 0 to {} days, and no longer",
                            limits::kMaxTrashSeconds / 86'400));
}

Answer<std::string> sha256(std::string_view text) {
  std::string small(text);
  for (char& c : small)
    c = c >= 'A' && c <= 'F' ? char(c - 'A' + 'a') : c;
  if (!small.empty() &&
      (small.size() != 64 || small.find_first_not_of("0123456789abcdef") != std::string::npos))
    return refuse(ErrorCode::invalid_argument, "sha256", "a SHA-256 has 64 hexadecimal digits");
  return small;
}

Answer<void> check_import_format(std::string_view format) {
  constexpr std::array<std::string_view, 7> kFormats = {"", "raw", "qcow2", "vmdk", "vpc", "vhdx", "vdi"};
  if (std::ranges::find(kFormats, format) == kFormats.end())
    return invalid("format",
                   "the format must be one of raw, qcow2, vmdk, vpc, vhdx, vdi, or empty to detect it");
  return {};
}

Answer<void> check_export_format(std::string_view format) {
  if (format.empty() || format == "raw" || format == "qcow2")
    return {};
  return invalid("format", "the format to export must be raw or qcow2");
}

}  // namespace obraz::rules
