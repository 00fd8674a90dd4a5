#!/usr/bin/env bash
# import_export_again.sh BIN_DIR - an exported file, raw or qcow2, is whole, sparse, new, and can be imported again.
set -euo pipefail
# shellcheck source=tests/interop/control_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/control_lib.sh"
begin "$@"

import_disk() {
  truncate -s 256M "$work/disk.raw"
  head -c 5M /dev/urandom | dd of="$work/disk.raw" bs=1M seek=100 conv=notrunc status=none
  obraz image import "$work/disk.raw" --name i1
}

as_raw() {
  obraz image export i1 "$work/out.raw"
  cmp "$work/disk.raw" "$work/out.raw"
  (($(du -k "$work/out.raw" | cut -f 1) <= 6 * 1024)) || fail "the raw file is not sparse"
}

as_qcow2() {
  obraz image export i1 "$work/out.qcow2" --format qcow2
  qemu-img check -q "$work/out.qcow2"
  qemu-img compare -q -f raw -F qcow2 "$work/disk.raw" "$work/out.qcow2"
  (($(stat -c %s "$work/out.qcow2") <= 8 * 1024 * 1024)) || fail "the qcow2 file holds zeros"
}

and_back() {
  obraz image import "$work/out.qcow2" --name i2
  obraz image export i2 "$work/again.raw"
  cmp "$work/disk.raw" "$work/again.raw"
}

not_over_another() {
  refused ALREADY_EXISTS path image export i1 "$work/out.raw"
  refused ALREADY_EXISTS path image export i1 "$work/out.qcow2" --format qcow2
  refused NOT_FOUND path image export i1 "$work/nosuch/out.raw"
  cmp "$work/disk.raw" "$work/out.raw"
  [[ -z $(find "$work" -name '*.partial') ]] || fail "a partial file was left"
}

step "start obrazd" start_daemon
step "import a disk" import_disk
step "export it as raw" as_raw
step "export it as qcow2" as_qcow2
step "import that again" and_back
step "what is there is not overwritten" not_over_another
step "stop" stop_daemon
