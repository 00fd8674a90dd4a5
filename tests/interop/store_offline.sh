#!/usr/bin/env bash
# store_offline.sh BIN_DIR - obraz-store makes, checks and shows a store, and changes nothing when it looks; what a client
# has flushed survives kill -9 of the daemon during writes; damage of each file is named with its place, and what the exit
# statuses say: 0 clean, 1 problems, 2 a wrong call or nothing that can be looked at; one damaged superblock costs nothing,
# two are refused.

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
  "$bin/obraz-store" dump "$work/store" --json --slots | python3 -c '
import json, sys
d = json.load(sys.stdin)
print(eval(sys.argv[1]))' "$1"
}

make_store() {
  ends_with 0 'a new store' format "$work/store" --data-size 256M
  ends_with 1 'already holds a store' format "$work/store"
  ends_with 0 'clean' check "$work/store" --data
  ends_with 0 'closed_cleanly: no' dump "$work/store"
  expect "clusters" 4096 "$(dumped 'd["label"]["clusters"]')"
  expect "batches in the journal" 0 "$(dumped 'len(d["journal"])')"
}

wrong_calls() {
  ends_with 2 'holds no store' check "$work/nowhere"
  ends_with 2 'holds no store' dump "$work/nowhere"
  ends_with 2 'DIR' check
  ends_with 2 'volume' dump "$work/store" --volume x
  ends_with 2 'size' format "$work/new" --data-size 1X
  ends_with 2 'between' format "$work/new" --data-size 1K
  [[ ! -e $work/new ]] || fail "a directory was made although the size was refused"
}

# Files of the right names with anything in them; and a store that this user may not read.
not_ours() {
  mkdir "$work/foreign"
  head -c 32M /dev/zero >"$work/foreign/meta"
  head -c 32M /dev/zero >"$work/foreign/data"
  ends_with 2 'not a store' check "$work/foreign"
  : >"$work/foreign/meta"
  ends_with 2 'not a store' check "$work/foreign"
  ends_with 2 'too short' dump "$work/foreign"
  rm -r "$work/foreign"
  # Root may read everything, so another user is asked; the tool is copied to where that one can get at it.
  local status=0 as=()
  if ((EUID == 0)); then
    as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
  else
    chmod 0 "$work/store/meta"
  fi
  cp "$bin/obraz-store" "$work/"
  chmod 711 "$work"
  "${as[@]}" "$work/obraz-store" check "$work/store" >"$work/tool.out" 2>&1 || status=$?
  cat "$work/tool.out"
  expect "the exit status for a store of somebody else" 2 "$status"
  grep -q 'Permission denied' "$work/tool.out" || fail "obraz-store should say that permission is denied"
  chmod 600 "$work/store/meta"
}

in_use() {
  ends_with 2 'in use' check "$work/store"
  ends_with 2 'in use' dump "$work/store"
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

# The store as it was before the damage; made new from $work/whole.
restore() {
  rm -rf "$work/store"
  cp -a --sparse=always "$work/whole" "$work/store"
}

looking_changes_nothing() {
  local before
  before=$(sha256sum "$work/store/meta" "$work/store/data")
  ends_with 0 'clean' check "$work/store" --data
  ends_with 0 '"clean": true' check "$work/store" --json
  ends_with 0 'closed_cleanly: yes' dump "$work/store" --slots
  expect "the bytes of the store" "$before" "$(sha256sum "$work/store/meta" "$work/store/data")"
}

# The disk's name is in the text form of its record; the tree of its volume has the leaves that were written.
dump_shows_all() {
  "$bin/obraz-store" dump "$work/store" >"$work/dump.txt"
  grep -q 'name: "d"' "$work/dump.txt" || fail "the dump should show the record of disk d" "$work/dump.txt"
  "$bin/obraz-store" dump "$work/store" --json --slots | /usr/bin/python3 -c '
import json, sys
d = json.load(sys.stdin)
disk = next(r["message"] for r in d["resources"] if r["key"].startswith("disk/"))
assert disk["disk"]["name"] == "d", disk
assert any(r["key"].startswith("operation/") and "message" in r for r in d["resources"])
volume, = (v for v in d["volumes"] if v["volume"] == int(disk["volume_id"]))
assert volume["size"] == 64 << 20 and volume["nodes_by_level"] == [{"level": 1, "nodes": 1}, {"level": 0, "nodes": 4}]
assert all(n["count"] == 1 for n in volume["nodes"])
slots = [s for n in volume["nodes"] if n["level"] == 0 for s in n["slots"]]
used = d["tables"]["cluster_counts"]["used"]
assert used == len({c for s in slots for c in (s["own"], s["base"]) if c}) > 100, used
assert d["tables"]["page_counts"]["used"] == 5 and d["tables"]["volumes"]["used"] == 1
'
  ends_with 1 'has no volume 77' dump "$work/store" --volume 77
}

# named WORDS...: each in what obraz-store said last.
named() {
  local words
  for words in "$@"; do
    grep -q -F -e "$words" "$work/tool.out" || fail "obraz-store should name '$words'"
  done
}

# Two leaves of the disk: both are named, with the place in the volume, and the rest of the store is still counted.
damaged_nodes() {
  local volume leaves
  volume=$(dumped 'd["volumes"][0]["volume"]')
  mapfile -t leaves < <(dumped '"\n".join(str(n["page"]) for n in d["volumes"][0]["nodes"] if n["level"] == 0)')
  damage "${leaves[1]}"
  damage "${leaves[3]}"
  ends_with 1 ': 2 problems: 1 volumes' check "$work/store"
  named "page ${leaves[1]} of meta" "page ${leaves[3]} of meta" 'expected' 'found' \
    "volume $volume, 16777216 bytes at offset 16777216" "volume $volume, 16777216 bytes at offset 50331648"
  ends_with 1 '"problem_count": 2' check "$work/store" --json
  /usr/bin/python3 -c '
import json, sys
d = json.load(open(sys.argv[1]))
assert not d["clean"] and {p["place"] for p in d["problems"]} == {f"page {p} of meta (node of level 0)" for p in sys.argv[2:]}
' "$work/tool.out" "${leaves[1]}" "${leaves[3]}"
  ends_with 1 '2 pieces cannot be read' dump "$work/store" --volume "$volume"
  named 'checksum'
  restore
}

damaged_table() {
  local page
  page=$(dumped 'd["superblocks"][0]["tables"]["volumes"]["page"]')
  damage "$page"
  ends_with 1 ': 1 problem: 0 volumes' check "$work/store"
  named "page $page of meta (page 0 of the table of volumes)" 'journal: not replayed'
  restore
}

damaged_label() {
  printf 'damage' | dd of="$work/store/data" bs=1 seek=100 conv=notrunc status=none
  ends_with 1 ': 1 problem: 1 volumes' check "$work/store"
  named 'label (cluster 0 of data)'
  restore
}

# A hole reads as zeros, which is no damage that anybody could see; what lies beyond the end is gone.
shortened_data() {
  local last offset
  read -r last offset < <(dumped '"%d %d" % max((s["own"], s["offset"]) for n in d["volumes"][0]["nodes"] for s in n.get("slots", []))')
  fallocate --punch-hole --offset $((last * 65536)) --length 65536 "$work/store/data"
  ends_with 0 'clean' check "$work/store" --data
  truncate --size $((last * 65536)) "$work/store/data"
  ends_with 1 ': 1 problem: 1 volumes' check "$work/store"
  named "data: 268435456 bytes expected, $((last * 65536)) found"
  ends_with 1 ': 2 problems: 1 volumes' check "$work/store" --data
  named "cluster $last of data: " "65536 bytes at offset $offset"
  restore
}

one_superblock() {
  local newest older
  newest=$(dumped 'next(s["page"] for s in d["superblocks"] if s["newest"])')
  older=$((16 - newest))
  damage "$newest"
  ends_with 1 ': 1 problem: 1 volumes' check "$work/store"
  named "(page $newest of meta): checksum" 'the other one serves'
  restore
  damage "$older"
  ends_with 1 'checksum does not fit' dump "$work/store"
  ends_with 1 ': 1 problem: 1 volumes' check "$work/store"
  named "(page $older of meta): checksum" 'the other one serves'
  # shellcheck disable=SC2119  # the script's arguments are not the daemon's
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
step "what is no store, and what may not be read, is refused" not_ours
step "start obrazd" start_daemon
step "a store in use is left alone" in_use
step "make a disk" new_disk d 64M
step "kill obrazd during writes; the store is clean" kill_during_writes
step "start again" start_daemon
step "what was flushed is there" flushed_is_there
step "stop obrazd" stop_daemon
step "check" ends_with 0 'clean' check "$work/store" --data
step "checking and dumping change no byte" looking_changes_nothing
step "a dump shows trees and resources" dump_shows_all
step "keep a copy" cp -a --sparse=always "$work/store" "$work/whole"
step "damaged nodes are named" damaged_nodes
step "a damaged table is named" damaged_table
step "a damaged label is named" damaged_label
step "a data file that was shortened is named, with what it lost" shortened_data
step "with one damaged superblock, the other one serves" one_superblock
step "with both damaged, obrazd refuses to start" both_superblocks
