"""What fault_kill.sh runs: obrazd is killed under load, again and again, and judged after each start.

    fault_kill.py BIN_DIR WORK_DIR SEED KILLS

Writers own blocks of two disks and stamp each with disk, block and version; they write, trim, write with FUA, flush and
read back. For each block a list is kept of the versions it may hold after a kill: the last one that is certainly durable
first, then every one that was sent since. Churners own names: they make disks, snapshots and images, import and delete.
Others own facts, what a resource says of itself, and change them: descriptions, sizes, bindings, quotas, deprecation, what
folders there are, what is in the trash. Each call has an idempotency key and is acknowledged when `obraz` ends with status 0.

After each kill:
  1. every block holds a version that its list allows, whole, and of this disk and this block; from then on that version
     is the durable one, for recovery makes durable what it shows;
  2. what was acknowledged as made is there and reads as its source did, what was acknowledged as deleted is not;
  3. a call that was not acknowledged is there wholly or not at all, and the same call with the same key succeeds;
     an interrupted import is gone, and its name is free; a fact is what was acknowledged last, or what was asked for since;
  4. after every fourth kill the checker, run on the store as the kill left it, finds nothing.
"""
import json
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time

import nbd

BLOCK = 4096
DISK_BYTES = 16 << 20
BLOCKS = DISK_BYTES // BLOCK
SMALL = 8  # blocks; half a cluster, so that two writers share every cluster of the first disk
LOAD_S = 0.3  # the kill comes within this time
EARLY_S = 0.1  # a kill during recovery comes within this
CYCLE_DEADLINE_S = 120  # against hanging
CALL_DEADLINE_S = 60
GOLDEN_BYTES = 4 << 20

bin_dir, work, seed, kills = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
store = f"{work}/store"
os.environ["OBRAZ_CONTROL"] = f"{store}/control.sock"


def check(good, sentence):
    if not good:
        raise AssertionError(sentence)


killing = threading.Event()  # from now on connections may break and calls fail


# --- the daemon -------------------------------------------------------------------------------------------------------

class Daemon:
    starts = 0

    def __init__(self, *options):
        Daemon.starts += 1
        self.log = f"{work}/obrazd.log"  # of the last two
        if os.path.exists(self.log):
            os.replace(self.log, self.log + ".before")
        # It must not outlive this program, however that ends.
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", f"{bin_dir}/obrazd", "--store", store, *options],
            stdout=subprocess.PIPE, stderr=open(self.log, "w"))

    def wait_until_ready(self):
        check(self.process.stdout.readline() == b"ready\n", f"obrazd did not start: {open(self.log).read()}")
        return self

    def kill(self):
        check(self.process.poll() is None, f"obrazd has ended by itself: {open(self.log).read()}")
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        check(self.process.wait(CALL_DEADLINE_S) == 0, f"obrazd did not stop cleanly: {open(self.log).read()}")


def connect(export):
    h = nbd.NBD()
    h.set_export_name(export)
    h.connect_unix(f"{store}/nbd.sock")
    return h


# --- blocks -----------------------------------------------------------------------------------------------------------

class Disk:
    """Versions are numbers; one that is negative reads as zeros."""

    def __init__(self, name, number):
        self.name, self.number = name, number
        self.lock = threading.Lock()
        self.allowed = [[0] for _ in range(BLOCKS)]  # by block: durable, and what was sent since
        self.answered = {}  # block: version answered, not known to be durable
        self.last = 0

    def stamp(self, block, version):
        return struct.pack("<QQQQ", self.number, block, version, seed) * (BLOCK // 32)

    def begin(self, blocks, zeros):
        with self.lock:
            self.last += 1
            version = -self.last if zeros else self.last
            for block in blocks:
                self.allowed[block].append(version)
            return version

    def end(self, blocks, version, durable):
        with self.lock:
            for block in blocks:
                self.answered[block] = version
        if durable:
            self.make_durable({block: version for block in blocks})

    def make_durable(self, versions):
        with self.lock:
            for block, version in versions.items():
                if version in self.allowed[block]:  # else a later one is durable already
                    del self.allowed[block][:self.allowed[block].index(version)]
                if self.answered.get(block) == version:
                    del self.answered[block]

    def judge(self):
        h = connect(f"disk/{self.name}")
        data = h.pread(DISK_BYTES, 0)
        h.shutdown()
        for block in range(BLOCKS):
            self.allowed[block] = [self.found(block, data[block * BLOCK:(block + 1) * BLOCK])]
        self.answered.clear()

    def judge_copy(self, name, data):
        """Made under way: of each block it holds a version, whole, that was sent at some time."""
        check(len(data) == DISK_BYTES, f"{name} has {len(data)} bytes")
        for block in range(BLOCKS):
            content = data[block * BLOCK:(block + 1) * BLOCK]
            version = struct.unpack_from("<Q", content, 16)[0]
            check(version <= self.last and content == (self.stamp(block, version) if version else bytes(BLOCK)),
                  f"{name}, block {block}: {content[:32]} is no version of disk {self.name}")

    def found(self, block, content):
        for version in reversed(self.allowed[block]):
            if content == (bytes(BLOCK) if version <= 0 else self.stamp(block, version)):
                return version
        what = [struct.unpack_from("<QQQQ", content, at) for at in (0, BLOCK - 32)]
        raise AssertionError(f"disk {self.name}, block {block}: found {what} (disk, block, version, seed; first and last), "
                             f"allowed are the versions {self.allowed[block]} of disk {self.number}")


class Writer(threading.Thread):
    """Owns every `of`-th run of SMALL blocks, or the whole disk when `of` is 1."""

    def __init__(self, disk, index, of, number):
        super().__init__()
        self.disk, self.index, self.of = disk, index, of
        self.random = random.Random(number)
        self.failure = None
        self.requests = 0

    def run(self):
        try:
            self.write_until_killed()
        except Exception as failure:
            self.failure = failure

    def draw(self):
        if self.of > 1:
            run = self.random.randrange(BLOCKS // SMALL // self.of) * self.of + self.index
            first = self.random.randrange(SMALL)
            return range(run * SMALL + first, run * SMALL + self.random.randint(first + 1, SMALL))
        first = self.random.randrange(BLOCKS)
        return range(first, min(BLOCKS, first + self.random.choice((1, 16, 64, 300))))

    def write_until_killed(self):
        h = None
        try:
            h = connect(f"disk/{self.disk.name}")
            while True:
                self.one(h)
                self.requests += 1
        except nbd.Error:
            # The connection, for that is what a kill looks like, and never an answer of the daemon.
            if not killing.is_set() or h and not (h.aio_is_dead() or h.aio_is_closed()):
                raise

    def one(self, h):
        disk, kind, blocks = self.disk, self.random.random(), self.draw()
        offset, length = blocks.start * BLOCK, len(blocks) * BLOCK
        if kind < 0.15:
            with disk.lock:
                versions = dict(disk.answered)
            h.flush()
            disk.make_durable(versions)
        elif kind < 0.3:
            expected = b""
            with disk.lock:
                for block in blocks:
                    version = disk.allowed[block][-1]
                    expected += bytes(BLOCK) if version <= 0 else disk.stamp(block, version)
            check(h.pread(length, offset) == expected, f"disk {disk.name}: blocks {blocks} read otherwise than written")
        else:
            zeros, durable = kind < 0.45, kind > 0.9
            flags = nbd.CMD_FLAG_FUA if durable else 0
            version = disk.begin(blocks, zeros)
            if not zeros:
                h.pwrite(b"".join(disk.stamp(block, version) for block in blocks), offset, flags)
            elif kind < 0.4:
                h.trim(length, offset, flags)
            else:
                h.zero(length, offset, flags)
            disk.end(blocks, version, durable)


# --- resources --------------------------------------------------------------------------------------------------------

def obraz(*arguments):
    """The document printed, or the code of the refusal."""
    done = subprocess.run([f"{bin_dir}/obraz", "--json", *arguments], capture_output=True, timeout=CALL_DEADLINE_S)
    if done.returncode == 0:
        return json.loads(done.stdout), None
    check(done.returncode == 1, f"obraz {arguments}: status {done.returncode}: {done.stderr}")
    try:
        error = json.loads(done.stderr)["error"]
    except ValueError:
        error = {"code": None, "message": done.stderr}
    return None, error


def listed(kind):
    answer, error = obraz(kind, "list")
    check(error is None, f"obraz {kind} list: {error}")
    return {resource["name"]: resource for resource in answer[kind + "s"]}


class Call:
    def __init__(self, kind, name, making, arguments, keyed=True):
        self.kind, self.name, self.making, self.arguments, self.keyed = kind, name, making, arguments, keyed
        self.content = None


class Caller:
    """A thread of calls, one after the other, until one is not answered."""
    keys = 0
    keys_lock = threading.Lock()

    def __init__(self, number):
        self.random = random.Random(number)
        self.calls = 0

    def begin(self):
        self.doubtful = None
        self.failure = None
        self.thread = threading.Thread(target=self.run_until_killed)
        self.thread.start()

    def run_until_killed(self):
        try:
            while self.doubtful is None:
                self.one()
        except Exception as failure:
            self.failure = failure

    def key(self):
        with Caller.keys_lock:
            Caller.keys += 1
            return f"{seed}-{Caller.keys}"


class Churner(Caller):
    """One name after the other: what is there is deleted, what is not is made."""

    def __init__(self, index, number, disks):
        super().__init__(number)
        self.index, self.disks = index, disks
        self.there = {}  # (kind, name): the content it must have, or the disk it was copied from under way

    def one(self):
        kind = self.random.choice(("disk", "snapshot", "image"))
        name = f"{kind[0]}{self.index}-{self.random.randrange(3)}"
        content = self.disks[0] if kind == "snapshot" else None
        if (kind, name) in self.there:
            call = Call(kind, name, False, [kind, "delete", name])
        elif kind == "snapshot":
            call = Call(kind, name, True, ["snapshot", "create", "--disk", "a", "--name", name])
        elif kind == "disk":
            source = self.random.choice((["--image", "golden"], ["--size", "8M"]))
            content = golden if source[0] == "--image" else bytes(8 << 20)
            call = Call(kind, name, True, ["disk", "create", "--name", name, *source])
        else:
            source = self.random.choice((["--from-disk", "b"], ["--from-image", "golden"], None))
            if source is None:
                call = Call(kind, name, True, ["image", "import", f"{work}/golden", "--name", name], keyed=False)
            else:
                call = Call(kind, name, True, ["image", "create", "--name", name, *source])
            content = self.disks[1] if source and source[0] == "--from-disk" else golden
        call.content = content
        if call.keyed:
            call.arguments += ["--idempotency-key", self.key()]
        _, error = obraz(*call.arguments)
        if error is None:
            self.acknowledged(call)
            self.calls += 1
        else:
            check(killing.is_set(), f"obraz {call.arguments} was refused: {error}")
            self.doubtful = call

    def acknowledged(self, call):
        if call.making:
            self.there[call.kind, call.name] = call.content
        else:
            del self.there[call.kind, call.name]

    def judge(self, lists):
        doubtful = self.doubtful and (self.doubtful.kind, self.doubtful.name)
        for kind, resources in lists.items():
            mine = {name for name in resources if name.startswith(f"{kind[0]}{self.index}-")}
            wanted = {name for k, name in self.there if k == kind}
            odd = {name for name in mine ^ wanted if (kind, name) != doubtful}
            check(not odd, f"{kind}s {sorted(odd)}: acknowledged are {sorted(wanted)}, there are {sorted(mine)}")
            for name in mine:
                check(resources[name]["status"] == "READY", f"{kind} {name} is {resources[name]['status']}")
        if self.doubtful:
            self.settle(self.doubtful, doubtful[1] in lists[doubtful[0]])
        for (kind, name), content in self.there.items():
            self.there[kind, name] = judge_content(kind, name, content)

    def settle(self, call, is_there):
        # The key of an interrupted import names a failed operation; it is asked for anew, unless it had ended.
        if call.keyed or not is_there:
            _, error = obraz(*call.arguments)
            check(error is None, f"obraz {call.arguments}, which the kill interrupted and which was "
                                 f"{'done' if is_there else 'not done'}, cannot be repeated: {error}")
        self.acknowledged(call)


class Fact:
    """What a resource says of itself: how it is read (a command and what to take of its answer), and the command that makes
    it what comes after its present value."""

    def __init__(self, command, take, change, value):
        self.command, self.take, self.change, self.value = command, take, change, value

    def read(self):
        answer, error = obraz(*self.command)
        check(error is None, f"obraz {self.command}: {error}")
        return self.take(answer)


def make_facts():
    """Of resources of their own, which are made here."""
    for arguments in (["disk", "create", "--name", "facts", "--size", "4M"],
                      ["image", "create", "--name", "facts", "--from-disk", "facts"],
                      ["folder", "create", "--name", "facts"],
                      ["folder", "create", "--name", "bin", "--trash", "1h"],
                      ["disk", "create", "--folder", "bin", "--name", "facts", "--size", "4M"]):
        _, error = obraz(*arguments)
        check(error is None, f"obraz {arguments}: {error}")

    def subjects(answer):
        return [binding["subject"] for binding in answer["access_bindings"]]

    def folder_is_there(answer):
        return "sometimes" in [folder["name"] for folder in answer["folders"]]

    def describe(value):
        return str(int(value or 0) + 1), ["disk", "update", "facts", "--description", str(int(value or 0) + 1)]

    def grow(value):
        return value + (4 << 20), ["disk", "resize", "facts", "--size", str(value + (4 << 20))]

    def bind(value):
        user = f"user:u{int(value[0][len('user:u'):]) + 1 if value else 0}"
        return [user], ["access", "set", "--disk", "facts", "--bind", f"viewer={user}"]

    def limit(value):
        return value + 1, ["folder", "update", "facts", "--quota-disks", str(value + 1)]

    def mark(value):
        return ("DEPRECATED", ["image", "deprecate", "facts"]) if value == "ACTIVE" else ("ACTIVE", ["image", "restore", "facts"])

    def come_and_go(value):
        return not value, ["folder", "delete", "sometimes"] if value else ["folder", "create", "--name", "sometimes"]

    def throw_away(value):
        return not value, ["disk", "delete", "--folder", "bin", "facts"] if value else \
            ["trash", "restore", "--folder", "bin", "disk/facts"]

    return [Fact(["disk", "get", "facts"], lambda answer: answer["description"], describe, ""),
            Fact(["disk", "get", "facts"], lambda answer: answer["size"], grow, 4 << 20),
            Fact(["access", "list", "--disk", "facts"], subjects, bind, []),
            Fact(["folder", "get", "facts"], lambda answer: answer["quota"]["disks"], limit, 0),
            Fact(["image", "get", "facts"], lambda answer: answer.get("deprecation", {}).get("state", "ACTIVE"), mark, "ACTIVE"),
            Fact(["folder", "list"], folder_is_there, come_and_go, False),
            Fact(["disk", "list", "--folder", "bin"], lambda answer: len(answer["disks"]) == 1, throw_away, True)]


class FactChanger(Caller):
    def __init__(self, number, facts):
        super().__init__(number)
        self.facts = facts

    def one(self):
        fact = self.random.choice(self.facts)
        value, arguments = fact.change(fact.value)
        arguments = arguments + ["--idempotency-key", self.key()]
        _, error = obraz(*arguments)
        if error is None:
            fact.value = value
            self.calls += 1
        else:
            check(killing.is_set(), f"obraz {arguments} was refused: {error}")
            self.doubtful = fact, value, arguments

    def judge(self, _lists):
        doubtful, next_value, arguments = self.doubtful or (None, None, None)
        for fact in self.facts:
            found = fact.read()
            allowed = [fact.value, next_value] if fact is doubtful else [fact.value]
            check(found in allowed, f"obraz {fact.command} says {found}, which is none of {allowed}")
        if doubtful:
            _, error = obraz(*arguments)
            check(error is None, f"obraz {arguments}, which the kill interrupted, cannot be repeated: {error}")
            check(doubtful.read() == next_value, f"obraz {arguments}, repeated, did nothing")
            doubtful.value = next_value


def judge_content(kind, name, content):
    h = connect(f"{kind}/{name}")
    data = h.pread(h.get_size(), 0)
    h.shutdown()
    if isinstance(content, Disk):
        content.judge_copy(f"{kind} {name}", data)
    else:
        check(data == content, f"{kind} {name} is not what it was")
    return data


# --- the cycle --------------------------------------------------------------------------------------------------------

def run_checker():
    done = subprocess.run([f"{bin_dir}/obraz-store", "check", store, "--data"], capture_output=True, text=True)
    check(done.returncode == 0, f"obraz-store check: status {done.returncode}: {done.stdout}{done.stderr}")


def cycle(number, draw, disks, churners):
    daemon = Daemon().wait_until_ready()
    if number > 1:
        for disk in disks:
            disk.judge()
        lists = {kind: listed(kind) for kind in ("disk", "snapshot", "image")}
        for churner in churners:
            churner.judge(lists)
    writers = [Writer(disks[0], index, 4, draw.random()) for index in range(4)] + [Writer(disks[1], 0, 1, draw.random())]
    killing.clear()
    for writer in writers:
        writer.start()
    for churner in churners:
        churner.begin()
    time.sleep(draw.random() * LOAD_S)  # the moment of the kill
    killing.set()
    daemon.kill()
    for thread in writers + [churner.thread for churner in churners]:
        thread.join()
    for loader in writers + churners:
        if loader.failure:
            raise loader.failure
    early = 0
    while draw.random() < 0.25:  # also while it recovers
        early += 1
        daemon = Daemon()
        time.sleep(draw.random() * EARLY_S)
        daemon.kill()
    if number % 4 == 0:
        run_checker()
    return early, sum(writer.requests for writer in writers)


def main():
    global golden
    draw = random.Random(seed)
    golden = random.Random(seed).randbytes(GOLDEN_BYTES)
    with open(f"{work}/golden", "wb") as out:
        out.write(golden)
    # A small journal, so that checkpoints are made under way.
    daemon = Daemon("--data-size", "2G", "--journal-size", "256K").wait_until_ready()
    disks = [Disk("a", 1), Disk("b", 2)]
    for arguments in (["image", "import", f"{work}/golden", "--name", "golden"],
                      ["disk", "create", "--name", "a", "--size", "16M"],
                      ["disk", "create", "--name", "b", "--size", "16M"]):
        _, error = obraz(*arguments)
        check(error is None, f"obraz {arguments}: {error}")
    facts = make_facts()
    daemon.kill()
    churners = [Churner(index, draw.random(), disks) for index in range(3)] + [FactChanger(draw.random(), facts)]
    early = requests = 0
    began = time.monotonic()
    for number in range(1, kills + 1):
        signal.alarm(CYCLE_DEADLINE_S)
        try:
            counted = cycle(number, draw, disks, churners)
        except Exception:
            print(f"in cycle {number} of seed {seed}", file=sys.stderr)
            raise
        early, requests = early + counted[0], requests + counted[1]
        if number % 100 == 0:
            print(f"{number} kills, {1000 * (time.monotonic() - began) / number:.0f} ms for each cycle", flush=True)
    signal.alarm(CYCLE_DEADLINE_S)
    daemon = Daemon().wait_until_ready()
    for disk in disks:
        disk.judge()
    lists = {kind: listed(kind) for kind in ("disk", "snapshot", "image")}
    for churner in churners:
        churner.judge(lists)
    daemon.stop()
    run_checker()
    calls = sum(churner.calls for churner in churners)
    # A load that was never under way would have shown nothing.
    check(requests > 20 * kills and calls > kills, f"only {requests} requests and {calls} calls were answered")
    print(f"{kills} kills under load and {early} during recovery, {requests} requests and {calls} calls answered, "
          f"{1000 * (time.monotonic() - began) / kills:.0f} ms for each cycle")


main()
