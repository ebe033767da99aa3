#!/bin/sh
# Runs commands of this tree on a bare Debian 12, made by debootstrap, under `env -i`:
#   tests/package/bare_debian.sh [--worktree] [COMMAND ...]      default commands: ./demo
# Each COMMAND is one word for `sh -c`, run in the top folder of a clean clone of HEAD (--worktree: of the files as they
# stand). Needs root, debootstrap and git. The packages' mirror, extra root certificates and pip's configuration are
# this machine's. Environment: BARE_DIR, where the systems live (default: a new temporary folder, removed at the end;
# a kept one saves the bootstrap next time).
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
program=bare-debian
. "$root/tools/sh/common.sh"

worktree=
if [ "${1:-}" = --worktree ]; then
    worktree=1
    shift
fi
[ $# -gt 0 ] || set -- ./demo
[ "$(id -u)" -eq 0 ] || die "root is needed for debootstrap and chroot"
for tool in debootstrap git chroot; do have "$tool" || die "no $tool here"; done

keep=${BARE_DIR:-}
dir=${BARE_DIR:-$(mktemp -d)}
base=$dir/base
system=$dir/system

# shellcheck disable=SC2317  # called by the trap
unmount() {
    for mounted in "$system/proc" "$system/src/shared"; do
        if mountpoint -q "$mounted" 2>/dev/null; then umount "$mounted" || umount -l "$mounted"; fi
    done
}
# shellcheck disable=SC2317
cleanup() {
    unmount
    [ -n "$keep" ] || rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' HUP INT TERM

# The mirror of the first suite that this machine's apt reads.
# shellcheck disable=SC2016  # apt-get fills these in
mirror=$(apt-get indextargets --format '$(SITE) $(RELEASE) $(REPO_URI)' 2>/dev/null |
    awk '$3 ~ /debian\/?$/ { print $3; exit }')
[ -n "$mirror" ] || die "no Debian mirror among this machine's package sources (apt-get update?)"

if [ ! -f "$base/.complete" ]; then
    say "bootstrapping into $base"
    rm -rf "$base"
    mkdir -p "$base"
    debootstrap --variant=minbase bookworm "$base" "$mirror" >"$dir/debootstrap.log" 2>&1 || {
        tail -n 5 "$dir/debootstrap.log" >&2
        die "debootstrap failed"
    }
    touch "$base/.complete"
fi

say "a fresh copy in $system"
unmount
rm -rf "$system"
cp -a "$base" "$system"
cp /etc/resolv.conf /etc/hosts "$system/etc/"
if [ -d /usr/local/share/ca-certificates ]; then
    mkdir -p "$system/usr/local/share/ca-certificates"
    cp -RL /usr/local/share/ca-certificates/. "$system/usr/local/share/ca-certificates/"
fi
if [ -f /etc/pip.conf ]; then cp /etc/pip.conf "$system/etc/pip.conf"; fi
mkdir -p "$system/src/main"
if [ -n "$worktree" ]; then
    # shellcheck disable=SC2016
    git -C "$root" ls-files -z --cached --others --exclude-standard |
        (cd "$root" && xargs -0 sh -c 'for f; do [ -e "$f" ] && printf "%s\0" "$f"; done' files) |
        tar -C "$root" --null -T - -cf - | tar -C "$system/src/main" -xf -
else
    git -C "$root" archive HEAD | tar -C "$system/src/main" -xf -
fi
if [ -d "$root/../shared" ]; then
    mkdir -p "$system/src/shared"
    mount --bind "$root/../shared" "$system/src/shared"
fi
mount -t proc proc "$system/proc"

status=0
for command in "$@"; do
    say "running: $command"
    from=$(date +%s)
    env -i "$(command -v chroot)" "$system" /bin/sh -c "cd /src/main && $command" </dev/null || status=$?
    say "exit code $status after $(($(date +%s) - from)) s: $command"
    [ "$status" -eq 0 ] || break
done
exit "$status"
