#!/bin/sh
# bootstrap.sh demo|test: see that this machine has what `make demo` or
# `make test` needs, and install what it lacks with apt-get.
#
# Says nothing when nothing is missing. Looks for programs, not for packages,
# so that a compiler or a Python from elsewhere counts as well.
set -eu
cd "$(dirname "$0")/.."
# a plain user's PATH on Debian lacks these, and setpriv or initdb may be there
PATH="$PATH:/usr/sbin:/sbin"

VENV=target/test-venv
REQUIREMENTS=scripts/test-requirements.txt

say() { printf '%s\n' "$*" >&2; }
die() { # MESSAGE HINT
    say "error: $1"
    say "hint: $2"
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# --- what is there? each answers by its exit status, silently ---------------

have_compiler() {
    # gcc without libc's headers is a common half-installed state
    have cc && echo '#include <stdio.h>' | cc -E -o /dev/null - 2>/dev/null
}

have_ca_certificates() {
    # rustls reads the system's roots, and a client without any fails to build
    [ -s "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" ] ||
        [ -s /etc/pki/tls/certs/ca-bundle.crt ] || [ -s /etc/ssl/cert.pem ]
}

have_postgres() {
    # Debian keeps the server's programs out of PATH, a folder per major
    for dir in /usr/lib/postgresql/*/bin; do
        [ -x "$dir/initdb" ] && [ -x "$dir/pg_dumpall" ] && [ -x "$dir/psql" ] && return 0
    done
    have initdb && have pg_dumpall && have psql
}

find_python() {
    # PATH's own first; it may be one without venv, while Debian's has it
    for python in python3 /usr/bin/python3; do
        "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' \
            2>/dev/null && return 0
    done
    python=
    return 1
}

have_venv() {
    # the import fails after an upgrade to another Python: then make it anew
    cmp -s "$REQUIREMENTS" "$VENV/made-from.txt" &&
        "$VENV/bin/python" -c 'import cryptography.fernet' 2>/dev/null
}

# --- what is missing? prints package names ----------------------------------

need() { # PACKAGE COMMAND...
    package=$1
    shift
    for command in "$@"; do
        have "$command" || { printf ' %s' "$package"; return 0; }
    done
}

missing_for_demo() {
    have_compiler || printf ' gcc libc6-dev'
    have_ca_certificates || printf ' ca-certificates'
    have_postgres || printf ' postgresql'
}

missing_for_test() {
    missing_for_demo
    have_venv || find_python || printf ' python3-venv'
    # .ci/run starts without make
    need make make
    need git git
    need tar tar
    need gzip gzip
    need coreutils sha256sum timeout
    need attr setfattr getfattr
    need acl setfacl getfacl
    need procps ps
    need util-linux setpriv flock taskset prlimit
}

# --- put it right -----------------------------------------------------------

require_cargo() {
    have cargo && return 0
    if [ -x "${CARGO_HOME:-${HOME:-/root}/.cargo}/bin/cargo" ]; then
        die "cargo is installed, but not in PATH" \
            "type: . \"${CARGO_HOME:-${HOME:-/root}/.cargo}/env\""
    fi
    die "cargo is not installed" \
        "install Rust 1.95 or newer with rustup (https://rustup.rs), then run this again"
}

install_packages() { # PACKAGE...
    by_hand="apt-get update && apt-get install -y --no-install-recommends $*"
    have apt-get || die "missing on this machine, in Debian's names: $*" \
        "there is no apt-get here; install them with this system's package manager, then run this again"
    if [ "$(id -u)" = 0 ]; then
        sh scripts/apt-install.sh "$@"
    elif have sudo && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
        sudo sh scripts/apt-install.sh "$@"
    else
        die "missing on this machine: $*" "as root, type: $by_hand"
    fi
}

make_venv() {
    find_python || die "no python3 of version 3.10 or newer with the venv module" \
        "install python3 and python3-venv, then run this again"
    say "making $VENV with the packages of $REQUIREMENTS"
    rm -rf "$VENV"
    mkdir -p "$(dirname "$VENV")"
    "$python" -m venv "$VENV" || die "$python could not make a virtual environment at $VENV" \
        "is the disk full, or python3-venv of another Python version?"
    # only ready-made wheels: compiling cryptography would need more than this
    "$VENV/bin/python" -m pip install --quiet --no-input --disable-pip-version-check \
        --no-deps --only-binary :all: -r "$REQUIREMENTS" </dev/null ||
        die "pip could not install the packages of $REQUIREMENTS" \
            "look at pip's message above: no network, or no ready-made package for this Python or machine"
    cp "$REQUIREMENTS" "$VENV/made-from.txt"
}

case "${1-}" in
demo | test) goal=$1 ;;
*) say "usage: scripts/bootstrap.sh demo|test"; exit 2 ;;
esac

require_cargo
missing=$("missing_for_$goal")
if [ -n "$missing" ]; then
    # shellcheck disable=SC2086 # package names, one word each
    install_packages $missing
    missing=$("missing_for_$goal")
    [ -z "$missing" ] || die "still missing after the installation:$missing" \
        "another program of that name may come first in PATH"
fi
if [ "$goal" = test ] && ! have_venv; then make_venv; fi
