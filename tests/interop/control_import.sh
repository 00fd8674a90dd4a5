#!/usr/bin/env bash
# control_import.sh BIN_DIR - an import shows how far it is, can be cancelled, and leaves nothing when it fails.
set -euo pipefail
# shellcheck source=tests/interop/control_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/control_lib.sh"
begin "$@"

# An NBD server with real data, whose reads take longer than any of this. Each import gets a new one, for nbdkit 1.32
# may abort when a client leaves it in the middle of reads. Sets $slow, the URI.
slow_servers=0
slow_source() {
  local socket=$work/slow-$((++slow_servers)).sock
  nbdkit --foreground --exit-with-parent -U "$socket" --filter=delay pattern size=64M delay-read=600 \
    2>"$work/nbdkit-$slow_servers.log" 3>&- 4>&- &
  until python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])' "$socket" 2>"$work/null"; do
    kill -0 $! || fail "nbdkit does not start" "$work/nbdkit-$slow_servers.log"
  done
  slow="nbd+unix:///?socket=$socket"
}

# await_output FILE LINE: until FILE, in which a progress bar's parts count as lines, has LINE.
await_output() {
  grep -q "$2" < <(timeout 30 tail --lines=+1 -F --sleep-interval=0.1 "$1" 2>"$work/null" | stdbuf -o0 tr '\r[' '\n\n') ||
    fail "this should have appeared: $2" "$1"
}

import_raw() {
  head -c 9M /dev/urandom >"$work/source.raw"
  (cd "$work" && obraz image import source.raw --name i1 --family fam) 2>"$work/progress"
  cat "$work/progress"
  expect "the size" 12582912 "$(field size image get i1)"
  expect "the source" "$work/source.raw" "$(field source.location image get i1)"
  [[ $(field storage_size image get i1) -ge 9437184 ]] || fail "the image holds less than its data"
  obraz image export i1 "$work/back.raw"
  cmp -n 9437184 "$work/source.raw" "$work/back.raw"
}

cancel_import() {
  slow_source
  local operation
  operation=$(field id image import "$slow" --name slow --async)
  expect "whether it is done" false "$(field 'done' operation get "$operation")"
  refused ALREADY_EXISTS name image import "$work/source.raw" --name slow
  refused FAILED_PRECONDITION image_id image delete slow
  refused FAILED_PRECONDITION image_id disk create --name vm1 --image slow
  expect "the code" CANCELLED "$(field error.code operation cancel "$operation")"
  expect "images" i1 "$(names image)"
  refused CANCELLED '' operation watch "$operation"
  obraz image import "$work/source.raw" --name slow
  obraz image delete slow
}

# The bar is drawn as soon as the size is known; then the import is cancelled from elsewhere.
terminal_bar() {
  slow_source
  local command operation
  command="$bin/obraz --control $work/store/control.sock image import '$slow' --name slow"
  TERM=xterm script -qefc "$command" "$work/typescript" </dev/null >/dev/null &
  local script_pid=$! status=0
  await_output "$work/typescript" '^Kcopying $'  # then comes the bar itself
  operation=$(field operations.0.id operation list)
  obraz operation cancel "$operation"
  wait "$script_pid" || status=$?
  expect "the exit status of the cancelled import" 1 "$status"
}

plain_lines() {
  slow_source
  local import_pid operation status=0
  obraz image import "$slow" --name slow >"$work/plain" 2>&1 &
  import_pid=$!
  await_output "$work/plain" '^copying: 0%, 0 B of 64 MiB$'
  operation=$(field operations.0.id operation list)
  obraz operation cancel "$operation"
  wait "$import_pid" || status=$?
  expect "the exit status of the cancelled import" 1 "$status"
  ! grep -q $'\r' "$work/plain" || fail "a bar was drawn although there is no terminal"
}

interrupted_by_stop() {
  slow_source
  operation=$(field id image import "$slow" --name slow --async)
  stop_daemon
  start_daemon
  expect "the code" UNAVAILABLE "$(field error.code operation get "$operation")"
  expect "images" i1 "$(names image)"
}

interrupted_by_kill() {
  slow_source
  operation=$(field id image import "$slow" --name slow --async)
  # Once it copies, the image and its work disk are in the store.
  while [[ $(field metadata.phase operation get "$operation") != copying ]]; do :; done
  kill_daemon
  start_daemon
  expect "the code" UNAVAILABLE "$(field error.code operation get "$operation")"
  expect "the message" "interrupted by a restart of the daemon" "$(field error.message operation get "$operation")"
  expect "images" i1 "$(names image)"
}

fail_imports() {
  refused NOT_FOUND source image import "$work/nosuch" --name i2
  : >"$work/empty"
  refused INVALID_ARGUMENT source image import "$work/empty" --name i2
  refused INVALID_ARGUMENT source image import "$work" --name i2
  expect "images" i1 "$(names image)"
}

step "start obrazd" start_daemon
step "import a raw file, and export it again" import_raw
step "sources that are not there, empty, or no file" fail_imports
step "cancel an import" cancel_import
step "a terminal shows a bar" terminal_bar
step "no terminal shows lines" plain_lines
step "an import that a stop interrupts has failed and left nothing" interrupted_by_stop
step "an import that a crash interrupts has failed and left nothing" interrupted_by_kill
step "stop" stop_daemon
