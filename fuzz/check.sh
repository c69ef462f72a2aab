#!/usr/bin/env bash
# Fuzzes every target, for so many seconds in all (120 unless given), after the canary has shown that a
# finding is noticed. Runs on stable Rust.
set -euo pipefail
cd "$(dirname "$0")"
targets=(block config floor household icmp kernel load rows session sizes stamp strangers summary tail trace train)
seconds=$((${1:-120} / ${#targets[@]}))

export CARGO_TARGET_DIR=$PWD/target
fuzz() { cargo fuzz run -s none "$@"; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

mkdir "$scratch/canary"
echo "the canary has to sing:"
if said=$(fuzz canary "$scratch/canary" -- -max_total_time=60 -artifact_prefix="$scratch/" 2>&1); then
    echo "the canary was not found: this harness cannot fail" >&2
    exit 1
fi
grep -q "the canary sings" <<<"$said" || { echo "$said" >&2; exit 1; }

for target in "${targets[@]}"; do
    echo "$target, for $seconds s:"
    mkdir "$scratch/$target"
    seeds=()
    [ -d "corpus/$target" ] && seeds=("corpus/$target")
    if ! fuzz "$target" "$scratch/$target" "${seeds[@]}" -- -max_total_time="$seconds" \
        -max_len=2048 -artifact_prefix="$scratch/" -print_final_stats=1 >"$scratch/said" 2>&1; then
        cat "$scratch/said" >&2
        echo "$target found something" >&2
        exit 1
    fi
    grep 'stat::number_of_executed' "$scratch/said"
done
echo "nothing found"
