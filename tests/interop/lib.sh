# shellcheck shell=bash
# What the nbd_*.sh scripts share: a daemon of their own (tools/lib/boot.sh), disks by name, and Python clients.
#
#   begin SCRIPT_ARGUMENTS...   first; sets $bin, makes $work, cleans up when the script ends
#   new_disk NAME SIZE          makes a disk
#   uri DISK                    its NBD URI
#   export_uri EXPORT           the NBD URI of any export name, over the Unix socket
#   python_client               runs the Python program on standard input with libnbd and two helpers, connect() and
#                               refused(), which are below
#   daemon_cpu_ticks            processor time the daemon has used so far, in clock ticks
#   expect WHAT WANTED FOUND    fails unless the two are the same

# shellcheck source=tools/lib/boot.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../tools/lib/boot.sh"

# The daemon has this long for anything one of these clients asks of it.
readonly client_deadline_s=120

begin() {
  (($# == 1)) || { echo "usage: ${0##*/} BIN_DIR" >&2; exit 2; }
  bin=$(cd "$1" && pwd)
  begin_work "$(basename "$0" .sh)" "${TMPDIR:-/tmp}"
}

expect() {
  [[ $2 == "$3" ]] || fail "$1 should be '$2', but is '$3'"
}

new_disk() {
  obraz disk create --name "$1" --size "$2"
}

uri() {
  obraz disk uri "$1"
}

export_uri() {
  printf 'nbd+unix:///%s?socket=%s/store/nbd.sock' "$1" "$work"
}

# What a client says through libnbd, and what it must not get away with. The Debian package belongs to this interpreter.
python_client() {
  local program
  program="$(cat <<'PRELUDE'
import errno, os, struct, sys, time
import nbd

def connect(export, structured=True, contexts=(), strict=True):
    h = nbd.NBD()
    h.set_export_name(export)
    h.set_request_structured_replies(structured)
    for context in contexts:
        h.add_meta_context(context)
    if not strict:
        h.set_strict_mode(0)
    h.connect_unix(os.environ["NBD_SOCKET"])
    return h

def refused(number, call, *arguments, **options):
    """The call must fail with this errno."""
    try:
        call(*arguments, **options)
    except nbd.Error as error:
        assert error.errnum == number, f"{errno.errorcode.get(error.errnum)} instead of {errno.errorcode[number]}: {error}"
        return error
    raise AssertionError(f"not refused, but should be with {errno.errorcode[number]}")
PRELUDE
)"$'\n'"$(cat)"
  NBD_SOCKET="$work/store/nbd.sock" timeout "$client_deadline_s" /usr/bin/python3 -c "$program"
}

# The process that start_daemon waits for is a `timeout`, whose only child is the daemon.
daemon_process() {
  pgrep --parent "$daemon_pid" --exact obrazd
}

daemon_cpu_ticks() {
  # utime and stime: fields 14 and 15, counted behind the command's name.
  sed 's/.*) //' "/proc/$(daemon_process)/stat" | awk '{print $12 + $13}'
}
