#!/usr/bin/env bash
# clone_cache.sh BIN_DIR - disks of one image, read by clients at the same time and one after the other: the device is read
# once, what a disk writes is its own, and --clone-cache bounds the memory or turns it off.

set -euo pipefail
# shellcheck source=tests/interop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
begin "$@"

readonly disk_bytes=$((64 << 20)) data_mib=16 clones=8

# cache FIELD: a number of `clone_cache` in the daemon's status.
cache() {
  obraz --json status | python3 -c 'import json, sys; print(json.load(sys.stdin)["clone_cache"][sys.argv[1]])' "$1"
}

make_disks() {
  local i
  new_disk d "$disk_bytes"
  DATA_MIB=$data_mib python_client <<'EOT'
h = connect("disk/d")
for i in range(int(os.environ["DATA_MIB"])):
    h.pwrite(b"".join(struct.pack("<Q", i * 256 + j + 1) * 512 for j in range(256)), i << 20)
h.flush()
h.shutdown()
EOT
  obraz image create --name i --from-disk d
  # Looking at what is on the image reads it, too.
  until obraz --json image get i | grep -q '"layout"'; do
    :
  done
  # What is read before there are checksums is read again after.
  while [[ $(obraz --json status | python3 -c 'import json, sys; print(json.load(sys.stdin)["integrity"]["volumes_waiting"])') != 0 ]]; do
    :
  done
  for ((i = 0; i < clones; ++i)); do obraz disk create --name "c$i" --image i; done
}

# read_all ALREADY: all clones, in requests of 128 KiB, each block checked, twice; what one has written in between, or
# ALREADY (0 or 1) before, shows in that one alone.
read_all() {
  ALREADY=$1 DATA_MIB=$data_mib CLONES=$clones python_client <<'EOT'
clones = [connect(f"disk/c{i}") for i in range(int(os.environ["CLONES"]))]
written = {(c, c << 12): bytes([c + 1]) * 4096 for c in range(0, len(clones), 2)}
def read_them():
    for at in range(0, int(os.environ["DATA_MIB"]) << 20, 128 << 10):
        buffers = [nbd.Buffer(128 << 10) for _ in clones]
        cookies = [h.aio_pread(b, at) for h, b in zip(clones, buffers)]
        for c, (h, b, cookie) in enumerate(zip(clones, buffers, cookies)):
            while not h.aio_command_completed(cookie):
                h.poll(-1)
            data = b.to_bytearray()
            for block in range(32):
                place = at + block * 4096
                wanted = struct.pack("<Q", place // 4096 + 1) * 512
                if (c, place) in written and round_number >= 1:
                    wanted = written[c, place]
                assert data[block * 4096:(block + 1) * 4096] == wanted, f"disk c{c} at {place}, round {round_number}"
for round_number in range(int(os.environ["ALREADY"]), 3):
    read_them()
    if round_number == 0:
        for (c, place), data in written.items():
            clones[c].pwrite(data, place)
for h in clones:
    h.shutdown()
EOT
}

read_once() {
  local before
  before=$(cache misses)
  read_all 0
  expect "blocks read from the device" $((data_mib * 256)) $(($(cache misses) - before))
  # In three rounds, but for the first time and what was written.
  (($(cache hits) >= (3 * clones - 2) * data_mib * 256)) || fail "blocks read from memory: $(cache hits)"
  expect "bytes in the cache" $((data_mib << 20)) "$(cache used_bytes)"
  obraz status | grep -q "clone cache: *16 MiB of 6.* used" || fail "the status does not say so"
}

small_cache() {
  read_all 1
  (($(cache size_bytes) <= 1 << 20 && $(cache used_bytes) <= $(cache size_bytes))) || fail "it is larger than it may be"
  (($(cache hits) > 0)) || fail "it is of no use"
}

no_cache() {
  read_all 1
  expect "bytes of a cache that is off" 0 "$(cache size_bytes)"
  expect "its hits" 0 "$(cache hits)"
}

wrong_size() {
  local status=0
  "$bin/obrazd" --store "$work/other" --clone-cache 1X 2>"$work/wrong.log" || status=$?
  expect "the exit status" 2 "$status"
  [[ ! -e $work/other ]] || fail "a store was made"
}

step "start obrazd" start_daemon --clone-cache 64M
step "make an image and $clones disks of it" make_disks
step "the device is read once" read_once
step "stop obrazd" stop_daemon
step "start obrazd with a small cache" start_daemon --clone-cache 1M
step "it is bounded" small_cache
step "stop obrazd" stop_daemon
step "start obrazd without" start_daemon --clone-cache 0
step "it is off" no_cache
step "stop obrazd" stop_daemon
step "a size that is none is refused" wrong_size
