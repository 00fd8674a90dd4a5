# shellcheck shell=bash
# What the control_*.sh scripts share: a daemon of their own (tools/lib/boot.sh), refusals, and JSON.
#
#   begin SCRIPT_ARGUMENTS...        first; sets $bin, makes $work, cleans up when the script ends
#   refused CODE FIELD ARGUMENTS...  obraz ARGUMENTS must be refused so, with exit status 1 and nothing on standard output
#   field PATH ARGUMENTS...          prints that member (a.b.0.c) of what obraz --json ARGUMENTS answers
#   expect WHAT WANTED FOUND         fails unless the two are the same

# shellcheck source=tools/lib/boot.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../tools/lib/boot.sh"

begin() {
  (($# == 1)) || { echo "usage: ${0##*/} BIN_DIR" >&2; exit 2; }
  bin=$(cd "$1" && pwd)
  begin_work "$(basename "$0" .sh)" "${TMPDIR:-/tmp}"
}

expect() {
  [[ $2 == "$3" ]] || fail "$1 should be '$2', but is '$3'"
}

# json PATH: that member of the document on standard input; lists and objects as JSON.
json() {
  python3 -c '
import json, sys
value = json.load(sys.stdin)
for step in filter(None, sys.argv[1].split(".")):
    value = value[int(step)] if isinstance(value, list) else value[step]
print(json.dumps(value) if isinstance(value, (list, dict, bool)) else value)' "$1"
}

field() {
  local path=$1
  shift
  obraz --json "$@" | json "$path"
}

names() {
  obraz --json "$1" list | python3 -c '
import json, sys
print(*(resource["name"] for resource in json.load(sys.stdin)[sys.argv[1] + "s"]))' "$1"
}

refused() {
  local code=$1 wrong=$2 status=0
  shift 2
  obraz --json "$@" >"$work/refused.out" 2>"$work/refused.err" || status=$?
  ((status == 1)) || fail "obraz $* should end with status 1, not $status"
  [[ ! -s $work/refused.out ]] || fail "obraz $* printed an answer although it was refused"
  expect "the code of obraz $*" "$code" "$(json error.code <"$work/refused.err")"
  expect "the field of obraz $*" "$wrong" "$(json error.field <"$work/refused.err")"
  [[ -n $(json error.message <"$work/refused.err") ]] || fail "obraz $* was refused without a sentence"
}
