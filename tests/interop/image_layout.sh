#!/usr/bin/env bash
# image_layout.sh BIN_DIR - what is on an image is shown, whatever it was made from; Windows that boots is not imported,
# and a file system of Windows with data on it is.
set -euo pipefail
# shellcheck source=tests/interop/control_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/control_lib.sh"
begin "$@"

# partition FILE OFFSET_MIB FROM: puts a file system made in a file into its place.
partition() {
  dd if="$3" of="$1" bs=1M seek="$2" conv=notrunc status=none
}

# A FAT with an EFI program at each PATH.
efi_system() {
  local file=$1 path folder part
  shift
  truncate -s 40M "$file"
  mkfs.vfat -F 32 -n SYSTEM "$file" >"$work/mkfs.log"
  for path in "$@"; do
    folder=
    local parts
    IFS=/ read -ra parts <<<"${path%/*}"
    for part in "${parts[@]}"; do
      folder+=/$part
      mmd -D s -i "$file" "::$folder" 2>"$work/null" || true
    done
    head -c 100 /dev/zero | mcopy -i "$file" - "::/$path"
  done
}

make_disks() {
  cd "$work"
  efi_system linux.efi EFI/debian/grubx64.efi
  efi_system windows.efi EFI/debian/grubx64.efi EFI/Microsoft/Boot/bootmgfw.efi
  truncate -s 40M root.fs
  mkfs.ext4 -q -L root root.fs
  truncate -s 40M data.ntfs
  mkntfs -q -F -L Daten data.ntfs >mkntfs.log 2>&1
  cp data.ntfs system.ntfs
  head -c 100 /dev/zero >empty
  ntfscp -q -f system.ntfs empty bootmgr >ntfscp.log 2>&1
  local name esp=C12A7328-F81F-11D2-BA4B-00A0C93EC93B linux=0FC63DAF-8483-4772-8E79-3D69D8477DE4
  local reserved=E3C9E316-0B5C-4DB8-817D-F92DF00215AE basic=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7
  for name in linux windows ntfs; do
    truncate -s 84M "$name.disk"
  done
  printf 'label: gpt\nstart=1MiB, size=40MiB, type=%s\nstart=41MiB, size=40MiB, type=%s, name=root\n' "$esp" "$linux" |
    sfdisk -q linux.disk
  partition linux.disk 1 linux.efi
  partition linux.disk 41 root.fs
  printf 'label: gpt\nstart=1MiB, size=40MiB, type=%s\nstart=41MiB, size=40MiB, type=%s\n' "$esp" "$basic" |
    sfdisk -q windows.disk
  partition windows.disk 1 windows.efi
  partition windows.disk 41 data.ntfs
  printf 'label: gpt\nstart=1MiB, size=16MiB, type=%s\nstart=41MiB, size=40MiB, type=%s\n' "$reserved" "$basic" |
    sfdisk -q ntfs.disk
  partition ntfs.disk 41 data.ntfs
  truncate -s 84M xp.disk
  printf 'label: dos\nstart=41MiB, size=40MiB, type=7, bootable\n' | sfdisk -q xp.disk
  partition xp.disk 41 system.ntfs
  qemu-img convert -f raw -O qcow2 windows.disk windows.qcow2
}

linux_is_described() {
  obraz image import "$work/linux.disk" --name linux
  obraz image get linux | tee "$work/linux.txt"
  expect "the table" GPT "$(field layout.table image get linux)"
  expect "how it boots" UEFI "$(field layout.boot image get linux)"
  expect "the first file system" vfat "$(field layout.partitions.0.file_system.type image get linux)"
  expect "the second file system" ext4 "$(field layout.partitions.1.file_system.type image get linux)"
  expect "its label" root "$(field layout.partitions.1.file_system.label image get linux)"
  grep -q 'partition 2: *ext4 "root", 40 MiB at 41 MiB, named root' "$work/linux.txt" || fail "no line for the partition"
}

# After a call that does not wait for it.
await_layout() {
  local tries
  for ((tries = 0; tries < 500; ++tries)); do
    obraz --json image get "$1" | grep -q '"layout"' && return
  done
  fail "nobody looked at the image $1"
}

images_of_disks_too() {
  obraz disk create --name vm1 --image linux
  obraz image create --name again --from-disk vm1
  await_layout again
  expect "the layouts" "$(field layout image get linux)" "$(field layout image get again)"
  obraz image create --name copy --from-image again
  expect "the layouts" "$(field layout image get linux)" "$(field layout image get copy)"
  stop_daemon
  start_daemon
  expect "the layout after a restart" "$(field layout image get linux)" "$(field layout image get again)"
}

windows_is_refused() {
  local before file
  before=$(field space.used_bytes status)
  for file in windows.disk windows.qcow2 xp.disk; do
    refused FAILED_PRECONDITION source image import "$work/$file" --name w1
    json error.message <"$work/refused.err"
  done
  refused FAILED_PRECONDITION source image import "$work/xp.disk" --name w1 --os linux
  expect "images" "again copy linux" "$(names image)"
  until [[ $(field space.reclaimable_bytes status) == 0 ]]; do :; done
  expect "the bytes in use" "$before" "$(field space.used_bytes status)"
}

data_of_windows_is_not() {
  obraz image import "$work/ntfs.disk" --name data
  expect "what it has of Windows" WINDOWS_DATA "$(field layout.windows image get data)"
  expect "the file system" ntfs "$(field layout.partitions.1.file_system.type image get data)"
  obraz image import "$work/data.ntfs" --name bare --format raw
  expect "the file system" ntfs "$(field layout.file_system.type image get bare)"
  obraz image get data
}

step "make disks" make_disks
step "start obrazd" start_daemon
step "a disk with Linux is described" linux_is_described
step "so are images of disks and of images" images_of_disks_too
step "Windows that boots is refused" windows_is_refused
step "data on NTFS is imported" data_of_windows_is_not
step "stop obrazd" stop_daemon
