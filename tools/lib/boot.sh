# shellcheck shell=bash
# Steps with their time, a daemon of our own, and guests that boot from its disks: what tools/quickstart and
# tests/interop/boot.sh have in common. To be sourced under `set -euo pipefail`.
#
#   begin_work NAME FOLDER        first; makes $work below FOLDER, and cleans up when the script ends
#   step SENTENCE COMMAND...      runs COMMAND and prints SENTENCE with the time taken; a failure ends the script
#   start_daemon [OPTIONS], stop_daemon    $bin/obrazd on $work/store
#   daemon_process, kill_daemon            its process id; kill -9
#   obraz ARGUMENTS...            the client, talking to that daemon
#   boot_guest DISK               boots an image of tools/make-boot-image; sets guest_found and guest_marker
#
# The caller sets $bin, the folder of obrazd and obraz. Nothing here sleeps: daemons are awaited by what they print,
# guests by the end of qemu, and each has a deadline after which it is killed and the script fails.

# The processor is emulated unless asked otherwise: hardware acceleration that is there but does not work, as inside
# some virtual machines, would hang the guest instead of being refused.
readonly qemu_accelerator=${OBRAZ_QEMU_ACCEL:-tcg}
readonly daemon_ready_deadline_s=30
readonly daemon_stop_deadline_s=30
readonly daemon_life_deadline_s=1800  # A safety net for when this script itself is killed.
readonly guest_deadline_s=120
readonly log_tail_lines=25
# A Unix socket's path has at most 107 characters, and the store puts control.sock into itself.
readonly work_path_limit=$((107 - 19))

# The caller's, before or after it sources this.
: "${bin:=}"

work=
current_step=
current_log=
daemon_pid=
daemon_starts=0
guest_pid=
guest_boots=0
guest_found=   # absent | present: whether the guest found a marker on its root file system
guest_marker=  # the text it found, or wrote when it found none

# A step's output goes to its log; these two are where people read.
exec 3>&1 4>&2

say() {
  printf '%s\n' "$*" >&3
}

# fail SENTENCE [LOG]: LOG is the one that explains it, if not that of the step.
fail() {
  local log=${2:-$current_log}
  {
    [[ -z $current_step ]] || printf 'FAILED\n'
    printf '%s: %s\n' "${0##*/}" "$1"
    if [[ -s $log ]]; then
      printf -- '--- the end of %s\n' "$log"
      tail -n "$log_tail_lines" "$log" | tr -d '\r'
    fi
  } >&4
  current_step=
  exit 1
}

# end_process PID: at once, and waits for its end. PID is a `timeout` of ours, which passes the signal on.
end_process() {
  kill -TERM "$1" 2>/dev/null || true
  wait "$1" 2>/dev/null || true
}

clean_up() {
  local status=$?
  trap - EXIT INT TERM HUP
  [[ -z $guest_pid ]] || end_process "$guest_pid"
  [[ -z $daemon_pid ]] || end_process "$daemon_pid"
  if ((status == 0)); then
    rm -rf "$work"
    exit 0
  fi
  # A command failed that nobody expected to: `set -e` brought us here.
  if [[ -n $current_step ]]; then
    local sentence="this step ended with status $status"
    ((status <= 128)) || sentence="interrupted"
    (fail "$sentence") || true
  fi
  [[ -z $work ]] || printf 'logs and store are kept in %s\n' "$work" >&4
  exit "$status"
}

begin_work() {
  local name=$1 folder=$2
  mkdir -p "$folder"
  folder=$(cd "$folder" && pwd)
  # ".XXXXXX" is seven characters, the slash one more.
  ((${#folder} + ${#name} + 8 <= work_path_limit)) || folder=/var/tmp
  work=$(mktemp -d "$folder/$name.XXXXXX")
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
}

now_us() {
  printf '%s' "${EPOCHREALTIME//[!0-9]/}"
}

step() {
  local sentence=$1 began_us duration_us
  shift
  current_step=$sentence
  current_log=$work/step.log
  printf '%-72s' "$sentence" >&3
  began_us=$(now_us)
  "$@" >"$current_log" 2>&1
  duration_us=$(($(now_us) - began_us))
  printf '%4d.%03d s\n' $((duration_us / 1000000)) $((duration_us / 1000 % 1000)) >&3
  current_step=
}

obraz() {
  "$bin/obraz" --control "$work/store/control.sock" "$@"
}

start_daemon() {
  local log=$work/obrazd-$((++daemon_starts)).log
  : >"$log"
  timeout --kill-after="$daemon_stop_deadline_s" "$daemon_life_deadline_s" \
    "$bin/obrazd" --store "$work/store" "$@" >"$log" 2>&1 3>&- 4>&- &
  daemon_pid=$!
  # tail follows the log until the line is there, the daemon has ended, or the deadline has passed.
  grep -qw ready < <(exec 3>&- 4>&-
    timeout "$daemon_ready_deadline_s" tail --lines=+1 --follow --sleep-interval=0.1 --pid="$daemon_pid" "$log") || {
    kill -0 "$daemon_pid" 2>/dev/null || fail "obrazd ended before it was ready" "$log"
    fail "obrazd was not ready within $daemon_ready_deadline_s s" "$log"
  }
  obraz status || fail "obrazd says it is ready, but obraz status fails"
}

# The store must be closed cleanly: exit status 0 within the deadline.
stop_daemon() {
  local status=0
  kill -TERM "$daemon_pid"
  wait "$daemon_pid" || status=$?
  daemon_pid=
  ((status == 0)) || fail "obrazd ended with status $status after SIGTERM" "$work/obrazd-$daemon_starts.log"
}

# The process that start_daemon waits for is a `timeout`, whose only child is the daemon.
daemon_process() {
  pgrep --parent "$daemon_pid" --exact obrazd
}

kill_daemon() {
  kill -KILL "$(daemon_process)"
  wait "$daemon_pid" || true
  daemon_pid=
}

# Makes $work/boot.qcow2, a compressed image as they are distributed.
make_boot_qcow2() {
  "$(dirname "${BASH_SOURCE[0]}")/../make-boot-image" "$work/boot.raw"
  qemu-img convert -f raw -O qcow2 -c "$work/boot.raw" "$work/boot.qcow2"
  rm "$work/boot.raw"
}

# guest_line PREFIX CONSOLE: what follows PREFIX in the guest's lines; fails if there is no such line.
guest_line() {
  tr -d '\r' <"$2" | sed -n "s/^OBRAZ-GUEST: $1//p" | grep .
}

boot_guest() {
  local disk=$1 status=0 recipe text
  local -a drive
  local console=$work/console-$((++guest_boots))-$disk.log
  recipe=$(obraz disk attach-args "$disk" --for qemu)
  # The recipe is one line quoted for a shell. It is split like one, but nothing in it is expanded.
  mapfile -d '' -t drive < <(python3 -c '
import shlex, sys
sys.stdout.write("".join(word + "\0" for word in shlex.split(sys.argv[1])))' "$recipe")
  ((${#drive[@]} > 0)) || fail "obraz disk attach-args $disk --for qemu printed nothing"

  : >"$console"
  # A kernel that panics, and firmware that finds nothing to boot, reboot at once, and -no-reboot makes that the end of
  # qemu. There is no VGA, network or USB, whose initialisation would take time.
  timeout --kill-after=5 "$guest_deadline_s" \
    qemu-system-x86_64 -accel "$qemu_accelerator" -m 256 -no-user-config -nodefaults -display none \
    -no-reboot -boot reboot-timeout=0 -serial "file:$console" "${drive[@]}" 3>&- 4>&- &
  guest_pid=$!
  wait "$guest_pid" || status=$?
  guest_pid=
  cat "$console"  # Into the log of the step, after what qemu had to say.

  ((status != 124)) || fail "the guest on $disk did not power off within $guest_deadline_s s"
  ((status == 0)) || fail "qemu ended with status $status; it was given ${drive[*]}"
  if text=$(guest_line 'error: ' "$console"); then
    fail "the guest on $disk says: $text"
  fi
  grep -q 'OBRAZ-GUEST: up' "$console" || fail "the guest on $disk did not come up"
  if text=$(guest_line 'marker present: ' "$console"); then
    guest_found=present
    guest_marker=$text
  elif text=$(guest_line 'wrote marker ' "$console"); then
    guest_found=absent
    guest_marker=$text
  else
    fail "the guest on $disk neither found nor wrote a marker"
  fi
  grep -q 'OBRAZ-GUEST: power off' "$console" || fail "the guest on $disk stopped before it had finished"
}

# boot_expecting_absent DISK: the guest must come from an untouched image, and write its own marker.
boot_expecting_absent() {
  boot_guest "$1"
  [[ $guest_found == absent ]] || fail "the guest on $1 found the marker $guest_marker, which nobody wrote to this disk"
}

# boot_expecting_marker DISK TEXT: the guest must find what another guest wrote.
boot_expecting_marker() {
  boot_guest "$1"
  [[ $guest_found == present ]] || fail "the guest on $1 found no marker, but $2 should be there"
  [[ $guest_marker == "$2" ]] || fail "the guest on $1 found the marker $guest_marker instead of $2"
}
