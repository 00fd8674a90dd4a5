"""What is done with disks as a whole: making them, snapshots, images. Each function measures one server once and gives, for each figure,
its samples."""

import random
import statistics
import sys
import time

from .machine import Failed, memory_bytes
from .servers import IN_FLIGHT, NO_CACHE, SERVERS, Obrazd, QemuNbd, StorageDaemon
from .workloads import MANY_DISKS, OVERWRITE_BYTES, fill, load, load_result, start_load

CREATED = 100
SNAPSHOTS, OVERLAYS = 1000, 100  # of obrazd, of qemu
SNAPSHOT_RANGE, WRITES_BETWEEN = 64 << 20, 16
CALLS_UNDER_LOAD, QUIET_S, BETWEEN_CALLS_S = 20, 2.0, 0.2
INTERVAL_MS, AFTERMATH_S = 10, 0.05
IMAGE_DATA_BYTES = 2 << 30


def connect(uri):
    import nbd  # Debian: python3-libnbd
    handle = nbd.NBD()
    handle.connect_uri(uri)
    return handle


def milliseconds(samples):
    return [sample * 1e3 for sample in samples]


def create(bench, server):
    """From the call until a client that did not exist before has the first block."""
    took = []
    server.start(0)
    for index in range(min(CREATED, server.max_disks)):
        begin = time.monotonic()
        server.add_disk(index)
        handle = connect(server.uri(index))
        handle.pread(4096, 0)
        took.append(time.monotonic() - begin)
        handle.shutdown()
    return {"ms until the first block is read": milliseconds(took)}


def thousand(bench, server):
    disks = min(MANY_DISKS, server.max_disks)
    server.start(0)
    empty = memory_bytes(server.pids())
    begin = time.monotonic()
    for index in range(disks):
        server.add_disk(index)
    seconds = time.monotonic() - begin
    idle = memory_bytes(server.pids())
    handles = [connect(server.uri(index)) for index in range(disks)]
    for handle in handles:
        handle.pread(4096, 0)
    attached = memory_bytes(server.pids())
    for handle in handles:
        handle.shutdown()
    calls = {f"s to make {disks}": [seconds]}
    if isinstance(server, Obrazd):
        calls |= {f"s to delete {disks}": [server.delete_all()],
                  f"s to make {disks}, {IN_FLIGHT} in flight": [server.add_disks_in_flight(disks)],
                  f"s to delete {disks}, {IN_FLIGHT} in flight": [server.delete_all_in_flight()]}
    return calls | {f"KiB for each of {disks} idle disks": [(idle - empty) / disks / 1024],
                    "KiB more with a client on each, after a read": [(attached - idle) / disks / 1024]}


def snapshot_under_load(bench, server):
    """Random writes, 8 at a time, go on. Their worst latency is looked for from the call until a little after its end, and in the quiet
    time before in stretches of that length."""
    server.start()
    fill(bench, server.uri(), OVERWRITE_BYTES)
    seconds = QUIET_S + CALLS_UNDER_LOAD * (BETWEEN_CALLS_S + 0.1) + 1
    client = start_load(bench, [server.uri()], ["--read-percent", "0", "--depth", "8", "--length", str(OVERWRITE_BYTES), "--seconds",
                                                str(seconds), "--interval", str(INTERVAL_MS)])
    time.sleep(QUIET_S)
    calls = []
    for number in range(1, CALLS_UNDER_LOAD + 1):
        begin = time.monotonic()
        server.snapshot(number)
        calls.append((begin, time.monotonic()))
        time.sleep(BETWEEN_CALLS_S)
    found = load_result(client)
    if calls[-1][1] + AFTERMATH_S > found["begin_s"] + found["seconds"]:
        raise Failed("the load ended before the last snapshot was made")

    def worst(begin, end):
        first, last = (int((at - found["begin_s"]) * 1000 / INTERVAL_MS) for at in (begin, end + AFTERMATH_S))
        return max(latency for _, latency in found["intervals"][max(first, 0):last + 1]) / 1e3

    length = statistics.median(end - begin for begin, end in calls)
    quiet, at = [], found["begin_s"] + 0.3
    while at + length + AFTERMATH_S < calls[0][0]:
        quiet.append(worst(at, at + length))
        at += length + AFTERMATH_S
    return {"ms, the call": milliseconds(end - begin for begin, end in calls),
            "ms, worst write in a call": [worst(begin, end) for begin, end in calls],
            "ms, worst write in as long without": quiet}


def many_snapshots(bench, server):
    """A little is written before each; then single ones in their midst are deleted. Reads come from the device before and after: what a
    disk has alone is in no cache, but what its snapshots share with it could be in obrazd's cache of clones, so that is off."""
    ours = isinstance(server, Obrazd)
    count = SNAPSHOTS if ours else OVERLAYS
    if ours:
        server.options = NO_CACHE
    server.start()
    fill(bench, server.uri(), SNAPSHOT_RANGE)

    def iops():
        found = load(bench, [server.uri()], ["--depth", "32", "--length", str(SNAPSHOT_RANGE), "--seconds", str(bench.seconds)])
        return found["requests"] / found["seconds"]

    before = iops()
    places = random.Random(1)
    writer = connect(server.uri())
    calls = []
    for number in range(1, count + 1):
        for _ in range(WRITES_BETWEEN):
            writer.pwrite(bytes([number % 256]) * 4096, places.randrange(SNAPSHOT_RANGE >> 12) << 12)
        calls.append(server.snapshot(number))
    writer.shutdown()
    if ours:
        server.wait_for_background()
    after = iops()
    middle = range(count // 4, count * 3 // 4, 2)[:50]
    deleted = [server.delete_snapshot(number) for number in middle]
    return {"reads/s before, from the device": [before], f"reads/s after {count}, from the device": [after],
            "ms to make one": milliseconds(calls), "ms to delete one in the middle": milliseconds(deleted)}


def image_from_disk(bench, server):
    server.start()
    fill(bench, server.uri(), IMAGE_DATA_BYTES)
    if isinstance(server, StorageDaemon):
        return {"ms, a copy by qemu-img": milliseconds([server.image_of_disk(1)])}
    return {"ms, the call": milliseconds(server.image_of_disk(number) for number in range(1, 11))}


LIFECYCLE = {
    "create disk": (create, (Obrazd, StorageDaemon, QemuNbd)),
    "1000 disks": (thousand, (Obrazd, StorageDaemon, QemuNbd)),
    "snapshot under load": (snapshot_under_load, (Obrazd, StorageDaemon)),
    "many snapshots": (many_snapshots, (Obrazd, StorageDaemon)),
    "image from disk": (image_from_disk, (Obrazd, StorageDaemon)),
}


def can(name, what):
    return SERVERS[name] is not None and SERVERS[name].lifecycle and issubclass(SERVERS[name], LIFECYCLE[what][1])


def measure(bench, name, what):
    server = SERVERS[name](bench)
    try:
        return LIFECYCLE[what][0](bench, server)
    finally:
        server.stop()


def digits(value):
    return f"{value:10.2f}" if value >= 1 else f"{value:10.3f}"


def show(what, figures):
    """figures: name -> list of what measure() gave."""
    print(f"\n{what}\n  {'':20} {'':45} {'median':>10} {'least':>10} {'most':>10} {'samples':>8}")
    for name, runs in figures.items():
        for figure in runs[0] if runs else ():
            samples = [sample for one in runs for sample in one[figure]]
            shown = (digits(value) for value in (statistics.median(samples), min(samples), max(samples)))
            print(f"  {name:20} {figure:45} {' '.join(shown)} {len(samples):8}")
    sys.stdout.flush()
