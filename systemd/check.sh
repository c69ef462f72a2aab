#!/usr/bin/env bash
# Checks everything in this folder: the units, their sandbox, the example configurations, and that
# uninstalling takes away what installing put there.
#
#   systemd/check.sh [DIR]
#
# DIR holds bufferbaned, bbtool and bufferbane-reflector, target/debug by default.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
binaries=${1:-$here/../target/debug}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=0

fail() {
    echo "FAILED: $*"
    failed=1
}

# Everything is checked as it is installed.
root=$scratch/root
if ! DESTDIR=$root "$here/install.sh" all --from "$binaries" >"$scratch/install" 2>&1; then
    cat "$scratch/install"
    exit 1
fi
DESTDIR=$root "$here/install.sh" all --from "$binaries" >/dev/null || fail "installing twice"

for unit in bufferbaned bufferbane-reflector; do
    # 20 tenths: an exposure of at most 2.0.
    if systemd-analyze security --offline=true --no-pager --threshold=20 "$here/$unit.service" >"$scratch/security"; then
        tail -n 1 "$scratch/security"
    else
        cat "$scratch/security"
        fail "$unit.service is exposed by more than 2.0"
    fi
    # `verify` looks the program up, so it is told where the staged one is; and it returns 0 after
    # an unknown key, so its words decide. What it says of the host's other units is not ours.
    sed "s|^ExecStart=/usr/local|ExecStart=$root/usr/local|" "$here/$unit.service" >"$scratch/$unit.service"
    systemd-analyze verify --man=no "$scratch/$unit.service" >"$scratch/verify" 2>&1 || true
    if grep -F "$unit.service" "$scratch/verify"; then
        fail "systemd-analyze verify $unit.service"
    fi
    grep -q '^SystemCallFilter=.*io_uring_setup io_uring_enter io_uring_register' "$here/$unit.service" ||
        fail "$unit.service does not allow io_uring"
done
grep -q '^SystemCallFilter=io_uring.* capset' "$here/bufferbane-reflector.service" ||
    fail "bufferbane-reflector.service does not let threads give up capabilities"

systemd-sysusers --root="$root" bufferbane.conf || fail "sysusers.conf"
grep -q '^bufferbane:' "$root/etc/passwd" || fail "sysusers.conf makes no user bufferbane"
grep -q '^bufferbane:' "$root/etc/group" || fail "sysusers.conf makes no group bufferbane"
systemd-tmpfiles --root="$root" --create bufferbane.conf || fail "tmpfiles.conf"

# A shipped configuration passes as it is, and with every commented-out setting taken into use
# ("#key" is a setting, "# word" is prose). The keys it names are made for that.
check_configuration() {
    local program=$1 file=$2
    "$binaries/$program" --config "$file" --check >"$scratch/check" 2>&1 || {
        cat "$scratch/check"
        fail "$program refuses $(basename "$file")"
    }
    sed -e 's/^#\([a-z_0-9[]\)/\1/' -e "s|/etc/bufferbane/keys|$scratch/keys|" "$file" >"$scratch/all-$(basename "$file")"
    # Of two settings that exclude each other, the first.
    sed -i '/^key_files = /d' "$scratch/all-$(basename "$file")"
    "$binaries/$program" --config "$scratch/all-$(basename "$file")" --check >"$scratch/check" 2>&1 || {
        cat "$scratch/check"
        fail "$program refuses what $(basename "$file") has commented out"
    }
}
mkdir "$scratch/keys"
"$binaries/bbtool" keygen vienna --dir "$scratch/keys" >/dev/null || fail "bbtool keygen"
check_configuration bufferbaned "$here/bufferbaned.toml"
# The two blocks that keygen prints work as they are pasted.
"$binaries/bbtool" keygen pasted --dir "$scratch/keys" >"$scratch/blocks" || fail "bbtool keygen"
for pair in "bufferbaned reflector" "bufferbane-reflector client"; do
    read -r program block <<<"$pair"
    sed -n "/^\[\[$block\]\]/,/^\$/p" "$scratch/blocks" >"$scratch/$block.toml"
    [ -s "$scratch/$block.toml" ] || fail "keygen prints no [[$block]]"
    "$binaries/$program" --config "$scratch/$block.toml" --check || fail "$program refuses what keygen printed"
done
check_configuration bufferbane-reflector "$here/reflector.toml"

# The reverse leaves what was configured and recorded, and with --purge nothing at all.
mkdir -p "$root/var/lib/bufferbane"
touch "$root/var/lib/bufferbane/bufferbane.redb" "$root/etc/bufferbane/keys/a.key"
echo "# mine" >>"$root/etc/bufferbane/reflector.toml"
DESTDIR=$root "$here/uninstall.sh" >/dev/null || fail "uninstalling"
DESTDIR=$root "$here/uninstall.sh" >/dev/null || fail "uninstalling twice"
for kept in etc/bufferbane/keys/a.key etc/bufferbane/reflector.toml var/lib/bufferbane/bufferbane.redb; do
    [ -e "$root/$kept" ] || fail "uninstalling took $kept away"
done
left=$(find "$root/usr" "$root/etc/systemd" -type f)
[ -z "$left" ] || fail "uninstalling left $left"
DESTDIR=$root "$here/install.sh" all --from "$binaries" >/dev/null || fail "installing again"
grep -q '^# mine' "$root/etc/bufferbane/reflector.toml" || fail "installing again overwrote a configuration"
DESTDIR=$root "$here/uninstall.sh" all --purge >/dev/null || fail "purging"
# The staged user table is of systemd-sysusers.
left=$(find "$root" -type f ! -path "$root/etc/passwd" ! -path "$root/etc/group" ! -path "$root/etc/*shadow" ! -name '.updated' ! -name '.pwd.lock')
[ -z "$left" ] || fail "purging left $left"

[ $failed = 0 ] && echo "systemd: units, configurations, installing and its reverse are well"
exit $failed
