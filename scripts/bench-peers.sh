#!/bin/sh
# bench-peers.sh: install the programs that `make bench` measures beside offsite.
#
# What Debian has comes from apt-get, rustic from its sources with cargo into
# target/bench/tools. A peer that cannot be had is no error: it is said here, and
# the bench names it as absent.
set -eu
cd "$(dirname "$0")/.."

TOOLS=${CARGO_TARGET_DIR:-target}/bench/tools
RUSTIC_VERSION=0.11.4
RUSTIC_MINUTES=25

say() { printf '%s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

need() { # PACKAGE COMMAND...
    package=$1
    shift
    for command in "$@"; do
        have "$command" || { printf ' %s' "$package"; return 0; }
    done
}

missing_packages() {
    need restic restic
    need borgbackup borg
    need duplicity duplicity
    need gnupg gpg gpgconf
    need age age age-keygen
    need pigz pigz
    need zstd zstd
    need openssl openssl
}

install_packages() { # PACKAGE...
    if ! have apt-get; then
        say "absent: there is no apt-get here to install: $*"
    elif [ "$(id -u)" = 0 ]; then
        sh scripts/apt-install.sh "$@" || say "absent: apt-get could not install: $*"
    elif have sudo && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
        sudo sh scripts/apt-install.sh "$@" || say "absent: apt-get could not install: $*"
    else
        say "absent: as root, apt-get install --no-install-recommends $*"
    fi
}

# Once only: a build that failed is not tried again until its mark is removed.
build_rustic() {
    mark=$TOOLS/rustic-$RUSTIC_VERSION.failed
    [ -x "$TOOLS/bin/rustic" ] && return 0
    if [ -e "$mark" ]; then
        say "absent: rustic: its build failed before; to try again: rm $mark"
        return 0
    fi
    mkdir -p "$TOOLS"
    say "building rustic $RUSTIC_VERSION once, at the lowest priority; at most $RUSTIC_MINUTES minutes"
    if CARGO_TARGET_DIR=$TOOLS/build timeout "${RUSTIC_MINUTES}m" nice -n 19 \
        cargo install --quiet --locked -j 1 --root "$TOOLS" --version "$RUSTIC_VERSION" rustic-rs \
        </dev/null >"$TOOLS/rustic.log" 2>&1; then
        rm -rf "$TOOLS/build"
    else
        tail -n 3 "$TOOLS/rustic.log" >&2
        say "absent: rustic: it did not build within $RUSTIC_MINUTES minutes; see $TOOLS/rustic.log"
        touch "$mark"
    fi
}

packages=$(missing_packages)
# shellcheck disable=SC2086 # package names, one word each
[ -z "$packages" ] || install_packages $packages
[ "${BENCH_RUSTIC-yes}" = no ] || build_rustic
