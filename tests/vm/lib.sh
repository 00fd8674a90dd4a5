# shellcheck shell=bash
# The virtual machine of power_cut.sh: a Debian kernel with an initramfs of ours, and the disks it is given. To be sourced
# after tests/interop/lib.sh, whose $bin, $work and fail it uses.
#
#   make_initramfs                     $work/initramfs: busybox, modules, and the programs of $bin with their libraries
#   run_guest LAYOUT WORKLOAD [WORDS]  boots it on $work/{device,log}.img; $work/history is what it says it has done

# shellcheck source=tools/lib/kernel.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../tools/lib/kernel.sh"

# Debian's kernel without drivers for physical machines; it has the targets of the device mapper as modules.
readonly vm_kernel_package=linux-image-cloud-amd64
readonly vm_modules=(virtio_pci virtio_blk dm_mod dm_log_writes dm_flakey crc32c_generic ext4 xfs)
readonly vm_kernel=${XDG_CACHE_HOME:-$HOME/.cache}/obraz/vm-$vm_kernel_package
: "${vm_deadline_s:=120}"
: "${bin:=}" "${work:=}" "${qemu_accelerator:=tcg}"  # they are there

make_initramfs() {
  local root=$work/initramfs.d program library
  fetch_kernel "$vm_kernel_package" "$vm_kernel" "${vm_modules[@]}" || fail "no kernel for the virtual machine"
  mkdir -p "$root"/{bin,obraz,dev,proc,sys,run,store,lib64}
  # A dynamic busybox would not run before its libraries are where it looks for them.
  ! ldd "$(type -P busybox)" >/dev/null 2>&1 || fail "busybox is not static; install the package busybox-static"
  cp "$(type -P busybox)" "$root/bin/busybox"
  cp -r "$vm_kernel/modules" "$root/modules"
  install -m 755 "$(dirname "${BASH_SOURCE[0]}")/guest_init" "$root/init"
  for program in "$bin/obrazd" "$bin/obraz" "$bin/power_cut_workload" "$(type -P dmsetup)"; do
    strip -o "$root/obraz/${program##*/}" "$program"
    while read -r library; do
      install -D "$library" "$root$library"
    done < <(ldd "$program" | sed -n 's/^[^/]*\(\/[^ ]*\) (.*/\1/p')
  done
  (cd "$root" && find . -print0 | cpio --null --create --format=newc --owner=0:0 --quiet) >"$work/initramfs"
  rm -rf "$root"
}

# The drives lose nothing and make nothing durable on this machine; what a flush means is for the log to say.
run_guest() {
  local layout=$1 workload=$2 words=${3:-} console=$work/console.log status=0 drive
  local -a drives=()
  truncate -s 4G "$work/log.img"
  truncate -s 256M "$work/results.img"
  for drive in device log results; do
    drives+=(-drive "if=virtio,format=raw,cache=unsafe,discard=unmap,file=$work/$drive.img")
  done
  timeout --kill-after=5 "$vm_deadline_s" \
    qemu-system-x86_64 -accel "$qemu_accelerator" -m 2048 -smp 2 -no-user-config -nodefaults -display none -no-reboot \
    -serial "file:$console" -kernel "$vm_kernel/vmlinuz" -initrd "$work/initramfs" "${drives[@]}" \
    -append "console=ttyS0,115200 quiet panic=-1 oops=panic nokaslr mitigations=off no_timer_check \
random.trust_cpu=on cut.layout=$layout cut.workload=${workload// /,} $words" 3>&- 4>&- &
  guest_pid=$!
  wait "$guest_pid" || status=$?
  guest_pid=
  cat "$console"
  ((status != 124)) || fail "the guest did not power off within $vm_deadline_s s"
  ((status == 0)) || fail "qemu ended with status $status"
  grep -q 'OBRAZ-GUEST: done' "$console" || fail "the guest did not finish" "$console"
  tar -xf "$work/results.img" -C "$work" history
  rm "$work/results.img"
}
