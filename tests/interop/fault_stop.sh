#!/usr/bin/env bash
# fault_stop.sh BIN_DIR - SIGTERM under load: fio with many requests in flight, a writer that counts what was answered, a
# client that never reads, an import and an export. The daemon ends with status 0, the store was closed with a checkpoint, so
# that nothing is replayed, and all that was answered is there, flushed or not. What idle and silent clients can do to a stop
# is in control_stop.sh and nbd_hostile.sh.
#
# $OBRAZ_STOPS: how many times (default 3).

set -euo pipefail
# shellcheck source=tests/interop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
begin "$@"

readonly rounds=${OBRAZ_STOPS:-3}

# await_line WORD FILE PID: until FILE, which PID writes, has the line WORD.
await_line() {
  grep -qx "$1" < <(timeout "$client_deadline_s" tail --lines=+1 --follow --sleep-interval=0.05 --pid="$3" "$2") ||
    fail "no '$1' came" "$2"
}

# Writes without ever flushing until the daemon refuses or closes, and puts into $work/answered what each block may hold: the
# number answered last, and the one that was under way, if any.
writer() {
  ANSWERED=$work/answered python_client <<'EOT'
import random
random.seed(os.urandom(8))
h = connect("disk/w")
blocks, written, number = (64 << 20) // 4096, {}, 0
doubtful = {}
pending = []  # (cookie, block, number)
try:
    while True:
        while len(pending) < 16:
            number += 1
            block = random.randrange(blocks)
            if block in doubtful:
                continue
            buffer = nbd.Buffer.from_bytearray(bytearray(struct.pack("<Q", number) * 512))
            doubtful[block] = number
            pending.append((h.aio_pwrite(buffer, block * 4096), block, number, buffer))
        h.poll(-1)
        for entry in list(pending):
            if h.aio_command_completed(entry[0]):
                pending.remove(entry)
                written[entry[1]] = entry[2]
                del doubtful[entry[1]]
        if number > 500 and not os.path.exists(os.environ["ANSWERED"] + ".begun"):
            open(os.environ["ANSWERED"] + ".begun", "w").close()
            print("under way", flush=True)
except nbd.Error as error:
    # Answers that came together with the end of the connection still count.
    print(error)
    for cookie, block, number, buffer in pending:
        try:
            if h.aio_command_completed(cookie):
                written[block] = number
                del doubtful[block]
        except nbd.Error:
            pass
json.dump([list(written.items()), list(doubtful.items())], open(os.environ["ANSWERED"], "w"))
EOT
}

# It asks for 320 MiB and reads nothing, until it is cut off.
deaf_client() {
  python_client <<'EOT'
import select
s = attach_raw("disk/w")
s.sendall(request(0, 0, 16 << 20) * 20)
end = select.poll()
end.register(s, 0)
print("under way", flush=True)
assert end.poll(100_000), "it was not cut off"
EOT
}

load() {
  rm -f "$work/answered" "$work/answered.begun"
  : >"$work/writer.out"
  : >"$work/deaf.out"
  (cd "$work" && timeout "$client_deadline_s" fio --name=load --ioengine=nbd --uri="$(uri f)" --size=64M --rw=randrw \
    --bsrange=4k-256k --iodepth=64 --numjobs=3 --thread --time_based --runtime="$client_deadline_s" --fsync=100 \
    --output-format=terse >"$work/fio.out" 2>&1) &
  fio=$!
  writer >"$work/writer.out" 2>&1 &
  writer=$!
  deaf_client >"$work/deaf.out" 2>&1 &
  deaf=$!
  obraz image import "$work/large.raw" --name large --async
  obraz image export small "$work/exported.raw" --async
  await_line 'under way' "$work/writer.out" "$writer"
  await_line 'under way' "$work/deaf.out" "$deaf"
}

clients_have_noticed() {
  ! wait "$fio" || fail "fio did not notice that obrazd has stopped" "$work/fio.out"
  wait "$writer" || fail "the writer failed" "$work/writer.out"
  wait "$deaf" || fail "the client that never reads failed" "$work/deaf.out"
}

closed_cleanly() {
  "$bin/obraz-store" check "$work/store" --data
  expect "batches to replay" 0 "$("$bin/obraz-store" dump "$work/store" --json |
    python3 -c 'import json, sys; print(len(json.load(sys.stdin)["journal"]))')"
}

answered_is_there() {
  ANSWERED=$work/answered python_client <<'EOT'
written, doubtful = (dict(part) for part in json.load(open(os.environ["ANSWERED"])))
assert len(written) > 300, f"only {len(written)} blocks were written"
h = connect("disk/w")
for block in written.keys() | doubtful.keys():
    data = h.pread(4096, block * 4096)
    found = struct.unpack("<Q", data[:8])[0]
    assert data == data[:8] * 512, f"block {block} is a mixture"
    if block in doubtful:  # what it held before this load is known only if it was written in it
        assert block not in written or found in (written[block], doubtful[block]), \
            f"block {block}: {found}, but {written[block]} was answered and {doubtful[block]} was sent"
    else:
        assert found == written[block], f"block {block}: {found}, but {written[block]} was answered"
print(len(written), "blocks as answered,", len(doubtful), "in flight at the stop")
h.shutdown()
EOT
}

# The import has failed or, if it was quick enough, is there; it is never half done.
import_is_whole() {
  local status
  status=$(obraz --json image list | python3 -c 'import json, sys
print(*(i["status"] for i in json.load(sys.stdin)["images"] if i["name"] == "large"))')
  case $status in
    '') expect "running operations" 0 "$(obraz --json status |
      python3 -c 'import json, sys; print(json.load(sys.stdin)["resources"]["running_operations"])')" ;;
    READY) obraz image delete large ;;
    *) fail "the image is $status" ;;
  esac
  [[ ! -e $work/exported.raw ]] || cmp "$work/exported.raw" "$work/small.raw"
  rm -f "$work/exported.raw"
}

make_files() {
  head -c 64M /dev/urandom >"$work/small.raw"
  head -c 512M /dev/urandom >"$work/large.raw"
}
start_again() {
  # shellcheck disable=SC2119  # the script's arguments are not the daemon's
  start_daemon
}

step "make files to import" make_files
step "start obrazd" start_daemon --data-size 4G
step "make a disk for fio" new_disk f 64M
step "one for a writer" new_disk w 64M
step "and an image" obraz image import "$work/small.raw" --name small
for ((round = 1; round <= rounds; ++round)); do
  step "load: fio, a writer, a deaf client, an import, an export" load
  step "SIGTERM: status 0" stop_daemon
  step "the clients have noticed" clients_have_noticed
  step "nothing is to be replayed; the store is clean" closed_cleanly
  step "start again" start_again
  step "all that was answered is there" answered_is_there
  tail -n 1 "$work/step.log" >&3
  step "import and export are done or undone" import_is_whole
done
step "stop obrazd" stop_daemon
