#!/usr/bin/env bash
# cli_shells.sh BIN_DIR - what a person at a terminal has of obraz: completion in bash, zsh and fish with names from the
# daemon, manual pages that say what --help says, tables that fit.
set -euo pipefail
# shellcheck source=tests/interop/control_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/control_lib.sh"
begin "$@"
export OBRAZ_CONTROL=$work/store/control.sock
export PATH=$bin:$PATH

prepare() {
  start_daemon
  obraz disk create --name vm1 --size 4M
  obraz disk create --name vm2 --size 4M
  obraz folder create --name team
  obraz disk create --folder team --name other --size 4M
  obraz image create --name debian --family deb --from-disk vm1
}

# What each shell offers for a line, sorted, a word each.
bash_words() {
  bash --norc --noprofile -c '
    source <(obraz completion bash)
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
    _obraz
    printf "%s\n" "${COMPREPLY[@]}" | sort | paste -sd " "' bash "$@"
}
zsh_words() {
  zsh -f -c '
    compdef() { :; }
    _files() { print -l -- ":files"; }
    _describe() { local -a all; all=("${(@P)2}"); print -l -- "${(@)all%%:*}"; }
    source <(obraz completion zsh)
    words=("$@") CURRENT=$#
    _obraz | sort | paste -sd " "' zsh "$@"
}
fish_words() {
  local line=$1
  shift
  [[ $# -eq 0 ]] || line+=$(printf ' %s' "$@")
  fish --no-config -c 'obraz completion fish | source; complete --do-complete "$argv[1]"' "$line" | cut -f 1 | sort | paste -sd ' '
}

# offers WANTED LINE...
offers() {
  local wanted=$1 shell
  shift
  for shell in bash zsh fish; do
    expect "what $shell offers for '$*'" "$wanted" "$("${shell}_words" "$@")"
  done
}

completion() {
  offers "vm1 vm2" obraz disk get vm
  offers "attach-args create delete get list resize revert update uri" obraz disk ""
  offers "other" obraz --folder team disk get ""
  offers "" obraz disk create --name x --snapshot ""
}

completion_of_values() {
  offers "libvirt nbd-client qemu" obraz disk attach-args vm1 --for ""
  offers "deb" obraz disk create --name x --family ""
  offers "default team" obraz image list --folder ""
  offers "disk/vm1 disk/vm2 image/debian" obraz space ""
  offers "bash fish zsh" obraz completion ""
}

# A daemon that is not there offers no names, and says nothing.
without_a_daemon() {
  local said
  said=$(OBRAZ_CONTROL=$work/nowhere "$bin/obraz" __complete disk get "" 2>&1) || fail "completion fails without a daemon"
  expect "names without a daemon" "" "$said"
  expect "commands without a daemon" "disk diff" "$(OBRAZ_CONTROL=$work/nowhere "$bin/obraz" __complete di | cut -f 1 | paste -sd ' ')"
}

# Every command and option that --help shows, down to the last.
walk_help() {
  "$@" --help | grep -oE -- '--[a-z][a-z0-9-]+' || true
  local command
  # shellcheck disable=SC2046
  for command in $("$@" --help | sed -n '/^Subcommands:/,$p' | sed -n 's/^  \([a-z-]*\) .*/\1/p'); do
    printf '%s\n' "$command"
    walk_help "$@" "$command"
  done
}

manuals() {
  local page program word
  for page in man1/obraz.1 man8/obrazd.8 man8/obraz-store.8; do
    program=$(basename "${page%.*}")
    [[ -s $bin/../share/man/$page ]] || fail "there is no $page"
    groff -man -ww -z "$bin/../share/man/$page" 2>"$work/groff"
    [[ ! -s $work/groff ]] || fail "groff complains of $page" "$work/groff"
    expect "the manual page of $program" "$("$program" --man)" "$(cat "$bin/../share/man/$page")"
    sed 's/\\-/-/g; s/\\f[BIR]//g' "$bin/../share/man/$page" >"$work/page"
    walk_help "$program" | sort -u >"$work/words"
    (($(wc -l <"$work/words") > 5)) || fail "$program --help shows next to nothing"
    while read -r word; do
      grep -qF -- "$word" "$work/page" || fail "the manual page of $program does not have $word"
    done <"$work/words"
  done
}

# on_terminal COLUMNS COMMAND...: what it writes to a terminal of that width.
on_terminal() {
  local columns=$1
  shift
  TERM=xterm script --quiet --return --command "stty cols $columns; $(printf '%q ' "$@")" "$work/typescript" </dev/null >/dev/null
  # The first and the last line are script's own.
  sed '1d;$d' "$work/typescript" | tr -d '\r'
}

terminals() {
  local escape=$'\x1b'
  obraz disk update vm1 --name a-disk-with-quite-a-long-name-that-no-narrow-terminal-can-show
  on_terminal 60 obraz disk list >"$work/narrow"
  grep -q "…" "$work/narrow" || fail "nothing is shortened" "$work/narrow"
  grep -q "$(field id disk get vm2)" "$work/narrow" || fail "an id is shortened" "$work/narrow"
  grep -q "$escape\[32mREADY" "$work/narrow" || fail "there are no colours" "$work/narrow"
  on_terminal 200 obraz disk list | grep -q 'can-show ' || fail "a wide terminal shows not all"
  NO_COLOR=1 on_terminal 200 obraz disk list >"$work/plain"
  ! grep -q "$escape" "$work/plain" || fail "there are colours although NO_COLOR is set"
  obraz disk list >"$work/file"
  ! grep -q "$escape\|…" "$work/file" || fail "a file is not written as it is" "$work/file"
}

# told SENTENCE ARGUMENTS...: what a refusal says at its end.
told() {
  local sentence=$1 said
  shift
  said=$(obraz "$@" 2>&1) && fail "obraz $* was not refused"
  [[ $said == *"$sentence" ]] || fail "obraz $* should say '$sentence' in the end, not '$said'"
}

# Who mistypes a name is told the one that was meant.
mistyped_names() {
  told "did you mean vm2?" disk get vm22
  told "did you mean other?" --folder team disk get othr
  told "did you mean team?" --folder taem disk list
  told "did you mean debian?" disk create --name x --image debain
  told "did you mean deb?" disk create --name x --family dob
  told "did you mean disk/vm1?" space disk/vm3 disk/vm2
  said=$(obraz disk get nothing-like-it 2>&1) && fail "a disk that is not there was shown"
  [[ $said != *"did you mean"* ]] || fail "it was not meant: $said"
}

step "start obrazd" prepare
step "names that were mistyped" mistyped_names
step "completion of commands and names" completion
step "completion of values" completion_of_values
step "completion without a daemon" without_a_daemon
step "manual pages" manuals
step "tables on terminals" terminals
step "stop" stop_daemon
