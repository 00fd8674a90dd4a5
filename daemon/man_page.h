// Manual pages, from the same tree of commands and options as --help: what one says, the other says. In the
// macros of man(7), for man, groff and mandoc. Pure, but for the flag.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace obraz {

struct ManPage {
  struct Section {
    std::string_view heading;  // in capitals
    // Paragraphs, parted by empty lines; lines that begin with two blanks stand as they are.
    std::string_view text;
  };
  int section = 1;                // of the manual
  std::string_view title;         // "obraz - the client of …", after the name
  std::string_view description;   // as a section's text
  std::vector<Section> sections;  // that follow the options and commands
};

std::string man_page(const CLI::App& app, const ManPage& page);

// Adds --man, which prints the page and ends with status 0, as --help does, and --version. `page` outlives
// the app.
void add_documentation_flags(CLI::App& app, const ManPage& page);

// What --help and manual pages tell of an option, for those who need it in parts.
std::string value_name(const CLI::Option& option);                // SIZE, FILE, a|b|c; empty: takes none
std::vector<std::string> choices_of(const CLI::Option& option);   // the values of a|b|c; empty: free ones
std::vector<const CLI::Option*> options_of(const CLI::App& app);  // those of its groups included
std::vector<const CLI::App*> commands_of(const CLI::App& app);    // in the order in which they were added

}  // namespace obraz
