// Completion: what may come next on a command line, for shells. It follows the tree of commands, so what
// --help has is completed; the metavariable of an option or argument (IMAGE, DISK, FILE) says whose names it
// takes.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace obraz::client {

struct Candidate {
  std::string word;
  std::string description;  // may be empty
  bool operator==(const Candidate&) const = default;
};

// What is known of a line whose last word is still being typed.
struct CompletionContext {
  std::string control, folder;  // what --control and --folder said so far; empty: nothing
};

// The names that there are for a metavariable; empty when nobody knows.
using NamesOf =
    std::function<std::vector<Candidate>(const std::string& metavariable, const CompletionContext& context)>;

struct Completion {
  std::vector<Candidate> candidates;  // that begin with the last word
  bool files = false;                 // and those of the file system
};

// `words`: after the program's name; the last one, which may be empty, is to be completed.
Completion complete(const CLI::App& app, const std::vector<std::string>& words, const NamesOf& names_of);

// For the scripts: a candidate a line, its description after a tab; ":files" for files.
std::string completion_lines(const Completion& completion);

inline constexpr const char* kCompleteCommand = "__complete";  // obraz __complete WORD…
// What a shell has to read once to complete obraz; empty for a shell that nobody knows.
std::string_view completion_script(std::string_view shell);
inline constexpr const char* kShells[] = {"bash", "fish", "zsh"};

}  // namespace obraz::client
