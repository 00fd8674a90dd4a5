# shellcheck shell=bash
# The virtual machine of power_cut.sh: a Debian kernel with an initramfs of ours, and the disks it is given. To be sourced
# after tests/interop/lib.sh, whose $bin, $work and fail it uses.
#
#   make_initramfs                     $work/initramfs: busybox, modules, and the programs of $bin with their libraries
#   run_guest LAYOUT WORKLOAD [WORDS]  boots it on $work/{device,log}.img; $work/history is what it says it has done

# Debian's kernel without drivers for physical machines; it has the targets of the device mapper as modules.
readonly vm_kernel_package=linux-image-cloud-amd64
readonly vm_modules=(virtio_pci virtio_blk dm_mod dm_log_writes dm_flakey crc32c_generic ext4 xfs)
readonly vm_kernel=${XDG_CACHE_HOME:-$HOME/.cache}/obraz/vm-$vm_kernel_package
: "${vm_deadline_s:=120}"
: "${bin:=}" "${work:=}" "${qemu_accelerator:=tcg}"  # they are there

# Copies a module behind everything it depends on. What the kernel has built in has no file.
add_vm_module() {
  local tree=$1 into=$2 name=$3 file dependency
  file=$(find "$tree" -name "${name//_/[-_]}.ko" -print -quit)
  [[ -n $file && ! -e $into/${file##*/} ]] || return 0
  for dependency in $(modinfo_depends "$file"); do
    add_vm_module "$tree" "$into" "$dependency"
  done
  cp "$file" "$into/"
  echo "${file##*/}" >>"$into/order"
}

# A module keeps such facts as NUL-terminated NAME=VALUE strings.
modinfo_depends() {
  tr '\0' '\n' <"$1" | sed -n 's/^depends=//p' | tr ',' ' '
}

# Package lists of our own, when those of this machine are missing or out of date; the same options need no root.
download_vm_kernel() {
  local into=$1 package
  local -a options=(-q -o APT::Sandbox::User=root)
  if [[ ${2:-} == fresh ]]; then
    mkdir -p "$into/apt/lists/partial" "$into/apt/cache/archives/partial"
    : >"$into/apt/status"
    options+=(-o Dir::State::lists="$into/apt/lists" -o Dir::State::status="$into/apt/status"
      -o Dir::Cache="$into/apt/cache")
    apt-get "${options[@]}" update
  fi
  package=$(apt-cache "${options[@]}" --no-all-versions show "$vm_kernel_package" |
    sed -n 's/^Depends:.*\(linux-image-[0-9][^ ,]*\).*/\1/p')
  [[ -n $package ]] || return 1
  (cd "$into" && apt-get "${options[@]}" download "$package")
}

# The kernel is unpacked into the cache, as tools/make-boot-image does with its own; it is never installed.
fetch_vm_kernel() {
  [[ ! -s $vm_kernel/vmlinuz ]] || return 0
  local staging module
  mkdir -p "${vm_kernel%/*}"
  staging=$(mktemp -d "${vm_kernel%/*}/staging.XXXXXX")
  download_vm_kernel "$staging" || download_vm_kernel "$staging" fresh || fail "cannot download $vm_kernel_package"
  mkdir -p "$staging/tree" "$staging/kernel/modules"
  dpkg-deb -x "$staging"/linux-image-*.deb "$staging/tree"
  cp "$staging"/tree/boot/vmlinuz-* "$staging/kernel/vmlinuz"
  for module in "${vm_modules[@]}"; do
    add_vm_module "$staging/tree" "$staging/kernel/modules" "$module"
  done
  for module in virtio_blk dm-log-writes dm-flakey; do
    [[ -e $staging/kernel/modules/$module.ko ]] || fail "$vm_kernel_package has no module $module"
  done
  # Another run may have been faster; what it put there is as good as ours.
  mv -T "$staging/kernel" "$vm_kernel" 2>/dev/null || [[ -s $vm_kernel/vmlinuz ]] || fail "cannot write $vm_kernel"
  rm -rf "$staging"
}

make_initramfs() {
  local root=$work/initramfs.d program library
  fetch_vm_kernel
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
