# shellcheck shell=bash
# What the nbd_*.sh scripts share: a daemon of their own (tools/lib/boot.sh), disks by name, and Python clients.
#
#   begin SCRIPT_ARGUMENTS...   first; sets $bin, makes $work, cleans up when the script ends
#   new_disk NAME SIZE          makes a disk
#   uri DISK                    its NBD URI
#   export_uri EXPORT           the NBD URI of any export name, over the Unix socket
#   python_client               runs the Python program on standard input with libnbd and the helpers below: connect(),
#                               refused(), obraz(), raw(), attach_raw(), request()
#   load FIELD                  a number of `load` in the daemon's status
#   daemon_cpu_ticks            processor time the daemon has used so far, in clock ticks
#   mount_store SIZE OPTIONS    mounts a file system of its own for the next store, ext4 of that size; needs root
#   unmount_store               not needed at the end of a script
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
import errno, json, os, socket, struct, subprocess, sys, time
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

def obraz(*arguments):
    """What obraz --json prints; it must succeed."""
    done = subprocess.run([os.environ["OBRAZ_CLIENT"], "--json", *arguments], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)

def raw():
    """A bare connection: nothing has been said yet."""
    s = socket.socket(socket.AF_UNIX)
    s.connect(os.environ["NBD_SOCKET"])
    return s

def receive(s, length):
    data = bytearray()
    while len(data) < length:
        part = s.recv(min(length - len(data), 1 << 20))
        if not part:
            raise EOFError(f"the daemon closed after {len(data)} of {length} bytes")
        data += part
    return bytes(data)

def option(number, data=b"", length=None):
    return b"IHAVEOPT" + struct.pack(">II", number, len(data) if length is None else length) + data

HELLO = struct.pack(">I", 3)  # fixed newstyle, no zeroes

def go(export):
    return option(7, struct.pack(">I", len(export)) + export.encode() + struct.pack(">H", 0))

def attach_raw(export):
    """In transmission, with simple replies."""
    s = raw()
    s.sendall(HELLO + go(export))
    receive(s, 18)
    while True:
        magic, number, kind, length = struct.unpack(">QIII", receive(s, 20))
        receive(s, length)
        if kind == 1:  # ACK
            return s
        assert kind == 3, f"the daemon answers {kind:#x} to GO"

def request(command, offset, length, cookie=1, magic=0x25609513):
    return struct.pack(">IHHQQI", magic, 0, command, cookie, offset, length)
PRELUDE
)"$'\n'"$(cat)"
  OBRAZ_CLIENT=$bin/obraz OBRAZ_CONTROL=$work/store/control.sock NBD_SOCKET=$work/store/nbd.sock \
    timeout "$client_deadline_s" /usr/bin/python3 -c "$program"
}

# load FIELD: that number of `load` in the daemon's status.
load() {
  obraz --json status | python3 -c 'import json, sys; print(json.load(sys.stdin)["load"][sys.argv[1]])' "$1"
}

daemon_cpu_ticks() {
  # utime and stime: fields 14 and 15, counted behind the command's name.
  sed 's/.*) //' "/proc/$(daemon_process)/stat" | awk '{print $12 + $13}'
}

# From $work/small.img to $work/small. $work/store becomes a link into it; the store that was there is gone.
mount_store() {
  ((EUID == 0)) || fail "mounting a file system needs root"
  rm -rf "$work/store"
  truncate -s "$1" "$work/small.img"
  mkfs.ext4 -q -m 0 "$work/small.img"
  mkdir "$work/small"
  # clean_up removes $work; before that the file system must be gone, and before that the daemon.
  trap 'leave_store $?; clean_up' EXIT
  mount -o "loop,$2" "$work/small.img" "$work/small"
  mkdir "$work/small/store"
  ln -s "$work/small/store" "$work/store"
}

unmount_store() {
  umount "$work/small"
  rm "$work/store"
}

# Gives back the status it is given, which is that of the script.
leave_store() {
  set +e
  [[ -z $daemon_pid ]] || end_process "$daemon_pid"
  daemon_pid=
  ! mountpoint --quiet "$work/small" || umount "$work/small"
  return "$1"
}
