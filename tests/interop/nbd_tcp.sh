#!/usr/bin/env bash
# nbd_tcp.sh BIN_DIR - the same exports over TCP; a port alone means the loopback address.

set -euo pipefail
# shellcheck source=tests/interop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
begin "$@"

# Port 0: the system chooses, and the log tells.
tcp_port() {
  sed -n 's/^.*nbd: serving on 127\.0\.0\.1:\([0-9]*\)$/\1/p' "$work/obrazd-$daemon_starts.log"
}
over_tcp() {
  local port
  port=$(tcp_port)
  [[ -n $port ]] || fail "the log does not tell the port"
  qemu-io -f raw -c 'write -P 1 0 1M' -c 'read -P 1 0 1M' "nbd://127.0.0.1:$port/disk/d"
  qemu-io -f raw -c 'read -P 1 0 1M' "$(export_uri disk/d)"
}
loopback_only() {
  local address
  for address in $(hostname -I); do
    if [[ $address == *:* ]]; then
      address="[$address]"
    fi
    ! nbdinfo --size "nbd://$address:$(tcp_port)/disk/d" || fail "served on $address, which nobody asked for"
  done
}

step "start obrazd with a TCP port" start_daemon --nbd-tcp 0
step "make a disk" new_disk d 64M
step "write over TCP, read over both" over_tcp
step "other addresses are not served" loopback_only
step "stop obrazd" stop_daemon
