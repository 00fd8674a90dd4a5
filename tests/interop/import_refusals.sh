#!/usr/bin/env bash
# import_refusals.sh BIN_DIR - files that are damaged, name other files, are encrypted or too large are refused in words
# a person can act on, and leave no trace.
set -euo pipefail
# shellcheck source=tests/interop/control_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/control_lib.sh"
begin "$@"

# refused_saying WORDS FILE [OPTION...]: INVALID_ARGUMENT of the source, with these words; nothing is left.
refused_saying() {
  local words=$1 file=$2
  shift 2
  refused INVALID_ARGUMENT source image import "$work/$file" --name i1 "$@"
  json error.message <"$work/refused.err" | grep -qi -e "$words" || fail "the refusal of $file does not say '$words'"
  expect "images" "" "$(names image)"
  expect "the bytes in use" 0 "$(field space.used_bytes status)"
}

make_files() {
  cd "$work"
  head -c 8M /dev/urandom >disk.raw
  qemu-img create -q -f qcow2 -F raw -b disk.raw backing.qcow2
  qemu-img create -q -f qcow2 -o data_file=data.raw external.qcow2 8M
  # Making these in earnest takes a password and seconds of key derivation; the headers say it all.
  qemu-img create -q -f qcow2 encrypted.qcow2 8M
  printf '\2' | dd of=encrypted.qcow2 bs=1 seek=35 conv=notrunc status=none
  { printf 'LUKS\272\276\0\2' && head -c 8M /dev/urandom; } >luks.img
  qemu-img create -q -f vmdk base.vmdk 8M
  qemu-img create -q -f vmdk -F vmdk -b base.vmdk child.vmdk
  qemu-img convert -f raw -O vmdk -o subformat=twoGbMaxExtentSparse disk.raw split.vmdk
  qemu-img convert -f raw -O vmdk -o subformat=monolithicFlat disk.raw flat.vmdk
  qemu-img create -q -f qcow2 large.qcow2 5T
  truncate -s 5T large.raw
  local format
  for format in qcow2 vmdk vpc vhdx vdi; do
    qemu-img convert -f raw -O "$format" disk.raw "cut.$format"
    truncate -s 6M "cut.$format"
    head -c 1M disk.raw >"noise.$format"
  done
  gzip -k disk.raw
}

named_others() {
  refused_saying "backing file" backing.qcow2
  refused_saying "another file" external.qcow2
  refused_saying "parent disk" child.vmdk
  refused_saying "names other files" split.vmdk
  refused_saying "one extent" split-s001.vmdk
  refused_saying "names other files" flat.vmdk
}

encrypted() {
  refused_saying encrypted encrypted.qcow2
  refused_saying encrypted luks.img
}

too_large() {
  refused_saying limit large.qcow2
  refused_saying limit large.raw
}

cut_off() {
  refused_saying truncated cut.qcow2
  refused_saying truncated cut.vmdk
  refused_saying "truncated" cut.vpc
  refused_saying truncated cut.vhdx
  refused_saying truncated cut.vdi
}

no_image() {
  local format
  for format in qcow2 vmdk vpc vhdx vdi; do
    refused_saying "damaged, truncated or of an unknown format" "noise.$format"
    refused_saying "no $format image" "noise.$format" --format "$format"
  done
  refused_saying gzip disk.raw.gz
}

contradiction() {
  refused INVALID_ARGUMENT format image import "$work/backing.qcow2" --name i1 --format vmdk
  refused INVALID_ARGUMENT format image import "$work/backing.qcow2" --name i1 --format raw
}

# The same name works for what is good.
good_after_all() {
  obraz image import "$work/noise.qcow2" --name i1 --format raw
  obraz image delete i1
}

step "start obrazd" start_daemon
step "make bad files" make_files
step "files that name other files" named_others
step "encrypted files" encrypted
step "files beyond the limit" too_large
step "files that are cut off" cut_off
step "files that are no images" no_image
step "a format that contradicts the file" contradiction
step "the name is free all the same" good_after_all
step "stop" stop_daemon
