#!/usr/bin/env bash
# nbd_refusals.sh BIN_DIR - bad requests get their error, change nothing, and do not end the session.

set -euo pipefail
# shellcheck source=tests/interop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
begin "$@"

bad_requests() {
  python_client <<'EOT'
size = 64 << 20
for structured in (False, True):
    # strict=False: the library passes on what it would refuse by itself
    h = connect("disk/d", structured=structured, strict=False)
    h.pwrite(b"keep" * 1024, 0)
    refused(errno.EINVAL, h.pread, 4096, size)
    refused(errno.EINVAL, h.pread, 4096, size - 4095)
    refused(errno.EINVAL, h.pread, 4096, (1 << 64) - 4096)
    refused(errno.ENOSPC, h.pwrite, b"x" * 4096, size - 1)
    refused(errno.ENOSPC, h.zero, 4096, size - 1)
    refused(errno.EINVAL, h.trim, 4096, size - 1)
    refused(errno.EINVAL, h.cache, 4096, size)
    refused(errno.EINVAL, h.pwrite, b"x" * 4096, 0, nbd.CMD_FLAG_REQ_ONE)
    refused(errno.EINVAL, h.flush, 1 << 15)
    refused(errno.EINVAL, h.pwrite, b"x" * ((32 << 20) + 1), 0)
    assert h.pread(4096, 0) == b"keep" * 1024
    h.shutdown()
EOT
}
read_only_exports() {
  python_client <<'EOT'
h = connect("snapshot/s", strict=False)
assert h.is_read_only()
refused(errno.EPERM, h.pwrite, b"x" * 4096, 0)
refused(errno.EPERM, h.zero, 4096, 0)
refused(errno.EPERM, h.trim, 4096, 0)
assert h.pread(4096, 0) == b"keep" * 1024
h.shutdown()
EOT
}
unknown_exports() {
  python_client <<'EOT'
for name in ("", "disk/none", "d", "image/d", "disk/d/", "disk//d", "x" * 4096, "disk/../d", "disk/d\n"):
    try:
        connect(name)
    except nbd.Error as error:
        print(repr(name[:20]), error)
        continue
    raise AssertionError(f"there is an export {name!r}")
h = nbd.NBD()
h.set_opt_mode(True)
h.connect_unix(os.environ["NBD_SOCKET"])
h.set_export_name("disk/none")
refused(errno.ENOENT, h.opt_go)   # and the handshake goes on
h.set_export_name("disk/d")
h.opt_go()
assert h.get_size() == 64 << 20
h.shutdown()
EOT
}

step "start obrazd" start_daemon
step "make a disk" new_disk d 64M
step "bad requests get their error" bad_requests
step "make a snapshot" obraz snapshot create --name s --disk d
step "a snapshot cannot be written" read_only_exports
step "exports that do not exist" unknown_exports
step "stop obrazd" stop_daemon
