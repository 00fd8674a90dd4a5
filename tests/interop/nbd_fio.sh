#!/usr/bin/env bash
# nbd_fio.sh BIN_DIR - fio writes and verifies at random, several jobs with many requests in flight.

set -euo pipefail
# shellcheck source=tests/interop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
begin "$@"

if ! fio --enghelp 2>/dev/null | grep -qw nbd; then
  echo "nbd_fio.sh: this fio has no nbd engine; skipped"
  exit 77
fi

# verify NAME OPTIONS...: one run, over the disk of that name.
verify() {
  local disk=$1
  shift
  (cd "$work" && timeout 300 fio --name=verify --ioengine=nbd --uri="$(uri "$disk")" --size=64M --verify=crc32c \
    --verify_fatal=1 --randseed=1 --output-format=terse "$@")
}

step "start obrazd" start_daemon
step "make a disk" new_disk d 64M
step "and one for each of four jobs" new_disk e 256M
step "random writes of 4 KiB" verify d --rw=randwrite --bs=4k --iodepth=32
step "random writes of all sizes, not aligned" verify d --rw=randwrite --bsrange=512-256k --bs_unaligned=1 \
  --iodepth=16
step "reads and writes mixed, with flushes" verify d --rw=randrw --bs=16k --iodepth=32 --fsync=64
step "sequential writes of 1 MiB" verify d --rw=write --bs=1M --iodepth=8
step "random writes of 64 KiB, synced at the end" verify d --rw=randwrite --bs=64k --iodepth=16 --end_fsync=1
step "four jobs at once, each on its own part" verify e --rw=randwrite --bs=8k --iodepth=16 --numjobs=4 \
  --offset_increment=64M
step "stop obrazd" stop_daemon
