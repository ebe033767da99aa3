#!/bin/sh
# Finds cuobjdump and nvdisasm, which look into compiled kernels, and prints their folder. Where the toolkit lacks them they are
# fetched from the Python package index into ${XDG_CACHE_HOME:-$HOME/.cache}/infer/cuda-tools; with --find they are not.
# Exit code 3: the index was not reached, or --find found nothing.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
program=fetch-cuda-tools
. "$root/tools/sh/common.sh"

dir=${XDG_CACHE_HOME:-$HOME/.cache}/infer/cuda-tools
for place in "$(dirname "$(command -v cuobjdump || echo /none/x)")" /usr/local/cuda/bin "$dir/nvidia/cu13/bin"; do
    if [ -x "$place/cuobjdump" ] && [ -x "$place/nvdisasm" ]; then
        printf '%s\n' "$place"
        exit 0
    fi
done
[ "${1:-}" != --find ] || exit 3
mkdir -p "$dir" || die "cannot make the folder $dir"
work=$(mktemp -d "$dir/.fetch.XXXXXX") || die "cannot write to $dir"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' HUP INT TERM
say "fetching cuobjdump and nvdisasm (5 MB)"
python3 -m pip download --quiet --no-deps --no-cache-dir --only-binary :all: --retries 3 --timeout 30 -d "$work" \
    nvidia-cuda-cuobjdump==13.2.78 nvidia-cuda-nvdisasm==13.2.78 </dev/null >&2 || {
    say "error: the package index was not reached or does not have them"
    exit 3
}
for wheel in "$work"/*.whl; do
    python3 -m zipfile -e "$wheel" "$work/unpacked" || die "cannot unpack $(basename "$wheel")"
done
chmod 755 "$work"/unpacked/nvidia/cu13/bin/*
rm -rf "$dir/nvidia"
mv "$work/unpacked/nvidia" "$dir/nvidia"
printf '%s\n' "$dir/nvidia/cu13/bin"
