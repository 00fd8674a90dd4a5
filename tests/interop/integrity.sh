#!/usr/bin/env bash
# integrity.sh BIN_DIR - a bit that rots in an image: whoever reads it gets EIO, all else is served, `obraz status` names the
# place, the checker finds it, the scrub finds it where nobody reads, and it is gone with the last resource that shows it.

set -euo pipefail
# shellcheck source=tests/interop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
begin "$@"

readonly disk_bytes=$((64 << 20)) rotten_offset=$((5 * 65536 + 3 * 4096))

# status_of EXPRESSION: of `s`, the daemon's status.
status_of() {
  obraz --json status | python3 -c 'import json, sys; s = json.load(sys.stdin); print(eval(sys.argv[1]))' "$1"
}

# until_status EXPRESSION: asks again until it holds.
until_status() {
  local tries
  for ((tries = 0; tries < 500; ++tries)); do
    [[ $(status_of "$1") != True ]] || return 0
  done
  obraz status
  fail "status does not come to: $1"
}

make_image() {
  new_disk d "$disk_bytes"
  python_client <<'EOT'
h = connect("disk/d")
for i in range(128):  # 8 MiB, each block with a number of its own
    h.pwrite(b"".join(struct.pack("<Q", i * 16 + j + 1) * 512 for j in range(16)), i << 16)
h.flush()
h.shutdown()
EOT
  obraz image create --name i --from-disk d
  until_status 's["integrity"]["volumes_waiting"] == 0'
  expect "bytes with checksums" 8388608 "$(status_of 's["integrity"]["checksummed_bytes"]')"
  obraz disk create --name from-image --image i
}

rot() {
  local place
  place=$("$bin/obraz-store" dump "$work/store" --json --slots | python3 -c '
import json, sys
offset = int(sys.argv[1])
slots = [s for n in json.load(sys.stdin)["volumes"][0]["nodes"] for s in n.get("slots", [])]
slot = next(s for s in slots if s["offset"] <= offset < s["offset"] + 65536)
print(slot["own"] * 65536 + offset - slot["offset"])' "$rotten_offset")
  printf 'x' | dd of="$work/store/data" bs=1 seek=$((place + 1234)) conv=notrunc status=none
}

checker_finds_it() {
  local status=0
  "$bin/obraz-store" check "$work/store" || fail "without --data there is nothing to find"
  "$bin/obraz-store" check "$work/store" --data >"$work/check.log" || status=$?
  expect "the exit status of the checker" 1 "$status"
  grep -q "blocks 0008 do not fit their checksums; volume 1, 65536 bytes at offset $((5 * 65536))" "$work/check.log" ||
    fail "the checker does not name the place" "$work/check.log"
}

readers_get_an_error() {
  ROTTEN=$rotten_offset python_client <<'EOT'
rotten = int(os.environ["ROTTEN"])
for export in "image/i", "disk/from-image", "disk/d":
    h = connect(export)
    refused(errno.EIO, h.pread, 4096, rotten)
    refused(errno.EIO, h.pread, 1, rotten + 1)
    refused(errno.EIO, h.pread, 1 << 20, 0)
    for i in range(128 * 16):
        if i * 4096 != rotten:
            assert h.pread(8, i * 4096) == struct.pack("<Q", i + 1), f"block {i} of {export}"
    h.shutdown()
h = connect("disk/from-image")
refused(errno.EIO, h.pwrite, b"part", rotten + 8)  # the rest of the block is not known
h.pwrite(b"w" * 4096, rotten)
h.flush()
assert h.pread(4096, rotten) == b"w" * 4096
h.shutdown()
EOT
}

named() {
  expect "health" damaged "$(status_of 's["health"]')"
  expect "what is damaged" "4096 bytes at $rotten_offset" \
    "$(status_of '"%s bytes at %s" % (s["integrity"]["damage"][0]["length_bytes"], s["integrity"]["damage"][0]["offset"])')"
  obraz status | grep -q "^damage.*4096 bytes at offset $rotten_offset" || fail "people are not told"
}

scrub_finds_it() {
  start_daemon --scrub-rate 1G
  until_status 'len(s["integrity"]["damage"]) > 0'
  named
  expect "the resource" True "$(status_of 's["integrity"]["damage"][0]["resource"] in ("image/i", "disk/d")')"
}

gone_with_what_shows_it() {
  obraz image delete i
  obraz disk delete d
  obraz disk delete from-image
  until_status 's["health"] == "ok"'
  expect "places of damage" False "$(status_of 'len(s["integrity"]["damage"]) > 0')"
}

step "start obrazd without a scrub" start_daemon --scrub-rate 0
step "an image gets its checksums" make_image
step "stop obrazd" stop_daemon
step "the checker finds nothing" "$bin/obraz-store" check "$work/store" --data
step "a byte rots" rot
step "the checker finds it" checker_finds_it
step "start obrazd without a scrub" start_daemon --scrub-rate 0
step "whoever reads it gets an error, all else is served" readers_get_an_error
step "status names it" named
step "kill obrazd" kill_daemon
step "the scrub finds what nobody reads" scrub_finds_it
step "what shows it is deleted, and all is well" gone_with_what_shows_it
step "stop obrazd" stop_daemon
step "the store is clean" "$bin/obraz-store" check "$work/store" --data
