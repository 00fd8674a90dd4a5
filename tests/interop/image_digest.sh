#!/usr/bin/env bash
# image_digest.sh BIN_DIR - an image's digest is that of its bytes, whatever it was made from, as a program that shares nothing
# with the daemon computes it; verifying finds a bit that rots; a file with another SHA-256 is not imported.
set -euo pipefail
# shellcheck source=tests/interop/control_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/control_lib.sh"
begin "$@"
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../tools" && pwd)

# until_digest IMAGE: waits for it, and prints it.
until_digest() {
  local tries digest
  for ((tries = 0; tries < 2000; ++tries)); do
    digest=$(digest_of "$1")
    [[ -z $digest ]] || { printf '%s\n' "$digest"; return; }
  done
  fail "$1 gets no digest"
}

digest_of() {
  obraz --json image get "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin).get("digest", ""))'
}

# write_disk OFFSET PATTERN: a block of it.
write_disk() {
  qemu-io -f raw -c "write -P $2 $1 4k" -c flush "$(obraz disk uri d)" >"$work/qemu-io.log"
}

make_files() {
  python3 - "$work/raw" <<'EOT'
import random, sys
generator = random.Random(3)
with open(sys.argv[1], "wb") as file:
    file.truncate((41 << 20) + 4096)  # no whole number of 4 MiB
    for offset, length in ((0, 70000), (3 << 20, 1 << 20), ((17 << 20) + 12345, 300), ((41 << 20) + 4000, 96)):
        file.seek(offset)
        file.write(generator.randbytes(length))
EOT
  qemu-img convert -f raw -O qcow2 "$work/raw" "$work/qcow2"
}

make_files
start_daemon
wanted=$("$tools/image-digest" "$work/raw")
obraz image import "$work/raw" --name raw >"$work/out"
expect "the digest of the raw file" "$wanted" "$(until_digest raw)"
obraz image import "$work/qcow2" --name qcow2 --sha256 "$(sha256sum "$work/qcow2" | cut -c-64)" >"$work/out"
expect "the digest of the qcow2 file" "$wanted" "$(until_digest qcow2)"

# The same through a disk, a snapshot and an image of an image; and not the same after a write.
obraz disk create --name d --image raw >"$work/out"
obraz snapshot create --name s --disk d >"$work/out"
obraz image create --name of-snapshot --from-snapshot s >"$work/out"
obraz image create --name of-image --from-image of-snapshot >"$work/out"
expect "the digest of an image of a snapshot" "$wanted" "$(until_digest of-snapshot)"
expect "the digest of an image of an image" "$wanted" "$(until_digest of-image)"
write_disk 20M 0x78
obraz image create --name changed --from-disk d >"$work/out"
[[ $(until_digest changed) != "$wanted" ]] || fail "the digest does not see a byte"
write_disk 20M 0  # zeros where there were zeros, but stored now
obraz image create --name again --from-disk d >"$work/out"
expect "the digest of stored zeros" "$wanted" "$(until_digest again)"

# What is exported has it, too.
obraz image export of-image "$work/exported" >"$work/out"
expect "the digest of the exported file" "$wanted" "$("$tools/image-digest" "$work/exported")"
obraz image verify raw >"$work/out"
grep -q 'image raw is what it was' "$work/out" || fail "verify says" "$work/out"

# Other files are refused, and nothing of them stays.
names image >"$work/before"
refused DATA_LOSS sha256 image import "$work/raw" --name other --sha256 "$(printf '%064d' 0)"
refused INVALID_ARGUMENT sha256 image import "$work/raw" --name other --sha256 12
refused NOT_FOUND image_id image verify nothing
names image >"$work/after"
cmp -s "$work/before" "$work/after" || fail "a refused import leaves something"

# A restart keeps them; without --digest-rate verifying computes the first one.
stop_daemon
start_daemon --digest-rate 0
expect "the digest after a restart" "$wanted" "$(digest_of raw)"
obraz disk create --name d2 --image raw >"$work/out"
obraz image create --name late --from-disk d2 >"$work/out"
expect "the digest of an image that nobody has verified" "" "$(digest_of late)"
obraz image verify late >"$work/out"
expect "the digest of an image that was verified" "$wanted" "$(digest_of late)"
stop_daemon

# A bit that rots: the first cluster of the store's data holds the beginning of the first image.
"$bin/obraz-store" dump "$work/store" --json --slots >"$work/dump"
place=$(python3 -c '
import json, sys
dump = json.load(open(sys.argv[1]))
slot = next(s for v in dump["volumes"] for n in v["nodes"] for s in n.get("slots", []) if s["offset"] == 3 << 20)
print(slot["own"] * 65536 + 77)' "$work/dump")
printf 'x' | dd of="$work/store/data" bs=1 seek="$place" conv=notrunc status=none
start_daemon
refused DATA_LOSS "" image verify raw
echo "image_digest: good"
