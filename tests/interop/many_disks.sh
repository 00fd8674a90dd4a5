#!/usr/bin/env bash
# many_disks.sh BIN_DIR - 10,000 disks of one image are made, listed, used, survive kill -9, and are deleted, in bounded memory.
#
# $OBRAZ_DISKS: another number of them.
set -euo pipefail
# shellcheck source=tests/interop/control_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/control_lib.sh"
begin "$@"

readonly disks=${OBRAZ_DISKS:-10000}
readonly most_bytes=16384  # of memory for each disk that nobody has attached

# The daemon's own memory, in KiB.
memory() {
  awk '/^RssAnon:/ { print $2 }' "/proc/$(daemon_process)/status"
}

# call VERB [SOURCE]: for all disks, many calls in flight.
call() {
  local number
  for ((number = 1; number <= disks; ++number)); do
    echo "$1 d-$number ${2:-}"
  done | "$bin/bench_control" "$work/store/control.sock" --in-flight 32 >"$work/answers"
  expect "the calls that were answered well" "$disks" "$(grep -c '^ok' "$work/answers")"
}

count() {
  obraz --quiet disk list "$@" | wc -l
}

# The first and the last sector of a disk in the middle.
look_inside() {
  nbdcopy "nbd+unix:///disk/d-$((disks / 2))?socket=$work/store/nbd.sock" "$work/copy"
  cmp "$work/image" "$work/copy" || fail "a disk is not what its image is"
}

prepare() {
  head -c 8388608 /dev/urandom >"$work/image"
  start_daemon
  obraz image import "$work/image" --name base
}

make_all() {
  local before
  before=$(memory)
  call disk-create base
  each=$((($(memory) - before) * 1024 / disks))
  ((each <= most_bytes)) || fail "each disk takes $each bytes of memory"
  echo "$each bytes of memory for each disk" >&3
}

list_all() {
  expect "the disks in the list" "$disks" "$(count)"
  expect "the disks that a filter finds" 1 "$(count --filter "name = 'd-$disks'")"
  expect "the first of another order" "$(field id disk get d-1)" "$(obraz -q disk list --order-by created_at | head -n 1)"
  look_inside
}

kill_and_start() {
  kill_daemon
  start_daemon
  expect "the disks after kill -9" "$disks" "$(count)"
  look_inside
}

delete_all() {
  call disk-delete
  expect "the disks that are left" 0 "$(count)"
  until [[ $(obraz --json status | json space.reclaimable_bytes) == 0 ]]; do :; done
  expect "what the image gives back" "$(obraz --json status | json space.used_bytes)" "$(field freed_bytes space base)"
}

check_store() {
  stop_daemon
  "$bin/obraz-store" check "$work/store"
}

step "start obrazd, import an image" prepare
step "make $disks disks of it" make_all
step "list them, and read one" list_all
step "kill -9" kill_and_start
step "delete them" delete_all
step "the store is clean" check_store
