#!/usr/bin/env bash
# fault_kill.sh BIN_DIR - kill -9 of a loaded daemon, again and again: what was flushed or acknowledged is there, what was not
# is old or new and never foreign, every call is wholly done or not at all, and the store is clean. fault_kill.py says what
# exactly is judged; here it gets its load from libnbd and `obraz`, then fio verifies a disk of its own across kills.
#
# $OBRAZ_KILLS: how many kills (default 15); about half a second each, any number.
# $OBRAZ_SEED: draws the load and the moments of the kills; the one in use is printed. The same seed repeats these draws, but
# not how the kernel schedules the processes.

set -euo pipefail
# shellcheck source=tests/interop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
begin "$@"

readonly kills=${OBRAZ_KILLS:-15}
readonly seed=${OBRAZ_SEED:-$((RANDOM * 32768 + RANDOM))}
readonly fio_kills=$((kills < 15 ? 1 : 3))
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly folder

kill_and_judge() {
  /usr/bin/python3 "$folder/fault_kill.py" "$bin" "$work" "$seed" "$kills"
}

# run_fio DISK OPTIONS...
run_fio() {
  local disk=$1
  shift
  (cd "$work" && timeout "$client_deadline_s" fio --name="$disk" --ioengine=nbd --uri="$(uri "$disk")" --size=64M \
    --bs=4k --iodepth=32 --verify=crc32c --verify_fatal=1 --output-format=terse "$@")
}

# fio writes the whole of disk v and flushes it; obrazd is killed while fio writes to a new disk w; then fio verifies v.
kill_under_fio() {
  local round random=$seed
  for ((round = 1; round <= fio_kills; ++round)); do
    run_fio v --rw=randwrite --randseed="$seed$round" --do_verify=0 --end_fsync=1
    new_disk w 64M
    run_fio w --rw=randwrite --randseed="$seed$round" --time_based --runtime="$client_deadline_s" --do_verify=0 \
      >"$work/fio.log" 2>&1 &
    local load=$!
    wait_until_written w
    random=$((random * 1103515245 % 2147483648 + 12345))
    sleep "0.$((100 + random / 65536 % 400))"  # the moment of the kill
    kill_daemon
    ! wait "$load" || fail "fio did not notice that obrazd was killed"
    "$bin/obraz-store" check "$work/store" --data
    # shellcheck disable=SC2119  # the script's arguments are not the daemon's
    start_daemon
    run_fio v --rw=randwrite --randseed="$seed$round" --verify_only
    obraz disk delete w
  done
}

# The disk is new, so the load is under way when it holds anything at all.
wait_until_written() {
  DISK=$1 python_client <<'EOT'
h = connect("disk/" + os.environ["DISK"])
half = 32 << 20
while h.pread(half, 0) == h.pread(half, half) == bytes(half):
    pass
h.shutdown()
EOT
}

say "seed $seed"
step "kill obrazd $kills times and judge what is there" kill_and_judge
tail -n 1 "$work/step.log" >&3
step "start obrazd" start_daemon
step "make a disk that fio fills" new_disk v 64M
step "fio verifies what it had flushed before each of $fio_kills kills" kill_under_fio
step "stop obrazd" stop_daemon
step "the store is clean" "$bin/obraz-store" check "$work/store" --data
