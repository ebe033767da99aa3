#!/bin/sh
# clang-format over all C++ sources: format.sh [--fix]. Pinned to version 14: others break lines differently.
# Exit codes: 1 a file is not formatted, 77 no clang-format-14 here.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
program=format
. "$root/tools/sh/common.sh"

formatter=
for candidate in clang-format-14 clang-format; do
    if have "$candidate" && "$candidate" --version | grep -q 'version 14\.'; then
        formatter=$candidate
        break
    fi
done
[ -n "$formatter" ] || {
    echo "skipped: no clang-format 14 here"
    exit 77
}
mode="--dry-run --Werror"
[ "${1:-}" = --fix ] && mode=-i
cd "$root"
# shellcheck disable=SC2086
find core gguf kernels backends quantize tools tests -type f \( -name '*.h' -o -name '*.cpp' \) -print0 2>/dev/null |
    xargs -0 -n 16 -P 2 "$formatter" $mode --style=file
