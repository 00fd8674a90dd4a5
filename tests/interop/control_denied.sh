#!/usr/bin/env bash
# control_denied.sh BIN_DIR - another user reads neither the store's files nor what has not been granted, and changes nothing.
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

files_are_private() {
  local file
  for file in data meta; do
    ! setpriv --reuid=65534 --regid=65534 --clear-groups cat "$work/store/$file" >/dev/null 2>&1 ||
      fail "another user can read $file"
  done
}

# One user's connections do not shut out the others.
connections_are_shared() {
  /usr/bin/python3 - "$work/store/control.sock" <<'END'
import os, socket, sys
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
clients = []
turned_away = 0
for _ in range(64):
    client = socket.socket(socket.AF_UNIX)
    client.connect(sys.argv[1])
    clients.append(client)
for client in clients[32:]:
    turned_away += client.recv(1000) != b"" and client.recv(1) == b""
sys.exit(0 if turned_away == 32 else f"{turned_away} of 64 connections were turned away, not 32")
END
  obraz status
}

step "start obrazd" start_daemon
step "another user is refused" as_nobody
step "another user does not read the store" files_are_private
step "one user has a share of the connections" connections_are_shared
step "stop" stop_daemon
