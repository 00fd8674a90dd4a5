#include "man_page.h"

#include <fmt/format.h>

#include <algorithm>

namespace obraz {
namespace {

// Text in which nothing is a request or an escape of roff. A hyphen would become a typographic one, which
// nobody can copy into a shell.
std::string escaped(std::string_view text) {
  std::string out;
  bool line_begins = true;
  for (const char c : text) {
    if (line_begins && (c == '.' || c == '\''))
      out += "\\&";
    line_begins = c == '\n';
    if (c == '\\')
      out += "\\e";
    else if (c == '-')
      out += "\\-";
    else
      out += c;
  }
  return out;
}
std::string bold(std::string_view text) {
  return "\\fB" + escaped(text) + "\\fR";
}
std::string italic(std::string_view text) {
  return "\\fI" + escaped(text) + "\\fR";
}

// Paragraphs and, indented, what stands as it is.
std::string paragraphs(std::string_view text) {
  std::string out;
  bool verbatim = false, fresh = true;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty()) {
      out += verbatim ? "" : ".PP\n";
      fresh = true;
      continue;
    }
    if (line.starts_with("  ") != verbatim) {
      out += verbatim ? ".EE\n.RE\n.PP\n" : ".RS\n.EX\n";
      verbatim = !verbatim;
    } else if (verbatim && fresh) {
      out += "\n";
    }
    fresh = false;
    out += escaped(verbatim ? line.substr(2) : line) + "\n";
  }
  return out + (verbatim ? ".EE\n.RE\n" : "");
}

bool is_positional(const CLI::Option& option) {
  return option.get_positional();
}
// Options that say how to be helped are told once.
bool is_own(const CLI::App& app, const CLI::Option* option) {
  return option != app.get_help_ptr() || !app.get_parent();
}

// "-q, --quiet", "--size SIZE", "--a, --no-a"
std::string option_names(const CLI::Option& option) {
  std::string names;
  const auto add = [&](const std::string& name) { names += (names.empty() ? "" : ", ") + bold(name); };
  for (const std::string& name : option.get_snames())
    add("-" + name);
  for (const std::string& name : option.get_lnames())
    add("--" + name);
  const std::string value = value_name(option);
  return value.empty() ? names : names + " " + italic(value);
}

// A sentence, unless it begins with a value and what that means.
std::string sentence(std::string text) {
  if (text.empty())
    return text;
  if (!std::string_view(text).substr(0, text.find(' ')).ends_with(':'))
    text[0] = char(std::toupper(static_cast<unsigned char>(text[0])));
  return text + ".";
}

std::string description_of(const CLI::Option& option) {
  std::string text = option.get_description();
  if (!option.get_default_str().empty())
    text += fmt::format("{}(default: {})", text.empty() ? "" : " ", option.get_default_str());
  return sentence(std::move(text));
}

std::string option_list(const CLI::App& app) {
  std::string out;
  for (const CLI::Option* option : options_of(app)) {
    if (!is_own(app, option))
      continue;
    out += ".TP\n";
    out += is_positional(*option) ? italic(option->get_name()) : option_names(*option);
    const std::string description = description_of(*option);
    out += description.empty() ? "\n" : "\n" + escaped(description) + "\n";
  }
  return out;
}

// The line that begins a command: what it is called, and what follows.
std::string synopsis(const CLI::App& app, const std::string& prefix) {
  std::string line = bold(prefix);
  bool optional = false;
  for (const CLI::Option* option : options_of(app)) {
    if (is_positional(*option)) {
      const bool several = option->get_expected_max() > 1;
      line += " " + italic(option->get_name()) + (several ? " ..." : "");
    } else if (option->get_required()) {
      const std::string value = value_name(*option);
      line += " " + bold("--" + option->get_lnames().front()) + (value.empty() ? "" : " " + italic(value));
    } else {
      optional = optional || is_own(app, option);
    }
  }
  return line + (optional ? " [" + italic("OPTIONS") + "]" : "");
}

std::string command_list(const CLI::App& app, const std::string& prefix) {
  std::string out;
  for (const CLI::App* command : commands_of(app)) {
    const std::string name = prefix + " " + command->get_name();
    if (!commands_of(*command).empty()) {
      out += command_list(*command, name);
      continue;
    }
    out += ".SS " + synopsis(*command, name) + "\n" + escaped(sentence(command->get_description())) + "\n" +
           option_list(*command);
  }
  return out;
}

}  // namespace

std::string value_name(const CLI::Option& option) {
  if (option.get_items_expected_max() == 0)  // a flag
    return {};
  const auto choices = choices_of(option);
  return choices.empty() ? option.get_type_name() : fmt::format("{}", fmt::join(choices, "|"));
}

// CLI::IsMember describes itself as {a,b,c}.
std::vector<std::string> choices_of(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  const size_t begin = type.find('{'), end = type.find('}');
  std::vector<std::string> choices;
  if (begin == std::string::npos || end == std::string::npos)
    return choices;
  std::string_view rest = std::string_view(type).substr(begin + 1, end - begin - 1);
  while (!rest.empty()) {
    const size_t comma = std::min(rest.find(','), rest.size());
    choices.emplace_back(rest.substr(0, comma));
    rest.remove_prefix(std::min(comma + 1, rest.size()));
  }
  return choices;
}

std::vector<const CLI::Option*> options_of(const CLI::App& app) {
  std::vector<const CLI::Option*> options = app.get_options();
  for (const CLI::App* group :
       app.get_subcommands([](const CLI::App* sub) { return sub->get_name().empty(); }))
    for (const CLI::Option* option : options_of(*group))
      if (option != group->get_help_ptr())
        options.push_back(option);
  return options;
}

std::vector<const CLI::App*> commands_of(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App* sub) { return !sub->get_name().empty(); });
}

std::string man_page(const CLI::App& app, const ManPage& page) {
  std::string name = app.get_name(), capitals = name;
  std::ranges::transform(capitals, capitals.begin(), [](unsigned char c) { return char(std::toupper(c)); });
  const bool has_commands = !commands_of(app).empty();
  std::string out = fmt::format(".TH {} {} \"\" \"Obraz {}\" \"Obraz\"\n.SH NAME\n{} \\- {}\n.SH SYNOPSIS\n",
                                capitals, page.section, OBRAZ_VERSION, escaped(name), escaped(page.title));
  out += bold(name) + " [" + italic("OPTIONS") + "]" +
         (has_commands ? " " + italic("COMMAND") + " ..." : "") + "\n";
  out += ".SH DESCRIPTION\n" + paragraphs(page.description);
  out += ".SH OPTIONS\n" + option_list(app);
  if (has_commands)
    out += ".SH COMMANDS\n" + command_list(app, name);
  for (const ManPage::Section& section : page.sections)
    out += fmt::format(".SH {}\n", section.heading) + paragraphs(section.text);
  return out;
}

void add_documentation_flags(CLI::App& app, const ManPage& page) {
  app.set_version_flag("--version", std::string(OBRAZ_VERSION), "Print the version and exit");
  CLI::Option* manual = app.add_flag_callback(
      "--man", [&app, &page] { throw CLI::CallForVersion(man_page(app, page), 0); },
      "Print the manual page and exit");
  manual->trigger_on_parse();  // before anything is missed
  manual->configurable(false);
}

}  // namespace obraz
