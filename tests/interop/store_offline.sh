#!/usr/bin/env bash
# store_offline.sh BIN_DIR - obraz-store makes, checks and shows a store; what a client has flushed survives kill -9 of the
# daemon during writes; one damaged superblock costs nothing, two are refused.

set -euo pipefail
# shellcheck source=tests/interop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
begin "$@"

# ends_with STATUS WORDS ARGUMENTS...: obraz-store ARGUMENTS ends so and says these words.
ends_with() {
  local wanted=$1 words=$2 status=0
  shift 2
  "$bin/obraz-store" "$@" >"$work/tool.out" 2>&1 || status=$?
  cat "$work/tool.out"
  expect "the exit status of obraz-store $*" "$wanted" "$status"
  grep -q -e "$words" "$work/tool.out" || fail "obraz-store $* should say '$words'"
}

# dumped EXPRESSION: of `d`, the document that dump prints.
dumped() {
  "$bin/obraz-store" dump "$work/store" --json | python3 -c '
import json, sys
d = json.load(sys.stdin)
print(eval(sys.argv[1]))' "$1"
}

make_store() {
  ends_with 0 'a new store' format "$work/store" --data-size 256M
  ends_with 1 'already holds a store' format "$work/store"
  ends_with 0 'clean' check "$work/store" --data
  ends_with 0 'the newest' dump "$work/store"
  expect "clusters" 4096 "$(dumped 'd["label"]["clusters"]')"
  expect "batches in the journal" 0 "$(dumped 'len(d["journal"])')"
}

wrong_calls() {
  ends_with 1 'holds no store' check "$work/nowhere"
  ends_with 1 'holds no store' dump "$work/nowhere"
  ends_with 2 'DIR' check
  ends_with 2 'size' format "$work/new" --data-size 1X
  ends_with 2 'between' format "$work/new" --data-size 1K
  [[ ! -e $work/new ]] || fail "a directory was made although the size was refused"
}

in_use() {
  ends_with 1 'in use' check "$work/store"
  ends_with 1 'in use' dump "$work/store"
}

# Writes numbers to random blocks and flushes now and then until the daemon is gone; $work/flushed gets what was flushed.
write_until_killed() {
  FLUSHED=$work/flushed python_client <<'EOT'
import random
random.seed(7)
h = connect("disk/d")
blocks, number, written = (64 << 20) // 4096, 0, {}
try:
    while True:
        for _ in range(16):
            number += 1
            block = random.randrange(blocks)
            h.pwrite(struct.pack("<Q", number) * 512, block * 4096)
            written[block] = number
        h.flush()
        with open(os.environ["FLUSHED"] + ".new", "w") as out:
            out.writelines(f"{block} {last}\n" for block, last in written.items())
        os.rename(os.environ["FLUSHED"] + ".new", os.environ["FLUSHED"])
        if number == 160:
            print("under way", flush=True)
except nbd.Error:
    pass
EOT
}

kill_during_writes() {
  local inner
  inner=$(daemon_process)
  : >"$work/client.out"
  write_until_killed >"$work/client.out" &
  local client=$!
  grep -qx 'under way' < <(timeout "$client_deadline_s" tail --lines=+1 --follow --sleep-interval=0.1 --pid="$client" \
    "$work/client.out") || fail "the client could not write" "$work/client.out"
  kill -KILL "$inner"
  wait "$daemon_pid" || true
  daemon_pid=
  wait "$client" || fail "the client failed" "$work/client.out"
  ends_with 0 'clean' check "$work/store" --data
}

flushed_is_there() {
  FLUSHED=$work/flushed python_client <<'EOT'
h = connect("disk/d")
lines = open(os.environ["FLUSHED"]).readlines()
assert len(lines) > 100
for block, last in (map(int, line.split()) for line in lines):
    data = h.pread(4096, block * 4096)
    found = struct.unpack("<Q", data[:8])[0]
    # A later write that was not flushed may be there, an earlier one may not; never a mixture of both.
    assert data == data[:8] * 512 and found >= last, f"block {block}: {found}, but {last} was flushed"
EOT
}

# damage PAGE: of meta.
damage() {
  printf 'damage' | dd of="$work/store/meta" bs=1 seek=$(($1 * 4096 + 72)) conv=notrunc status=none
}

one_superblock() {
  local newest older
  newest=$(dumped 'next(s["page"] for s in d["superblocks"] if s["newest"])')
  older=$((16 - newest))
  damage "$older"
  ends_with 0 'not valid' dump "$work/store"
  start_daemon
  flushed_is_there
  stop_daemon
  ends_with 0 'clean' check "$work/store"
}

both_superblocks() {
  local status=0
  damage 0
  damage 16
  ends_with 1 'neither superblock is valid' dump "$work/store"
  ends_with 1 'superblock' check "$work/store"
  timeout "$daemon_ready_deadline_s" "$bin/obrazd" --store "$work/store" >"$work/refused.log" 2>&1 || status=$?
  expect "the exit status of obrazd" 1 "$status"
  grep -qi 'superblock' "$work/refused.log" || fail "obrazd does not say what is damaged" "$work/refused.log"
}

step "format, check and dump a store" make_store
step "wrong calls are refused" wrong_calls
step "start obrazd" start_daemon
step "a store in use is left alone" in_use
step "make a disk" new_disk d 64M
step "kill obrazd during writes; the store is clean" kill_during_writes
step "start again" start_daemon
step "what was flushed is there" flushed_is_there
step "stop obrazd" stop_daemon
step "check" ends_with 0 'clean' check "$work/store" --data
step "with one damaged superblock, the other one serves" one_superblock
step "with both damaged, obrazd refuses to start" both_superblocks
