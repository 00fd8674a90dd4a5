#!/usr/bin/env bash
# boot.sh BIN_DIR - a virtual machine boots in qemu from a disk made from an image, and finds again what it wrote.
#
# Real firmware, boot loader, kernel and file system read and write the disk through NBD. The guest powers off after it
# has synced, so the second boot, from a disk made from a snapshot of the first, must find its marker.

set -euo pipefail

(($# == 1)) || { echo "usage: boot.sh BIN_DIR" >&2; exit 2; }
bin=$(cd "$1" && pwd)
# shellcheck source=tools/lib/boot.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../tools/lib/boot.sh"

begin_work boot-test "$bin/.."

step "make a bootable image" make_boot_qcow2
step "start obrazd" start_daemon
step "import the image" obraz image import "$work/boot.qcow2" --name debian-mini
step "make a disk from it" obraz disk create --name vm1 --image debian-mini
step "boot the disk: no marker; the guest writes one" boot_expecting_absent vm1
written=$guest_marker
step "make a snapshot of the disk" obraz snapshot create --name s1 --disk vm1
step "make a disk from the snapshot" obraz disk create --name vm2 --snapshot s1
step "boot it: the marker is there" boot_expecting_marker vm2 "$written"
step "stop obrazd" stop_daemon
