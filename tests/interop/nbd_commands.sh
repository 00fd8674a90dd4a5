#!/usr/bin/env bash
# nbd_commands.sh BIN_DIR - libnbd sends every command with every flag; a flush on one connection holds for all.

set -euo pipefail
# shellcheck source=tests/interop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
begin "$@"

every_command() {
  python_client <<'EOT'
for structured in (False, True):
    h = connect("disk/d", structured=structured)
    assert h.get_size() == 64 << 20
    assert h.get_structured_replies_negotiated() == structured
    data = os.urandom(300001)
    h.pwrite(data, 12345)
    assert h.pread(len(data), 12345) == data
    h.pwrite(data[:4096], 4096, nbd.CMD_FLAG_FUA)
    assert h.pread(4096, 4096) == data[:4096]
    h.zero(4096, 4096)
    h.zero(4096, 8192, nbd.CMD_FLAG_FUA)
    h.zero(4096, 12288, nbd.CMD_FLAG_NO_HOLE)
    h.zero(4096, 16384, nbd.CMD_FLAG_FAST_ZERO)
    assert h.pread(16384, 4096) == bytes(16384)
    h.pwrite(data[:65536], 1 << 20)
    h.trim(65536, 1 << 20, nbd.CMD_FLAG_FUA)
    assert h.pread(65536, 1 << 20) == bytes(65536)
    h.cache(1 << 20, 0)
    h.flush()
    large = os.urandom(32 << 20)
    h.pwrite(large, 8 << 20)
    assert h.pread(len(large), 8 << 20) == large
    h.shutdown()
EOT
}
reads_in_chunks() {
  python_client <<'EOT'
h = connect("disk/e")
h.pwrite(b"x" * 65536, 1 << 20)
seen = []
def chunk(data, offset, status, error):
    seen.append((offset, len(data), status))
    return 0
h.pread_structured(4 << 20, 0, chunk)
assert seen == [(0, 1 << 20, nbd.READ_HOLE), (1 << 20, 65536, nbd.READ_DATA),
                ((1 << 20) + 65536, (3 << 20) - 65536, nbd.READ_HOLE)], seen
seen.clear()
h.pread_structured(4 << 20, 0, chunk, nbd.CMD_FLAG_DF)
assert seen == [(0, 4 << 20, nbd.READ_DATA)], seen
h.shutdown()
EOT
}
block_status() {
  python_client <<'EOT'
h = connect("disk/e", contexts=["base:allocation", "unknown:context"])
assert h.can_meta_context("base:allocation") and not h.can_meta_context("unknown:context")
seen = []
def extents(context, offset, entries, error):
    assert context == "base:allocation"
    seen.append(list(zip(entries[::2], entries[1::2])))
    return 0
h.block_status(4 << 20, 0, extents)
h.block_status(4 << 20, 0, extents, nbd.CMD_FLAG_REQ_ONE)
assert seen == [[(1 << 20, 3), (65536, 0), ((3 << 20) - 65536, 3)], [(1 << 20, 3)]], seen
h.shutdown()
EOT
}
a_flush_is_for_all() {
  python_client <<'EOT'
writers = [connect("disk/d") for _ in range(4)]
for i, h in enumerate(writers):
    assert h.can_multi_conn()
    h.pwrite(bytes([i + 1]) * 4096, i * 4096)
writers[3].flush()
for i in range(4):
    assert writers[(i + 1) % 4].pread(4096, i * 4096) == bytes([i + 1]) * 4096
for h in writers:
    h.shutdown()
EOT
}

step "start obrazd" start_daemon
step "make a disk" new_disk d 64M
step "and another" new_disk e 8M
step "every command and flag" every_command
step "reads come in chunks, or in one when asked" reads_in_chunks
step "block status" block_status
step "four connections, one flush" a_flush_is_for_all
step "stop obrazd" stop_daemon
