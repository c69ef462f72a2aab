#!/usr/bin/env bash
# Proves that core needs neither std nor an allocator, and that this proof can fail.
set -euo pipefail
cd "$(dirname "$0")"

echo "core links without std and without an allocator:"
cargo build --quiet --profile nostd

echo "and would not if it allocated:"
if said=$(cargo build --quiet --profile nostd --features allocates 2>&1); then
    echo "a program that allocates was linked: the proof proves nothing" >&2
    exit 1
fi
if ! grep -q "no global memory allocator found" <<<"$said"; then
    echo "the build failed, but for another reason:" >&2
    echo "$said" >&2
    exit 1
fi

target=thumbv7em-none-eabihf
echo "core compiles for $target, which has no std:"
rustup target list --installed | grep -qx "$target" || rustup target add "$target"
cargo check --quiet --manifest-path ../Cargo.toml --package bufferbane-core --target "$target"
echo "core is no_std and allocates nothing"
