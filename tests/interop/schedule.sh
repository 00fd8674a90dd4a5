#!/usr/bin/env bash
# schedule.sh BIN_DIR - a schedule makes snapshots of its disks, at its time and when it is told to, keeps the newest, and goes on
# after kill -9.
set -euo pipefail
# shellcheck source=tests/interop/control_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/control_lib.sh"
begin "$@"

snapshots() {
  obraz --quiet snapshot list "$@" | wc -l
}

prepare() {
  start_daemon
  obraz disk create --name vm1 --size 16M
  obraz disk create --name vm2 --size 16M
  obraz schedule create --name nightly --every '30 2 * * *' --disk vm1 --disk vm2 --keep 2 --snapshot-label kind=nightly
}

shown() {
  local due
  due=$(date --utc --date 'today 02:30' +%s)
  ((due > $(date +%s))) || due=$((due + 86400))
  expect "when it is due" "$due" "$(date --date "$(field next_run_at schedule get nightly)" +%s)"
  obraz schedule list | grep -q '30 2 \* \* \*  *2 of each disk  *2 ' || fail "the table does not show the policy"
  expect "its disk" "$(field id disk get vm1)" "$(field disk_ids.0 schedule get nightly)"
}

# The instant is the same for both, and only the newest two of each stay.
by_hand() {
  local before
  obraz schedule run nightly
  expect "the snapshots of one run" 2 "$(snapshots)"
  expect "the label" nightly "$(field snapshots.0.labels.kind snapshot list)"
  before=$(field snapshots.0.id snapshot list)
  obraz schedule run nightly
  obraz schedule run nightly
  expect "the snapshots that are kept" 4 "$(snapshots)"
  refused NOT_FOUND snapshot_id snapshot get "$before"
  expect "who made them" "$(field id schedule get nightly)" "$(field snapshots.0.schedule_id snapshot list)"
}

after_a_crash() {
  local last
  last=$(field last_run_at schedule get nightly)
  kill_daemon
  start_daemon
  expect "the last run" "$last" "$(field last_run_at schedule get nightly)"
  expect "the snapshots" 4 "$(snapshots)"
}

# The next full minute comes soon enough to be waited for; the log says that it has.
at_its_time() {
  obraz schedule create --name often --every '* * * * *' --disk vm1 --keep 1
  grep -q 'SnapshotScheduleService.Run' < <(exec 3>&- 4>&-
    timeout 120 tail --lines=+1 --follow --sleep-interval=0.1 --pid="$daemon_pid" "$work/obrazd-$daemon_starts.log") ||
    fail "it did not run within two minutes"
  [[ $(field snapshots.0.name snapshot list --filter "labels.kind != 'nightly'") == often-* ]] || fail "it has another name"
  expect "who did it" obrazd "$(field snapshots.0.created_by snapshot list --filter "labels.kind != 'nightly'")"
  obraz schedule disable often
  expect "a disabled schedule" disabled "$(obraz schedule list | awk '/^often/ { print $NF }')"
  obraz schedule enable often
  obraz schedule delete often
}

changes() {
  obraz schedule update nightly --keep-for 7d
  expect "what is kept" 604800 "$(field retention_seconds schedule get nightly)"
  obraz schedule update nightly --every @weekly --start-at 2100-01-01T00:00:00Z
  expect "the first Sunday" 2100-01-03T00:00:00Z "$(field next_run_at schedule get nightly)"
  obraz schedule update nightly --keep-all --disk vm2
  expect "the disks" "[\"$(field id disk get vm2)\"]" "$(field disk_ids schedule get nightly)"
}

bad_input() {
  local status=0
  refused INVALID_ARGUMENT schedule_policy.expression schedule create --name x --every 'at noon' --disk vm1
  refused INVALID_ARGUMENT schedule_policy.expression schedule create --name x --every '0 0 31 2 *' --disk vm1
  refused NOT_FOUND disk_ids schedule create --name x --every @daily --disk nosuch
  refused NOT_FOUND snapshot_schedule_id schedule run nosuch
  refused ALREADY_EXISTS name schedule create --name nightly --every @daily --disk vm1
  obraz schedule create --name x --every @daily --disk vm1 --keep 1 --keep-for 1d 2>"$work/null" || status=$?
  expect "two ways to keep" 2 "$status"
}

step "start obrazd, make a schedule" prepare
step "it is shown" shown
step "it is run by hand" by_hand
step "kill -9" after_a_crash
step "it runs at its time" at_its_time
step "it is changed" changes
step "bad input" bad_input
step "stop" stop_daemon
