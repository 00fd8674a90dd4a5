#!/usr/bin/env bash
# control_refusals.sh BIN_DIR - what breaks a rule is refused with its code and field, and changes nothing.
set -euo pipefail
# shellcheck source=tests/interop/control_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/control_lib.sh"
begin "$@"

make_some() {
  obraz disk create --name vm1 --size 64M
  obraz disk create --name other --size 64M
  obraz snapshot create --name s1 --disk vm1
  obraz image create --name i1 --from-disk vm1
}

everything() { obraz --json disk list; obraz --json snapshot list; obraz --json image list --json | grep -v storage_size; }

refuse_names() {
  local name
  for name in Upper 1digit -dash dash- 'with space' a/b "$(printf 'x%.0s' {1..64})" ümlaut; do
    refused INVALID_ARGUMENT name disk create --name="$name" --size 4M
  done
  refused INVALID_ARGUMENT family image create --name i2 --from-disk vm1 --family ab
  refused INVALID_ARGUMENT labels disk create --name vm2 --size 4M --label Key=value
  refused INVALID_ARGUMENT description disk create --name vm2 --size 4M --description "$(printf 'x%.0s' {1..257})"
}

refuse_duplicates() {
  refused ALREADY_EXISTS name disk create --name vm1 --size 4M
  refused ALREADY_EXISTS name snapshot create --name s1 --disk vm1
  refused ALREADY_EXISTS name image create --name i1 --from-disk vm1
  refused INVALID_ARGUMENT name snapshot create --name same --disk vm1 --name same --disk other
}

refuse_missing() {
  refused NOT_FOUND image_id disk create --name vm2 --image nosuch
  refused NOT_FOUND family disk create --name vm2 --family nosuch
  refused NOT_FOUND snapshot_id disk create --name vm2 --snapshot nosuch
  refused NOT_FOUND disk_id image create --name i2 --from-disk nosuch
  refused NOT_FOUND disk_id snapshot create --name s2 --disk vm1 --name s3 --disk nosuch
  refused NOT_FOUND disk_id disk get nosuch
  refused NOT_FOUND disk_id disk delete nosuch
  refused NOT_FOUND image_id image delete 3nosuchid
  refused NOT_FOUND folder_id disk create --name vm2 --size 4M --folder nosuch
  refused NOT_FOUND operation_id operation get nosuch
  refused NOT_FOUND b diff disk/vm1 snapshot/nosuch
  refused NOT_FOUND source image import "$work/nosuch.raw" --name i2
}

refuse_sizes() {
  refused INVALID_ARGUMENT size disk create --name vm2 --size 0
  refused INVALID_ARGUMENT size disk create --name vm2 --size 5T
  refused INVALID_ARGUMENT size disk create --name vm2 --size 99999999999999999999T
  refused INVALID_ARGUMENT size disk create --name vm2 --image i1 --size 4M
  refused INVALID_ARGUMENT size disk resize vm1 --size 4M
  refused INVALID_ARGUMENT size disk resize vm1 --size 5T
  refused INVALID_ARGUMENT min_disk_size image create --name i2 --from-disk vm1 --min-disk-size 4M
}

refuse_states() {
  obraz disk create --name vm3 --size 64M
  refused FAILED_PRECONDITION snapshot_id disk revert vm3 --snapshot s1
  obraz disk delete vm3
  refused NOT_FOUND disk_id disk delete vm3
  : >"$work/there"
  refused ALREADY_EXISTS path image export i1 "$work/there"
  [[ ! -s $work/there ]] || fail "the existing file was written to"
}

wrong_command_lines() {
  local status
  for words in 'disk create --name a' 'disk create --name a --size x' 'nonsense' 'disk' 'image create --name i'; do
    status=0
    # shellcheck disable=SC2086
    obraz $words || status=$?
    expect "the exit status of obraz $words" 2 "$status"
  done
}

step "start obrazd" start_daemon
step "make a disk, a snapshot and an image" make_some
before=$(everything)
step "names and labels that break the rules" refuse_names
step "names that are taken" refuse_duplicates
step "things that are missing" refuse_missing
step "sizes beyond the limits" refuse_sizes
step "things that the state forbids" refuse_states
step "wrong command lines have exit status 2" wrong_command_lines
step "nothing has changed" expect "what there is" "$before" "$(everything)"
step "stop" stop_daemon
