#!/usr/bin/env bash
# fault_limits.sh BIN_DIR - what the machine around the daemon can do to it: no descriptors left, an address space that is
# limited, a control group that is, a file system below the store that turns read-only, a `data` file that somebody shortens, and a clock that jumps.
# The daemon stays up and serves what it can, or refuses to start with a sentence that says why; what was acknowledged stays.
#
# The limits are set with prlimit and the clock is that of a preloaded library, so both concern this daemon alone.
# Needs root: it mounts a small ext4 file system and tells it to fail.

set -euo pipefail
# shellcheck source=tests/interop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
begin "$@"

readonly descriptors=64
readonly clients=100  # more than there are descriptors

# refuses_to_start WORDS COMMAND...: obrazd, run so, ends with status 1 and says these words.
refuses_to_start() {
  local words=$1 status=0
  shift
  timeout "$daemon_ready_deadline_s" "$@" "$bin/obrazd" --store "$work/store" >"$work/refused.log" 2>&1 || status=$?
  cat "$work/refused.log"
  expect "the exit status of obrazd" 1 "$status"
  grep -q -e "$words" "$work/refused.log" || fail "obrazd should say '$words'"
}

status_of() {
  obraz --json status | python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"
}

check_store() {
  "$bin/obraz-store" check "$work/store" --data
}

start_again() {
  # shellcheck disable=SC2119  # the script's arguments are not the daemon's
  start_daemon
}

# --- descriptors

limit_descriptors() {
  prlimit --pid "$(daemon_process)" --nofile="$descriptors:$descriptors"
}

# Connections come until no more is answered. Those that were greeted are served; the others wait and get their turn.
exhaust_descriptors() {
  CLIENTS=$clients python_client <<'EOT'
import select
served = [attach_raw("disk/d")]
waiting = [raw() for _ in range(int(os.environ["CLIENTS"]))]
control = socket.socket(socket.AF_UNIX)  # cannot be accepted either
control.connect(os.environ["OBRAZ_CONTROL"])
greeted = select.poll()
for s in waiting:
    greeted.register(s, select.POLLIN)
# The first to come are greeted at once, so who is not when one of the last would have been, waits.
seen = set()
while len(seen) < 20:
    seen |= {fd for fd, _ in greeted.poll(30_000)}
    for fd in seen:
        try:
            greeted.unregister(fd)
        except KeyError:
            pass
for i in range(200):
    served[0].sendall(request(1, i * 4096, 4096, i) + bytes([i]) * 4096 + request(3, 0, 0, i))
    receive(served[0], 32)
    served[0].sendall(request(0, i * 4096, 4096, i))
    assert receive(served[0], 4112)[16:] == bytes([i]) * 4096
unanswered = [s for s in waiting if not select.select([s], [], [], 0)[0]]
assert unanswered, "there was no lack of descriptors"
print(len(waiting) - len(unanswered), "greeted,", len(unanswered), "waiting")
for s in waiting:
    if s not in unanswered:
        s.close()
for s in unanswered:  # one by one: each leaves room for others
    s.settimeout(60)
    assert len(receive(s, 18)) == 18
    s.close()
served[0].close()
control.close()
connect("disk/d").shutdown()
obraz("disk", "create", "--name", "after", "--size", "4M")
obraz("disk", "delete", "after")
EOT
}

# --- address space

# With what the daemon has after a little work and half a GiB more, a crowd of clients must not bring it down: what they can
# make it take is limited, and less than that.
limit_memory() {
  connect_once
  local used_kib
  used_kib=$(awk '$1 == "VmSize:" {print $2}' "/proc/$(daemon_process)/status")
  prlimit --pid "$(daemon_process)" --as=$(((used_kib + 512 * 1024) * 1024))
}
connect_once() {
  python_client <<<'connect("disk/d").pwrite(b"x" * 4096, 0)'
}
crowd() {
  python_client <<'EOT'
import select
crowd = []
for i in range(500):
    s = attach_raw("disk/d")
    s.setblocking(False)
    try:
        s.send(b"".join(request(0, 0, 64 << 10, n) for n in range(128)))
    except BlockingIOError:
        pass
    crowd.append(s)
got = dict.fromkeys((s.fileno() for s in crowd), 0)
by_number = {s.fileno(): s for s in crowd}
ready = select.poll()
for s in crowd:
    ready.register(s, select.POLLIN)
wanted = 128 * ((64 << 10) + 16)
while any(n < wanted for n in got.values()):
    events = ready.poll(60_000)
    assert events, "nobody is served any more"
    for number, _ in events:
        data = by_number[number].recv(1 << 20)
        assert data, "a client was disconnected"
        got[number] += len(data)
        if got[number] >= wanted:
            ready.unregister(number)
for s in crowd:
    s.close()
EOT
}

# --- memory of a control group

# Below it the kernel kills whoever takes more, so the daemon must stay below by itself, whatever clients do. What the kernel keeps for
# sockets counts, too.
readonly group_bytes=$((512 << 20))
memory_group=

start_in_group() {
  local limit
  if [[ -d /sys/fs/cgroup/memory ]]; then  # version 1
    memory_group=/sys/fs/cgroup/memory/obraz-$$ limit=memory.limit_in_bytes
  else
    memory_group=/sys/fs/cgroup/obraz-$$ limit=memory.max
  fi
  if ! mkdir "$memory_group" || [[ ! -e $memory_group/$limit ]]; then
    echo "this machine gives no control group with a limit of memory: not tested"
    [[ ! -d $memory_group ]] || rmdir "$memory_group"
    memory_group=
  else
    echo "$group_bytes" >"$memory_group/$limit"
    echo "$BASHPID" >"$memory_group/cgroup.procs"  # what is started now belongs to it
  fi
  start_again
  [[ -z $memory_group ]] || echo "$BASHPID" >"${memory_group%/*}/cgroup.procs"
}
was_not_killed() {
  local kills
  [[ -n $memory_group ]] || return 0
  cat "$memory_group"/memory.{max_usage_in_bytes,peak} 2>/dev/null || true
  kills=$({ cat "$memory_group"/memory.{oom_control,events} 2>/dev/null || true; } | awk '$1 == "oom_kill" {print $2}')
  expect "processes that the kernel killed" 0 "$kills"
  obraz status
}
leave_group() {
  stop_daemon
  [[ -z $memory_group ]] || rmdir "$memory_group"
}

# --- a file system that turns read-only

write_flushed() {
  python_client <<'EOT'
h = connect("disk/d")
for i in range(512):
    h.pwrite(struct.pack("<Q", i + 1) * 8192, i << 16)
h.flush()
h.shutdown()
EOT
}

# As an error on the device below it would, in the middle of a client's work: the write was answered, but a flush of it
# cannot succeed any more.
turn_read_only() {
  local device
  device=$(findmnt --noheadings --output SOURCE "$work/small")
  TRIGGER=/sys/fs/ext4/$(basename "$device")/trigger_fs_error python_client <<'EOT'
h = connect("disk/d")
# In place, so that nothing but the flush of data itself can fail; the bytes are those that are there.
h.pwrite(struct.pack("<Q", 101) * 512, 100 << 16)
with open(os.environ["TRIGGER"], "w") as trigger:
    trigger.write("1")
refused(errno.EIO, h.flush)
h.shutdown()
EOT
  ! touch "$work/small/file" 2>"$work/touch.log" || fail "the file system still takes writes"
}

# The store has failed, and stays so: no write and no call that changes something is accepted.
while_read_only() {
  ! obraz disk create --name e --size 4M || fail "a disk was made on a read-only file system"
  expect "health" failed "$(status_of health)"
  status_of health_reason | grep -q . || fail "status does not say why"
  python_client <<'EOT'
h = connect("disk/d")
for i in range(512):
    assert h.pread(8, i << 16) == struct.pack("<Q", i + 1), f"cluster {i}"
refused(errno.EPERM, h.pwrite, b"x" * 4096, 0)
h.shutdown()
EOT
}

ends_with_status_1() {
  local status=0
  kill -TERM "$daemon_pid"
  wait "$daemon_pid" || status=$?
  daemon_pid=
  expect "the exit status of obrazd" 1 "$status"
  grep -q 'read-only' "$work/obrazd-$daemon_starts.log" || fail "obrazd does not say why" "$work/obrazd-$daemon_starts.log"
}

writable_again() {
  umount "$work/small"
  local status=0
  e2fsck -fp "$work/small.img" || status=$?
  ((status <= 1)) || fail "e2fsck ended with status $status"
  mount -o loop "$work/small.img" "$work/small"
}

flushed_is_there() {
  python_client <<'EOT'
h = connect("disk/d")
for i in range(512):
    assert h.pread(1 << 16, i << 16) == struct.pack("<Q", i + 1) * 8192, f"cluster {i}"
h.pwrite(b"x" * 4096, 40 << 20)
h.flush()
h.shutdown()
EOT
}

# --- a shortened data file

shorten() {
  full_size=$(stat --format %s --dereference "$work/store/data")
  # The first clusters stay, whatever holds the rest does not.
  truncate -s 8M "$work/store/data"
}

part_is_lost() {
  python_client <<'EOT'
h = connect("disk/d")
good, lost = [], []
for i in range(512):
    try:
        assert h.pread(1 << 16, i << 16) == struct.pack("<Q", i + 1) * 8192, f"cluster {i} has other bytes"
        good.append(i)
    except nbd.Error as error:
        assert error.errnum == errno.EIO, errno.errorcode[error.errnum]
        lost.append(i)
assert len(good) > 50 and len(lost) > 300, f"{len(good)} can be read, {len(lost)} not"
h.pwrite(b"new!" * (1 << 14), good[0] << 16)
h.flush()
assert h.pread(1 << 16, good[0] << 16) == b"new!" * (1 << 14)
h.pwrite(struct.pack("<Q", good[0] + 1) * 8192, good[0] << 16)
h.shutdown()
print(len(good), "clusters can be read,", len(lost), "are EIO")
EOT
}

lengthen() {
  truncate -s "$full_size" "$work/store/data"
}

# --- the clock

# CLOCK_REALTIME with an offset in seconds, read from a file at each call; monotonic clocks are as they were, as with
# settimeofday.
make_clock() {
  cat >"$work/clock.c" <<'EOT'
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long offset(void) {
  char text[32] = "";
  int fd = open(getenv("CLOCK_OFFSET"), O_RDONLY | O_CLOEXEC);
  if (fd >= 0) {
    if (read(fd, text, sizeof text - 1) < 0)
      text[0] = 0;
    close(fd);
  }
  return atol(text);
}
int clock_gettime(clockid_t id, struct timespec* t) {
  int result = (int)syscall(SYS_clock_gettime, id, t);
  if (result == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
    t->tv_sec += offset();
  return result;
}
time_t time(time_t* into) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  if (into)
    *into = t.tv_sec;
  return t.tv_sec;
}
int gettimeofday(struct timeval* restrict into, void* restrict zone) {
  struct timespec t;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &t);
  into->tv_sec = t.tv_sec;
  into->tv_usec = t.tv_nsec / 1000;
  return 0;
}
EOT
  cc -shared -fPIC -O1 -o "$work/clock.so" "$work/clock.c"
  set_clock 0
}

# set_clock SECONDS: relative to the true time.
set_clock() {
  echo "$1" >"$work/offset.new"
  mv "$work/offset.new" "$work/offset"
}

start_with_clock() {
  CLOCK_OFFSET=$work/offset LD_PRELOAD=$work/clock.so start_daemon --data-size 256M
}

# year OF: in which it was made.
year() {
  obraz --json disk get "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["created_at"][:4])'
}

# A year ahead: nobody is late because of it. A year back: whoever is late is still disconnected, and others still get what
# they wait for.
clock_jumps() {
  local now
  now=$(date +%Y)
  OFFSET=$work/offset python_client <<'EOT'
import select
def jump(years):
    with open(os.environ["OFFSET"] + ".new", "w") as out:
        print(years * 366 * 86400, file=out)
    os.rename(os.environ["OFFSET"] + ".new", os.environ["OFFSET"])
h = connect("disk/d")
slow = raw()  # in its handshake while the clock jumps
receive(slow, 18)
jump(2)
obraz("disk", "create", "--name", "later", "--size", "4M")
slow.sendall(HELLO + go("disk/d"))
assert receive(slow, 8) == struct.pack(">Q", 0x3e889045565a9), "a handshake was ended by the clock"
h.pwrite(b"x" * 4096, 0)
h.flush()
# One client of each kind that a deadline ends: it has to come although the clock goes back.
late = raw()
receive(late, 18)
def deaf():
    s = attach_raw("disk/d")
    s.sendall(request(0, 0, 16 << 20) * 20)
    return s
many = [deaf() for _ in range(4)]
deadline = time.monotonic() + 60
while obraz("status")["load"]["buffer_used_bytes"] < 128 << 20:
    assert time.monotonic() < deadline
jump(-2)
obraz("disk", "create", "--name", "back", "--size", "4M")
h.pread(16 << 20, 0)  # waits for memory until one of the deaf is cut off
late.settimeout(60)
assert late.recv(1) == b"", "a late handshake is not ended"
h.pwrite(b"y" * 4096, 0)
h.flush()
obraz("snapshot", "create", "--name", "s", "--disk", "d")
h.shutdown()
EOT
  (($(year later) >= now + 2)) || fail "the clock of obrazd has not jumped: $(year later)"
  # What is made later is never older: the newest image of a family depends on it.
  (($(year back) >= $(year later))) || fail "what was made later is of $(year back), what was made before of $(year later)"
}

step "start obrazd" start_daemon --data-size 1G
step "make a disk" new_disk d 64M
step "leave it $descriptors descriptors" limit_descriptors
step "$clients clients: some are served, the others wait for their turn" exhaust_descriptors
grep waiting "$work/step.log" >&3
step "stop obrazd" stop_daemon
step "with 8 descriptors it does not start" refuses_to_start 'Too many open files' prlimit --nofile=8:8
step "start again" start_again
step "limit its memory" limit_memory
step "500 clients with 128 requests each" crowd
step "stop obrazd" stop_daemon
step "with 64 MiB of memory it does not start" refuses_to_start 'memory' prlimit --as=$((64 << 20))

step "start it in a control group of $((group_bytes >> 20)) MiB" start_in_group
step "500 clients with 128 requests each" crowd
step "the kernel had no reason to kill it" was_not_killed
step "stop obrazd" leave_group

step "mount a small file system" mount_store 256M errors=remount-ro
step "start obrazd on it" start_daemon --data-size 128M --journal-size 1M
step "make a disk" new_disk d 64M
step "write and flush" write_flushed
step "the file system turns read-only" turn_read_only
step "reads go on; no write and no call is acknowledged" while_read_only
step "SIGTERM: status 1, and why" ends_with_status_1
step "it does not start on a read-only file system, and says why" refuses_to_start 'Read-only file system' env
step "the file system is writable again" writable_again
step "the store is clean" check_store
step "start obrazd" start_again
step "what was flushed is there" flushed_is_there

step "somebody shortens data" shorten
step "what is lost is EIO, the rest is served" part_is_lost
grep EIO "$work/step.log" >&3
step "stop obrazd" stop_daemon
step "it does not start, and says why" refuses_to_start 'smaller than' env
step "data has its size again" lengthen
step "start obrazd" start_again
step "stop obrazd" stop_daemon
step "unmount" unmount_store

step "make a clock" make_clock
step "start obrazd with it" start_with_clock
step "make a disk" new_disk d 64M
step "the clock jumps two years ahead, and four years back" clock_jumps
step "stop obrazd" stop_daemon
step "the store is clean" check_store
