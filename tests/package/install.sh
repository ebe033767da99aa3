#!/bin/sh
# Installs a build and links a project of its own against it: install.sh CMAKE BUILD_DIR CXX. Exit code 77: skipped.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
program=package-install
. "$root/tools/sh/common.sh"
cmake=$1
build=$2
cxx=$3
if grep -q '^INFER_SANITIZE:STRING=.' "$build/CMakeCache.txt"; then
    echo "skipped: libraries of a sanitizer build are not installed"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' HUP INT TERM

"$cmake" --install "$build" --prefix "$work/usr" >"$work/install.log" || die "cmake --install failed"
for file in bin/infer-cli bin/infer-gguf bin/infer-bench bin/quantize bin/perplexity include/infer/core/engine.h \
    share/man/man1/infer-cli.1 share/man/man1/quantize.1 share/man/man1/perplexity.1 \
    share/bash-completion/completions/infer-cli share/bash-completion/completions/perplexity; do
    [ -f "$work/usr/$file" ] || die "$file was not installed"
done
grep -q "$build" "$work"/usr/lib*/cmake/infer/*.cmake "$work"/usr/lib*/*/cmake/infer/*.cmake 2>/dev/null &&
    die "the installed package refers to the build folder"
"$cmake" -S "$root/tests/package/consumer" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_PREFIX_PATH="$work/usr" -DCMAKE_CXX_COMPILER="$cxx" >"$work/configure.log" 2>&1 || {
    cat "$work/configure.log"
    die "find_package(infer) failed"
}
"$cmake" --build "$work/build" >"$work/build.log" 2>&1 || {
    cat "$work/build.log"
    die "the consumer does not build"
}
# A file that is not there: one line, exit code 1.
if "$work/build/consumer" "$work/none.gguf" hello 2>"$work/err"; then die "a missing model was accepted"; fi
grep -q "none.gguf" "$work/err" || die "the error does not name the file: $(cat "$work/err")"
model=$(models_dir)/smollm2-135m-instruct-q4_1.gguf
if [ ! -f "$model" ]; then
    echo "installed, built and refused a missing file; no demo model (INFER_MODELS) to complete a text with"
    exit 0
fi
text=$("$work/build/consumer" "$model" "The capital of France is")
case $text in
    *Paris*) echo "installed, built, and it says:$text" ;;
    *) die "the consumer wrote: $text" ;;
esac
