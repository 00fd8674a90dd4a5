"""The loads that nbdload puts on a server, and what one measurement of them gives."""

import dataclasses
import json
import statistics
import subprocess
import sys

from .machine import Failed, Usage, forget_pages, memory_bytes, pinned, run
from .servers import REFERENCES, SERVERS, Obrazd

DATA_BYTES = 2 << 30
OVERWRITE_BYTES = 256 << 20
STORM_BYTES = 64 << 20
MANY_DISKS, BUSY_DISKS = 1000, 32


@dataclasses.dataclass(frozen=True)
class Workload:
    options: tuple  # of nbdload
    length: int = DATA_BYTES
    written_before: bool = False  # the range, on the same disk
    cores: str = "shared"  # server and client on both; "one": both on the first; "two": one each
    storm: bool = False  # one image read by many disks
    warm: bool = False  # and each has read it once before
    disks: int = 1
    of_limit: bool = False  # how near a server comes to fio is one of its figures

    @property
    def writes(self):
        return any(option in self.options for option in ("--write-once-per", "--read-percent"))


def workloads(storm_disks):
    read, first = ("--depth",), ("--write-once-per", "64K", "--depth")
    over = ("--read-percent", "0", "--depth")
    sequential = ("--pattern", "sequential", "--block-size", "1M", "--depth", "4")
    before = {"written_before": True, "length": OVERWRITE_BYTES}
    limit = {"of_limit": True}
    return {
        "read 4k QD1": Workload((*read, "1")),
        "read 4k QD1 one core": Workload((*read, "1"), cores="one"),
        "read 4k QD1 two cores": Workload((*read, "1"), cores="two"),
        "read 4k QD32": Workload((*read, "32"), **limit),
        "read 4k 4x16": Workload(("--connections", "4", "--depth", "16"), **limit),
        "read 128k QD8": Workload(("--block-size", "128K", "--depth", "8")),
        "first write QD1": Workload((*first, "1")),
        "first write QD1 one core": Workload((*first, "1"), cores="one"),
        "first write QD32": Workload((*first, "32")),
        "first write + flush": Workload((*first, "1", "--flush-every", "1")),
        "overwrite QD32": Workload((*over, "32"), **before, **limit),
        "overwrite + flush": Workload((*over, "1", "--flush-every", "1"), **before, **limit),
        "mix 70/30 8k QD32": Workload(("--read-percent", "70", "--block-size", "8K", "--depth", "32"), **before),
        "seq read 1M": Workload(sequential, **limit),
        "seq overwrite 1M": Workload((*sequential, "--read-percent", "0"), **before, **limit),
        "seq first write 1M": Workload((*sequential, "--write-once-per", "1M")),
        "boot storm cold": Workload(("--read-once-per", "4K", "--depth", "1"), STORM_BYTES, storm=True, disks=storm_disks),
        "boot storm warm": Workload(("--depth", "1"), STORM_BYTES, storm=True, warm=True, disks=storm_disks),
        "many disks": Workload(("--busy", str(BUSY_DISKS), "--depth", "1"), disks=MANY_DISKS),
    }


def why_not(name, workload):
    """Why the server has no figure for this workload, or nothing."""
    if name == "fio":
        return "one disk only" if workload.disks > 1 else ""
    server = SERVERS[name]
    if workload.disks > server.max_disks:
        return f"no {workload.disks} disks"
    if workload.disks == MANY_DISKS and server.read_only:
        return "no disks"
    if workload.written_before and not server.keeps:
        return "it forgets what a connection wrote"
    if workload.writes and server.read_only:
        return "read-only"
    return ""


def start_load(bench, uris, options, cpus=()):
    """Returns when all connections are there."""
    process = subprocess.Popen(pinned(cpus, [bench.bin / "nbdload", *uris, "--json", "--announce", *options]), stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    process.stdout.readline()  # "begin", or nothing when it has failed
    return process


def load_result(process):
    """Waits no longer than nbdload, which gives a server a minute."""
    out, err = process.stdout.read(), process.stderr.read()
    if process.wait() != 0:
        raise Failed(err.strip()[-400:])
    return json.loads(out)


def load(bench, uris, options, cpus=()):
    return load_result(start_load(bench, uris, options, cpus))


def fill(bench, uri, length):
    """Writes the range through."""
    return load(bench, [uri], ["--pattern", "sequential", "--block-size", "1M", "--write-once-per", "1M", "--depth", "4",
                               "--seconds", "0", "--length", length])


def measure(bench, name, workload):
    server_cpus, client_cpus = bench.cores(workload.cores)
    if name == "fio":
        return measure_fio(bench, workload, client_cpus)
    server = SERVERS[name](bench, server_cpus)
    pass_once = ["--read-once-per", "4K", "--depth", "1", "--length", workload.length, "--seconds", "0"]
    end = ["--seconds", 0 if workload.storm and not workload.warm else bench.seconds]
    try:
        server.start(workload.disks)
        uris = [server.uri(index) for index in range(workload.disks)]
        if workload.written_before:
            fill(bench, uris[0], workload.length)
        if workload.warm:
            load(bench, uris, pass_once, client_cpus)
        elif workload.storm:
            forget_pages(bench.image)
        server.settle()
        client = start_load(bench, uris, [*workload.options, "--length", workload.length, *end], client_cpus)
        before = Usage(server.pids())
        memory = memory_during(client, server, bench.seconds)
        found = load_result(client)
        server.settle()
        after = Usage(server.pids())
    finally:
        server.stop()
    io = found["read"]["requests"] + found["write"]["requests"]
    if io == 0:
        raise Failed("no request ended in time")
    kind = "read" if found["read"]["requests"] else "write"
    return {"iops": io / found["seconds"],
            "mb_per_s": (found["read"]["bytes"] + found["write"]["bytes"]) / found["seconds"] / 1e6,
            "server_cpu_us": (after.cpu_s - before.cpu_s) * 1e6 / io, "client_cpu_us": found["client_cpu_us_per_request"],
            "written_per_request": (after.written_bytes - before.written_bytes) / io if found["write"]["requests"] else 0,
            "read_per_byte": (after.read_bytes - before.read_bytes) / max(found["read"]["bytes"], 1),
            "read_per_image_byte": (after.read_bytes - before.read_bytes) / workload.length, "memory_mib": memory / (1 << 20),
            "p50_us": found[kind]["latency_us"]["p50"], "p99_us": found[kind]["latency_us"]["p99"]}


def memory_during(client, server, seconds):
    """While the load is on; right away when it is shorter."""
    try:
        client.wait(seconds * 0.8)
    except subprocess.TimeoutExpired:
        pass
    return memory_bytes(server.pids())


def measure_fio(bench, workload, cpus):
    """The same pattern on a raw file: no NBD, no mapping.

    How fast the device gives and takes data depends on when they were written, and next to what: what lies under a virtual disk may
    have caches of its own. So fio reads what a server reads, the very blocks of obrazd's store, and what it writes to has been written
    right before, in the same way as the servers' disks."""
    given = dict(zip(workload.options[::2], workload.options[1::2]))
    write = "--write-once-per" in given
    reads = 0 if write else int(given.get("--read-percent", 100))
    order = "" if given.get("--pattern") == "sequential" else "rand"
    kind = "read" if reads == 100 else "write" if reads == 0 else "rw"
    jobs = int(given.get("--connections", 1))
    path, offset = (bench.limit_file, 0) if workload.writes else bench.cold_data
    common = [f"--filename={path}", f"--size={workload.length}", "--ioengine=io_uring", "--direct=1"]
    command = ["fio", "--name=limit", *common, f"--offset={offset}", f"--rw={order}{kind}", f"--rwmixread={reads}",
               f"--bs={given.get('--block-size', '4K')}", f"--iodepth={given.get('--depth', 1)}", f"--numjobs={jobs}",
               "--group_reporting", "--time_based", f"--runtime={bench.seconds}", "--output-format=json"]
    if "--flush-every" in given:
        command.append(f"--fdatasync={given['--flush-every']}")
    if not workload.writes:
        command.append("--readonly")
    try:
        if workload.writes:
            run("fio", "--name=fill", *common, "--rw=write", "--bs=1M", "--iodepth=4", "--end_fsync=1")
        job = json.loads(run(*pinned(cpus, command)))["jobs"][0]
    finally:
        bench.limit_file.unlink(missing_ok=True)
    io = job["read"]["total_ios"] + job["write"]["total_ios"]
    main = job["read"] if job["read"]["total_ios"] else job["write"]
    seconds = job["job_runtime"] / 1000  # of all jobs together, and the shares of a processor are of that
    latency = main["clat_ns"].get("percentile", {})
    return {"iops": job["read"]["iops"] + job["write"]["iops"],
            "mb_per_s": (job["read"]["bw_bytes"] + job["write"]["bw_bytes"]) / 1e6,
            "server_cpu_us": (job["usr_cpu"] + job["sys_cpu"]) / 100 * seconds * 1e6 / max(io, 1), "client_cpu_us": 0,
            "written_per_request": 0, "read_per_byte": 1, "read_per_image_byte": 0, "memory_mib": 0,
            "p50_us": latency.get("50.000000", 0) / 1e3, "p99_us": latency.get("99.000000", 0) / 1e3}


def is_peer(name, workload):
    return name != "fio" and (SERVERS[name].peer or (workload.storm and SERVERS[name].cached_peer))


def is_direct(name):
    """Past the page cache: only then fio's figure is a limit."""
    return name == "fio" or SERVERS[name].peer or issubclass(SERVERS[name], Obrazd)


def show(title, workload, figures):
    """figures: name -> list of measurements."""
    medians = {name: {key: statistics.median(one[key] for one in runs) for key in runs[0]} for name, runs in figures.items() if runs}
    peers = {name: m for name, m in medians.items() if is_peer(name, workload)}
    best = max(peers, key=lambda name: peers[name]["iops"], default=None)
    limit = medians.get("fio") if workload.of_limit else None
    # Cold: bytes that came from the device for each byte of the image; else for each byte that clients asked for.
    device = ("read/asked" if workload.warm else "read/image") if workload.storm else "written B"
    print(f"\n{title}")
    print(f"  {'':26} {'IOPS':>9} {'MB/s':>8} {'p50 us':>9} {'p99 us':>9} {'CPU us':>8} {'client us':>9} {device:>10} {'MiB':>7} "
          f"{'ratio':>7}{' of limit' if limit else ''}")
    for name, m in sorted(medians.items(), key=lambda item: (item[0] in REFERENCES, -item[1]["iops"])):
        ratio = f"{m['iops'] / peers[best]['iops']:7.2f}" if best else f"{'':>7}"
        share = ""
        if limit:
            share = f" {m['iops'] / limit['iops']:8.2f}" if is_direct(name) else f" {'':>8}"
        mark = " <- best peer" if name == best else ""
        moved = (f"{m['written_per_request']:10.0f}" if not workload.storm else
                 f"{m['read_per_byte' if workload.warm else 'read_per_image_byte']:10.3f}")
        print(f"  {name:26} {m['iops']:9.0f} {m['mb_per_s']:8.1f} {m['p50_us']:9.1f} {m['p99_us']:9.1f} {m['server_cpu_us']:8.2f} "
              f"{m['client_cpu_us']:9.2f} {moved} {m['memory_mib']:7.1f} {ratio}{share}{mark}")
    without = [f"{name} ({why_not(name, workload)})" for name in figures if why_not(name, workload)]
    if without:
        print(f"  without: {', '.join(without)}")
    sys.stdout.flush()
