#!/bin/sh
# apt-install.sh PACKAGE...: install Debian packages, as root, without a question
# and without a service. Called by bootstrap.sh.
set -eu

log=$(mktemp)
conf=/etc/postgresql-common/createcluster.conf

# Debian's postgresql makes a cluster when it is first installed, and starts it
# then and at every boot. Nobody asked for that: the demo and the tests make
# their own in a scratch folder. `create_main_cluster = false` is Debian's own
# switch, and it is only looked at during the installation. So it is set for
# that moment and taken back; no policy-rc.d is touched, and a server that an
# admin adds later behaves as Debian's documentation says.
forbid_cluster() {
    # one saved already is from a run that was killed: that is the admin's
    if [ -e "$conf" ] && [ ! -e "$conf.offsite-saved" ]; then
        cp -p "$conf" "$conf.offsite-saved"
    fi
    mkdir -p "${conf%/*}"
    echo 'create_main_cluster = false' >>"$conf"
}

allow_cluster_again() {
    if [ -e "$conf.offsite-saved" ]; then
        mv "$conf.offsite-saved" "$conf"
    elif [ -e "$conf.ucf-dist" ]; then
        # the package's own, which it laid beside ours
        mv "$conf.ucf-dist" "$conf"
    else
        rm -f "$conf"
        rmdir "${conf%/*}" 2>/dev/null || :
    fi
}

fail() { # MESSAGE HINT
    tail -n 20 "$log" >&2
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 1
}

apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 "$@" \
        </dev/null >>"$log" 2>&1
}

cleanup() {
    case " $packages " in *" postgresql "*) allow_cluster_again ;; esac
    rm -f "$log"
}

packages="$*"
echo "installing with apt-get: $packages" >&2
case " $packages " in *" postgresql "*) forbid_cluster ;; esac
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

# one broken third-party list must not be in the way: install says what counts
apt update || echo "warning: apt-get update did not finish; going on with the lists that are there" >&2
# --no-remove: never take away something that is already in use here
apt install -y --no-install-recommends --no-remove "$@" ||
    fail "apt-get could not install: $packages" \
        "see apt-get's lines above; by hand: apt-get install --no-install-recommends $packages"
