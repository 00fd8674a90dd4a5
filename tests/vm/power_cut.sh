#!/usr/bin/env bash
# power_cut.sh BIN_DIR - cuts the power below the file system, with the kernel's own I/O: what was acknowledged is there.
#
# In a virtual machine, obrazd keeps its store on a device whose every write the kernel records (dm-log-writes). Clients
# write, flush, make and delete disks, snapshots and images, the daemon is stopped and killed meanwhile, and after each
# acknowledged flush or call a mark goes into the record. Then, on the host, the record is played back up to many places
# of its choice: to a mark, to a flush, or to a flush less any part of the writes it was the first to cover. Each time the
# file system is mounted, which recovers its journal, obraz-store check must find nothing, and a daemon must serve exactly
# what the history of the clients allows at that place (tests/vm/judge.cpp).
#
#   OBRAZ_VM_LAYOUTS   of these: ext4, xfs (the store in files), raw (meta and data on the bare device), flakey (ext4 on a
#                      device that at some moment silently loses all later writes). Default: ext4, or raw where this user
#                      cannot mount a file; in the long form all of them
#   OBRAZ_VM_ROUNDS    the long form: so many rounds of every layout, each with a seed and a longer workload of its own
#   OBRAZ_VM_POINTS    cuts of each round; 0: every one there is, at marks, flushes, FUA writes and with torn writes before
#                      each flush. Default 32, or 12 where this user cannot mount; in the long form 200
#   OBRAZ_VM_SEED      of the first round, default 1
#   OBRAZ_QEMU_ACCEL   tcg (default) or kvm

set -euo pipefail

# In a mount namespace of our own: whatever happens, no mount and no loop device outlives this script.
if ((EUID == 0)) && [[ -z ${OBRAZ_VM_NAMESPACE:-} ]] && unshare --mount true 2>/dev/null; then
  exec env OBRAZ_VM_NAMESPACE=own unshare --mount --propagation private bash "$0" "$@"
fi

vm=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/interop/lib.sh
source "$vm/../interop/lib.sh"
PATH=$PATH:/usr/sbin:/sbin
begin "$@"

rounds=${OBRAZ_VM_ROUNDS:-0}
first_seed=${OBRAZ_VM_SEED:-1}
readonly device_mib=512
if ((rounds > 0)); then
  points=${OBRAZ_VM_POINTS:-200}
  workload="--phases 4 --calls 24 --flushes 300"
  vm_deadline_s=900
else
  points=${OBRAZ_VM_POINTS:-32}
  workload="--phases 3 --calls 6 --flushes 40"
fi
# shellcheck source=tests/vm/lib.sh
source "$vm/lib.sh"

can_mount() {
  [[ -n ${OBRAZ_VM_NAMESPACE:-} ]] || return 1
  truncate -s 8M "$work/probe.img"
  mke2fs -q -F -t ext4 "$work/probe.img"
  mkdir -p "$work/probe"
  mount -o loop "$work/probe.img" "$work/probe" && umount "$work/probe"
}

# The images that are written again for each cut are in memory where that is possible: no test of this is one of the disk
# of this machine, and half of the time would go into emptying them.
use_images() {
  images=$work/images
  mkdir -p "$images"
  [[ $mounting == no ]] || mount -t tmpfs -o size=2G tmpfs "$images"
}

# The namespace takes the memory with it; after a failure the images are to be looked at. base.img is what a cut without
# torn writes has left, cut.img what became of it.
put_images_away() {
  mountpoint -q "$images" || return 0
  (($1 == 0)) || cp --sparse=always "$images"/*.img "$work/" || true
  umount --lazy "$images"
}

# $work/device.img: what the guest starts with; $images/base.img: the same, for the replay.
make_device() {
  local layout=$1
  rm -rf "$work"/{device,log}.img "$images"/*.img "$work/store" "$work/frozen" "$work/history"
  mkdir "$work/store"
  truncate -s "${device_mib}M" "$work/device.img"
  case $layout in
    xfs) mkfs.xfs -q -f "$work/device.img" ;;
    raw)
      # A store that was formatted as files, moved to where the bare device will have it.
      start_daemon --data-size 256M --journal-size 1M
      end_daemon
      meta_bytes=$(stat --format=%s "$work/store/meta")
      truncate -s "$((meta_bytes + $(stat --format=%s "$work/store/data")))" "$work/device.img"
      dd if="$work/store/meta" of="$work/device.img" bs=1M conv=notrunc,sparse status=none
      dd if="$work/store/data" of="$work/device.img" bs=4096 seek=$((meta_bytes / 4096)) conv=notrunc,sparse status=none
      rm -rf "$work/store"
      mkdir "$work/store"
      ;;
    *) mke2fs -q -F -t ext4 -m 0 -E lazy_itable_init=0,lazy_journal_init=0 "$work/device.img" ;;
  esac
  cp --sparse=always "$work/device.img" "$images/base.img"
}

# Puts the store of $images/cut.img into $work/store.
attach() {
  local size
  case $1 in
    raw)
      [[ $mounting == no ]] || mount -t tmpfs -o size=2G tmpfs "$work/store"
      size=$(stat --format=%s "$images/cut.img")
      dd if="$images/cut.img" of="$work/store/meta" bs=64K count="$meta_bytes" iflag=count_bytes conv=sparse status=none
      dd if="$images/cut.img" of="$work/store/data" bs=64K skip="$meta_bytes" iflag=skip_bytes conv=sparse status=none
      truncate -s "$meta_bytes" "$work/store/meta"
      truncate -s $((size - meta_bytes)) "$work/store/data"
      ;;
    flakey) mount -t ext4 -o loop "$images/cut.img" "$work/store" ;;
    *) mount -t "$1" -o loop "$images/cut.img" "$work/store" ;;
  esac
}

detach() {
  local tries
  case $1-$mounting in
    raw-no) rm "$work"/store/* ;;
    *)
      # A ring of io_uring lets go of its files some time after its process has ended, and nothing tells when.
      for ((tries = 0; tries < 300; ++tries)); do
        ! umount "$work/store" || return 0
        sleep 0.1
      done
      fail "the store cannot be unmounted"
      ;;
  esac
}

# As stop_daemon, but the daemon gets one signal: `timeout` sends a second one to its process group, which with a store in
# memory may come when the daemon has nearly ended.
end_daemon() {
  local status=0
  kill -TERM "$(daemon_process)"
  wait "$daemon_pid" || status=$?
  daemon_pid=
  ((status == 0)) || fail "obrazd ended with status $status after SIGTERM" "$work/obrazd-$daemon_starts.log"
}

# judge LAYOUT BEFORE AFTER: $images/cut.img is what the power cut has left.
judge() {
  local layout=$1 before=$2 after=$3
  attach "$layout"
  # Before the first mark there may be no store yet, or half of one: that must not keep a daemon from making it.
  if ((before > 0)); then
    "$bin/obraz-store" check "$work/store" --data || fail "obraz-store check finds problems"
  fi
  start_daemon --data-size 256M --journal-size 1M
  "$bin/power_cut_judge" "$work/history" "$before" "$after" "$work/store/nbd.sock" "$work/frozen" ||
    fail "that is not what may be there after mark $before and before mark $after"
  end_daemon
  detach "$layout"
}

replay() {
  local layout=$1 seed=$2 kind keep tail before after done=0
  "$bin/power_cut_replay" points "$work/log.img" "$seed" "$points" >"$work/points"
  (($(wc -l <"$work/points") >= (points > 0 ? points : 100))) || fail "the log has too few places to cut at" "$work/points"
  while read -r kind keep tail before after; do
    echo "cut: $kind at entry $keep (to $tail), after mark $before, before mark $after"
    "$bin/power_cut_replay" apply "$work/log.img" "$images/base.img" "$done" "$keep"
    done=$keep
    cp --sparse=always "$images/base.img" "$images/cut.img"
    "$bin/power_cut_replay" tear "$work/log.img" "$images/cut.img" "$keep" "$tail" $((seed + keep))
    judge "$layout" "$before" "$after"
  done <"$work/points"
}

one_round() {
  local layout=$1 seed=$2 work_options="$workload --seed $2" words='' marks
  step "$layout, seed $seed: make the device" make_device "$layout"
  if [[ $layout == flakey ]]; then
    # The moment is a mark that the workload reaches in any case.
    marks=$((20 + seed * 37 % 60))
    step "$layout, seed $seed: clients at work until mark $marks, then all is lost" \
      run_guest "$layout" "$work_options --drop-after $marks"
    mv "$work/device.img" "$images/cut.img"
    step "$layout, seed $seed: what was acknowledged is there" judge "$layout" "$marks" 0
  else
    [[ $layout != raw ]] || words="cut.meta=$((meta_bytes / 512))"
    step "$layout, seed $seed: clients at work in the guest" run_guest "$layout" "$work_options" "$words"
    step "$layout, seed $seed: power cuts, the store judged after each" replay "$layout" "$seed"
    say "    $(grep -c '^mark' "$work/history") marks, $(wc -l <"$work/points") cuts"
  fi
}

layouts=${OBRAZ_VM_LAYOUTS:-}
mounting=yes
can_mount >"$work/probe.log" 2>&1 || mounting=no
if [[ -z $layouts ]]; then
  if [[ $mounting == no ]]; then
    say "This user cannot mount a file: the store is on the bare device only."
    layouts=raw
    ((rounds > 0)) || points=${OBRAZ_VM_POINTS:-12}  # On a disk each takes several times as long as in memory.
  elif ((rounds > 0)); then
    layouts="ext4 xfs raw flakey"
  else
    layouts=ext4
  fi
fi

use_images
# clean_up goes by the status that it finds.
trap 'status=$?; set +e; put_images_away "$status"; (exit "$status"); clean_up' EXIT
step "make the virtual machine" make_initramfs
for ((round = 0; round < (rounds > 0 ? rounds : 1); ++round)); do
  for layout in $layouts; do
    one_round "$layout" $((first_seed + round))
  done
done
