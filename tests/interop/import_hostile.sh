#!/usr/bin/env bash
# import_hostile.sh BIN_DIR - some hundred image files made to do harm (tests/support/hostile_images.py): each is refused
# with its code, field and a sentence, or imported bit for bit; no other file is opened, neither by the daemon nor by the
# program that reads for it; nothing is left behind, and the daemon stays as small as it was.
#
# That the files mean harm is shown, too: a reader without confinement opens what they name.
set -euo pipefail
# shellcheck source=tests/interop/control_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/control_lib.sh"
begin "$@"

support=$(cd "$(dirname "${BASH_SOURCE[0]}")/../support" && pwd)
# Of those imported at once, four have tables of 64 MiB, which is the limit; the others take 16 MiB of buffers each.
readonly growth_limit_kb=$((512 * 1024))

# judge COMMAND...: see the program.
judge() {
  CONTROL=$work/store/control.sock OBRAZ=$bin/obraz timeout 150 python3 "$support/hostile_judge.py" "$@"
}

peak_kb() {
  awk '$1 == "VmHWM:" { print $2 }' "/proc/$(daemon_process)/status"
}

descriptors() {
  find "/proc/$(daemon_process)/fd" -mindepth 1 | wc -l
}

remember() {
  # The first import makes what stays: worker threads, the ring's buffers.
  obraz image import "$work/images/good-v3.qcow2" --name first
  obraz image delete first
  descriptors_before=$(descriptors)
  peak_before=$(peak_kb)
}

unchanged() {
  local now
  expect "images" "" "$(names image)"
  expect "the bytes in use" 0 "$(field space.used_bytes status)"
  expect "open descriptors" "$descriptors_before" "$(descriptors)"
  expect "children" "" "$(pgrep --parent "$(daemon_process)" || true)"
  now=$(peak_kb)
  echo "peak memory $now KiB, before $peak_before KiB"
  ((now - peak_before <= growth_limit_kb)) || fail "the daemon grew by $((now - peak_before)) KiB"
}

# Not what a file holds but what it is.
no_plain_files() {
  mkdir "$work/odd"
  cd "$work/odd"
  mkfifo pipe
  python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'
  ln -s loop loop
  ln -s /dev/zero zero
  ln -s pipe to-pipe
  ln -s "$work/images/none" dangling
  ln -s "$work/images" folder
  ln -s "$work/images/good-v3.qcow2" good
  ln -s "$work/images/backing-v3.qcow2" backing
  ln -s "$work/store/data" own-data
  refused INVALID_ARGUMENT source image import "$work/odd/pipe" --name i
  refused INVALID_ARGUMENT source image import "$work/odd/to-pipe" --name i
  refused INVALID_ARGUMENT source image import "$work/odd/socket" --name i
  refused INVALID_ARGUMENT source image import "$work/odd/zero" --name i
  refused INVALID_ARGUMENT source image import "$work/odd/folder" --name i
  refused INVALID_ARGUMENT source image import "$work/odd" --name i
  refused INVALID_ARGUMENT source image import /dev/full --name i
  refused INVALID_ARGUMENT source image import /proc/self/mem --name i
  refused INVALID_ARGUMENT source image import /proc/self/fd --name i
  refused INVALID_ARGUMENT source image import "$work/odd/backing" --name i
  refused NOT_FOUND source image import "$work/odd/dangling" --name i
  refused NOT_FOUND source image import "$work/images/good-v3.qcow2/x" --name i
  obraz image import "$work/odd/loop" --name i 2>"$work/loop.err" && fail "a link to itself was imported"
  grep -q 'symbolic links' "$work/loop.err" || fail "a link to itself is refused in other words"
  # The store's own files, whatever they are called.
  refused FAILED_PRECONDITION source image import "$work/store/data" --name i
  refused FAILED_PRECONDITION source image import "$work/odd/own-data" --name i
  refused FAILED_PRECONDITION source image import "$work/store/meta" --name i
  obraz image import "$work/odd/good" --name good
  obraz image delete good
  cd "$work"
}

# What was refused is kept in the journal with its sentence.
starts_again() {
  stop_daemon
  # shellcheck disable=SC2119  # It takes options of obrazd; none are meant.
  start_daemon
  expect "images" "" "$(names image)"
  (($(obraz --json operation list | grep -c '"error"') > 100)) || fail "the refusals are not among the operations"
}

step "make hostile images" python3 "$support/hostile_images.py" images "$work/images"
step "without confinement, a reader opens what they name" judge unconfined "$work/images"
step "start obrazd" start_daemon
step "remember how it is" remember
step "each is refused in words, or imported; nothing else is opened" judge each "$work/images"
step "nothing is left of them" unchanged
step "many at once" judge at-once "$work/images"
step "nothing is left of these either" unchanged
step "pipes, devices, folders, links, the store itself" no_plain_files
step "nothing is left" unchanged
step "the daemon starts with what it refused" starts_again
step "stop" stop_daemon
