#!/usr/bin/env bash
# nbd_idle.sh BIN_DIR - attached clients that do nothing cost no processor time.

set -euo pipefail
# shellcheck source=tests/interop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
begin "$@"

readonly idle_s=3 most_ticks=15  # 5 % of one processor; a busy loop takes 300

idle_clients_cost_nothing() {
  IDLE_S=$idle_s python_client <<'EOT'
sessions = [connect("disk/d") for _ in range(50)]
for h in sessions:
    h.pwrite(b"x" * 4096, 0)
sessions[0].flush()
print("attached", flush=True)
time.sleep(float(os.environ["IDLE_S"]))  # this is the thing measured, not a wait for something
EOT
}
measure() {
  local before after
  idle_clients_cost_nothing >"$work/idle.out" &
  local client=$!
  grep -qx attached < <(timeout "$client_deadline_s" tail --lines=+1 --follow --sleep-interval=0.1 --pid="$client" \
    "$work/idle.out") || fail "the clients could not attach"
  before=$(daemon_cpu_ticks)
  wait "$client" || fail "the clients failed"
  after=$(daemon_cpu_ticks)
  ((after - before <= most_ticks)) || fail "50 idle clients cost $((after - before)) ticks in $idle_s s"
}

step "start obrazd" start_daemon
step "make a disk" new_disk d 64M
: >"${work}/idle.out"
step "50 idle clients for $idle_s seconds" measure
step "stop obrazd" stop_daemon
