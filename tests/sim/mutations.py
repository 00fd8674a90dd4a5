#!/usr/bin/env python3
"""mutations.py BUILD_DIR [NAME...] - shows that the simulations find bugs: breaks the store on purpose, in one place
at a time, and expects each break to be caught.

Each mutation replaces a piece of one source file of daemon/store. The broken file alone is compiled anew, with the
commands of BUILD_DIR (a finished build), and linked before the libraries, into a program of its own; nothing in the
checkout or the build changes. A mutation whose text is no longer in the source fails: whoever changes that place says
anew what breaking it means. Exit status: 0 all were caught, 1 one was not (or one could not be made), 2 wrong usage.
"""

import json
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

RANDOM = ["simulate", "--seeds", "1-6000", "--jobs", "1"]


def tests(pattern):
    return ["sim_store", f"--gtest_filter={pattern}", "--gtest_fail_fast"]


# name: (file, text, replacement, what catches it)
MUTATIONS = {
    # commit
    "no data flush before the journal write": (
        "core.cpp", "status = co_await data.flush();", "status = Status();", RANDOM),
    "no flush after the journal write": (
        "journal.cpp", "else if (last)", "else if (false)", RANDOM),
    "data that was being written counts as flushed": (
        "core.cpp", "status = co_await data.flush();", "status = co_await data.flush();\n    unflushed.clear();",
        RANDOM),
    "a failed journal write is acknowledged": (
        "core.cpp", 'if (!status)\n      co_return fail("journal write or flush of the meta device", status.error());', "",
        RANDOM),
    # data that the journal carries
    "carried blocks are not replayed": (
        "recovery.cpp", "const Status status = co_await data.write(offset, content.bytes());", "const Status status;",
        RANDOM),
    "what recovery has put in place is not flushed": (
        "recovery.cpp", "if (status)\n      unflushed.add_unknown();\n    else if (!data", "if (!status && !data", RANDOM),
    "a flush of data does not end what the journal carries": (
        "core.cpp", "(journal.carries() && data.stuck_blocks() == 0);", "false;", RANDOM),
    "replay does not heed that blocks have landed": (
        "recovery.cpp", "carried_.clear();\n      }", "}", RANDOM),
    "a checkpoint relies on what the journal before it carries": (
        "core.cpp", "(freezes && journal.carries()) ||", "", RANDOM),
    "a checkpoint's commit carries": ("core.cpp", "if (freezes || !unflushed.known()", "if (!unflushed.known()", RANDOM),
    "a block that was written again is carried as it was": (
        "unflushed.h", "std::copy_n(bytes.data(), kBlockSize, content.data());",
        "if (is_zero(content)) std::copy_n(bytes.data(), kBlockSize, content.data());", RANDOM),
    "what was written without being known is not flushed": (
        "unflushed.h", "bool any() const { return !blocks_.empty() || !known_; }",
        "bool any() const { return !blocks_.empty(); }", RANDOM),
    # small writes that are kept for a while
    "a read does not see what is kept": (
        "write_behind.cpp", "return touches(offset, into.size()) ? read_around(offset, into) : device_.read(offset, into);",
        "return device_.read(offset, into);", RANDOM),
    "a flush leaves what is kept": (
        "write_behind.cpp", "return places_.empty() ? device_.flush() : flush_kept();",
        "return device_.flush();", RANDOM),
    "a write does not wait for what is kept": (
        "write_behind.cpp", "return touches(offset, from.size()) ? write_after(offset, from) : device_.write(offset, from);",
        "return device_.write(offset, from);", RANDOM),
    "a block that is being written is changed": (
        "write_behind.cpp",
        "if (found != places_.end() && kept_[found->second].busy)  // the device reads that memory\n      return false;",
        "", RANDOM),
    "what is kept is not carried": (
        "data_path.cpp", "unflushed.add(segment.device_offset, segment.bytes);\n  return true;", "return true;", RANDOM),
    "a block that could not be written is forgotten": (
        "write_behind.cpp", "  if (status) {\n    drop(index);\n  } else", "  if (status || !kept.stuck) {\n    drop(index);\n  } else",
        RANDOM),
    "a block that is stuck is not carried on": (
        "core.cpp", "sealed = journal.seal(landed, stuck);", "sealed = journal.seal(landed);", RANDOM),
    "the journal carries more while blocks are stuck": (
        "core.cpp", "unflushed.blocks().empty() || data.stuck_blocks() > 0)", "unflushed.blocks().empty())",
        tests("*StuckBlock.*")),
    "a checkpoint relies on stuck blocks that the journal before it carries": (
        "core.cpp", "if (data.stuck_blocks() > 0) {", "if (false) {", tests("*StuckBlock.*")),
    "recovery forgets a block that it cannot write": (
        "recovery.cpp", "else if (!data.keep_stuck(offset, content.bytes()))\n      co_return status;", "", RANDOM),
    "a stuck block is replaced between the flush and the commit": (
        "write_behind.cpp", "kept.busy = true;\n      held.push_back(&kept);", "", tests("*StuckBlock.*")),
    "a stuck block hides what was written over it": (
        "write_behind.cpp", "if (status)\n      drop(index);\n  }\n  if (!over", "}\n  if (!over", tests("*StuckBlock.*")),
    "records are sealed that came during the flush of data": (
        "journal.cpp", "if (batches_.size() == closed_ ||", "if (batches_.empty() ||", RANDOM),
    # drop rule
    "a count is lowered before the record is durable": (
        "core.cpp", "drops_.front().record <= durable_records_ &&", "", RANDOM),
    "a cluster is handed out with a request in flight": (
        "core.cpp", "drops_.front().io_mark <= io.oldest()", "true", tests("DropRule.*")),
    # checkpoint
    "two flushes of metadata overlap, and one goes on when the other fails": (
        "core.cpp", "co_await flush_meta();  // 3", "co_await meta.flush();", tests("FailedFlush.*")),
    "the pages are not flushed before the superblock": (
        "core.cpp", "status = co_await flush_meta();  // 3", "status = Status();", RANDOM),
    "the superblock is not flushed": (
        "core.cpp", "status = co_await flush_meta();  // 5", "status = Status();", RANDOM),
    "the superblock has no second copy": (
        "core.cpp", "status = co_await meta.write(second.value * kPageSize, page.bytes());  // 6",
        "status = Status();", tests("Damage.*")),
    "a node page is reused before the checkpoint": (
        "state.cpp", "else\n    retire_page(page);", "else\n    pages_.release(page.value);", RANDOM),
    "the journal is freed before the checkpoint": (
        "core.cpp", "status = co_await write_checkpoint(*frozen_);",
        "journal.free_up_to(frozen_->superblock.journal_position);\n  status = co_await write_checkpoint(*frozen_);",
        RANDOM),
    "pending drops are counted in the checkpoint": (
        "state.cpp", "const uint32_t left = load_le<uint32_t>(at) - it->second;",
        "const uint32_t left = load_le<uint32_t>(at);", RANDOM),
    "pending drops keep an old checksum": (
        "state.cpp", "patch_checksum(drop->node);", "", RANDOM),
    # journal and recovery
    "a batch that does not follow is accepted": (
        "journal.cpp",
        "header->run != run_ || header->position != position_ ||\n"
        "      header->sequence.value != sequence_.value + 1 || header->chain != chain_",
        "false", RANDOM),
    "a torn batch is accepted": (
        "journal.cpp",
        "!disk::batch_verifies(*header, all.bytes().first(header->length_bytes))) {\n    marks::hit(",
        "false) {\n    marks::hit(", RANDOM),
    "recovery does not flush what it reads": (
        "recovery.cpp",
        "Status status = co_await meta.flush();  // 1\n  OBRAZ_CO_TRY(status);\n  status = co_await data.flush();",
        "Status status;", RANDOM),
    "recovery makes no room": (
        "recovery.cpp", "} else if (state.has_dead()) {", "} else if (false) {", tests("Recovery.*")),
    # writes
    "a shared cluster is written in place": ("slot.h", "if (!shared)", "if (true)", RANDOM),
    "the bounded copy forgets blocks": (
        "slot.h", "return uint16_t(slot.own_mask & ~mask);", "return uint16_t(slot.own_mask & ~mask & 0x7fff);",
        RANDOM),
    "zeros turn into the old base": (
        "slot.h", "next.zero_mask = uint16_t(~slot.own_mask & ~mask);", "next.zero_mask = 0;", RANDOM),
    "a write is recorded before its data has landed": (
        "data_path.cpp",
        "    if (status && w.direct()) {", "    if (status && !w.in_place())\n      static_cast<void>(record(w));\n"
        "    if (status && w.direct()) {", RANDOM),
    "a write is recorded after a revert": (
        "data_path.cpp", "if (w.volume->deleted || w.volume->generation != w.generation)",
        "if (w.volume->deleted)", RANDOM),
    "a snapshot does not wait for writes in flight": (
        "core.cpp", "co_await source->writes.wait_until_past(mark);", "static_cast<void>(mark);",
        tests("SnapshotWait.*")),
    # checksums of data
    "what is read is not verified": (
        "data_path.cpp", "if (status && !to_verify.empty())", "if (false)", tests("Integrity.*")),
    "the bounded copy does not verify what it copies": (
        "data_path.cpp", "!writing && block < kBlocksPerCluster && status;", "false;", tests("Integrity.*")),
    "a partial write does not verify the rest of the block": (
        "data_path.cpp", "if (status && state.is_summed(place)) {", "if (false) {", tests("Integrity.*")),
    "the last owner writes to a summed cluster": (
        "state.h", " || is_summed(slot.own)", "", RANDOM),
    "a cluster that is used again keeps its checksums in a replay": (
        "state.cpp", "if (r.slot.own && !names(old, r.slot.own))\n    end_summing(r.slot.own);", "", RANDOM),
    "a freed cluster stays summed": (
        "state.cpp", "if (count == 1) {\n    end_summing(cluster);", "if (count == 1) {", RANDOM),
    "the checksums of a deleted volume are stored": (
        "integrity.cpp", "if (volume->deleted)\n      co_return status;\n    if (state.cluster_count",
        "if (state.cluster_count", RANDOM),
    "checksums of a cluster's last life are kept": (
        "state_sums.cpp", "if (checksums[block] != 0 || fresh) {", "if (checksums[block] != 0) {", RANDOM),
    "a node that changes still counts as summed": (
        "state.cpp", "if (is_summed(ref.page)) {", "if (false) {", tests("Integrity.*")),
    "a cluster is free and summed in the checkpoint": (
        "state.cpp", "left & disk::kMaxCount ? left : 0", "left", RANDOM),
    "the scrub compares nothing": (
        "integrity.cpp", "status = co_await verify(*volume, {&part, 1});", "status = Status();", tests("Scrub.*")),
    # cache of clones
    "a write in place leaves what is cached": (
        "data_path.cpp", "clone_cache.drop(piece.target);",
        "if (piece.kind != WriteKind::in_place) clone_cache.drop(piece.target);",
        tests("CloneCacheInStore.*")),
    "a first write leaves what is cached": (
        "data_path.cpp", "clone_cache.drop(piece.target);",
        "if (piece.kind != WriteKind::first) clone_cache.drop(piece.target);",
        tests("CloneCacheInStore.*")),
    "a cluster that is used again keeps what is cached": (
        "data_path.cpp", "clone_cache.drop(piece.target);",
        "if (piece.kind == WriteKind::in_place || piece.kind == WriteKind::first) clone_cache.drop(piece.target);",
        RANDOM),
    "what was being read when a write began is cached": (
        "clone_cache.cpp", "while (Fill* fill = fills_under_way_ > 0 ? filling(cluster, kAllBlocks) : nullptr) {",
        "while (Fill* fill = nullptr) {", tests("CloneCache*")),
    "what writes in flight at a snapshot will change is cached": (
        "cached_read.cpp", "core_.landing == 0 || core_.state.is_summed(run.cluster)", "true",
        tests("CloneCacheInStore.*")),
    "what a disk has alone is cached": (
        "data_path.cpp", "(view.shared || state.cluster_count(place) > 1)", "true", RANDOM),
    "what could not be read is cached": (
        "cached_read.cpp", "end_fills(status.has_value());", "end_fills(true);", RANDOM),
    "who waited takes a failed read for a good one": (
        "cached_read.cpp", "read(wait.run, wait.at, absent, segments, to_verify);", "", RANDOM),
    "reads at the same time do not wait for each other": (
        "cached_read.cpp", "bridged(uint16_t(absent & ~found.filling));", "bridged(absent);",
        tests("CloneCache*")),
    "a scan empties the cache": (
        "clone_cache.cpp", "if (entry.uses <= 1) {", "if (true) {", tests("CloneCache*")),
    "what is rotten stays cached": (
        "integrity.cpp", "clone_cache.drop(cluster);", "{}", tests("CloneCache*")),
    "what was read before there were checksums stays cached": (
        "integrity.cpp", "clone_cache.drop(one.cluster);", "{}", tests("CloneCache*")),
    # space
    "tables grow without being admitted": (
        "state.cpp", "constexpr uint64_t kElement = 2 * 2;", "return 0;\n  constexpr uint64_t kElement = 2 * 2;",
        tests("Recovery.*")),
}


# The sources that decide by what is inline in a header.
USERS = {"slot.h": ["data_path.cpp"], "state.h": ["data_path.cpp"], "unflushed.h": ["core.cpp", "data_path.cpp"]}


class Build:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder).resolve()
        self.commands = {
            entry["file"]: shlex.split(entry["command"])
            for entry in json.loads((self.folder / "compile_commands.json").read_text())
        }
        self.source = next(pathlib.Path(file).parent for file in self.commands if file.endswith("store/core.cpp"))
        self.links = {}
        for program in ("simulate", "sim_store"):
            lines = subprocess.run(["ninja", "-C", str(self.folder), "-t", "commands", f"bin/{program}"], check=True,
                                   capture_output=True, text=True).stdout.splitlines()
            line = next(line for line in reversed(lines) if f"-o bin/{program}" in line)
            self.links[program] = shlex.split(re.sub(r"^: && | && :$", "", line.strip()))

    def compile(self, file, where, include_first):
        """The object of a source file of the store, with the headers in `include_first` before the real ones."""
        original = str(self.source / file)
        command = list(self.commands[original])
        output = where / (file + ".o")
        command[command.index("-o") + 1] = str(output)
        command[command.index(original)] = str(where / file if (where / file).exists() else original)
        command = [part for part in command if part not in ("ccache", "-g", "-Werror")]
        command.insert(1, f"-I{include_first}")
        subprocess.run(command, check=True, cwd=self.folder, capture_output=True, text=True)
        return output

    def link(self, program, objects, where):
        command = list(self.links[program])
        output = where / program
        command[command.index("-o") + 1] = str(output)
        first_library = next(i for i, part in enumerate(command) if part.endswith(".a"))
        command[first_library:first_library] = [str(path) for path in objects]
        subprocess.run(command, check=True, cwd=self.folder, capture_output=True, text=True)
        return output


def attempt(build, name):
    file, text, replacement, catcher = MUTATIONS[name]
    source = (build.source / file).read_text()
    if source.count(text) != 1:
        return f"NOT MADE: its text is {source.count(text)} times in {file}"
    with tempfile.TemporaryDirectory(prefix="obraz-mutation-") as folder:
        where = pathlib.Path(folder)
        changed = source.replace(text, replacement)
        if file.endswith(".h"):
            (where / "store").mkdir()
            (where / "store" / file).write_text(changed)
            sources = USERS[file]
        else:
            (where / file).write_text(changed)
            sources = [file]
        try:
            objects = [build.compile(source_file, where, where) for source_file in sources]
            program = build.link(catcher[0], objects, where)
        except subprocess.CalledProcessError as error:
            return "NOT MADE: " + (error.stderr or "").strip()[-800:]
        run = subprocess.run([str(program)] + catcher[1:], capture_output=True, text=True, errors="replace")
        if run.returncode == 0:
            return "NOT CAUGHT"
        seed = re.search(r"seed (\d+)", run.stdout)
        return "caught" + (f" by seed {seed[1]}" if catcher is RANDOM and seed else "")


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__.strip().splitlines()[0])
    build = Build(sys.argv[1])
    names = sys.argv[2:] or list(MUTATIONS)
    unknown = [name for name in names if name not in MUTATIONS]
    if unknown:
        print("no such mutation:", *unknown, file=sys.stderr)
        return 2
    good = True
    with ThreadPoolExecutor(2) as pool:
        for name, outcome in zip(names, pool.map(lambda name: attempt(build, name), names)):
            print(f"{name:60} {outcome}", flush=True)
            good = good and outcome.startswith("caught")
    print("every mutation was caught" if good else "some mutations were NOT caught")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
