"""The servers that are compared: each serves new copy-on-write disks of one image, from start() to stop()."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import time

from .machine import Failed, children, pinned, run

IMAGE_BYTES = 10 << 30
CLUSTER_BYTES = 64 << 10  # of obrazd's store
START_DEADLINE_S = 60
MAX_CLIENTS = 1024
IN_FLIGHT = 32  # calls to obrazd, where several are under way at a time


class Server:
    peer = True  # one that the ratios may be to: it serves the same disk, with direct I/O
    cached_peer = False  # a peer only where all data is in a cache anyway
    keeps = True  # what one connection has written, the next one finds
    read_only = False
    max_disks = 1
    lifecycle = False  # it has disks to create

    def __init__(self, bench, cpus=()):
        self.bench = bench
        self.cpus = cpus
        self.processes = []
        self.socket = str(bench.folder / "nbd.sock")

    def start(self, disks=1):
        self.launch()
        for index in range(disks):
            self.add_disk(index)

    def launch(self):
        """What it is before it has a disk."""
        pathlib.Path(self.socket).unlink(missing_ok=True)
        self.spawn(self.command(), lambda: accepts(self.socket))

    def add_disk(self, index):
        """Makes a new disk and serves it; returns when a client can connect."""

    def spawn(self, command, is_ready):
        log = self.bench.folder / f"server-{len(self.processes)}.log"
        with open(log, "w") as file:
            process = subprocess.Popen(pinned(self.cpus, command), stdout=file, stderr=file)
        self.processes.append(process)
        deadline = time.monotonic() + START_DEADLINE_S
        while not is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"does not start: {log.read_text()[-400:]}")
            time.sleep(0.001)

    def uri(self, index=0):
        return f"nbd+unix:///?socket={self.socket}"

    def pids(self):
        return [process.pid for process in self.processes]

    def settle(self):
        """When clients have left: until what they have used can be counted."""

    def end_processes(self):
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes = []

    def stop(self):
        self.end_processes()
        for log in self.bench.folder.glob("server-*.log"):
            log.unlink()
        self.clean()

    def clean(self):
        pass


def accepts(path):
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
            return True
        except OSError:
            return False


class Control:
    """A kept control connection to obrazd, through bench_control."""

    def __init__(self, bench):
        self.process = subprocess.Popen([bench.bin / "bench_control", bench.folder / "store/control.sock", "--in-flight", str(IN_FLIGHT)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def call(self, *words):
        """The seconds that the call took."""
        self.send([words])
        return self.answer(words)

    def calls(self, calls):
        """IN_FLIGHT at a time; the seconds that they took together. Some thousands: the pipes must hold their lines."""
        begin = time.monotonic()
        self.send(calls)
        for words in calls:
            self.answer(words)
        return time.monotonic() - begin

    def send(self, calls):
        self.process.stdin.write("".join(" ".join(words) + "\n" for words in calls))
        self.process.stdin.flush()

    def answer(self, words):
        answer, _, rest = self.process.stdout.readline().strip().partition(" ")
        if answer != "ok":
            raise Failed(f"{' '.join(words)}: {rest or 'the control connection has ended'}")
        return float(rest) / 1e6

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Obrazd(Server):
    peer = False
    max_disks, lifecycle = 1000, True
    options = ()

    def __init__(self, bench, cpus=()):
        super().__init__(bench, cpus)
        self.socket = str(bench.folder / "store/nbd.sock")
        self.control = None
        self.made = []  # what is to be deleted, in this order

    def launch(self):
        log = self.bench.folder / "server-0.log"
        self.spawn([self.bench.bin / "obrazd", "--store", self.bench.folder / "store", "--scrub-rate", "0", *self.options],
                   lambda: "ready\n" in log.read_text())
        self.control = Control(self.bench)

    def obraz(self, *arguments):
        return run(self.bench.bin / "obraz", "--control", self.bench.folder / "store/control.sock", *arguments)

    def import_image(self):
        self.obraz("image", "import", self.bench.image, "--name", "base")
        self.wait_for_background()

    def wait_for_background(self):
        """Checksums and the digest of an image are computed when it is there."""
        while (json.loads(self.obraz("--json", "status"))["integrity"]["volumes_waiting"] > 0 or
               not json.loads(self.obraz("--json", "image", "get", "base"))["digest"]):
            time.sleep(0.1)

    def add_disk(self, index):
        self.control.call("disk-create", f"bench-{index}", "base")
        self.made.append(("disk", f"bench-{index}"))

    def add_disks_in_flight(self, count):
        took = self.control.calls([("disk-create", f"bench-{index}", "base") for index in range(count)])
        self.made += [("disk", f"bench-{index}") for index in range(count)]
        return took

    def uri(self, index=0):
        return f"nbd+unix:///disk/bench-{index}?socket={self.socket}"

    def snapshot(self, number):
        took = self.control.call("snapshot-create", f"s-{number}", "bench-0")
        self.made.append(("snapshot", f"s-{number}"))
        return took

    def delete_snapshot(self, number):
        self.made.remove(("snapshot", f"s-{number}"))
        return self.control.call("snapshot-delete", f"s-{number}")

    def image_of_disk(self, number):
        took = self.control.call("image-create", f"i-{number}", "bench-0")
        self.made.append(("image", f"i-{number}"))
        return took

    def stop(self):
        try:
            if self.control:
                self.delete_all()
                self.control.close()
        finally:
            self.made, self.control = [], None
            super().stop()

    def delete_all(self):
        begin = time.monotonic()
        for kind, name in self.made:
            self.delete(kind, name)
        self.made = []
        return time.monotonic() - begin

    def delete_all_in_flight(self):
        """Where nobody has them attached any more."""
        took = self.control.calls([(f"{kind}-delete", name) for kind, name in self.made])
        self.made = []
        return took

    def delete(self, kind, name):
        deadline = time.monotonic() + 5  # for the daemon to notice that a client has left
        while True:
            try:
                return self.control.call(f"{kind}-delete", name)
            except Failed as error:
                if "attached" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)


class Qcow2(Server):
    options, aio, cache = [], "native", {"direct": True}
    lifecycle = True

    def overlay(self, index):
        return self.bench.folder / f"overlay-{index}.qcow2"

    def create_overlay(self, index):
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", self.bench.image, "-F", "raw", *self.options, self.overlay(index))

    def clean(self):
        for path in self.bench.folder.glob("overlay-*.qcow2"):
            path.unlink()


class QemuNbd(Qcow2):
    """A process for each disk."""

    max_disks = 64  # each takes kernel contexts for native AIO, of which a system has 65,536 requests' worth
    cache_mode = "none"

    def launch(self):
        pass

    def nbd_socket(self, index):
        return self.bench.folder / f"nbd-{index}.sock"

    def add_disk(self, index):
        self.create_overlay(index)
        path = self.nbd_socket(index)
        path.unlink(missing_ok=True)
        self.spawn(["qemu-nbd", "--persistent", "--shared=64", f"--cache={self.cache_mode}", f"--aio={self.aio}", "--discard=unmap",
                    "--format=qcow2", f"--socket={path}", self.overlay(index)], lambda: accepts(str(path)))

    def uri(self, index=0):
        return f"nbd+unix:///?socket={self.nbd_socket(index)}"


class QemuNbdCached(QemuNbd):
    """The same through the page cache."""

    peer, cached_peer, lifecycle = False, True, False
    cache_mode, aio = "writeback", "threads"


class QemuNbdImage(Server):
    """The image itself, from the page cache: no disks, so there is nothing of their own to find."""

    peer, cached_peer, read_only = False, True, True
    max_disks = 64  # connections to the one export

    def command(self):
        return ["qemu-nbd", "--persistent", "--shared=64", "--cache=writeback", "--aio=threads", "--read-only", "--format=raw",
                f"--socket={self.socket}", self.bench.image]


class StorageDaemon(Qcow2):
    """One process, whose disks share one node for the image."""

    max_disks = 1000

    def launch(self):
        pathlib.Path(self.socket).unlink(missing_ok=True)
        path = str(self.bench.folder / "qmp.sock")
        pathlib.Path(path).unlink(missing_ok=True)
        # Without a thread of its own for I/O: with one, version 7.2 aborts when a client disconnects.
        self.spawn(["qemu-storage-daemon", "--chardev", f"socket,id=qmp,path={path},server=on,wait=off", "--monitor", "chardev=qmp",
                    "--blockdev", json.dumps({"driver": "raw", "node-name": "base", "read-only": True, "cache": self.cache,
                                              "file": self.file(self.bench.image)}),
                    "--nbd-server", f"addr.type=unix,addr.path={self.socket},max-connections={MAX_CLIENTS}"],
                   lambda: accepts(self.socket))
        self.qmp = Qmp(path)
        self.top = "disk-0"  # the node that disk 0 writes to

    def file(self, path):
        return {"driver": "file", "filename": str(path), "aio": self.aio, "cache": self.cache}

    def add_disk(self, index):
        self.create_overlay(index)
        self.qmp.call("blockdev-add", driver="qcow2", **{"node-name": f"disk-{index}"}, cache=self.cache, backing="base",
                      file=self.file(self.overlay(index)))
        self.qmp.call("block-export-add", type="nbd", id=f"export-{index}", **{"node-name": f"disk-{index}"}, name=f"disk-{index}",
                      writable=True)

    def uri(self, index=0):
        return f"nbd+unix:///disk-{index}?socket={self.socket}"

    def snapshot(self, number):
        """What disk 0 has written so far stays in a node of its own below a new one."""
        new = f"s-{number}"
        took = self.qmp.call("blockdev-snapshot-sync", **{"node-name": self.top, "snapshot-node-name": new},
                             **{"snapshot-file": str(self.overlay(new)), "format": "qcow2"})
        self.top = new
        return took

    def delete_snapshot(self, number):
        """Writes what the node has into the one below, which takes its place."""
        begin = time.monotonic()
        self.qmp.call("block-commit", device=self.top, **{"job-id": "commit", "top-node": f"s-{number}", "base-node": f"s-{number - 1}"})
        self.qmp.wait_for("BLOCK_JOB_COMPLETED")
        return time.monotonic() - begin

    def image_of_disk(self, number):
        """A copy. The disk is not served any more."""
        self.end_processes()
        copy = self.overlay("image")
        begin = time.monotonic()
        run("qemu-img", "convert", "-O", "qcow2", "-t", "none", "-T", "none", "-W", "-m", "16", self.overlay(0), copy)
        took = time.monotonic() - begin
        copy.unlink()
        return took


class Qmp:
    """A kept connection to qemu-storage-daemon's monitor."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.file = self.socket.makefile("r")
        self.events = []
        self.file.readline()  # the greeting
        self.call("qmp_capabilities")

    def call(self, command, **arguments):
        """The seconds that the call took."""
        begin = time.monotonic()
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while True:
            answer = self.receive()
            if "error" in answer:
                raise Failed(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return time.monotonic() - begin
            self.events.append(answer)

    def receive(self):
        line = self.file.readline()
        if not line:
            raise Failed("the monitor has ended")
        return json.loads(line)

    def wait_for(self, event):
        while True:
            for answer in self.events:
                if answer["event"] == event:
                    self.events = []
                    if "error" in answer["data"]:
                        raise Failed(f"{event}: {answer['data']['error']}")
                    return
            self.events = [self.receive()]


class NbdServer(Server):
    """It forks for each client, and what a client writes is gone when that leaves."""

    peer, keeps = False, False
    max_disks = 1000  # each connection is a disk of its own

    def launch(self):
        pathlib.Path(self.socket).unlink(missing_ok=True)
        pid_file, config = self.bench.folder / "nbd-server.pid", self.bench.folder / "nbd-server.conf"
        pid_file.unlink(missing_ok=True)
        # No "port = 0" here: it ends without a word then. And ask for its size with NBD_OPT_GO, as every client does that goes on:
        # NBD_OPT_INFO answers 0.
        config.write_text(f"[generic]\n unixsock = {self.socket}\n[base]\n exportname = {self.bench.image}\n copyonwrite = true\n"
                          f" cowdir = {self.bench.folder}\n flush = true\n")
        # As a daemon: in the foreground it serves one client and ends. Its output is no pipe of ours: it keeps that open.
        subprocess.run(pinned(self.cpus, ["nbd-server", "-C", config, "-p", pid_file]), stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, timeout=START_DEADLINE_S)
        deadline = time.monotonic() + START_DEADLINE_S
        while not (pid_file.exists() and pid_file.read_text().strip() and accepts(self.socket)):
            if time.monotonic() > deadline:
                raise Failed("nbd-server does not start")
            time.sleep(0.01)
        self.pid = int(pid_file.read_text())
        self.settle()

    def uri(self, index=0):
        return f"nbd+unix:///base?socket={self.socket}"

    def pids(self):
        return [self.pid]

    def settle(self):
        deadline = time.monotonic() + 5
        while children(self.pid) and time.monotonic() < deadline:
            time.sleep(0.005)

    def end_processes(self):
        if not getattr(self, "pid", 0):
            return
        os.kill(self.pid, signal.SIGTERM)
        while pathlib.Path(f"/proc/{self.pid}").exists():
            time.sleep(0.005)
        self.pid = 0

    def clean(self):
        for path in self.bench.folder.glob("*.diff"):
            path.unlink()


class Nbdkit(Server):
    """Through the page cache."""

    peer = False

    def command(self):
        return ["nbdkit", "--foreground", "--unix", self.socket, *self.plugin()]


class NbdkitImage(Nbdkit):
    """The image itself, as QemuNbdImage."""

    cached_peer, read_only = True, True
    max_disks = 64  # connections to the one export

    def plugin(self):
        return ["--readonly", "file", self.bench.image]


class NbdkitFile(Nbdkit):
    """No copy-on-write disk: a copy of the image, so its first writes are overwrites."""

    def launch(self):
        run("cp", "--reflink=auto", "--sparse=always", self.bench.image, self.bench.folder / "copy.raw")
        super().launch()

    def plugin(self):
        return ["file", self.bench.folder / "copy.raw", "cache=none"]

    def clean(self):
        (self.bench.folder / "copy.raw").unlink(missing_ok=True)


class NbdkitCow(Nbdkit):
    def plugin(self):
        return ["--filter=cow", "file", self.bench.image]


class Null(Nbdkit):
    max_disks = 1000

    def plugin(self):
        return ["null", str(IMAGE_BYTES)]


def variant(base, **attributes):
    return type(base.__name__, (base,), attributes)


QCOW2 = {
    "": [],
    " el2": ["-o", "extended_l2=on,cluster_size=64k"],
    " el2 128k": ["-o", "extended_l2=on,cluster_size=128k"],
}
NO_CACHE = ("--clone-cache", "0")
SERVERS = {"obrazd": Obrazd, "obrazd no cache": variant(Obrazd, options=NO_CACHE, lifecycle=False)}
for _suffix, _options in QCOW2.items():
    for _aio in "native", "io_uring":
        _lifecycle = _aio == "native" and _suffix != " el2 128k"
        SERVERS[f"qemu-nbd {_aio}{_suffix}"] = variant(QemuNbd, options=_options, aio=_aio, lifecycle=_lifecycle)
        SERVERS[f"qsd {_aio}{_suffix}"] = variant(StorageDaemon, options=_options, aio=_aio, lifecycle=_lifecycle)
SERVERS |= {"qemu-nbd cached": QemuNbdCached, "qemu-nbd image": QemuNbdImage, "nbd-server": NbdServer, "nbdkit image": NbdkitImage,
            "nbdkit file": NbdkitFile, "nbdkit cow": NbdkitCow, "null": Null, "fio": None}
REFERENCES = ("null", "fio")
