#include "client/completion.h"

#include <fmt/core.h>

#include <algorithm>

#include "man_page.h"

namespace obraz::client {
namespace {

// A walk over the words that are complete, as the parser would understand them.
class Walk {
 public:
  explicit Walk(const CLI::App& app) : app_(&app) {}

  void take(const std::string& word) {
    if (word == "=")  // bash parts --option=value there
      return;
    if (expecting_) {
      remember(*expecting_, word);
      expecting_ = nullptr;
    } else if (!only_arguments_ && word == "--") {
      only_arguments_ = true;
    } else if (!only_arguments_ && word.size() > 1 && word.front() == '-') {
      const size_t equals = word.find('=');
      const CLI::Option* option = find(word.substr(0, equals));
      if (!option)
        return;
      given_.push_back(option);
      if (equals != std::string::npos)
        remember(*option, word.substr(equals + 1));
      else if (!value_name(*option).empty())
        expecting_ = option;
    } else if (const CLI::App* command = find_command(word)) {
      app_ = command;
    } else {
      ++arguments_;
    }
  }

  const CLI::Option* expecting() const { return expecting_; }
  bool only_arguments() const { return only_arguments_; }
  const CompletionContext& context() const { return context_; }
  std::vector<const CLI::App*> commands() const {
    return arguments_ == 0 ? commands_of(*app_) : std::vector<const CLI::App*>();
  }
  // The argument that comes next; null: there is none.
  const CLI::Option* argument() const {
    size_t at = 0;
    for (const CLI::Option* option : options_of(*app_)) {
      if (!option->get_positional())
        continue;
      if (at == arguments_ || option->get_expected_max() > 1)
        return option;
      ++at;
    }
    return nullptr;
  }
  // Options that may still be given: once each, unless they may repeat.
  std::vector<const CLI::Option*> options() const {
    std::vector<const CLI::Option*> options;
    for (const CLI::App* app = app_; app; app = app->get_parent())
      for (const CLI::Option* option : options_of(*app)) {
        const bool again = option->get_items_expected_max() > 1;
        const bool told = app != app_ && option == app->get_help_ptr();
        if (!option->get_positional() && !told && (again || std::ranges::count(given_, option) == 0))
          options.push_back(option);
      }
    return options;
  }

 private:
  const CLI::Option* find(const std::string& name) const {
    for (const CLI::App* app = app_; app; app = app->get_parent())
      for (const CLI::Option* option : options_of(*app))
        if (!option->get_positional() && option->check_name(name))
          return option;
    return nullptr;
  }
  const CLI::App* find_command(const std::string& word) const {
    for (const CLI::App* command : commands())
      if (command->get_name() == word)
        return command;
    return nullptr;
  }
  void remember(const CLI::Option& option, const std::string& value) {
    if (option.check_lname("control"))
      context_.control = value;
    else if (option.check_lname("folder"))
      context_.folder = value;
  }

  const CLI::App* app_;
  const CLI::Option* expecting_ = nullptr;  // whose value comes next
  size_t arguments_ = 0;                    // that have been given
  bool only_arguments_ = false;
  std::vector<const CLI::Option*> given_;
  CompletionContext context_;
};

// The first sentence is enough beside a word.
std::string brief(std::string text) {
  text.resize(std::min(text.find_first_of(";("), text.size()));
  text.resize(text.find_last_not_of(' ') + 1);
  return text;
}

}  // namespace

Completion complete(const CLI::App& app, const std::vector<std::string>& words, const NamesOf& names_of) {
  Walk walk(app);
  for (size_t i = 0; i + 1 < words.size(); ++i)
    walk.take(words[i]);
  std::string word = words.empty() || words.back() == "=" ? "" : words.back(), before;
  Completion completion;
  const auto offer = [&](const std::string& candidate, const std::string& description) {
    if (candidate.starts_with(word))
      completion.candidates.push_back({before + candidate, description});
  };
  const auto offer_values = [&](const CLI::Option& option) {
    for (const std::string& choice : choices_of(option))
      offer(choice, "");
    const std::string metavariable = option.get_positional() ? option.get_name() : option.get_type_name();
    completion.files = metavariable == "FILE" || metavariable == "PATH" || metavariable == "SOURCE";
    for (const Candidate& name : names_of(metavariable, walk.context()))
      offer(name.word, name.description);
  };

  const CLI::Option* expecting = walk.expecting();
  if (const size_t equals = word.find('=');
      !expecting && word.starts_with("--") && equals != std::string::npos) {
    for (const CLI::Option* option : walk.options())
      if (option->check_name(word.substr(0, equals)))
        expecting = option;
    before = word.substr(0, equals + 1);
    word.erase(0, equals + 1);
    if (!expecting)
      return completion;
  }
  if (expecting) {
    offer_values(*expecting);
  } else if (!walk.only_arguments() && word.starts_with("-")) {
    for (const CLI::Option* option : walk.options())
      for (const std::string& name : option->get_lnames())
        offer("--" + name, brief(option->get_description()));
  } else {
    for (const CLI::App* command : walk.commands())
      offer(command->get_name(), brief(command->get_description()));
    if (const CLI::Option* argument = walk.argument())
      offer_values(*argument);
  }
  return completion;
}

std::string completion_lines(const Completion& completion) {
  std::string lines = completion.files ? ":files\n" : "";
  for (const Candidate& candidate : completion.candidates)
    lines += candidate.word + (candidate.description.empty() ? "" : "\t" + candidate.description) + "\n";
  return lines;
}

std::string_view completion_script(std::string_view shell) {
  if (shell == "bash")
    return R"(# obraz: completion for bash
_obraz() {
  local line word=${COMP_WORDS[COMP_CWORD]}
  local IFS=$'\n'
  COMPREPLY=()
  for line in $("${COMP_WORDS[0]}" __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null); do
    if [[ $line == :files ]]; then
      compopt -o filenames 2>/dev/null
      COMPREPLY+=($(compgen -f -- "$word"))
    else
      COMPREPLY+=("${line%%$'\t'*}")
    fi
  done
}
complete -F _obraz obraz
)";
  if (shell == "zsh")
    return R"(#compdef obraz
# obraz: completion for zsh
_obraz() {
  local line word
  local -a candidates
  for line in "${(@f)$(${words[1]} __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
    if [[ $line == :files ]]; then
      _files
    elif [[ -n $line ]]; then
      word=${line%%$'\t'*}
      if [[ $line == *$'\t'* ]]; then
        candidates+=("${word//:/\\:}:${line#*$'\t'}")
      else
        candidates+=("${word//:/\\:}")
      fi
    fi
  done
  (( $#candidates )) && _describe obraz candidates
}
if [[ ${funcstack[1]} == _obraz ]]; then
  _obraz "$@"
else
  compdef _obraz obraz
fi
)";
  if (shell == "fish")
    return R"(# obraz: completion for fish
function __obraz_complete
  set -l words (commandline --tokenize --current-process --cut-at-cursor)
  set -l last (commandline --current-token --cut-at-cursor)
  for line in ($words[1] __complete $words[2..-1] "$last" 2>/dev/null)
    if test "$line" = :files
      __fish_complete_path "$last"
    else
      echo $line
    end
  end
end
complete --command obraz --no-files --arguments '(__obraz_complete)'
)";
  return {};
}

}  // namespace obraz::client
