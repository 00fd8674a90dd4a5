#!/usr/bin/env bash
# control_concurrent.sh BIN_DIR - of calls that contradict each other one wins, and the same call twice is one.
set -euo pipefail
# shellcheck source=tests/interop/control_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/control_lib.sh"
begin "$@"

# together N COMMAND...: runs N at once; prints how many succeeded.
together() {
  local count=$1 i succeeded=0
  shift
  local -a pids=()
  for ((i = 0; i < count; ++i)); do
    "$@" >"$work/together.$i" 2>&1 &
    pids+=($!)
  done
  for i in "${pids[@]}"; do
    ! wait "$i" || succeeded=$((succeeded + 1))
  done
  echo "$succeeded"
}

same_name() {
  expect "creations that succeeded" 1 "$(together 16 obraz disk create --name vm1 --size 64M)"
  expect disks vm1 "$(names disk)"
}

same_deletion() {
  expect "deletions that succeeded" 1 "$(together 16 obraz disk delete vm1)"
  expect disks '' "$(names disk)"
}

same_key() {
  expect "calls that succeeded" 16 "$(together 16 obraz disk create --name vm2 --size 64M --idempotency-key k1)"
  expect disks vm2 "$(names disk)"
  refused INVALID_ARGUMENT idempotency_key disk create --name vm3 --size 64M --idempotency-key k1
  expect disks vm2 "$(names disk)"
}

key_after_restart() {
  stop_daemon
  start_daemon
  obraz disk create --name vm2 --size 64M --idempotency-key k1
  expect disks vm2 "$(names disk)"
}

step "start obrazd" start_daemon
step "one name is given once" same_name
step "one disk is deleted once" same_deletion
step "one key makes one disk" same_key
step "also after a restart" key_after_restart
step "stop" stop_daemon
