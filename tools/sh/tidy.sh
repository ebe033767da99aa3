#!/bin/sh
# clang-tidy over the project's own sources, tests left out: tidy.sh BUILD_DIR [SECONDS]
# Files that changed last come first; after SECONDS (default: no limit) the rest is left out, and said so.
# Exit codes: 1 findings, 77 no clang-tidy here.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
program=tidy
. "$root/tools/sh/common.sh"

build=${1:?which build folder?}
limit=${2:-0}
tidy=
for candidate in clang-tidy-14 clang-tidy; do
    if have "$candidate"; then
        tidy=$candidate
        break
    fi
done
[ -n "$tidy" ] || {
    echo "skipped: no clang-tidy here"
    exit 77
}
[ -f "$build/compile_commands.json" ] || die "$build has no compile_commands.json: configure it first"
cd "$root"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' HUP INT TERM
# Files of this build, newest first; kernels for GPUs are nvcc's to judge. GCC's flags that clang does not know are no findings.
grep -o '"file": "[^"]*"' "$build/compile_commands.json" | cut -d'"' -f4 | grep "^$root/" |
    grep -v -e "^$root/build/" -e "^$root/tests/" -e '[.]cu$' |
    sort -u | xargs ls -t >"$work/files"
total=$(wc -l <"$work/files")
export root build tidy work
status=0
# shellcheck disable=SC2016
timeout --foreground "$limit" xargs -P 2 -n 1 sh -c '
    if "$tidy" -p "$build" --quiet --extra-arg=-Wno-unknown-warning-option "$1" >"$work/$$.out" 2>"$work/$$.err"; then
        echo "$1" >>"$work/done"
    else
        { cat "$work/$$.out"; grep "error:" "$work/$$.err"; } >>"$work/findings"
        echo "$1" >>"$work/done"
    fi
    rm -f "$work/$$.out" "$work/$$.err"' tidy <"$work/files" || status=$?
touch "$work/done" "$work/findings"
checked=$(wc -l <"$work/done")
if [ -s "$work/findings" ]; then
    cat "$work/findings"
    echo "clang-tidy: findings in $checked of $total files looked at"
    exit 1
fi
if [ "$status" -eq 124 ]; then
    echo "clang-tidy: clean in $checked of $total files; the others were left out after $limit s"
elif [ "$checked" -ne "$total" ]; then
    echo "clang-tidy: stopped after $checked of $total files"
    exit 1
else
    echo "clang-tidy: clean in all $total files"
fi
