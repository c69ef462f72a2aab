#!/usr/bin/env bash
# Builds the Debian packages `bufferbane` (bufferbaned and bbtool) and `bufferbane-reflector`.
#
#   packaging/deb.sh [--target TRIPLE] [--no-build]
#
# They hold static binaries and are in target/packaging when it is done, in place of earlier ones. TRIPLE is
# musl of this machine by default; aarch64-unknown-linux-musl is for an arm64 router. --no-build takes the
# binaries that are in target/TRIPLE/release. Needs cargo-deb (cargo install --locked cargo-deb) and dpkg-deb.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=$(uname -m)-unknown-linux-musl
build=yes

while [ $# -gt 0 ]; do
    case $1 in
        --target)
            [ $# -ge 2 ] || { echo "deb.sh: --target needs a target triple" >&2; exit 2; }
            target=$2
            shift
            ;;
        --no-build) build=no ;;
        -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) echo "deb.sh: unknown argument $1; see --help" >&2; exit 2 ;;
    esac
    shift
done

if [ $build = yes ]; then
    cargo build --release --target "$target" -p bufferbaned -p bbtool -p bufferbane-reflector
fi
for program in bufferbaned bbtool bufferbane-reflector; do
    [ -x "target/$target/release/$program" ] || {
        echo "deb.sh: there is no target/$target/release/$program; leave out --no-build" >&2
        exit 1
    }
done

stage=target/packaging
rm -rf "$stage"
mkdir -p "$stage"
cargo run --quiet -p bufferbane-packaging -- "$stage/usr"
# Man pages are the same bytes whenever they are made.
gzip -9nr "$stage/usr/share/man"

# Rust's own strips binaries for every processor; that of the host need not.
objcopy=$(rustc --print target-libdir)/../bin/rust-objcopy
if [ -x "$objcopy" ]; then
    mkdir "$stage/bin"
    ln -s "$(realpath "$objcopy")" "$stage/bin/strip"
    PATH=$PWD/$stage/bin:$PATH
fi

version=$(sed -n '/^\[workspace.package\]/,/^version/s/^version = "\(.*\)"/\1/p' Cargo.toml)
maintainer=$(sed -n 's/^maintainer = "\(.*\)"/\1/p' linux-daemon/Cargo.toml)
# When this state was made, and not when it was packed.
date=$(git log -1 --format=%cD 2>/dev/null || date -R -r CHANGELOG.md)

package() {
    local crate=$1 name=$2 unit=$3 scripts=$stage/$3
    mkdir -p "$scripts"
    cp "packaging/$unit/"* "$scripts/"
    sed 's|^ExecStart=/usr/local/bin/|ExecStart=/usr/bin/|' "systemd/$unit.service" >"$scripts/$unit.service"
    # The maintainer scripts call both by the names that they have here.
    mkdir "$scripts/sysusers.d" "$scripts/tmpfiles.d"
    cp systemd/sysusers.conf "$scripts/sysusers.d/$name.conf"
    cp systemd/tmpfiles.conf "$scripts/tmpfiles.d/$name.conf"
    printf '%s\n' \
        "# Static, and at any address: built with musl, for routers of all kinds." \
        "$name: shared-library-lacks-prerequisites" \
        "$name: statically-linked-binary" \
        "# Not made for the archive." \
        "$name: initial-upload-closes-no-bugs" >"$scripts/lintian"
    {
        echo "Licensed under either of the Apache License 2.0 or the following MIT License, at your option."
        echo "On Debian systems the former is in /usr/share/common-licenses/Apache-2.0."
        echo
        cat LICENSE-MIT
    } >"$scripts/license"
    printf '%s (%s-1) unstable; urgency=medium\n\n  * See /usr/share/doc/%s/changelog.gz.\n\n -- %s  %s\n' \
        "$name" "$version" "$name" "$maintainer" "$date" >"$scripts/changelog"
    gzip -9nc CHANGELOG.md >"$scripts/changelog.gz"
    cargo deb --quiet --no-build --strip --target "$target" -p "$crate" -o "$stage/"
}

package bufferbaned bufferbane bufferbaned
package bufferbane-reflector bufferbane-reflector bufferbane-reflector
ls -l "$stage"/*.deb
