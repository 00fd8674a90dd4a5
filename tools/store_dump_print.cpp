// How a dump is written: in lines for people, as JSON for programs.
#include <fmt/core.h>

#include "base/check.h"
#include "base/size.h"
#include "proto/text.h"
#include "tools/store_dump.h"

namespace obraz {

std::string json_quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : valid_utf8(text)) {
    if (c == '"' || c == '\\')
      out += '\\';
    if (static_cast<unsigned char>(c) < 0x20)
      out += fmt::format("\\u{:04x}", unsigned(c));
    else
      out += c;
  }
  return out + '"';
}

void DumpWriter::new_line(size_t depth) {
  put("\n");
  for (size_t i = 0; i < depth; ++i)
    put("  ");
}

void DumpWriter::lead(const char* name, bool lines_follow) {
  const char* const gap = lines_follow ? "" : " ";
  if (levels_.empty())  // the document itself
    return;
  Level& above = levels_.back();
  const bool first = std::exchange(above.empty, false);
  if (json_) {
    if (!first)
      put(above.one_line ? ", " : ",");
    if (!above.one_line)
      new_line(levels_.size());
    if (name)
      put(json_quoted(name) + ": ");
    return;
  }
  if (above.one_line && name && !lines_follow) {
    if (!first)
      put(", ");
    put(std::string(name) + " ");
    return;
  }
  // The document itself has no line, and an element of a list begins on that of its dash.
  if (levels_.size() > 1 || !first)
    new_line(levels_.size() - 1);
  put(name ? std::string(name) + ":" + gap : std::string("-") + gap);
}

void DumpWriter::value(const char* name, std::string_view json, std::string_view plain) {
  lead(name, false);
  put(json_ ? json : plain);
}

void DumpWriter::begin(const char* name, Layout layout) {
  lead(name, layout == Layout::lines);
  if (json_)
    put("{");
  levels_.push_back({false, layout == Layout::line, true});
}

void DumpWriter::begin_list(const char* name) {
  lead(name, true);
  if (json_)
    put("[");
  levels_.push_back({true, false, true});
}

void DumpWriter::end() {
  OBRAZ_CHECK(!levels_.empty());
  const Level level = levels_.back();
  levels_.pop_back();
  if (json_) {
    if (!level.empty && !level.one_line)
      new_line(levels_.size());
    put(level.list ? "]" : "}");
  } else if (level.empty) {
    put(level.one_line ? "none" : " none");
  }
  if (levels_.empty())
    put("\n");
}

void DumpWriter::field(const char* name, uint64_t number) {
  const std::string text = std::to_string(number);
  value(name, text, text);
}

void DumpWriter::flag(const char* name, bool set) {
  value(name, set ? "true" : "false", set ? "yes" : "no");
}

void DumpWriter::text(const char* name, std::string_view text) {
  value(name, json_quoted(text), valid_utf8(text));
}

void DumpWriter::checksum(const char* name, uint32_t sum) {
  value(name, std::to_string(sum), fmt::format("{:08x}", sum));
}

void DumpWriter::size(const char* name, uint64_t bytes) {
  value(name, std::to_string(bytes), fmt::format("{} ({})", bytes, format_size(bytes)));
}

void DumpWriter::document(const char* name, std::string_view json, std::string_view lines) {
  if (json_)
    return value(name, json, {});
  levels_.back().empty = false;
  new_line(levels_.size() - 1);
  put(std::string(name) + ":");
  while (!lines.empty()) {
    const size_t end = std::min(lines.find('\n'), lines.size());
    new_line(levels_.size());
    put(lines.substr(0, end));
    lines.remove_prefix(std::min(end + 1, lines.size()));
  }
}

}  // namespace obraz
