#!/usr/bin/env python3
"""Executes access_table.txt: each call by a process of each subject, against a running daemon.

usage: access_table.py TABLE PROTO_DIR OBRAZ WORK    (as root; WORK/store has the daemon's sockets)

Fails when an outcome is another one than the table says, and when proto/ has a method that the table has not.
"""

import json
import pathlib
import re
import subprocess
import sys

SUBJECTS = ["none", "viewer", "images.user", "editor", "admin", "group", "shared"]
UIDS = {name: 42001 + i for i, name in enumerate(SUBJECTS)}
GROUP = 42100
OUTCOMES = {"NOT_FOUND": "-", "PERMISSION_DENIED": "no"}


class Table:
    def __init__(self, obraz, work):
        self.obraz = obraz
        self.work = work
        self.number = 0

    def run(self, command, uid=None):
        arguments = ["setpriv", f"--reuid={uid}", f"--regid={GROUP if uid == UIDS['group'] else uid}",
                     "--clear-groups"] if uid else []
        return subprocess.run(arguments + command, capture_output=True, text=True, timeout=60)

    def call(self, command, uid=None):
        return self.run([self.obraz, "--control", f"{self.work}/store/control.sock", "--json", *command], uid)

    def root(self, *command):
        done = self.call(command)
        if done.returncode != 0:
            sys.exit(f"root's {command}: {done.stderr}")
        return json.loads(done.stdout)

    def new_name(self):
        self.number += 1
        return f"x{self.number}"

    # What a command line needs, made by root.
    def make(self, word, subject, made):
        name = self.new_name()
        user = f"user:{UIDS[subject]}"
        if word == "IMAGE":
            self.root("image", "create", "--folder", "f", "--name", name, "--from-disk", "base")
            if subject == "shared":
                self.root("image", "share", "--folder", "f", name, "--public")
        elif word == "DISK":
            self.root("disk", "create", "--folder", "f", "--name", name, "--size", "4M")
            made["OPERATION"] = self.root("operation", "list")["operations"][0]["id"]  # the newest
        elif word == "SNAPSHOT":
            self.root("snapshot", "create", "--folder", "f", "--name", name, "--disk", made["DISK"])
        elif word == "SCHEDULE":
            self.root("schedule", "create", "--folder", "f", "--name", name, "--every", "@yearly", "--disk", made["DISK"])
        elif word == "FOLDER":
            self.root("folder", "create", "--name", name)
            grant_roles(self, name)
        if word in ("DISK", "SNAPSHOT") and subject == "shared":
            self.root("access", "grant", "--folder", "f", f"--{word.lower()}", name, "--role", "viewer", "--subject", user)
        made[word] = name
        if word == "TRASHED":
            self.make("DISK", subject, made)
            made[word] = f"disk/{made['DISK']}"
            self.root("folder", "update", "f", "--trash", "1h")
            self.root("disk", "delete", "--folder", "f", made["DISK"])
            self.root("folder", "update", "f", "--trash", "0")

    def outcome(self, command, subject):
        made = {"NEW": self.new_name(), "FILE": f"{self.work}/files/{self.new_name()}",
                "LOCKED": f"{self.work}/{self.new_name()}", "SOURCE": f"{self.work}/files/source",
                "SECRET": f"{self.work}/files/secret"}
        words = re.findall(r"\b[A-Z]{3,}\b", command)
        needed = [word for word in ("IMAGE", "DISK", "SNAPSHOT", "SCHEDULE", "FOLDER", "TRASHED") if word in words]
        if {"SNAPSHOT", "SCHEDULE", "OPERATION"} & set(words) and "DISK" not in needed:
            needed.insert(0, "DISK")
        for word in needed:
            self.make(word, subject, made)
        line = re.sub(r"\b(NEW|FILE|LOCKED|SOURCE|SECRET|IMAGE|DISK|SNAPSHOT|SCHEDULE|FOLDER|OPERATION|TRASHED)\b", lambda match: made[match[0]],
                      command).split()
        if line[0] == "nbd":
            done = self.run(["nbdinfo", "--size", f"nbd+unix:///{line[1]}?socket={self.work}/store/nbd.sock"],
                            UIDS[subject])
            if done.returncode == 0:
                return "ok"
            return "no" if "polic" in done.stderr else "-" if "export" in done.stderr else done.stderr
        # Without a folder that call is about the operations of all of them.
        whole = "--folder" in line or line == ["operation", "list"]
        done = self.call(line if whole else [*line, "--folder", "f"], UIDS[subject])
        if done.returncode == 0:
            return "ok"
        try:
            code = json.loads(done.stderr)["error"]["code"]
        except ValueError:
            return f"status {done.returncode}: {done.stderr}"
        return OUTCOMES.get(code, code)


def grant_roles(table, folder):
    for role in ("viewer", "images.user", "editor", "admin"):
        table.root("access", "grant", "--folder", folder, "--role", role, "--subject", f"user:{UIDS[role]}")
    table.root("access", "grant", "--folder", folder, "--role", "editor", "--subject", f"group:{GROUP}")


def rows_of(path):
    rows = []
    for line in pathlib.Path(path).read_text().splitlines():
        if not line or line.startswith(("#", "method ")):
            continue
        parts = line.split()
        rows.append((parts[0], " ".join(parts[1:-len(SUBJECTS)]), parts[-len(SUBJECTS):]))
    return rows


def make_files(folder):
    folder.mkdir()
    folder.chmod(0o1777)
    for name, mode in (("source", 0o644), ("secret", 0o600)):
        (folder / name).write_bytes(bytes(1 << 20))
        (folder / name).chmod(mode)


def methods_of(folder):
    methods = set()
    for path in sorted(pathlib.Path(folder).glob("**/*_service.proto")):
        text = path.read_text()
        for service, body in re.findall(r"^service (\w+) {(.*?)^}", text, re.S | re.M):
            methods |= {f"{service}.{name}" for name in re.findall(r"^\s*rpc (\w+)", body, re.M)}
    return methods


def main():
    path, proto, obraz, work = sys.argv[1:]
    rows = rows_of(path)
    missing = methods_of(proto) - {method for method, _, _ in rows}
    if missing or not rows:
        sys.exit(f"the table has no line for {', '.join(sorted(missing))}")
    make_files(pathlib.Path(work) / "files")
    table = Table(obraz, work)
    table.root("folder", "create", "--name", "f")
    grant_roles(table, "f")
    table.root("disk", "create", "--folder", "f", "--name", "base", "--size", "4M")
    table.root("image", "create", "--folder", "f", "--name", "newest", "--family", "fam", "--from-disk", "base")
    wrong = 0
    for column, subject in enumerate(SUBJECTS):
        if subject == "shared":  # from here on it can enter the folder
            table.root("access", "grant", "--folder", "f", "--image", "newest", "--role", "images.user", "--subject",
                       f"user:{UIDS[subject]}")
        for method, command, outcomes in rows:
            found = table.outcome(command, subject)
            if found != outcomes[column]:
                wrong += 1
                print(f"{method} ({command}) by {subject}: {found}, and should be {outcomes[column]}")
    print(f"{len(rows)} calls by {len(SUBJECTS)} subjects each: {len(rows) * len(SUBJECTS) - wrong} as they should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
