#!/usr/bin/env bash
# Fuzzes every target, or those that are named, after the canary has shown that a finding is noticed:
#     fuzz/check.sh [SECONDS [TARGET...]]      for so many seconds in all (120 unless given)
#     fuzz/check.sh --runs COUNT [TARGET...]   for so many executions of each, and prints its figures
# Runs on stable Rust.
set -euo pipefail
cd "$(dirname "$0")"
all=(block config floor household icmp kernel load rows session sizes stamp strangers summary tail trace train)

usage() { echo "usage: fuzz/check.sh [SECONDS [TARGET...]] | --runs COUNT [TARGET...]; targets: ${all[*]}" >&2; exit 2; }
number() { [[ ${1:-} =~ ^[1-9][0-9]*$ ]] || usage; }
runs=
seconds=120
case ${1:-} in
    --runs) number "${2:-}"; runs=$2; shift 2 ;;
    "") ;;
    *) number "$1"; seconds=$1; shift ;;
esac
targets=("$@")
[ $# -gt 0 ] || targets=("${all[@]}")
for target in "${targets[@]}"; do
    [[ " ${all[*]} " == *" $target "* ]] || { echo "there is no target $target" >&2; usage; }
done
seconds=$((seconds / ${#targets[@]}))
# Of no time libFuzzer thinks that there is no end.
((seconds > 0)) || seconds=1

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
    if [ -n "$runs" ]; then
        echo "$target, $runs executions:"
        most=-runs=$runs
    else
        echo "$target, for $seconds s:"
        most=-max_total_time=$seconds
    fi
    mkdir "$scratch/$target"
    seeds=()
    [ -d "corpus/$target" ] && seeds=("corpus/$target")
    if ! fuzz "$target" "$scratch/$target" "${seeds[@]}" -- "$most" \
        -max_len=2048 -artifact_prefix="$scratch/" -print_final_stats=1 >"$scratch/said" 2>&1; then
        cat "$scratch/said" >&2
        echo "$target found something" >&2
        exit 1
    fi
    grep 'stat::number_of_executed' "$scratch/said"
    if [ -n "$runs" ]; then
        # Coverage and corpus at the end, and how long it took.
        grep -E '^#[0-9]+[[:space:]]+DONE' "$scratch/said"
        grep -E '^Done [0-9]+ runs' "$scratch/said"
        executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$scratch/said")
        [ "$executed" -ge "$runs" ] || { echo "$target ended after $executed executions" >&2; exit 1; }
    fi
done
echo "nothing found"
