#!/usr/bin/env bash
# Installs the packages in a Debian of its own that systemd has booted, and watches what they do there:
# start, probe, reload, a hung daemon, an upgrade over itself, removal, purge.
#
#   packaging/check.sh [ROOT]
#
# ROOT is a root filesystem with systemd and dbus, which is copied and stays as it is; without it
# mmdebstrap makes one of this host's release of Debian, or of the stable one elsewhere. Needs root and systemd-nspawn. The packages are those of packaging/deb.sh.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
packages=("$PWD"/target/packaging/*.deb)
[ -e "${packages[0]}" ] || { echo "check.sh: no packages; run packaging/deb.sh first" >&2; exit 1; }
scratch=$(mktemp -d)
container=""
leader=""

finish() {
    if [ -n "$container" ]; then
        # SIGTERM asks for an orderly end of what runs inside.
        kill "$container" 2>/dev/null || true
        wait "$container" 2>/dev/null || true
    fi
    rm -rf "$scratch"
}
trap finish EXIT

if [ $# -gt 0 ]; then
    cp -a "$1" "$scratch/root"
else
    # This host's keyring need not know a later release.
    release=stable
    if grep -qx 'ID=debian' /etc/os-release; then
        release=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    fi
    mmdebstrap --quiet --variant=minbase --include=systemd,systemd-sysv,dbus "${release:-stable}" "$scratch/root"
fi
# Nothing of this may depend on when it booted the first time.
: >"$scratch/root/etc/machine-id"
cp "${packages[@]}" "$scratch/root/root/"

systemd-nspawn -q -b -D "$scratch/root" --register=no --keep-unit --private-network --console=pipe \
    </dev/null >"$scratch/boot" 2>&1 &
container=$!

within() {
    nsenter -t "$leader" -m -p -n -u -i -C "$@"
}

# What has to become true, within a minute.
until_true() {
    local what=$1 n
    shift
    for n in $(seq 300); do
        if "$@" >"$scratch/said" 2>&1; then
            echo "well: $what"
            return
        fi
        sleep 0.2
    done
    echo "FAILED: $what, $((n / 5)) s long:" >&2
    cat "$scratch/said" >&2
    within journalctl -n 40 --no-pager -u bufferbaned -u bufferbane-reflector >&2 || true
    exit 1
}

has_leader() {
    leader=$(pgrep -P "$container" | head -n 1)
    [ -n "$leader" ]
}
booted() {
    [[ $(within systemctl is-system-running 2>&1) =~ ^(running|degraded)$ ]]
}
probes() {
    local sent
    sent=$(within bbtool status --json | grep -o '"sent": *[0-9]*' | grep -o '[0-9]*$' | sort -n | tail -n 1)
    [ "${sent:-0}" -gt "$1" ]
}
starts() {
    within systemctl show -P ExecMainStartTimestampMonotonic "$1"
}
restarted() {
    [ "$(starts "$1")" != "$2" ] && within systemctl is-active -q "$1"
}
# There need not be a pgrep inside.
nothing_runs() {
    local running
    running=$(within find /proc -maxdepth 2 -name exe -printf '%l\n' 2>/dev/null || true)
    ! grep '/bufferbane' <<<"$running"
}

until_true "systemd runs" has_leader
until_true "booted" booted

install_all() {
    within sh -c 'DEBIAN_FRONTEND=noninteractive dpkg -i /root/*.deb' >"$scratch/dpkg" 2>&1 || {
        cat "$scratch/dpkg" >&2
        exit 1
    }
}
install_all
until_true "bufferbaned runs and is enabled" within systemctl is-active -q bufferbaned
if nothing_runs >"$scratch/running"; then
    echo "FAILED: a running daemon is not seen among the processes" >&2
    exit 1
fi
within systemctl is-enabled -q bufferbaned bufferbane-reflector
until_true "the reflector runs without a client" within systemctl is-active -q bufferbane-reflector
[ "$(within stat -c '%a %U %G' /etc/bufferbane/keys)" = "750 root bufferbane" ]

# A key, and both ends of it, by what keygen prints.
within sh -c 'bbtool keygen vienna --dir /etc/bufferbane/keys --address 127.0.0.1 >/root/blocks
    chgrp bufferbane /etc/bufferbane/keys/vienna.key && chmod 640 /etc/bufferbane/keys/vienna.key
    sed -n "/^\[\[client\]\]/,/^$/p" /root/blocks >>/etc/bufferbane/reflector.toml
    printf "[[interface]]\nname = \"lo\"\n" >>/etc/bufferbane/bufferbaned.toml
    sed -n "/^\[\[reflector\]\]/,/^$/p" /root/blocks >>/etc/bufferbane/bufferbaned.toml'
before=$(starts bufferbaned)
within systemctl reload bufferbaned bufferbane-reflector || {
    within journalctl -n 40 --no-pager -u bufferbaned -u bufferbane-reflector >&2
    exit 1
}
until_true "both read the configuration again, and probes come back" probes 100
[ "$(starts bufferbaned)" = "$before" ] || { echo "FAILED: a reload restarted it" >&2; exit 1; }

# A daemon that hangs is started again by the watchdog, and goes on with its store.
within systemctl kill -s STOP bufferbaned
until_true "the watchdog starts a hung daemon again" restarted bufferbaned "$before"
until_true "it probes" probes 50

# Over itself: what was configured and recorded stays, and the daemon is the new one.
configured=$(within sha256sum /etc/bufferbane/bufferbaned.toml /etc/bufferbane/reflector.toml /etc/bufferbane/keys/vienna.key)
before=$(starts bufferbaned)
reflector_before=$(starts bufferbane-reflector)
install_all
until_true "an upgrade restarts the daemon" restarted bufferbaned "$before"
until_true "and the reflector" restarted bufferbane-reflector "$reflector_before"
until_true "it probes" probes 50
[ "$(within sha256sum /etc/bufferbane/bufferbaned.toml /etc/bufferbane/reflector.toml /etc/bufferbane/keys/vienna.key)" = "$configured" ]
echo "well: configuration and keys are as they were"
within bbtool report --last 1h --format json >/dev/null
echo "well: a report tells of what was recorded before"

within dpkg -r bufferbane bufferbane-reflector >/dev/null
until_true "removed, nothing runs" nothing_runs
within test -s /etc/bufferbane/keys/vienna.key -a -s /var/lib/bufferbane/bufferbane.redb
echo "well: removal leaves configuration, keys and the store"
within dpkg -P bufferbane bufferbane-reflector >/dev/null 2>&1
left=$(within find / -xdev -path /proc -prune -o -path /root -prune -o -name '*bufferbane*' -print | grep -v '^/var/log/' || true)
[ -z "$left" ] || { echo "FAILED: a purge leaves $left" >&2; exit 1; }
echo "well: a purge leaves nothing"
