// Fuzzes what reads or shows text that a user typed: sizes, names, labels, paths, URIs, the words for
// attaching, JSON and the framing of text for terminals. The first byte chooses which, the rest is the text.
//
// Beyond not crashing: what is parsed prints as itself, what passes a rule keeps it, what is quoted comes
// back whole, and what is refused is refused in a sentence that can be printed.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/limits.h"
#include "base/size.h"
#include "catalog/rules.h"
#include "client/attach.h"
#include "client/json.h"
#include "client/output.h"
#include "proto/text.h"

using namespace obraz;

namespace {

constexpr std::string_view kLower = "abcdefghijklmnopqrstuvwxyz", kDigits = "0123456789";

bool is_of(std::string_view text, std::string_view characters) {
  return text.find_first_not_of(characters) == std::string_view::npos;
}

// Answers whether it passed.
template <typename T>
bool judge(const Answer<T>& answer) {
  if (answer)
    return true;
  OBRAZ_CHECK(answer.error().code == ErrorCode::invalid_argument);
  OBRAZ_CHECK(!answer.error().message.empty() && answer.error().message.size() < 1000);
  for (const char c : answer.error().message + answer.error().field)
    OBRAZ_CHECK(uint8_t(c) >= 0x20 && c != 0x7f);
  return false;
}

void try_size(std::string_view text) {
  const auto bytes = parse_size(text);
  if (!bytes)
    return;
  OBRAZ_CHECK(*bytes >= 0 && is_of(text, "0123456789kKmMgGtT") &&
              is_of(text.substr(0, text.size() - 1), kDigits));
  if (*bytes != std::numeric_limits<int64_t>::max())
    OBRAZ_CHECK(parse_size(exact_size(uint64_t(*bytes))) == bytes);
  OBRAZ_CHECK(format_size(uint64_t(*bytes)).size() <= 16);
  if (const auto size = rules::disk_size(*bytes); judge(size))
    OBRAZ_CHECK(*size >= uint64_t(*bytes) && *size % limits::kVolumeSizeUnit == 0 &&
                *size <= limits::kMaxVolumeSize);
  const uint64_t source = text.size() * limits::kVolumeSizeUnit;
  if (const auto size = rules::min_disk_size(*bytes, source); source > 0 && judge(size))
    OBRAZ_CHECK(*size >= source && *size <= limits::kMaxVolumeSize);
  judge(rules::page_size(*bytes));
}

void try_rules(std::string_view text) {
  const std::string identifier = std::string(kLower) + std::string(kDigits) + "-_";
  if (judge(rules::check_name(text)) && !text.empty())
    OBRAZ_CHECK(text.size() <= limits::kMaxNameLength && is_of(text, identifier) &&
                is_of(text.substr(0, 1), kLower) && text.back() != '-' && text.back() != '_');
  if (judge(rules::check_family(text)) && !text.empty())
    OBRAZ_CHECK(text.size() >= 3 && rules::check_name(text).has_value());
  if (judge(rules::check_description(text)))
    OBRAZ_CHECK(text.size() <= 4 * limits::kMaxDescriptionLength);
  if (judge(rules::check_idempotency_key(text)))
    OBRAZ_CHECK(text.size() <= limits::kMaxIdempotencyKey);
  if (judge(rules::check_path(text, "path")))
    OBRAZ_CHECK(text.starts_with('/') && text.size() <= limits::kMaxSourceLength &&
                text.find('\0') == std::string_view::npos);
  if (judge(rules::check_import_source(text)))
    OBRAZ_CHECK(text.starts_with('/') || rules::is_nbd_uri(text));
  judge(rules::check_import_format(text));
  judge(rules::check_export_format(text));
}

// Lines of KEY=VALUE.
void try_labels(std::string_view text) {
  std::map<std::string, std::string> labels;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    const size_t equals = std::min(line.find('='), line.size());
    labels[std::string(line.substr(0, equals))] = line.substr(std::min(equals + 1, line.size()));
  }
  if (!judge(rules::check_labels(labels)))
    return;
  OBRAZ_CHECK(labels.size() <= limits::kMaxLabels);
  for (const auto& [key, value] : labels)
    OBRAZ_CHECK(!key.empty() && key.size() <= limits::kMaxLabelLength &&
                value.size() <= limits::kMaxLabelLength && is_of(key.substr(0, 1), kLower));
}

// As a shell reads one word in which quotes are all that is special.
std::string unquoted(std::string_view word) {
  std::string out;
  bool quoted = false;
  for (size_t i = 0; i < word.size(); ++i) {
    if (word[i] == '\'')
      quoted = !quoted;
    else if (!quoted && word[i] == '\\' && i + 1 < word.size())
      out += word[++i];
    else {
      // What a shell would act on must not stand outside of quotes.
      OBRAZ_CHECK(quoted ||
                  std::string_view(" \t\n\"$`;&|<>()*?[]{}~#!^").find(word[i]) == std::string_view::npos);
      out += word[i];
    }
  }
  OBRAZ_CHECK(!quoted);
  return out;
}

void try_attach(std::string_view text) {
  OBRAZ_CHECK(unquoted(client::shell_quoted(text)) == text);
  const size_t half = text.size() / 2;
  client::NbdAddress address;
  if (half % 2 == 0)
    address.unix_path = text.substr(half);
  else
    address.tcp = text.substr(half);
  const std::string name = client::export_name("disk", "default", text.substr(0, half), "id");
  const std::string uri = client::nbd_uri(address, name);
  OBRAZ_CHECK(uri.starts_with("nbd"));
  for (const auto consumer :
       {client::Consumer::qemu, client::Consumer::libvirt, client::Consumer::nbd_client})
    OBRAZ_CHECK(!client::attach_args(consumer, address, name).empty());
}

void try_text(std::string_view text) {
  const std::string mended = valid_utf8(text);
  OBRAZ_CHECK(is_valid_utf8(mended) && mended.size() == text.size() &&
              (mended == text) == is_valid_utf8(text));
  const std::string json = client::json_string(mended);
  OBRAZ_CHECK(json.size() >= mended.size() + 2 && json.front() == '"' && json.back() == '"');
  bool escaped = false;
  for (const char c : std::string_view(json).substr(1, json.size() - 2)) {
    OBRAZ_CHECK(uint8_t(c) >= 0x20 && (escaped || c != '"'));
    escaped = !escaped && c == '\\';
  }
  OBRAZ_CHECK(!escaped);
  v1::Disk disk;
  disk.set_name(mended);
  disk.set_description(mended);
  (*disk.mutable_labels())[mended] = mended;
  OBRAZ_CHECK(!client::to_json(disk).empty() && !client::details(disk).empty());
  OBRAZ_CHECK(!client::table({client::heading(disk), client::row(disk)}).empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0 || size > 8192)
    return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  // What is not UTF-8 gets no further than the first look: at the arguments, and at the strings of a message.
  if (data[0] % 5 < 3 && !is_valid_utf8(text))
    return 0;
  switch (data[0] % 5) {
    case 0:
      try_size(text);
      break;
    case 1:
      try_rules(text);
      break;
    case 2:
      try_labels(text);
      break;
    case 3:
      try_attach(text);
      break;
    default:
      try_text(text);
  }
  return 0;
}
