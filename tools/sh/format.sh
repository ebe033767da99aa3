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
cd "$root"
sources() {
    find core gguf kernels backends quantize tools tests -type f \( -name '*.h' -o -name '*.cpp' \) -print0 2>/dev/null
}
if [ "${1:-}" = --fix ]; then
    sources | xargs -0 -n 16 -P 2 "$formatter" -i --style=file
    exit 0
fi
bad=$(sources | xargs -0 -n 16 -P 2 "$formatter" --dry-run --style=file 2>&1 |
    sed -n 's/^\([^ :]*\):[0-9]*:[0-9]*: warning: code should be clang-formatted.*/\1/p' | sort -u)
[ -z "$bad" ] || {
    printf '%s\n' "$bad"
    echo "not formatted; run tools/sh/format.sh --fix"
    exit 1
}
