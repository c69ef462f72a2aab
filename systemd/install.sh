#!/usr/bin/env bash
# Installs Bufferbane on a host with systemd; systemd/uninstall.sh is the reverse.
#
#   systemd/install.sh [daemon|reflector|all] [--from DIR]
#
# daemon (the default) is for the router: bufferbaned and bbtool. reflector is for the rented host.
# Binaries come from DIR, or from where cargo puts them. Doing it again updates; what was configured
# stays. DESTDIR=/some/root installs into a staging tree and starts nothing; PREFIX is /usr/local.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
DESTDIR=${DESTDIR:-}
PREFIX=${PREFIX:-/usr/local}
what=daemon
from=""

usage() {
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}

while [ $# -gt 0 ]; do
    case $1 in
        daemon | reflector | all) what=$1 ;;
        --from)
            [ $# -ge 2 ] || { echo "install.sh: --from needs a directory" >&2; exit 2; }
            from=$2
            shift
            ;;
        -h | --help) usage; exit 0 ;;
        *) echo "install.sh: unknown argument $1; see --help" >&2; exit 2 ;;
    esac
    shift
done

if [ -z "$DESTDIR" ] && [ "$(id -u)" -ne 0 ]; then
    echo "install.sh: needs root, or DESTDIR=/some/root for a staging tree" >&2
    exit 1
fi

# The newest build of a binary, wherever it was built for this machine.
find_binary() {
    local name=$1 newest="" candidate
    if [ -n "$from" ]; then
        [ -x "$from/$name" ] || { echo "install.sh: there is no $name in $from" >&2; exit 1; }
        echo "$from/$name"
        return
    fi
    for candidate in "$here/../target/$(uname -m)-unknown-linux-musl/release/$name" \
        "$here/../target/release/$name" "$here/../$name"; do
        if [ -f "$candidate" ] && [ -x "$candidate" ] && { [ -z "$newest" ] || [ "$candidate" -nt "$newest" ]; }; then
            newest=$candidate
        fi
    done
    if [ -z "$newest" ]; then
        echo "install.sh: $name is not built; build it first:" >&2
        echo "    cargo build --release --target $(uname -m)-unknown-linux-musl -p $name" >&2
        exit 1
    fi
    echo "$newest"
}

# A file that is replaced whole: a running program keeps the old one.
put() {
    local mode=$1 source=$2 target=$DESTDIR$3
    install -d -m 0755 "$(dirname "$target")"
    install -m "$mode" "$source" "$target.new"
    mv -f "$target.new" "$target"
    echo "  $target"
}

# A configuration: never overwritten, the present example beside it.
put_configuration() {
    put 0644 "$1" "$2.example"
    if [ ! -e "$DESTDIR$2" ]; then
        put 0644 "$1" "$2"
    else
        echo "  $DESTDIR$2 is there and stays as it is"
    fi
}

put_unit() {
    local name=$1 unit
    unit=$(mktemp)
    sed "s|^ExecStart=/usr/local/bin/|ExecStart=$PREFIX/bin/|" "$here/$name" >"$unit"
    put 0644 "$unit" "/etc/systemd/system/$name"
    rm -f "$unit"
}

binaries=()
units=()
if [ "$what" != reflector ]; then
    binaries+=(bufferbaned bbtool)
    units+=(bufferbaned)
fi
if [ "$what" != daemon ]; then
    binaries+=(bufferbane-reflector)
    units+=(bufferbane-reflector)
fi

# All are found before anything is changed.
sources=()
for binary in "${binaries[@]}"; do
    source=$(find_binary "$binary")
    sources+=("$source")
done

echo "Installing:"
for i in "${!binaries[@]}"; do
    put 0755 "${sources[$i]}" "$PREFIX/bin/${binaries[$i]}"
done
put 0644 "$here/sysusers.conf" /etc/sysusers.d/bufferbane.conf
put 0644 "$here/tmpfiles.conf" /etc/tmpfiles.d/bufferbane.conf
for unit in "${units[@]}"; do
    put_unit "$unit.service"
    case $unit in
        bufferbaned) put_configuration "$here/bufferbaned.toml" /etc/bufferbane/bufferbaned.toml ;;
        *) put_configuration "$here/reflector.toml" /etc/bufferbane/reflector.toml ;;
    esac
done

if [ -n "$DESTDIR" ]; then
    install -d -m 0750 "$DESTDIR/etc/bufferbane/keys"
    echo "Staged in $DESTDIR; nothing was started."
    exit 0
fi

systemd-sysusers /etc/sysusers.d/bufferbane.conf
systemd-tmpfiles --create /etc/tmpfiles.d/bufferbane.conf
# Not there in a container or a chroot, where the units are still installed.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    for unit in "${units[@]}"; do
        if systemctl is-active --quiet "$unit"; then
            systemctl restart "$unit"
            echo "  $unit was running and has been restarted"
        fi
    done
fi

echo
echo "Next:"
for unit in "${units[@]}"; do
    case $unit in
        bufferbaned)
            echo "  1. Uplinks and reflectors, if the defaults are not enough: /etc/bufferbane/bufferbaned.toml"
            echo "  2. bufferbaned --check"
            echo "  3. systemctl enable --now bufferbaned"
            echo "  4. bbtool status; bbtool doctor"
            echo "  To read without root: usermod -aG bufferbane YOU, then log in again."
            ;;
        *)
            echo "  1. On the router: bbtool keygen NAME. Copy the key to /etc/bufferbane/keys/ on both hosts:"
            echo "     install -m 0640 -g bufferbane NAME.key /etc/bufferbane/keys/"
            echo "  2. Paste the [[client]] block that it printed into /etc/bufferbane/reflector.toml"
            echo "  3. bufferbane-reflector --check"
            echo "  4. Open UDP port 9876 in this host's firewall, and TCP port 9876 too for throughput tests."
            echo "  5. systemctl enable --now bufferbane-reflector"
            ;;
    esac
done
