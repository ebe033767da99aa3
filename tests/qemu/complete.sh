#!/bin/sh
# complete.sh INFER_CLI: the demo model says two words on a CPU without AVX.
set -eu
cli=$1
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
model=${INFER_MODELS:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/infer/models}/smollm2-135m-instruct-q4_1.gguf
[ -f "$model" ] || {
    echo "skipped: no $model (tools/fetch-model.sh smollm2)"
    exit 77
}
status=0
text=$("$here/nehalem.sh" "$cli" -m "$model" -p "The capital of France is" -n 2 -c 64 --temp 0) || status=$?
printf '%s\n' "$text"
[ "$status" -eq 0 ] || exit "$status"
case $text in
    *Paris*) ;;
    *) echo "expected Paris" && exit 1 ;;
esac
