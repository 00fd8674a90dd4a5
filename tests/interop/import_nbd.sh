#!/usr/bin/env bash
# import_nbd.sh BIN_DIR - an import reads from an NBD server: of another make, and the daemon's own exports.
set -euo pipefail
# shellcheck source=tests/interop/control_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/control_lib.sh"
begin "$@"

make_disk() {
  truncate -s 64M "$work/disk.raw"
  head -c 3M /dev/urandom | dd of="$work/disk.raw" bs=1M seek=20 conv=notrunc status=none
  qemu-img convert -f raw -O qcow2 "$work/disk.raw" "$work/disk.qcow2"
}

expect_disk() {
  obraz image export "$1" "$work/back.raw"
  cmp "$work/disk.raw" "$work/back.raw"
  rm "$work/back.raw"
}

# qemu-nbd opens the file, so it is the one to read the format.
from_qemu() {
  qemu-nbd --fork --read-only --persistent --socket="$work/qemu.sock" --pid-file="$work/qemu.pid" -f qcow2 "$work/disk.qcow2"
  obraz image import "nbd+unix:///?socket=$work/qemu.sock" --name from-qemu
  kill "$(cat "$work/qemu.pid")"
  expect_disk from-qemu
  local held
  held=$(field storage_size image get from-qemu)
  ((held <= 4 * 1024 * 1024)) || fail "holes were read: the image holds $held bytes"
}

from_nbdkit() {
  nbdkit -U "$work/nbdkit.sock" -P "$work/nbdkit.pid" --no-sr -r file "$work/disk.raw"
  obraz image import "nbd+unix:///?socket=$work/nbdkit.sock" --name from-nbdkit --format raw
  kill "$(cat "$work/nbdkit.pid")"
  expect_disk from-nbdkit
}

from_itself() {
  obraz image import "nbd+unix:///image/from-qemu?socket=$work/store/nbd.sock" --name from-itself
  expect_disk from-itself
}

not_there() {
  refused NOT_FOUND source image import "nbd+unix:///?socket=$work/nosuch.sock" --name none
  refused INVALID_ARGUMENT format image import "nbd+unix:///?socket=$work/store/nbd.sock" --name none --format qcow2
}

step "start obrazd" start_daemon
step "make a disk" make_disk
step "from qemu-nbd" from_qemu
step "from nbdkit, without structured replies" from_nbdkit
step "from an export of the daemon itself" from_itself
step "from nowhere" not_there
step "stop" stop_daemon
