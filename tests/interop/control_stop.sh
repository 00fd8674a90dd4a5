#!/usr/bin/env bash
# control_stop.sh BIN_DIR - SIGTERM ends the daemon with status 0 whatever its clients are doing.
set -euo pipefail
# shellcheck source=tests/interop/control_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/control_lib.sh"
begin "$@"

# Clients that are idle, in the middle of a frame, of a handshake, and ones that never read their answers.
bad_clients() {
  coproc clients {
    python3 -c '
import socket, struct, sys
control, nbd = sys.argv[1:]
held = []
def connect(path):
    held.append(socket.socket(socket.AF_UNIX))
    held[-1].connect(path)
    return held[-1]
connect(control)
connect(control).sendall(b"\x15\x00")
connect(control).sendall(b"\x15\x00\x00\x00\x08")
deaf = connect(control)
deaf.setblocking(False)
request = b"\x08\x01\x12\x10DiskService.List"
try:
    while True:
        deaf.sendall(struct.pack("<I", len(request)) + request)
except BlockingIOError:
    pass
connect(nbd)
connect(nbd).recv(18)
print("connected", flush=True)
sys.stdin.read()' "$work/store/control.sock" "$work/store/nbd.sock"
  }
  local line
  read -r line <&"${clients[0]}"
  expect "what the clients say" connected "$line"
}

make_many() {
  local i
  for i in {1..100}; do
    obraz disk create --name "vm$i" --size 64M --description "$(printf 'x%.0s' {1..250})" >/dev/null
  done
}

step "start obrazd" start_daemon
step "make many disks, so that a list of them is long" make_many
step "clients that stay and do not read" bad_clients
step "stop with SIGTERM; status 0" stop_daemon
step "start again" start_daemon
step "the disks are there" expect "the number of disks" 100 "$(names disk | wc -w)"
step "stop" stop_daemon
kill "$clients_PID"
