#!/usr/bin/env bash
# fault_space.sh BIN_DIR - a full store and a full file system below it: the client gets an error for what needs space and
# nothing else, what was acknowledged stays, reads, overwrites, trims and deletes go on, space comes back after deleting, and
# the store is clean.
#
# Needs root: it mounts a small ext4 file system.

set -euo pipefail
# shellcheck source=tests/interop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
begin "$@"

readonly store_mib=128 file_system_mib=192

# The Python programs keep what was acknowledged, block by block of 64 KiB, in $work/model.
model_client() {
  local program
  program="$(cat <<'PRELUDE'
MODEL = os.environ["MODEL"]
CLUSTER = 1 << 16
def load_model():
    return dict(json.load(open(MODEL))) if os.path.exists(MODEL) else {}
def save_model(model):
    json.dump(list(model.items()), open(MODEL, "w"))
def content(number):
    return struct.pack("<Q", number) * (CLUSTER // 8)
def verify(h, model, allowed=()):
    for cluster, number in model.items():
        data = h.pread(CLUSTER, cluster * CLUSTER)
        assert data == content(number), f"cluster {cluster}: {data[:8]} is not {number}"
def fill(h, model, first, number):
    """Writes clusters until one is refused; returns the first that was."""
    for cluster in range(first, h.get_size() // CLUSTER):
        try:
            h.pwrite(content(number), cluster * CLUSTER)
            model[cluster] = number
        except nbd.Error as error:
            return cluster, error.errnum
    raise AssertionError("the disk could be filled, although it is larger than what is below it")
PRELUDE
)"$'\n'"$(cat)"
  MODEL=$work/model python_client <<<"$program"
}

check_store() {
  "$bin/obraz-store" check "$work/store" --data
}

health() {
  obraz --json status | python3 -c 'import json, sys; print(json.load(sys.stdin)["health"])'
}

# --- the store is full

fill_store() {
  model_client <<'EOT'
h, model = connect("disk/d"), {}
refused_at, number = fill(h, model, 0, 1)
assert number == errno.ENOSPC, errno.errorcode[number]
assert len(model) > 1000, f"only {len(model)} clusters fit"
for _ in range(10):
    refused(errno.ENOSPC, h.pwrite, content(9), refused_at * CLUSTER)
h.flush()
verify(h, model)
assert h.pread(CLUSTER, refused_at * CLUSTER) == bytes(CLUSTER), "a refused write has changed something"
save_model(model)
h.shutdown()
EOT
}

full_store_goes_on() {
  model_client <<'EOT'
h, model = connect("disk/d"), load_model()
for cluster in range(0, 500):  # overwrites
    h.pwrite(content(2), cluster * CLUSTER)
    model[cluster] = 2
h.flush()
h.pwrite(content(3), 500 * CLUSTER, nbd.CMD_FLAG_FUA)
model[500] = 3
verify(h, model)
first_free = max(model) + 1
h.trim(64 * CLUSTER, 600 * CLUSTER)
for cluster in range(600, 664):
    del model[cluster]
assert h.pread(64 * CLUSTER, 600 * CLUSTER) == bytes(64 * CLUSTER)
for cluster in range(first_free, first_free + 60):  # what was trimmed can be used elsewhere
    h.pwrite(content(4), cluster * CLUSTER)
    model[cluster] = 4
h.flush()
verify(h, model)
h.shutdown()
save_model(model)
EOT
}

resources_on_full_store() {
  local status=0
  obraz snapshot create --name s --disk d
  obraz snapshot delete s
  head -c 16M /dev/urandom >"$work/image.raw"
  obraz --json image import "$work/image.raw" --name i 2>"$work/refused" || status=$?
  expect "the status of an import that does not fit" 1 "$status"
  expect "its code" RESOURCE_EXHAUSTED "$(python3 -c 'import json, sys
print(json.load(sys.stdin)["error"]["code"])' <"$work/refused")"
  expect "images" '[]' "$(obraz --json image list | python3 -c 'import json, sys
print(json.load(sys.stdin)["images"])')"
}

disk_is_as_it_was() {
  model_client <<'EOT'
h = connect("disk/d")
verify(h, load_model())
h.shutdown()
EOT
}

# A second disk takes what is left; when it is deleted, all of its space can be written to d.
space_returns() {
  obraz disk create --name other --size 256M
  model_client <<'EOT'
h, model = connect("disk/d"), load_model()
clusters = sorted(model)[-400:]
h.trim(len(clusters) * CLUSTER, clusters[0] * CLUSTER)
for cluster in clusters:
    del model[cluster]
h.flush()
other = connect("disk/other")
fill(other, {}, 0, 8)
other.shutdown()
save_model(model)
EOT
  obraz disk delete other
  model_client <<'EOT'
h, model = connect("disk/d"), load_model()
first = max(model) + 1
for cluster in range(first, first + 350):
    h.pwrite(content(5), cluster * CLUSTER)
    model[cluster] = 5
h.flush()
verify(h, model)
h.shutdown()
save_model(model)
EOT
}

# --- the file system is full

fill_file_system() {
  model_client <<'EOT'
h, model = connect("disk/d"), {}
refused_at, number = fill(h, model, 0, 1)
assert number in (errno.ENOSPC, errno.EIO), errno.errorcode[number]
assert len(model) > 500, f"only {len(model)} clusters fit"
h.flush()
verify(h, model)
for cluster in range(0, 300):
    h.pwrite(content(2), cluster * CLUSTER)
    model[cluster] = 2
h.flush()
verify(h, model)
save_model(model)
h.shutdown()
EOT
}

# Somebody else takes the very last block, and the daemon goes on.
nothing_left() {
  ! dd if=/dev/zero of="$work/small/filler" bs=64K status=none || fail "the file system should be full"
  ! dd if=/dev/zero of="$work/small/crumbs" bs=1K status=none || fail "the file system should be full"
  model_client <<'EOT'
h, model = connect("disk/d"), load_model()
# Many rounds, so that checkpoints are made. What is refused may not be lost, and what is accepted may not either.
accepted = refused_writes = 0
for turn in range(3, 13):
    for cluster in list(model):
        try:
            h.pwrite(content(turn), cluster * CLUSTER)
            model[cluster] = turn
            accepted += 1
        except nbd.Error as error:
            assert error.errnum in (errno.ENOSPC, errno.EIO, errno.EPERM), errno.errorcode[error.errnum]
            refused_writes += 1
    try:
        h.flush()
    except nbd.Error as error:
        assert error.errnum in (errno.ENOSPC, errno.EIO), errno.errorcode[error.errnum]
    verify(h, model)
print(accepted, "writes accepted,", refused_writes, "refused")
for cluster in range(max(model) + 1, max(model) + 200):
    try:
        h.pwrite(content(20), cluster * CLUSTER)
        model[cluster] = 20
    except nbd.Error as error:
        assert error.errnum in (errno.ENOSPC, errno.EIO, errno.EPERM), errno.errorcode[error.errnum]
        break
else:
    raise AssertionError("200 clusters fit into a file system that is full")
verify(h, model)
save_model(model)
h.shutdown()
EOT
}

space_given_back() {
  rm "$work/small/filler" "$work/small/crumbs"
  expect "health" ok "$(health)"
  model_client <<'EOT'
h, model = connect("disk/d"), load_model()
verify(h, model)
h.trim(300 * CLUSTER, 0)
for cluster in range(0, 300):
    model.pop(cluster, None)
first = max(model) + 1
for cluster in range(first, first + 200):
    h.pwrite(content(21), cluster * CLUSTER)
    model[cluster] = 21
h.flush()
verify(h, model)
h.shutdown()
save_model(model)
EOT
}

start_small() {
  start_daemon --data-size 1G --journal-size 256K
}
start_again() {
  # shellcheck disable=SC2119  # the script's arguments are not the daemon's
  start_daemon
}

step "start obrazd with a store of $store_mib MiB" start_daemon --data-size "${store_mib}M" --journal-size 256K
step "make a disk of 256 MiB" new_disk d 256M
step "fill it until there is no more space" fill_store
step "reads, overwrites and trims go on, and free space is used" full_store_goes_on
step "snapshots can be made and deleted; an import is refused" resources_on_full_store
step "the disk is as it was" disk_is_as_it_was
step "what a deleted disk held can be written" space_returns
step "stop obrazd" stop_daemon
step "the store is clean" check_store
step "start again" start_again
step "the disk is as it was" disk_is_as_it_was
step "stop obrazd" stop_daemon

step "mount a file system of $file_system_mib MiB" mount_store "${file_system_mib}M" defaults
step "start obrazd with a store of 1 GiB on it" start_small
step "make a disk of 512 MiB" new_disk d 512M
step "fill it until the file system is full" fill_file_system
step "somebody else takes the last block" nothing_left
grep accepted "$work/step.log" >&3
step "reads go on" disk_is_as_it_was
step "kill obrazd" kill_daemon
step "start again on the full file system" start_again
step "the disk is as it was" disk_is_as_it_was
step "space is given back; all works again" space_given_back
step "stop obrazd" stop_daemon
step "the store is clean" check_store
step "start again" start_again
step "the disk is as it was" disk_is_as_it_was
step "stop obrazd" stop_daemon
