#!/usr/bin/env bash
# hostile_peers.sh BIN_DIR - what a peer can take is limited, and all of it comes back: clients beyond the limit, handshakes
# that never end, floods of options, replies that nobody reads, the largest requests from many at once, requests after DISC,
# half-closed sockets, and thousands that come and go at every point. Others are served meanwhile; afterwards `obraz status`
# counts the same clients, requests, payload memory and descriptors as before. Rubbish, and hostile clients while the daemon
# stops, are in nbd_hostile.sh.
#
# $OBRAZ_CONNECTS: how many come and go in the last step (default 10000).

set -euo pipefail
# shellcheck source=tests/interop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
begin "$@"

readonly max_sessions=300
readonly buffer_mib=128 node_cache_mib=16
# Beside payloads and nodes: sessions (32 KiB each), handshakes, counts, code.
readonly other_mib=64
# A read that is not aligned goes through a second buffer of its size.
readonly bounce_mib=$buffer_mib
readonly connects=${OBRAZ_CONNECTS:-10000}

# The daemon notices by itself that a client has left; asking is the only way to see that it has.
back_to_normal() {
  BASELINE=$baseline python_client <<'EOT'
wanted = json.loads(os.environ["BASELINE"])
deadline = time.monotonic() + 60
while (found := obraz("status")["load"]) != wanted:
    assert time.monotonic() < deadline, f"before: {wanted}; now: {found}"
EOT
}

memory_is_bounded() {
  local peak_kib
  peak_kib=$(awk '$1 == "VmHWM:" {print $2}' "/proc/$(daemon_process)/status")
  echo "peak: $peak_kib KiB"
  ((peak_kib <= (buffer_mib + bounce_mib + node_cache_mib + other_mib) * 1024)) || fail "the daemon has needed $peak_kib KiB of memory"
}

limit_of_clients() {
  MAX=$max_sessions python_client <<'EOT'
most = int(os.environ["MAX"])
clients = [attach_raw("disk/d") for _ in range(most)]
for _ in range(10):
    late = raw()
    assert late.recv(1) == b"", "a client beyond the limit is greeted"
for s in clients:
    s.sendall(request(1, 0, 4096) + b"x" * 4096)
for s in clients:
    assert receive(s, 16)[4:8] == bytes(4), "an attached client's write failed"
clients.pop().close()
deadline = time.monotonic() + 30
while True:  # until the daemon has noticed that one has left
    s = raw()
    if s.recv(18):
        break
    assert time.monotonic() < deadline, "no other client is let in"
EOT
}

# Each says something now and then, and never enough.
slow_handshakes() {
  python_client <<'EOT'
words = [HELLO, HELLO + go("disk/d")[:-1], HELLO + option(99, b"x" * 60000), HELLO + option(6, bytes(6)) * 60,
         b""]
clients = {}
for i in range(100):
    s = raw()
    clients[s.fileno()] = (s, words[i % len(words)])
print("connected", flush=True)
said = 0
deadline = time.monotonic() + 60
while clients:
    assert time.monotonic() < deadline, f"{len(clients)} clients are still in their handshakes"
    time.sleep(0.1)  # slowness is the attack
    for number, (s, word) in list(clients.items()):
        try:
            if said < len(word):
                s.send(word[said:said + 1])
            while s.recv(4096, socket.MSG_DONTWAIT):
                pass
            del clients[number]  # closed by the daemon
            s.close()
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            del clients[number]
    said += 1
assert said > 20, "they were closed before the time was up"
EOT
}

start_slow_handshakes() {
  : >"$work/slow.out"
  slow_handshakes >"$work/slow.out" 2>&1 &
  slow=$!
  grep -qx connected < <(timeout "$client_deadline_s" tail --lines=+1 --follow --sleep-interval=0.1 --pid="$slow" \
    "$work/slow.out") || fail "the slow clients could not connect" "$work/slow.out"
}

# 64 options are allowed, of 64 KiB each; whoever does not read the answers is waiting for the deadline.
option_floods() {
  python_client <<'EOT'
for word in (option(99), option(99, b"x" * 65536), option(3), option(8), option(6, bytes(6)), go("disk/none")):
    s = raw()
    sent = 0
    s.sendall(HELLO)
    receive(s, 18)
    try:
        while sent < 1000:
            s.sendall(word)
            sent += 1
            while True:
                try:
                    if not s.recv(1 << 20, socket.MSG_DONTWAIT):
                        raise BrokenPipeError
                except BlockingIOError:
                    break
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert sent < 1000, f"the daemon takes any number of options {word[:16]}"
# A length beyond 1 MiB is not even read.
s = raw()
s.sendall(HELLO + option(99, b"", (1 << 20) + 1))
try:
    while s.recv(4096):
        pass
except ConnectionResetError:
    pass
EOT
}

# Two clients that never read hold 64 of 128 MiB, for as long as they like: nobody needs their memory.
# With two more there is none left. Others wait then, until the ones that have not moved for 10 s are cut off.
deaf_clients() {
  python_client <<'EOT'
import select
def deaf():
    s = attach_raw("disk/d")
    s.sendall(request(0, 0, 16 << 20) * 20)  # 320 MiB of replies
    return s
def load():
    return obraz("status")["load"]
def wait_for(used):
    deadline = time.monotonic() + 30
    while (now := load())["buffer_used_bytes"] < used:
        assert time.monotonic() < deadline, f"only {now} are in use"
two = [deaf(), deaf()]
wait_for(64 << 20)
h = connect("disk/e")
for i in range(50):
    h.pwrite(bytes([i]) * (1 << 20), i << 20)
h.flush()
end = select.poll()
for s in two:
    end.register(s, 0)
assert not end.poll(0), "clients whose memory nobody needed were cut off"
many = two + [deaf() for _ in range(4)]
wait_for(128 << 20)
full = load()
assert full["buffer_used_bytes"] <= full["buffer_total_bytes"] == 128 << 20, full
for i in range(50):
    assert h.pread(1 << 20, i << 20) == bytes([i]) * (1 << 20)
h.shutdown()
end = select.poll()
for s in many:
    end.register(s, 0)
deadline = time.monotonic() + 60
assert end.poll(60_000), "nobody was cut off"
EOT
}

large_requests() {
  python_client <<'EOT'
import threading
size = 32 << 20
failures = []
def client(i):
    try:
        h = connect("disk/large")
        # Not aligned, every second one, so that the buffer is larger than the request.
        offset = 2 * i * size + i % 2 * 511
        for byte in (i + 1, i + 101):
            content = bytes([byte]) * size
            h.pwrite(content, offset)
            assert h.pread(size, offset) == content, f"client {i} does not read what it wrote"
        h.shutdown()
    except Exception as failure:
        failures.append(failure)
clients = [threading.Thread(target=client, args=(i,)) for i in range(16)]
for thread in clients:
    thread.start()
for thread in clients:
    thread.join()
assert not failures, failures
EOT
}

# What comes before DISC is done and answered, what comes behind it is ignored.
after_disc() {
  python_client <<'EOT'
connect("disk/d").pwrite(b"0" * 8192, 0)
s = attach_raw("disk/d")
s.sendall(request(1, 0, 4096, 1) + b"1" * 4096 + request(2, 0, 0, 2) + request(1, 4096, 4096, 3) + b"3" * 4096)
answers = b""
try:
    while part := s.recv(4096):
        answers += part
except ConnectionResetError:  # the daemon closed with our last write unread
    pass
assert answers == struct.pack(">IIQ", 0x67446698, 0, 1), answers
assert connect("disk/d").pread(8192, 0) == b"1" * 4096 + b"0" * 4096
EOT
}

# A client that has closed its sending side gets every reply; one that has closed its receiving side loses only those.
half_closed() {
  python_client <<'EOT'
s = attach_raw("disk/d")
for i in range(100):
    s.sendall(request(1, i * 4096, 4096, i) + bytes([i]) * 4096)
s.sendall(b"".join(request(0, 0, 1 << 20, 1000 + i) for i in range(40)))
s.shutdown(socket.SHUT_WR)
seen = set()
for _ in range(140):
    magic, error, cookie = struct.unpack(">IIQ", receive(s, 16))
    assert magic == 0x67446698 and error == 0 and cookie not in seen
    seen.add(cookie)
    if cookie >= 1000:
        receive(s, 1 << 20)
assert s.recv(1) == b"", "the daemon keeps a socket without requests"
s = attach_raw("disk/d")
s.shutdown(socket.SHUT_RD)
s.sendall(request(1, 1 << 20, 4096) + b"r" * 4096)
s.close()
h = connect("disk/d")
deadline = time.monotonic() + 30
while h.pread(4096, 1 << 20) != b"r" * 4096:
    assert time.monotonic() < deadline, "a request that was received whole is not carried out"
EOT
}

come_and_go() {
  CONNECTS=$connects python_client <<'EOT'
import random
random.seed(1)
whole = HELLO + go("disk/d")
def nothing(s):
    pass
def part_of_handshake(s):
    s.sendall(whole[:random.randrange(len(whole) + 1)])
def abort(s):
    s.sendall(HELLO + option(2))
def attached(s):
    pass
def in_a_header(s):
    s.sendall(request(0, 0, 4096)[:random.randrange(28)])
def in_a_write(s):
    length = random.choice((4096, 1 << 16, 1 << 20))
    s.sendall(request(1, 0, length) + b"w" * random.randrange(min(length, 100_000)))
def in_reads(s):
    s.sendall(request(0, 0, random.choice((4096, 1 << 17, 1 << 20))) * 4)
def with_replies(s):
    s.sendall(b"".join(request(0, 0, 4096, n) for n in range(100)))
    s.recv(1000)
counts = {}
held = []
for i in range(int(os.environ["CONNECTS"])):
    attach = random.random() < 0.6
    way = random.choice((attached, in_a_header, in_a_write, in_reads, with_replies) if attach
                        else (nothing, part_of_handshake, abort))
    counts[way.__name__] = counts.get(way.__name__, 0) + 1
    s = attach_raw("disk/d") if attach else raw()
    way(s)
    held.append(s)
    if len(held) > 50:  # well below the limit of clients
        held.pop(random.randrange(len(held))).close()
for s in held:
    s.close()
print(counts)
EOT
}

step "start obrazd" start_daemon --max-sessions "$max_sessions" --buffer-memory "${buffer_mib}M" \
  --node-cache "${node_cache_mib}M"
step "make a disk to attack" new_disk d 64M
step "one for others" new_disk e 64M
step "and one for large requests" new_disk large 1G
baseline=$(obraz --json status | python3 -c 'import json, sys; print(json.dumps(json.load(sys.stdin)["load"]))')
step "at most $max_sessions clients; those attached go on" limit_of_clients
step "nothing of them is left" back_to_normal
step "100 handshakes that take for ever begin" start_slow_handshakes
step "floods of options end by themselves" option_floods
step "clients that never read: others are served, memory is bounded" deaf_clients
step "the slow handshakes have been ended" wait "$slow"
step "nothing of them is left" back_to_normal
step "requests of 32 MiB from 16 clients at once" large_requests
step "requests after DISC are ignored" after_disc
step "half-closed sockets are served" half_closed
step "$connects clients come and go at every point" come_and_go
step "nothing of them is left" back_to_normal
step "memory was bounded all the time" memory_is_bounded
grep peak "$work/step.log" >&3
step "stop obrazd" stop_daemon
