#!/usr/bin/env bash
# control_store_directory.sh BIN_DIR - a store has one daemon, and a directory that is no store is left alone.
set -euo pipefail
# shellcheck source=tests/interop/control_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/control_lib.sh"
begin "$@"

# refuses_to_start SENTENCE ARGUMENTS...: obrazd must end with status 1 and say SENTENCE.
refuses_to_start() {
  local sentence=$1 status=0
  shift
  timeout 20 "$bin/obrazd" "$@" >"$work/refused.log" 2>&1 || status=$?
  cat "$work/refused.log"
  expect "the exit status of obrazd $*" 1 "$status"
  grep -q "$sentence" "$work/refused.log" || fail "obrazd $* did not say '$sentence'"
}

second_daemon() {
  refuses_to_start 'in use by another process' --store "$work/store" --control "$work/c2" --nbd-unix "$work/n2"
  expect "the disk of the first" vm1 "$(names disk)"
}

foreign_directory() {
  mkdir "$work/foreign"
  echo kept >"$work/foreign/file"
  refuses_to_start 'holds no store' --store "$work/foreign"
  expect "what the directory holds" file "$(ls -A "$work/foreign")"
  echo text >"$work/plain"
  refuses_to_start 'is not a directory' --store "$work/plain"
}

not_a_store() {
  mkdir "$work/garbage"
  head -c 128M /dev/zero >"$work/garbage/meta"
  head -c 64M /dev/zero >"$work/garbage/data"
  refuses_to_start 'is not a store' --store "$work/garbage"
  expect "what is in data" "$(head -c 64M /dev/zero | sha256sum)" "$(sha256sum <"$work/garbage/data")"
}

wrong_sizes() {
  local status=0
  "$bin/obrazd" --store "$work/new" --data-size 1K || status=$?
  expect "the exit status" 2 "$status"
  [[ ! -e $work/new ]] || fail "a directory was made although the size was refused"
}

unfinished_format() {
  mkdir "$work/unfinished"
  head -c 1M /dev/zero >"$work/unfinished/meta.new"
  head -c 1M /dev/zero >"$work/unfinished/data.new"
  rm -rf "$work/store"
  mv "$work/unfinished" "$work/store"
  start_daemon
  stop_daemon
  expect "what the directory holds" 'data meta' "$(cd "$work/store" && echo *)"
}

step "start obrazd on a new store" start_daemon
step "make a disk" obraz disk create --name vm1 --size 64M
step "a second daemon on it is refused" second_daemon
step "a directory of somebody else's is refused" foreign_directory
step "files that are no store are refused" not_a_store
step "sizes that no store can have are refused" wrong_sizes
step "kill the daemon; it leaves its sockets behind" kill_daemon
step "start again" start_daemon
step "the disk is there" expect disks vm1 "$(names disk)"
step "stop" stop_daemon
step "a format that was interrupted is done again" unfinished_format
