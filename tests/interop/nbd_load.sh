#!/usr/bin/env bash
# nbd_load.sh BIN_DIR - nbdload against this daemon, which gives back what was written, and against servers that do not: one that
# forgets, one that fails, one that goes away. What it prints adds up.

set -euo pipefail
# shellcheck source=tests/interop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
begin "$@"

# load_of EXPORT OPTIONS...: what nbdload prints as JSON, in $work/load.json.
load_of() {
  local uri
  uri=$(export_uri "$1")
  shift
  timeout "$client_deadline_s" "$bin/nbdload" "$uri" --json "$@" >"$work/load.json"
}

# adds_up EXPRESSION: of `r`, what nbdload has printed.
adds_up() {
  python3 -c 'import json, sys; r = json.load(open(sys.argv[1])); sys.exit(not eval(sys.argv[2]))' "$work/load.json" "$1" || {
    cat "$work/load.json"
    fail "not so: $1"
  }
}

# refused STATUS WORDS URI OPTIONS...
refused() {
  local wanted=$1 words=$2 status=0
  shift 2
  timeout "$client_deadline_s" "$bin/nbdload" "$@" >"$work/refused.log" 2>&1 || status=$?
  cat "$work/refused.log"
  expect "the exit status of nbdload" "$wanted" "$status"
  grep -q -e "$words" "$work/refused.log" || fail "nbdload should say '$words'"
}

every_cluster_once() {
  load_of disk/d --write-once-per 64K --depth 16 --flush-every 100
  adds_up 'r["export_bytes"] == 64 << 20 and r["write"]["requests"] == 1024 and r["flush"]["requests"] == 10'
  adds_up 'r["write"]["bytes"] == 1024 * 4096 and r["requests"] == 1034'
  adds_up 'r["write"]["latency_us"]["p50"] <= r["write"]["latency_us"]["p99.9"] <= r["write"]["latency_us"]["max"]'
}

verified() {
  load_of disk/d --seconds 0 --requests 20000 --connections 4 --depth 8 --read-percent 60 --block-size 8K --length 4M --verify \
    --flush-every 500
  adds_up 'r["read"]["requests"] + r["write"]["requests"] + r["flush"]["requests"] == 20000'
  adds_up 'r["verified_blocks"] > 5000'
  load_of disk/d --seconds 0 --requests 2000 --pattern sequential --read-percent 0 --depth 4 --fua --verify
  adds_up 'r["write"]["requests"] == 2000 and r["verified_blocks"] == 2000'
}

by_time() {
  load_of disk/d --seconds 0.5 --warmup 0.2 --depth 4
  adds_up 'abs(r["seconds"] - 0.5) < 0.01 and r["read"]["requests"] > 0 and r["client_cpu_us_per_request"] > 0'
}

# Each export has the whole load to itself.
several_disks() {
  local uris=()
  for disk in d e f; do
    uris+=("$(export_uri "disk/$disk")")
  done
  timeout "$client_deadline_s" "$bin/nbdload" "${uris[@]}" --json --seconds 0 --read-once-per 4K --length 8M --depth 2 >"$work/load.json"
  adds_up 'r["read"]["requests"] == 3 * 2048 and r["export_bytes"] == 3 * (64 << 20)'
  timeout "$client_deadline_s" "$bin/nbdload" "${uris[@]}" --json --seconds 0 --requests 3000 --read-percent 50 --length 1M --verify \
    --connections 2 >"$work/load.json"
  adds_up 'r["requests"] == 3000 and r["verified_blocks"] > 500'
  # By turns of 0.1 s: each gets one, and all that was begun ends.
  timeout "$client_deadline_s" "$bin/nbdload" "${uris[@]}" --json --seconds 0.5 --busy 1 --interval 100 >"$work/load.json"
  adds_up '4 <= len(r["intervals"]) <= 6 and sum(n for n, _ in r["intervals"]) == r["read"]["requests"] > 0'
  adds_up 'max(worst for _, worst in r["intervals"]) == r["read"]["latency_us"]["max"]'
  timeout "$client_deadline_s" "$bin/nbdload" "${uris[@]}" --json --seconds 0 --busy 2 --write-once-per 64K >"$work/load.json"
  adds_up 'r["write"]["requests"] == 3 * 1024'
}

# Its writes go nowhere.
a_server_that_forgets() {
  # shellcheck disable=SC2016  # nbdkit sets $uri
  nbdkit --unix "$work/null.sock" null 16M --run "timeout 60 '$bin/nbdload' \"\$uri\" --seconds 0 --requests 500 --read-percent 50 \
    --length 64K --verify" >"$work/null.log" 2>&1 && fail "writes that went nowhere were not noticed" "$work/null.log"
  grep -q 'does not hold what was written last' "$work/null.log" || fail "nbdload does not say what is wrong" "$work/null.log"
}

a_server_that_fails() {
  # shellcheck disable=SC2016  # nbdkit sets $uri
  nbdkit --unix "$work/error.sock" --filter=error memory 16M error-pread-rate=10% --run "timeout 60 '$bin/nbdload' \"\$uri\" --seconds 0 \
    --requests 500" >"$work/error.log" 2>&1 && fail "errors were not noticed" "$work/error.log"
  grep -q 'the server answers Input/output error' "$work/error.log" || fail "nbdload does not say what is wrong" "$work/error.log"
}

# Killed when the load is under way: the daemon has answered requests.
a_server_that_goes_away() {
  local status=0 load
  timeout "$client_deadline_s" "$bin/nbdload" "$(export_uri disk/d)" --seconds 0 --requests 1000000000 --depth 8 >"$work/gone.log" 2>&1 &
  load=$!
  local ticks
  ticks=$(daemon_cpu_ticks)
  while (($(daemon_cpu_ticks) < ticks + 20)); do :; done
  kill_daemon
  wait "$load" || status=$?
  cat "$work/gone.log"
  expect "the exit status of nbdload" 1 "$status"
}

step "start obrazd" start_daemon
step "make a disk" new_disk d 64M
step "one write into each cluster" every_cluster_once
step "what is read is what was written" verified
step "by time" by_time
step "make two more disks" new_disk e 64M
step "and the other" new_disk f 64M
step "several disks at once" several_disks
step "an export that is not there" refused 1 'cannot connect' "$(export_uri disk/nothing)"
step "a range beyond the export" refused 1 'has 67108864 bytes' "$(export_uri disk/d)" --offset 1G
step "a block size that is none" refused 2 'multiple of 512' "$(export_uri disk/d)" --block-size 5
step "a run without an end" refused 2 'needs an end' "$(export_uri disk/d)" --seconds 0
step "a server that forgets what was written" a_server_that_forgets
step "a server that answers errors" a_server_that_fails
step "a server that goes away" a_server_that_goes_away
