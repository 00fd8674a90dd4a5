#!/usr/bin/env bash
# access.sh BIN_DIR - who may do what: every method by processes of different users (access_table.txt), and public images,
# which everybody may make disks from in a folder of their own, and nobody but their owners may change.
set -euo pipefail
# shellcheck source=tests/interop/control_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/control_lib.sh"
((EUID == 0)) || { echo "access.sh: needs root to become somebody else; skipped"; exit 0; }
begin "$@"
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
readonly owner=42011 guest=42012

prepare() {
  chmod 0711 "$work"
  cp "$bin/obraz" "$work/obraz"
  start_daemon --audit-log "$work/audit.log"
}

the_table() {
  /usr/bin/python3 "$source_dir/tests/interop/access_table.py" "$source_dir/tests/interop/access_table.txt" \
    "$source_dir/proto" "$work/obraz" "$work"
}

# as UID ARGUMENTS...: obraz as that user.
as() {
  local uid=$1
  shift
  setpriv --reuid="$uid" --regid="$uid" --clear-groups "$work/obraz" --control "$work/store/control.sock" "$@"
}

# denied UID CODE ARGUMENTS...
denied() {
  local uid=$1 code=$2 status=0
  shift 2
  as "$uid" --json "$@" >"$work/refused.out" 2>"$work/refused.err" || status=$?
  ((status == 1)) || fail "user $uid may $*"
  expect "the code of $*" "$code" "$(json error.code <"$work/refused.err")"
}

folders_of_users() {
  obraz folder create --name images
  obraz folder create --name guest
  obraz access grant --folder images --role admin --subject "user:$owner"
  obraz access grant --folder guest --role editor --subject "user:$guest"
  as "$owner" --folder images disk create --name golden --size 16M
  as "$owner" --folder images image create --name debian --family debian --from-disk golden
}

public_images() {
  denied "$guest" NOT_FOUND --folder guest disk create --name vm1 --image debian --from-folder images
  as "$owner" --folder images image share debian --public
  as "$guest" --folder guest disk create --name vm1 --image debian --from-folder images
  as "$guest" --folder guest disk create --name vm2 --family debian --from-folder images
  as "$guest" --folder guest image create --name mine --from-image debian --from-folder images
  denied "$guest" PERMISSION_DENIED --folder images image delete debian
  denied "$guest" PERMISSION_DENIED --folder images image update debian --description mine
  denied "$guest" PERMISSION_DENIED --folder images image share debian --private
  denied "$guest" NOT_FOUND --folder images disk get golden
  denied "$guest" PERMISSION_DENIED --folder images disk create --name vm1 --image debian
  expect "what a guest sees there" debian "$(as "$guest" --json --folder images image list | json images.0.name)"
}

private_again() {
  as "$owner" --folder images image share debian --private
  denied "$guest" NOT_FOUND --folder guest disk create --name vm3 --image debian --from-folder images
  as "$guest" --folder guest disk get vm1  # what was made stays
  denied "$owner" NOT_FOUND --folder guest disk get vm1
}

# Files are opened, and made, with the rights of who calls.
files_of_users() {
  local out=$work/of-guest
  install -d -m 0700 -o "$guest" -g "$guest" "$out"
  head -c 100000 /dev/urandom >"$out/disk"
  chown "$guest:$guest" "$out/disk"
  chmod 0600 "$out/disk"
  as "$guest" --folder guest image import "$out/disk" --name imported
  denied "$owner" PERMISSION_DENIED --folder images image import "$out/disk" --name stolen
  denied "$guest" PERMISSION_DENIED --folder guest image import "$work/store/data" --name stolen
  denied "$guest" INVALID_ARGUMENT --folder guest image import /proc/self/fd/0 --name stolen
  denied "$guest" PERMISSION_DENIED --folder guest image import "nbd+unix:///?socket=$work/store/nbd.sock" --name stolen
  as "$guest" --folder guest image export imported "$out/exported" --format qcow2
  expect "whose file it is" "$guest:$guest 600" "$(stat -c '%u:%g %a' "$out/exported")"
  qemu-img convert -O raw "$out/exported" "$out/raw"
  cmp -n 100000 "$out/disk" "$out/raw" || fail "what was exported is not what was imported"
  denied "$guest" PERMISSION_DENIED --folder guest image export imported "$work/exported"
  denied "$guest" ALREADY_EXISTS --folder guest image export imported "$out/exported"
}

# Whose disks they are is asked when they are attached.
attaching() {
  local socket=$work/store/nbd.sock
  setpriv --reuid="$guest" --regid="$guest" --clear-groups nbdinfo --size "nbd+unix:///disk/guest/vm1?socket=$socket"
  ! setpriv --reuid="$owner" --regid="$owner" --clear-groups nbdinfo --size "nbd+unix:///disk/guest/vm1?socket=$socket" \
    2>"$work/nbd.err" || fail "somebody else attached a disk"
  setpriv --reuid="$guest" --regid="$guest" --clear-groups nbdinfo --list --json "nbd+unix://?socket=$socket" >"$work/list.json" ||
    fail "a list of exports is refused"
  ! grep -q golden "$work/list.json" || fail "a guest is shown what it must not see"
  grep -q disk/guest/vm1 "$work/list.json" || fail "a guest is not shown its own"
}

bindings_stay() {
  local before
  before=$(obraz --json access list --folder images)
  kill_daemon
  start_daemon --audit-log "$work/audit.log"
  expect "the bindings after kill -9" "$before" "$(obraz --json access list --folder images)"
  as "$owner" --folder images image get debian
}

bad_input() {
  refused INVALID_ARGUMENT access_bindings access set --folder images --bind king=user:x
  refused INVALID_ARGUMENT access_bindings access set --folder images --bind viewer=x
  refused INVALID_ARGUMENT access_bindings access set --folder images --bind viewer
  refused INVALID_ARGUMENT access_binding_deltas access grant --folder images --role viewer --subject ''
  refused NOT_FOUND resource_id access list --folder nowhere
  expect "the bindings" "admin user:$owner" "$(obraz access list --folder images | tail -1 | tr -s ' ')"
}

# logged NAME=VALUE...: whether a line of the audit log has all these members.
logged() {
  /usr/bin/python3 - "$work/audit.log" "$@" <<'END'
import json, sys
wanted = dict(word.split("=", 1) for word in sys.argv[2:])
lines = [json.loads(line) for line in open(sys.argv[1])]
sys.exit(not any(all(line.get(name) == value for name, value in wanted.items()) for line in lines))
END
}

# Each method of the table that changes something is there, done and refused.
audit() {
  logged subject="user:$guest" method=DiskService.Create outcome=OK || fail "no line for a disk that was made"
  logged subject="user:$guest" method=ImageService.Delete outcome=PERMISSION_DENIED field=image_id ||
    fail "no line for what was refused"
  logged subject="user:$owner" method=ImageService.UpdateAccessBindings outcome=OK || fail "no line for sharing an image"
  logged subject="user:$guest" method=NBD.Attach outcome=OK || fail "no line for a client of NBD"
  logged subject="user:$guest" method=NBD.Detach outcome=OK || fail "no line for its leaving"
  local method
  while read -r method; do
    logged "method=$method" || fail "no line for any $method"
  done < <(sed -n 's/^\(\w*Service\.\(Create\|Update\|Delete\|Resize\|Revert\|Import\|Export\|SetAccess\|UpdateAccess\)\w*\).*/\1/p' \
    "$source_dir/tests/interop/access_table.txt" | sort -u)
}

step "start obrazd" prepare
step "every method by every role" the_table
step "folders of two users" folders_of_users
step "a public image" public_images
step "private again" private_again
step "files of users" files_of_users
step "attaching" attaching
step "bindings stay" bindings_stay
step "what is no binding" bad_input
step "the audit log" audit
step "stop" stop_daemon
