#!/usr/bin/env bash
# import_formats.sh BIN_DIR - a disk comes back byte for byte from every format that qemu-img writes, zeros take no space.
set -euo pipefail
# shellcheck source=tests/interop/control_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/control_lib.sh"
begin "$@"

readonly size=$((96 * 1024 * 1024)) data=$((9 * 1024 * 1024))

# Data at the beginning, in the middle and at the end; holes between.
make_disk() {
  truncate -s "$size" "$work/disk.raw"
  head -c 5M /dev/urandom | dd of="$work/disk.raw" bs=1M conv=notrunc status=none
  head -c 3M /dev/urandom | dd of="$work/disk.raw" bs=4K seek=12345 conv=notrunc status=none
  head -c 1M /dev/urandom | dd of="$work/disk.raw" bs=1M seek=95 conv=notrunc status=none
}

# import_as NAME FORMAT CONVERT_OPTIONS...
import_as() {
  local name=$1 format=$2 held
  shift 2
  qemu-img convert -f raw "$@" "$work/disk.raw" "$work/$name"
  obraz image import "$work/$name" --name "$name"
  obraz image export "$name" "$work/back.raw"
  # vpc rounds the size up; what is beyond the disk is zeros.
  cmp -n "$size" "$work/disk.raw" "$work/back.raw"
  cmp -i "$size:0" -n "$(($(stat -c %s "$work/back.raw") - size))" "$work/back.raw" /dev/zero
  held=$(field storage_size image get "$name")
  ((held >= data && held <= data + 1024 * 1024)) || fail "$name holds $held bytes for $data of data"
  obraz image import "$work/$name" --name "$name-given" --format "$format"
  obraz image delete "$name-given"
  rm "$work/$name" "$work/back.raw"
}

step "start obrazd" start_daemon
step "make a disk of $size bytes with $data of data" make_disk
step "raw" import_as raw raw -O raw
step "qcow2" import_as qcow2 qcow2 -O qcow2
step "qcow2, compressed" import_as qcow2c qcow2 -c -O qcow2
step "qcow2, version 2" import_as qcow2v2 qcow2 -O qcow2 -o compat=0.10
step "vmdk, monolithicSparse" import_as vmdk vmdk -O vmdk
step "vmdk, streamOptimized" import_as vmdk-stream vmdk -O vmdk -o subformat=streamOptimized
step "vpc, dynamic" import_as vpc vpc -O vpc
step "vpc, fixed" import_as vpc-fixed vpc -O vpc -o subformat=fixed
step "vhdx" import_as vhdx vhdx -O vhdx
step "vdi" import_as vdi vdi -O vdi
step "stop" stop_daemon
