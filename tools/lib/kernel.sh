# shellcheck shell=bash
# A Debian kernel for virtual machines, unpacked into a cache and never installed. To be sourced.
#
#   fetch_kernel PACKAGE FOLDER MODULE...   fills FOLDER, unless it is there, with vmlinuz, modules/*.ko and modules/order:
#                                           the modules with all they depend on, in the order in which they load. A module
#                                           that the kernel has built in has no file. Needs no root. Status 1, with the
#                                           reason on standard error, when it cannot be had.

# Arguments of every apt command: the second attempt has package lists of its own, for those of this machine may be missing or
# name a kernel that the archive has replaced.
_kernel_apt_options() {
  local staging=$1 attempt=$2
  kernel_apt=(-q -o APT::Sandbox::User=root)
  [[ $attempt == again ]] || return 0
  mkdir -p "$staging/apt/lists/partial" "$staging/apt/cache/archives/partial"
  : >"$staging/apt/status"
  kernel_apt+=(-o Dir::State::lists="$staging/apt/lists" -o Dir::State::status="$staging/apt/status"
    -o Dir::Cache="$staging/apt/cache")
  apt-get "${kernel_apt[@]}" update
}

# linux-image-cloud-amd64 and its like only depend on the package that has the kernel of the day.
_kernel_download() {
  local package=$1 staging=$2 attempt=$3 description real
  local -a kernel_apt
  _kernel_apt_options "$staging" "$attempt" || return
  description=$(apt-cache "${kernel_apt[@]}" --no-all-versions show "$package") || return
  real=$(sed -n 's/^Depends:.*\(linux-image-[0-9][^ ,]*\).*/\1/p' <<<"$description")
  [[ -n $real ]] || return 1
  (cd "$staging" && apt-get "${kernel_apt[@]}" download "$real")
}

# A module file keeps such facts as NUL-terminated NAME=VALUE strings.
_kernel_module_dependencies() {
  tr '\0' '\n' <"$1" | sed -n 's/^depends=//p' | tr ',' ' '
}

# Copies a module behind everything it depends on. Names of files may have dashes where those of modules have not.
_kernel_add_module() {
  local tree=$1 into=$2 name=$3 file dependency
  file=$(find "$tree" -name "${name//_/[-_]}.ko" -print -quit)
  [[ -n $file && ! -e $into/${file##*/} ]] || return 0
  for dependency in $(_kernel_module_dependencies "$file"); do
    _kernel_add_module "$tree" "$into" "$dependency"
  done
  cp "$file" "$into/"
  echo "${file##*/}" >>"$into/order"
}

_kernel_unpack() {
  local package=$1 staging=$2 module
  shift 2
  if ! _kernel_download "$package" "$staging" first >"$staging/log" 2>&1 &&
    ! _kernel_download "$package" "$staging" again >>"$staging/log" 2>&1; then
    tail -n 20 "$staging/log" >&2
    echo "cannot download $package" >&2
    return 1
  fi
  mkdir -p "$staging/tree" "$staging/kernel/modules"
  dpkg-deb -x "$staging"/linux-image-*.deb "$staging/tree" || return
  cp "$staging"/tree/boot/vmlinuz-* "$staging/kernel/vmlinuz" || return
  : >"$staging/kernel/modules/order"
  for module in "$@"; do
    _kernel_add_module "$staging/tree" "$staging/kernel/modules" "$module" || return
  done
  if [[ ! -e $staging/kernel/modules/virtio_blk.ko ]]; then
    echo "$package has no virtio_blk module" >&2
    return 1
  fi
}

fetch_kernel() {
  local package=$1 folder=$2 staging status=0
  shift 2
  [[ ! -s $folder/vmlinuz ]] || return 0
  mkdir -p "${folder%/*}"
  staging=$(mktemp -d "${folder%/*}/staging.XXXXXX") || return
  _kernel_unpack "$package" "$staging" "$@" || status=1
  # Another run may have been faster; what it put there is as good as ours.
  ((status != 0)) || mv -T "$staging/kernel" "$folder" 2>/dev/null || [[ -s $folder/vmlinuz ]] || status=1
  rm -rf "$staging"
  return "$status"
}
