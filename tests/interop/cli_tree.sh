#!/usr/bin/env bash
# cli_tree.sh BIN_DIR - what was made of what is shown as it is, and the bytes that deleting would give back are those that
# it then gives back.
set -euo pipefail
# shellcheck source=tests/interop/control_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/control_lib.sh"
begin "$@"

# write DISK OFFSET LENGTH
write() {
  qemu-io -f raw -c "write -P 7 $2 $3" "$(obraz disk uri "$1")"
}

make_a_family() {
  obraz disk create --name golden --size 64M
  write golden 0 8M
  obraz image create --name debian --from-disk golden
  obraz disk create --name vm1 --image debian
  write vm1 0 1M
  obraz snapshot create --name before --disk vm1
  write vm1 1M 1M
  obraz image create --name mine --from-snapshot before
  obraz disk create --name vm2 --image mine
  obraz disk create --name alone --size 4M
}

# "NAME<PARENT@DEPTH" of all, in order.
tree() {
  obraz --json "$@" tree | python3 -c '
import json, sys
volumes = json.load(sys.stdin)["volumes"]
names = {volume["id"]: volume["name"] for volume in volumes}
print(*("%s<%s@%d" % (v["name"], names.get(v["parent_id"], ""), v["depth"]) for v in volumes))'
}

check_tree() {
  expect "the tree" "golden<@0 debian<golden@1 vm1<debian@2 before<vm1@3 mine<before@4 vm2<mine@5 alone<@0" "$(tree)"
  obraz tree >"$work/tree"
  grep -q '^   *└─ snapshot/before ' "$work/tree" || fail "the snapshot is not drawn below its disk"
  expect "the lines of the table" 8 "$(wc -l <"$work/tree")"
  expect "the ids" "$(obraz --json tree | json volumes.0.id)" "$(obraz --quiet tree | head -n 1)"
}

# Each volume's own bytes in the tree are those that `space` counts.
check_bytes() {
  local name
  for name in disk/golden image/debian disk/vm1 snapshot/before image/mine disk/vm2; do
    expect "the bytes of $name alone" "$(field freed_bytes space "$name")" "$(obraz --json tree | python3 -c '
import json, sys
kind, name = sys.argv[1].split("/")
print(*(v["exclusive_bytes"] for v in json.load(sys.stdin)["volumes"] if (v["kind"], v["name"]) == (kind, name)))' "$name")"
  done
  expect "what vm1 holds alone" 1048576 "$(field freed_bytes space disk/vm1)"
}

used() {
  obraz --json status | json space.used_bytes
}
# Deleted space is given back in the background.
until_given_back() {
  until [[ $(obraz --json status | json space.reclaimable_bytes) == 0 ]]; do :; done
}

delete_and_compare() {
  local promised before
  until_given_back
  promised=$(field freed_bytes space vm1 before mine vm2)
  before=$(used)
  obraz disk delete vm2
  obraz image delete mine
  obraz snapshot delete before
  obraz disk delete vm1
  until_given_back
  expect "the bytes given back" "$promised" "$((before - $(used)))"
  ((promised >= 2097152)) || fail "two MiB were written, $promised bytes were promised"
}

check_what_is_gone() {
  obraz disk delete golden
  expect "the tree" "debian<@0 alone<@0" "$(tree)"
  obraz tree | grep -q 'image/debian .* disk [0-9]' || fail "what an image was made of is forgotten with it"
}

# A name that only one kind has needs no kind.
bare_names() {
  expect "a bare name" "$(field freed_bytes space image/debian)" "$(field freed_bytes space debian)"
  obraz diff debian alone
  obraz disk create --name debian --size 4M
  refused INVALID_ARGUMENT names space debian
  refused INVALID_ARGUMENT a diff debian alone
  refused NOT_FOUND names space nosuch
  refused NOT_FOUND names space nokind/debian
  refused NOT_FOUND folder_id --folder nosuch space debian
  obraz folder create --name team
  obraz --folder team disk create --name vm1 --size 4M
  expect "a name in a folder" 0 "$(field freed_bytes --folder team space vm1)"
  expect "the folder's tree" "vm1<@0" "$(tree --folder team)"
  expect "an empty tree" '[]' "$(obraz folder create --name none >"$work/null"; field volumes --folder none tree)"
}

step "start obrazd" start_daemon
step "make disks, images and a snapshot of each other" make_a_family
step "the tree" check_tree
step "the bytes of each" check_bytes
step "deleting gives back what was promised" delete_and_compare
step "what has lost its source" check_what_is_gone
step "names without their kind" bare_names
step "stop" stop_daemon
