#!/usr/bin/env bash
# trash.sh BIN_DIR - what is deleted in a folder with a trash window can be had back with all its bytes, also after kill -9; it
# is gone when it is purged or its time has come; --permanently passes it by; --force ends the sessions of clients first.
set -euo pipefail
# shellcheck source=tests/interop/control_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/control_lib.sh"
begin "$@"

readonly pattern=0x5a

trash() {
  obraz --json trash list "$@" | python3 -c '
import json, sys
print(*("%s/%s" % (r["kind"], r["name"]) for r in json.load(sys.stdin)["resources"]))'
}

has_pattern() {
  qemu-io -r -f raw -c "read -P $pattern 1M 64k" "$1" >"$work/qemu-io.log"
  ! grep -q 'Pattern verification failed' "$work/qemu-io.log" || fail "$1 does not hold what was written" "$work/qemu-io.log"
}

start_daemon
obraz folder create --name f --trash 24h >"$work/out"
expect "the window of the folder" 86400 "$(field trash_seconds folder get f)"
obraz disk create --folder f --name d --size 8M >"$work/out"
qemu-io -f raw -c "write -P $pattern 1M 64k" -c flush "$(obraz disk uri --folder f d)" >"$work/qemu-io.log"
obraz image create --folder f --name i --from-disk d --family fam >"$work/out"
obraz snapshot create --folder f --name s --disk d >"$work/out"

# Deleted: nothing of it is to be seen, by any name.
id=$(field id disk get --folder f d)
obraz disk delete --folder f d >"$work/out"
obraz image delete --folder f i >"$work/out"
refused NOT_FOUND disk_id disk get --folder f d
refused NOT_FOUND disk_id disk get "$id"
refused NOT_FOUND family image latest --folder f --family fam
expect "the disks of the folder" "[]" "$(field disks disk list --folder f)"
expect "the trash of the folder" "image/i disk/d" "$(trash --folder f)"
expect "the trash of another folder" "" "$(trash)"
expect "disks in use" 1 "$(field used.disks folder get f)"
! nbdinfo --size "nbd+unix:///$id?socket=$work/store/nbd.sock" >"$work/out" 2>&1 || fail "an export of the trash is served"

# Killed and started again it is still there, and comes back as it was.
kill_daemon
start_daemon
expect "the trash after a crash" "image/i disk/d" "$(trash --folder f)"
obraz trash restore --folder f disk/d >"$work/out"
obraz trash restore --folder f image/i --name j >"$work/out"
expect "the trash after restoring" "" "$(trash --folder f)"
expect "the id of the disk" "$id" "$(field id disk get --folder f d)"
expect "the name of the image" j "$(field name image latest --folder f --family fam)"
has_pattern "$(obraz disk uri --folder f d)"

# Purged it gives its space back.
used() { field space.used_bytes status; }
obraz disk create --folder f --name large --size 64M >"$work/out"
before=$(used)
qemu-io -f raw -c "write -P 1 0 16M" -c flush "$(obraz disk uri --folder f large)" >"$work/qemu-io.log"
(($(used) - before == 16777216)) || fail "16 MiB were written, and $(($(used) - before)) bytes taken"
obraz disk delete --folder f large >"$work/out"
(($(used) - before == 16777216)) || fail "what is in the trash has given up its space"
obraz trash purge --folder f disk/large >"$work/out"
until (($(used) == before)); do :; done
refused NOT_FOUND resource_id trash restore --folder f disk/large

# Past it.
obraz snapshot delete --folder f s --permanently >"$work/out"
expect "the trash" "" "$(trash --folder f)"
refused INVALID_ARGUMENT trash_seconds folder update f --trash 1000d
if obraz folder update f --trash soon >"$work/out" 2>&1; then fail "a window of 'soon'"; fi

# Its time comes.
obraz folder update f --trash 1s >"$work/out"
obraz image delete --folder f j >"$work/out"
until [[ -z $(trash --folder f) ]]; do :; done
grep -q 'Delete image j from the trash' <(obraz operation list) || fail "no operation tells that the image went"

# A client has it attached: refused, unless it is sent away.
mkfifo "$work/hold"
qemu-io -f raw "$(obraz disk uri --folder f d)" <"$work/hold" >"$work/qemu-io.log" 2>&1 &
client=$!
exec 9>"$work/hold"
printf 'read 1M 4k\n' >&9
until [[ $(field attachments disk get --folder f d 2>"$work/null") == *client* ]]; do :; done
refused FAILED_PRECONDITION disk_id disk delete --folder f d
obraz folder update f --trash 1h >"$work/out"
obraz disk delete --folder f d --force >"$work/out"
expect "the trash" "disk/d" "$(trash --folder f)"
expect "sessions" 0 "$(obraz --json status | json sessions)"
exec 9>&-
wait "$client" || true
obraz trash restore --folder f disk/d >"$work/out"
has_pattern "$(obraz disk uri --folder f d)"
stop_daemon
echo "trash: good"
