"""Programs, processors, and what processes have used."""

import os
import pathlib
import subprocess

RUN_DEADLINE_S = 600


class Failed(Exception):
    pass


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=RUN_DEADLINE_S, **options)
    if done.returncode != 0:
        raise Failed(f"{command[0]}: {(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout


def pinned(cpus, command):
    """The command, to be run on these processors only; on those of its parent when there are none."""
    prefix = ["taskset", "--cpu-list", ",".join(map(str, cpus))] if cpus else []
    return prefix + [str(part) for part in command]


def forget_pages(path):
    """Takes a file out of the page cache, as far as nobody has it mapped."""
    if pathlib.Path(path).exists():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def children(pid):
    found = []
    for path in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in path.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            pass  # the thread has just ended
    return found


def numbers(path):
    """Of a file in /proc with a name, a colon and a number in each line."""
    lines = (line.split() for line in pathlib.Path(path).read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


class Usage:
    """What processes have used so far, with their children: those that live, and those that have been waited for."""

    def __init__(self, pids):
        self.cpu_s, self.read_bytes, self.written_bytes = 0.0, 0, 0
        for pid in pids:
            for child in children(pid):
                try:
                    self.add(child)
                except (FileNotFoundError, ProcessLookupError):
                    pass  # it has just ended, so its parent's figures have it
            self.add(pid)

    def add(self, pid):
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        io = numbers(f"/proc/{pid}/io")
        self.cpu_s += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
        self.read_bytes += io["read_bytes"]
        self.written_bytes += io["write_bytes"]


def memory_bytes(pids):
    """What the processes and their children have filled: no files, and what they share once."""
    total = 0
    for pid in [*pids, *(child for pid in pids for child in children(pid))]:
        try:
            shares = numbers(f"/proc/{pid}/smaps_rollup")
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += (shares["Pss_Anon"] + shares["Pss_Shmem"]) << 10
    return total
