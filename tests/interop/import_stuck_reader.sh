#!/usr/bin/env bash
# import_stuck_reader.sh BIN_DIR - a reader of a foreign format that hangs is ended by cancelling its import, by the stop
# of the daemon, and by its death.
set -euo pipefail
# shellcheck source=tests/interop/control_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/control_lib.sh"
begin "$@"

make_disk() {
  head -c 768M /dev/urandom >"$work/disk.raw"
  qemu-img convert -f raw -O qcow2 "$work/disk.raw" "$work/disk.qcow2"
  rm "$work/disk.raw"
}

# Starts an import and stops its reader in the middle.
stick() {
  local daemon
  daemon=$(daemon_process)
  operation=$(field id image import "$work/disk.qcow2" --name stuck --async)
  reader=
  while [[ -z $reader ]]; do
    reader=$(pgrep -P "$daemon" -x qemu-nbd) || [[ $(field "done" operation get "$operation") == false ]] ||
      fail "the import ended before its reader was seen"
  done
  kill -STOP "$reader"
  expect "done" false "$(field "done" operation get "$operation")"
}

# The reader was ended, though it is stopped.
reader_ends() {
  timeout 30 tail --pid="$reader" -f /dev/null || fail "the reader is still there"
}

by_cancel() {
  stick
  expect "the code" CANCELLED "$(field error.code operation cancel "$operation")"
  reader_ends
  expect "images" "" "$(names image)"
}

by_stop() {
  stick
  stop_daemon
  reader_ends
  start_daemon
  expect "images" "" "$(names image)"
}

by_death() {
  stick
  kill_daemon
  reader_ends
  start_daemon
  expect "images" "" "$(names image)"
}

step "start obrazd" start_daemon
step "make an image" make_disk
step "cancel ends a reader that hangs" by_cancel
step "so does the stop of the daemon" by_stop
step "so does its death" by_death
step "stop" stop_daemon
