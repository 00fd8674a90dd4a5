#!/usr/bin/env bash
# nbd_hostile.sh BIN_DIR - clients that send rubbish, vanish, keep silent or never read hurt nobody but themselves,
# and do not keep the daemon from stopping.

set -euo pipefail
# shellcheck source=tests/interop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
begin "$@"

rubbish() {
  python_client <<'EOT'
import random, socket
random.seed(1)
hello = struct.pack(">I", 3)
def option(number, data=b"", length=None):
    return b"IHAVEOPT" + struct.pack(">II", number, len(data) if length is None else length) + data
go = option(7, struct.pack(">I", 6) + b"disk/d" + struct.pack(">H", 0))
def request(command, offset, length, magic=0x25609513):
    return struct.pack(">IHHQQI", magic, 0, command, 1, offset, length)
messages = [b"", b"\0", hello, b"GET / HTTP/1.1\r\n\r\n", hello + b"x" * 1000, struct.pack(">I", 0xffffffff),
            hello + option(7, b"", 0xffffffff), hello + option(99, b"", 0x7fffffff), hello + option(1, b"x" * 5000),
            hello + option(10, struct.pack(">II", 0xffffffff, 0xffffffff)), hello + option(99) * 100,
            hello + go + request(0, 0, 10)[:9], hello + go + request(1, 0, 1 << 20) + b"x" * 1000,
            hello + go + request(1, 0, 0xffffffff), hello + go + request(0, 0, 1 << 20) * 50,
            hello + go + request(0, 0, 1, magic=7), hello + go + request(2, 0, 0) + b"more"]
messages += [hello + go + random.randbytes(500) for _ in range(50)] + [random.randbytes(500) for _ in range(50)]
for message in messages:
    s = socket.socket(socket.AF_UNIX)
    s.connect(os.environ["NBD_SOCKET"])
    try:
        s.sendall(message)
    except (BrokenPipeError, ConnectionResetError):
        pass
    s.close()
EOT
}
others_are_served() {
  timeout "$client_deadline_s" qemu-io -f raw -c 'write -P 1 0 1M' -c 'read -P 1 0 1M' "$(uri d)"
}
no_session_is_left() {
  # The daemon forgets a client when it has noticed that it is gone; asking is the only way to see that.
  local deadline=$((SECONDS + 30))
  while (($(obraz --json status | python3 -c 'import json, sys; print(json.load(sys.stdin)["sessions"])') > 0)); do
    ((SECONDS < deadline)) || fail "sessions of clients that have left are still there"
  done
}
# Clients that stay while the daemon stops: silent ones, one in the middle of a write, one that never reads.
hold_connections() {
  python_client <<'EOT' &
import select, socket
def raw():
    s = socket.socket(socket.AF_UNIX)
    s.connect(os.environ["NBD_SOCKET"])
    return s
silent = [raw() for _ in range(10)]
idle = [connect("disk/d") for _ in range(10)]
stuck = []
for message in (struct.pack(">IHHQQI", 0x25609513, 0, 1, 1, 0, 1 << 20) + b"x" * 1000,
                struct.pack(">IHHQQI", 0x25609513, 0, 0, 1, 0, 16 << 20) * 20):
    s = raw()
    name = b"disk/d"
    s.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">III", 7, len(name) + 6, len(name)) + name +
              struct.pack(">H", 0))
    s.sendall(message)
    stuck.append(s)
stuck[1].recv(1 << 20)
open(os.environ["HELD"], "w").close()
# Until the one that never reads is cut off, which comes last.
end = select.poll()
end.register(stuck[1], 0)
assert end.poll(60_000)
EOT
  holder=$!
}
wait_until_held() {
  local deadline=$((SECONDS + 30))
  until [[ -e $HELD ]]; do
    kill -0 "$holder" || fail "the clients could not connect"
    ((SECONDS < deadline)) || fail "the clients did not connect in time"
    read -rt 0.05 <> <(:) || true
  done
}
export HELD
HELD=$work/held

step "start obrazd" start_daemon
step "make a disk" new_disk d 64M
step "send rubbish of all kinds" rubbish
step "all of them are forgotten" no_session_is_left
step "another client is served" others_are_served
hold_connections
step "clients that stay: silent, idle, in a write, not reading" wait_until_held
step "another client is served" others_are_served
step "stop obrazd while they stay" stop_daemon
step "the clients have noticed" wait "$holder"
