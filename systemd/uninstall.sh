#!/usr/bin/env bash
# Takes away what systemd/install.sh installed.
#
#   systemd/uninstall.sh [daemon|reflector|all] [--purge]
#
# Stops and removes the programs and units; all is the default. Configuration, keys and what was
# recorded stay, unless --purge is given, which removes them for good, and the user when neither
# program is left. Doing it again does no harm. DESTDIR and PREFIX are as for the installation.
set -euo pipefail

DESTDIR=${DESTDIR:-}
PREFIX=${PREFIX:-/usr/local}
what=all
purge=no

usage() {
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}

while [ $# -gt 0 ]; do
    case $1 in
        daemon | reflector | all) what=$1 ;;
        --purge) purge=yes ;;
        -h | --help) usage; exit 0 ;;
        *) echo "uninstall.sh: unknown argument $1; see --help" >&2; exit 2 ;;
    esac
    shift
done

if [ -z "$DESTDIR" ] && [ "$(id -u)" -ne 0 ]; then
    echo "uninstall.sh: needs root, or DESTDIR=/some/root for a staging tree" >&2
    exit 1
fi

live() {
    [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]
}

remove() {
    local path
    for path in "$@"; do
        if [ -e "$DESTDIR$path" ] || [ -L "$DESTDIR$path" ]; then
            rm -rf "$DESTDIR${path:?}"
            echo "  removed $DESTDIR$path"
        fi
    done
}

remove_program() {
    local unit=$1 configuration=$2
    shift 2
    if live; then
        systemctl disable --now --quiet "$unit.service" 2>/dev/null || true
    fi
    remove "/etc/systemd/system/$unit.service" "$configuration.example"
    local binary
    for binary in "$@"; do
        remove "$PREFIX/bin/$binary"
    done
    if [ $purge = yes ]; then
        remove "$configuration"
    fi
}

if [ "$what" != reflector ]; then
    remove_program bufferbaned /etc/bufferbane/bufferbaned.toml bufferbaned bbtool
    if [ $purge = yes ]; then
        remove /var/lib/bufferbane
    fi
fi
if [ "$what" != daemon ]; then
    remove_program bufferbane-reflector /etc/bufferbane/reflector.toml bufferbane-reflector
fi

# What both share goes with the last of them.
if [ ! -e "$DESTDIR/etc/systemd/system/bufferbaned.service" ] &&
    [ ! -e "$DESTDIR/etc/systemd/system/bufferbane-reflector.service" ]; then
    remove /etc/tmpfiles.d/bufferbane.conf /etc/sysusers.d/bufferbane.conf
    if [ $purge = yes ]; then
        remove /etc/bufferbane
        if [ -z "$DESTDIR" ] && getent passwd bufferbane >/dev/null; then
            userdel bufferbane
            echo "  removed the user bufferbane"
        fi
    fi
fi
if live; then
    systemctl daemon-reload
fi

if [ $purge = no ]; then
    echo "Kept: configuration and keys in $DESTDIR/etc/bufferbane, recordings in $DESTDIR/var/lib/bufferbane."
    echo "systemd/uninstall.sh --purge removes them too."
fi
