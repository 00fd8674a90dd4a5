#!/usr/bin/env bash
# control_denied.sh BIN_DIR - another user's calls are refused, with a sentence, and change nothing.
set -euo pipefail
# shellcheck source=tests/interop/control_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/control_lib.sh"
((EUID == 0)) || { echo "control_denied.sh: needs root to become somebody else; skipped"; exit 0; }
begin "$@"

as_nobody() {
  local status=0
  chmod 0711 "$work"
  cp "$bin/obraz" "$work/obraz"
  setpriv --reuid=65534 --regid=65534 --clear-groups "$work/obraz" --control "$work/store/control.sock" --json \
    disk create --name vm1 --size 64M 2>"$work/refused.err" || status=$?
  expect "the exit status" 1 "$status"
  expect "the code" PERMISSION_DENIED "$(json error.code <"$work/refused.err")"
  expect disks '' "$(names disk)"
}

devices_are_private() {
  ! setpriv --reuid=65534 --regid=65534 --clear-groups cat "$work/store/data" >/dev/null 2>&1 ||
    fail "another user can read the data"
  ! setpriv --reuid=65534 --regid=65534 --clear-groups \
    python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])' "$work/store/nbd.sock" ||
    fail "another user can connect to the NBD socket"
}

step "start obrazd" start_daemon
step "another user is refused" as_nobody
step "another user reads neither the data nor the NBD socket" devices_are_private
step "stop" stop_daemon
