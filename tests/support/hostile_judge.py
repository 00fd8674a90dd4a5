#!/usr/bin/env python3
"""Judges what a running daemon does with the files of hostile_images.py.

    hostile_judge.py each DIR          imports each, one after another
    hostile_judge.py at-once DIR       imports those that ask for most, sixteen at a time
    hostile_judge.py unconfined DIR    shows each that names another file to a program of qemu, with no daemon at all

The first two fail when the canary is opened by anybody, the last one when it is not: the same watch sees both. The
environment says where the client ($OBRAZ) and the daemon ($CONTROL) are.
"""
import concurrent.futures
import ctypes
import hashlib
import json
import os
import subprocess
import sys

IN_OPEN, IN_ACCESS, IN_NONBLOCK, IN_CLOEXEC = 0x20, 0x1, 0o4000, 0o2000000
AT_ONCE = 16
HEAVY = ("l2-shared.qcow2", "table-shared.vmdk", "snapshots-bomb.qcow2", "stream-noise.vmdk", "compressed-noise.qcow2",
         "good-compressed.qcow2", "good-stream.vmdk", "good.vhdx")


class Watch:
    """Whether a file is opened, by whichever process (inotify(7))."""

    def __init__(self, paths):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self.libc.inotify_init1(IN_NONBLOCK | IN_CLOEXEC)
        for path in paths:
            if self.libc.inotify_add_watch(self.fd, os.fsencode(path), IN_OPEN | IN_ACCESS) < 0:
                raise OSError(ctypes.get_errno(), f"cannot watch {path}")

    def saw(self):
        """Since the last time."""
        try:
            return len(os.read(self.fd, 1 << 16)) > 0
        except BlockingIOError:
            return False


def client(*arguments):
    return subprocess.run([os.environ["OBRAZ"], "--control", os.environ["CONTROL"], "--json", *arguments],
                          capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)


def problem_with_refusal(case, run):
    wanted = case["refused"]
    if run.returncode != 1 or run.stdout:
        return f"status {run.returncode}, answer {run.stdout!r}, error {run.stderr!r}"
    error = json.loads(run.stderr)["error"]
    sentence = error["message"]
    if wanted["code"] and (error["code"], error["field"]) != (wanted["code"], wanted["field"]):
        return f"refused as {error}"
    if wanted["words"].lower() not in sentence.lower():
        return f"the sentence does not say '{wanted['words']}': {sentence}"
    if len(sentence) < 15 or not sentence.isprintable() or len(sentence) > 1000:
        return f"no sentence for a person: {sentence!r}"
    return None


def problem_with_import(folder, case, name, run):
    if run.returncode != 0:
        return f"not imported: {run.stderr}"
    path = os.path.join(folder, name + ".out")
    try:
        exported = client("image", "export", name, path)
        if exported.returncode != 0:
            return f"not exported: {exported.stderr}"
        with open(path, "rb") as file:
            disk, rest = file.read(case["size"]), file.read()
        if hashlib.sha256(disk).hexdigest() != case["sha256"] or rest.strip(b"\0"):
            return "another disk than the one in the file"
    finally:
        client("image", "delete", name)
        if os.path.exists(path):
            os.unlink(path)
    return None


def problem(folder, case, name):
    given = ["--format", case["format"]] if case["format"] else []
    run = client("image", "import", os.path.join(folder, case["file"]), "--name", name, *given)
    if case["refused"]:
        if run.returncode == 0:
            client("image", "delete", name)  # its name is the next one's, too
        return problem_with_refusal(case, run)
    return problem_with_import(folder, case, name, run)


def each(folder, cases, watch):
    failures = 0
    for case in cases:
        found = problem(folder, case, "hostile")
        if watch.saw():
            found = f"{found or ''} the canary was opened"
        if found:
            failures += 1
            print(f"{case['file']} (format {case['format']}): {found}")
    print(f"{len(cases)} files, {failures} of them wrong")
    return failures == 0


def at_once(folder, cases, watch):
    chosen = [case for case in cases if case["file"] in HEAVY]
    if len(chosen) != len(HEAVY):
        raise AssertionError("a file of the list is not there")
    work = chosen * (2 * AT_ONCE // len(chosen))
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(lambda item: problem(folder, item[1], f"hostile-{item[0]}"), enumerate(work)))
    for case, what in zip(work, found):
        if what:
            print(f"{case['file']}: {what}")
    return not any(found) and not watch.saw()


def unconfined(folder, cases, watch):
    good = True
    cases = [case for case in cases if case["canary"]]
    for case in cases:
        path = os.path.join(folder, case["file"])
        run = subprocess.run(["qemu-img", "convert", "-f", case["reader"], "-O", "raw", path, path + ".out"],
                             capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        if os.path.exists(path + ".out"):
            os.unlink(path + ".out")
        seen = watch.saw()
        print(f"{case['file']}: {'opens the canary' if seen else 'does not open the canary'} {run.stderr.strip()}")
        good = good and seen
    return good and len(cases) > 0


def main():
    commands = {"each": each, "at-once": at_once, "unconfined": unconfined}
    if len(sys.argv) != 3 or sys.argv[1] not in commands:
        sys.exit(f"usage: {sys.argv[0]} each|at-once|unconfined DIR")
    folder = sys.argv[2]
    with open(os.path.join(folder, "cases.json"), encoding="utf-8") as file:
        cases = json.load(file)
    watch = Watch([os.path.join(folder, "canary"), "/dev/full"])
    sys.exit(0 if commands[sys.argv[1]](folder, cases, watch) else 1)


main()
