#!/bin/sh
# Installs the Debian packages that are missing: tools/install-deps.sh build|check|all|aarch64
# The one list of what infer needs; ./demo uses `build`, ./check `check`, ./check --all `all`.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
program=install-deps
. "$root/tools/sh/common.sh"

# To compile and run the programs, and to fetch a model.
build="g++ cmake ninja-build pkg-config ca-certificates python3 python3-pip
    libspdlog-dev libfmt-dev libcli11-dev nlohmann-json3-dev libpcre2-dev libutf8proc-dev libhwloc-dev libedit-dev zlib1g-dev
    libgtest-dev libgmock-dev"
# ./check as well.
check="$build binutils libsimde-dev libboost-context1.81-dev"
# ./check --all as well: sanitizers come with g++.
all="$check clang-14 clang libclang-rt-14-dev clang-format-14 clang-tidy-14 qemu-user-static"
# The aarch64 preset.
aarch64="$build g++-aarch64-linux-gnu qemu-user-static"

case ${1:-build} in
    build) wanted=$build ;;
    check) wanted=$check ;;
    all) wanted=$all ;;
    aarch64) wanted=$aarch64 ;;
    *) die "unknown set '$1' (build, check, all, aarch64)" ;;
esac

have dpkg-query || {
    say "not a Debian system: nothing installed; needed are:"
    printf '%s\n' "$wanted" >&2
    exit 0
}

missing=
for package in $wanted; do
    status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

say "installing:$missing"
as_root=
if [ "$(id -u)" -ne 0 ]; then
    have sudo || die "packages are missing and this is neither root nor is there sudo; as root run: apt-get install$missing"
    as_root="sudo env DEBIAN_FRONTEND=noninteractive"
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Each word of the lists is a package of its own.
# shellcheck disable=SC2086
{
    $as_root apt-get -qq -o DPkg::Lock::Timeout=300 update >"$log" 2>&1 </dev/null ||
        say "apt-get update failed; trying with the package lists that are there"
    $as_root apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 \
        install $missing >>"$log" 2>&1 </dev/null || {
        tail -n 20 "$log" >&2
        die "apt-get could not install:$missing"
    }
}
