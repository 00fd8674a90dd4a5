#!/usr/bin/env bash
# usage.sh BIN_DIR - what was used is counted from creation to deletion, is never less than it was, and outlives kill -9;
# callers see the folders that they may see.
set -euo pipefail
# shellcheck source=tests/interop/control_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/control_lib.sh"
begin "$@"

# used FOLDER KIND FIELD: the sum of all months and OS types.
used() {
  obraz --json --folder "$1" usage | python3 -c '
import json, sys
print(sum(row["amounts"][sys.argv[2]] for row in json.load(sys.stdin)["rows"] if row["kind"] == sys.argv[1]))' "$2" "$3"
}

# until_used FOLDER KIND SECONDS
until_used() {
  until (($(used "$1" "$2" resource_seconds) >= $3)); do :; done
}

prepare() {
  start_daemon
  obraz folder create --name f
  obraz disk create --folder f --name vm1 --size 64M
  obraz disk create --folder f --name vm2 --size 64M
  until_used f disk 2
}

after_a_deletion() {
  local before after
  obraz disk delete --folder f vm2
  before=$(used f disk resource_seconds)
  until_used f disk $((before + 1))
  obraz disk delete --folder f vm1
  before=$(used f disk resource_seconds)
  (($(used f disk virtual_mib_seconds) >= before * 64)) || fail "64 MiB were there for $before seconds"
  obraz snapshot list --folder f
  after=$(used f disk resource_seconds)
  expect "what two disks used that are gone" "$before" "$after"
}

after_a_crash() {
  local before
  obraz disk create --folder f --name vm3 --size 64M
  before=$(used f disk resource_seconds)
  kill_daemon
  start_daemon
  (($(used f disk resource_seconds) >= before)) || fail "a crash took usage away"
  until_used f disk $((before + 1))
  obraz disk delete --folder f vm3
  obraz folder delete f
  refused NOT_FOUND folder_id --folder f usage
  obraz --json usage | grep -q '"folder_name": "f"' || fail "what the folder used is forgotten with it"
}

bad_input() {
  refused INVALID_ARGUMENT from_month usage --from yesterday
  refused INVALID_ARGUMENT to_month usage --to 2026-13
  refused NOT_FOUND folder_id --folder nowhere usage
  expect "usage before all months" "[]" "$(field rows usage --to 1970-01)"
  obraz usage | head -n 1 | grep -q '^MONTH' || fail "the table has no heading"
}

step "start obrazd, and wait" prepare
step "what was deleted" after_a_deletion
step "kill -9, and the folder goes" after_a_crash
step "bad input" bad_input
step "stop" stop_daemon
