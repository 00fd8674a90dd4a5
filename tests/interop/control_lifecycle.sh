#!/usr/bin/env bash
# control_lifecycle.sh BIN_DIR - resources are made, listed, shown and deleted in any order, and a restart finds them.
set -euo pipefail
# shellcheck source=tests/interop/control_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/control_lib.sh"
begin "$@"

make_everything() {
  obraz disk create --name vm1 --size 1G --label tier=db --description "of the test"
  obraz snapshot create --name s1 --disk vm1
  obraz image create --name i1 --from-disk vm1 --family fam
  obraz image create --name i2 --from-snapshot s1 --family fam
  obraz image create --name i3 --from-image i1
  obraz disk create --name vm2 --image i3 --size 2G
  obraz disk create --name vm3 --family fam
  obraz disk create --name vm4 --snapshot s1
  obraz snapshot create --name s2 --disk vm1 --name s3 --disk vm2
}

check_everything() {
  expect disks 'vm1 vm2 vm3 vm4' "$(names disk)"
  expect snapshots 's1 s2 s3' "$(names snapshot)"
  expect images 'i1 i2 i3' "$(names image)"
  expect "the size of vm1" 1073741824 "$(field size disk get vm1)"
  expect "the label of vm1" db "$(field labels.tier disk get vm1)"
  expect "the size of vm2" 2147483648 "$(field size disk get vm2)"
  expect "the latest image" i2 "$(field name image latest --family fam)"
  expect "the source of vm3" "$(field id image get i2)" "$(field source_image_id disk get vm3)"
  expect "the disk of s3" "$(field id disk get vm2)" "$(field source_disk_id snapshot get s3)"
  expect "the status of i1" READY "$(field status image get i1)"
}

change_vm1() {
  obraz disk resize vm1 --size 3G
  expect "the size of vm1" 3221225472 "$(field size disk get vm1)"
  obraz disk revert vm1 --snapshot s1
  expect "the size of vm1" 1073741824 "$(field size disk get vm1)"
}

delete_in_any_order() {
  obraz image delete i1
  obraz disk delete vm1
  obraz snapshot delete s1
  obraz image delete i3
  expect disks 'vm2 vm3 vm4' "$(names disk)"
  obraz disk create --name vm5 --image i2
  obraz image delete i2
  obraz snapshot delete s3
  obraz disk delete vm2
}

check_the_rest() {
  expect disks 'vm3 vm4 vm5' "$(names disk)"
  expect snapshots s2 "$(names snapshot)"
  expect images '' "$(names image)"
}

# For scripts that go on with what a command made.
ids_only() {
  local id
  id=$(obraz --quiet disk create --name vm6 --size 4M)
  expect "the id" "$(field id disk get vm6)" "$id"
  expect "the id" "$id" "$(obraz disk get vm6 -q)"
  expect "the last of the ids" "$id" "$(obraz -q disk list | tail -1)"
  expect "what a deletion prints" '' "$(obraz -q disk delete "$id")"
}

delete_all() {
  obraz disk delete vm5
  obraz snapshot delete s2
  obraz disk delete vm3
  obraz disk delete vm4
  expect disks '' "$(names disk)"
}

step "start obrazd on a new store" start_daemon
step "make disks, snapshots and images of each other" make_everything
step "all are there" check_everything
step "stop with SIGTERM" stop_daemon
step "start again" start_daemon
step "all are still there" check_everything
step "resize and revert" change_vm1
step "delete in an order of no sense" delete_in_any_order
step "the others are there" check_the_rest
step "stop" stop_daemon
step "start again" start_daemon
step "the others are still there" check_the_rest
step "ids and nothing else" ids_only
step "delete them too" delete_all
step "stop" stop_daemon
