#!/usr/bin/env bash
# nbd_copy.sh BIN_DIR - nbdcopy copies onto a disk and back over several connections at once.

set -euo pipefail
# shellcheck source=tests/interop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
begin "$@"

make_file() {
  truncate -s 128M "$work/in.raw"
  dd if=/dev/urandom of="$work/in.raw" bs=1M seek=1 count=40 conv=notrunc
  dd if=/dev/urandom of="$work/in.raw" bs=1M seek=100 count=20 conv=notrunc
}
copy_in() { nbdcopy --connections=4 --requests=64 --flush --destination-is-zero "$work/in.raw" "$(uri d)"; }
copy_out() {
  nbdcopy --connections=4 --requests=64 "$(uri d)" "$work/out.raw"
  cmp "$work/in.raw" "$work/out.raw"
}
disk_to_disk() {
  nbdcopy --connections=4 "$(uri d)" "$(uri e)"
  nbdcopy --connections=1 "$(uri e)" "$work/out2.raw"
  cmp "$work/in.raw" "$work/out2.raw"
}

step "start obrazd" start_daemon
step "make a disk" new_disk d 128M
step "and another" new_disk e 128M
step "make a file" make_file
step "copy it onto the disk over four connections" copy_in
step "copy it back, and compare" copy_out
step "copy one disk to the other, and compare" disk_to_disk
step "stop obrazd" stop_daemon
