#!/usr/bin/env bash
# nbd_qemu_img.sh BIN_DIR - qemu-img copies a sparse file onto a disk and back; the holes stay holes.

set -euo pipefail
# shellcheck source=tests/interop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
begin "$@"

make_sparse_file() {
  truncate -s 64M "$work/in.raw"
  dd if=/dev/urandom of="$work/in.raw" bs=64k seek=3 count=5 conv=notrunc
  dd if=/dev/urandom of="$work/in.raw" bs=4096 seek=5000 count=1 conv=notrunc
  dd if=/dev/urandom of="$work/in.raw" bs=1M seek=62 count=2 conv=notrunc
}
copy_in() { qemu-img convert -n -f raw -O raw "$work/in.raw" "$(uri d)"; }
same_in_place() { qemu-img compare -f raw -F raw "$work/in.raw" "$(uri d)"; }
copy_out() {
  qemu-img convert -f raw -O raw "$(uri d)" "$work/out.raw"
  cmp "$work/in.raw" "$work/out.raw"
}
# Bytes of data as the server tells them: at most what was written, rounded up to clusters.
mapped_bytes() {
  qemu-img map --output=json -f raw "$(uri d)" |
    python3 -c 'import json, sys; print(sum(e["length"] for e in json.load(sys.stdin) if e["data"]))'
}
few_are_mapped() {
  local bytes
  bytes=$(mapped_bytes)
  ((bytes >= 5 * 65536 + 4096 + 2097152)) || fail "qemu-img sees only $bytes bytes of data"
  ((bytes <= 12 * 65536 + 2097152)) || fail "qemu-img sees $bytes bytes of data; the holes are lost"
}
size_is_told() {
  expect "the size" 67108864 "$(qemu-img info --output=json -f raw "$(uri d)" |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["virtual-size"])')"
}

step "start obrazd" start_daemon
step "make a disk" new_disk d 64M
step "qemu-img tells its size" size_is_told
step "make a sparse file" make_sparse_file
step "copy it onto the disk" copy_in
step "compare" same_in_place
step "the holes have stayed holes" few_are_mapped
step "copy it back, and compare" copy_out
step "stop obrazd" stop_daemon
