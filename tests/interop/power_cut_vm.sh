#!/usr/bin/env bash
# power_cut_vm.sh BIN_DIR - the short form of tests/vm/power_cut.sh: the power is cut below the file system, at a few places.
set -euo pipefail
exec env -u OBRAZ_VM_ROUNDS bash "$(dirname "${BASH_SOURCE[0]}")/../vm/power_cut.sh" "$@"
