# shellcheck shell=sh disable=SC2154
# Read by demo, check and the scripts in tools/ (POSIX sh): a sane environment, words to the user.
# Needs: $root is the top of the source tree.

# Everything here must also work under `env -i`.
PATH=${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}
if [ -z "${HOME:-}" ]; then
    HOME=$(getent passwd "$(id -u)" 2>/dev/null | cut -d: -f6 || true)
    [ -n "$HOME" ] || HOME=$root/build/home
fi
LC_ALL=C.UTF-8
DEBIAN_FRONTEND=noninteractive
PIP_DISABLE_PIP_VERSION_CHECK=1
PIP_ROOT_USER_ACTION=ignore
export PATH HOME LC_ALL DEBIAN_FRONTEND PIP_DISABLE_PIP_VERSION_CHECK PIP_ROOT_USER_ACTION

say() { printf '%s: %s\n' "${program:-infer}" "$*" >&2; }

die() {
    say "error: $*"
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# Where models live; tests look there as well.
models_dir() { printf '%s\n' "${INFER_MODELS:-${XDG_CACHE_HOME:-$HOME/.cache}/infer/models}"; }

# A cmake that is new enough for the presets; an old one may stand first on PATH.
find_cmake() {
    for candidate in cmake /usr/bin/cmake; do
        have "$candidate" || continue
        version=$("$candidate" --version | sed -n '1s/^cmake version \([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
        major=${version%% *}
        minor=${version##* }
        [ -n "$version" ] || continue
        if [ "$major" -gt 3 ] || { [ "$major" -eq 3 ] && [ "$minor" -ge 25 ]; }; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
    return 1
}
