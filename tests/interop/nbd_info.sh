#!/usr/bin/env bash
# nbd_info.sh BIN_DIR - nbdinfo sees what a disk can do, what a frozen volume cannot, and all exports in the list.

set -euo pipefail
# shellcheck source=tests/interop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
begin "$@"

# told URI KEY...: those members of what nbdinfo says of the export, one line.
told() {
  nbdinfo --json "$1" | python3 -c '
import json, sys
export = json.load(sys.stdin)["exports"][0]
print(*(export[key] for key in sys.argv[1:]))' "${@:2}"
}
a_disk_can() {
  nbdinfo "$(uri d)"
  expect "size" 67108864 "$(told "$(uri d)" export-size)"
  expect "what a disk can" "False True True True True True True True True" "$(told "$(uri d)" is_read_only can_flush \
    can_fua can_trim can_zero can_fast_zero can_df can_cache can_multi_conn)"
  expect "block sizes" "1 4096 33554432" "$(told "$(uri d)" block_size_minimum block_size_preferred block_size_maximum)"
  expect "contexts" "['base:allocation']" "$(told "$(uri d)" contexts)"
}
a_snapshot_cannot() {
  nbdinfo "$(export_uri snapshot/s)"
  expect "what a snapshot can" "True True False False False True" "$(told "$(export_uri snapshot/s)" is_read_only \
    can_flush can_trim can_zero can_fast_zero can_multi_conn)"
}
all_are_listed() {
  nbdinfo --list "nbd+unix://?socket=$work/store/nbd.sock" | tee "$work/list"
  for name in disk/d disk/e snapshot/s; do
    grep -q "^export=\"$name\":" "$work/list" || fail "$name is not in the list"
  done
}
ids_are_names() {
  local id
  id=$(obraz --json disk get d | python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])')
  expect "the size by id" 67108864 "$(nbdinfo --size "$(export_uri "$id")")"
}
map_shows_data_and_holes() {
  qemu-io -f raw -c 'write -P 1 1M 64k' "$(uri e)"
  # offset length type description
  nbdinfo --map "$(uri e)" | awk '{print $1, $2, $3}' | tee "$work/map"
  expect "the map" "0 1048576 3,1048576 65536 0,1114112 7274496 3" "$(paste -s -d, "$work/map")"
}
# What an attached client has read and written is told of it.
traffic_is_counted() {
  python_client <<'END'
h = connect("disk/d")
h.pread(8192, 0)
h.pwrite(bytes(range(256)) * 16, 4096)
attachments = obraz("disk", "get", "d")["attachments"]
assert [(a["bytes_read"], a["bytes_written"]) for a in attachments] == [(8192, 4096)], attachments
h.shutdown()
END
}

step "start obrazd" start_daemon
step "make a disk" new_disk d 64M
step "and another" new_disk e 8M
step "and a snapshot" obraz snapshot create --name s --disk d
step "nbdinfo sees what a disk can do" a_disk_can
step "and what a snapshot cannot" a_snapshot_cannot
step "all exports are listed" all_are_listed
step "what a client read and wrote is counted" traffic_is_counted
step "an id is a name, too" ids_are_names
step "the map shows data and holes" map_shows_data_and_holes
step "stop obrazd" stop_daemon
