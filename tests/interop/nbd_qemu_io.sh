#!/usr/bin/env bash
# nbd_qemu_io.sh BIN_DIR - qemu-io writes, zeroes, discards and verifies patterns at every alignment.

set -euo pipefail
# shellcheck source=tests/interop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
begin "$@"

on_disk() {
  local -a commands=()
  local command
  for command in "$@"; do
    commands+=(-c "$command")
  done
  timeout "$client_deadline_s" qemu-io -f raw "${commands[@]}" "$(uri d)" | tee "$work/qemu-io.out"
  # qemu-io says so when a pattern is not there, and still ends with 0 in some versions.
  ! grep -Eiq 'failed|mismatch|error' "$work/qemu-io.out"
}

step "start obrazd" start_daemon
step "make a disk" new_disk d 64M
step "a new disk reads as zeros" on_disk 'read -P 0 0 64M'
step "write aligned and unaligned ranges" on_disk \
  'write -P 1 0 4k' 'write -P 2 4k 1M' 'write -P 3 10000 777' 'write -P 4 33554431 2' 'write -P 5 66060288 1M' \
  'write -f -P 6 2M 64k' 'flush'
step "read them back, in another session" on_disk \
  'read -P 1 0 4k' 'read -P 2 4k 5904' 'read -P 3 10000 777' 'read -P 2 10777 1041895' 'read -P 4 33554431 2' \
  'read -P 0 33554433 1000' 'read -P 5 66060288 1M' 'read -P 6 2M 64k'
step "write zeroes, with and without giving up the space" on_disk \
  'write -P 7 8M 4M' 'write -z 8M 1M' 'write -z -u 9M 1M' 'write -z -f 10485761 1000' \
  'read -P 0 8M 2M' 'read -P 7 10M 1' 'read -P 0 10485761 1000' 'read -P 7 10486761 2096151'
step "discard" on_disk 'write -P 8 16M 1M' 'discard 16M 512k' 'read -P 0 16M 512k' 'read -P 8 17301504 512k'
step "many requests in flight" on_disk \
  'aio_write -P 9 20M 128k' 'aio_write -P 10 21M 128k' 'aio_write -P 11 22M 128k' 'aio_write -P 12 23M 1M' \
  'aio_flush' 'aio_read -P 9 20M 128k' 'aio_read -P 10 21M 128k' 'aio_read -P 11 22M 128k' 'aio_read -P 12 23M 1M' \
  'aio_flush'
step "stop obrazd" stop_daemon
step "start it again" start_daemon
step "everything is still there" on_disk \
  'read -P 1 0 4k' 'read -P 3 10000 777' 'read -P 5 66060288 1M' 'read -P 7 10486761 2096151' 'read -P 0 16M 512k' \
  'read -P 12 23M 1M'
step "stop obrazd" stop_daemon
