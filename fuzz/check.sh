#!/usr/bin/env bash
# Fuzzes every target, or those that are named, after the canary has shown that a finding is noticed:
#     fuzz/check.sh [SECONDS [TARGET...]]      for so many seconds of a processor in all (120 unless given)
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
declare -A running=()
left() {
    local process
    for process in "${!running[@]}"; do kill -- "-$process" 2>/dev/null || true; done
    rm -rf "$scratch"
}
trap left EXIT

mkdir "$scratch/canary"
echo "the canary has to sing:"
if said=$(fuzz canary "$scratch/canary" -- -max_total_time=60 -artifact_prefix="$scratch/" 2>&1); then
    echo "the canary was not found: this harness cannot fail" >&2
    exit 1
fi
grep -q "the canary sings" <<<"$said" || { echo "$said" >&2; exit 1; }

one() {
    local target=$1 most=-max_total_time=$seconds seeds=()
    [ -z "$runs" ] || most=-runs=$runs
    mkdir "$scratch/$target"
    [ -d "corpus/$target" ] && seeds=("corpus/$target")
    fuzz "$target" "$scratch/$target" "${seeds[@]}" -- "$most" \
        -max_len=2048 -artifact_prefix="$scratch/" -print_final_stats=1 >"$scratch/$target.said" 2>&1
}

# What became of the one that ends first.
ended() {
    local found=0 process target said executed
    wait -n -p process "${!running[@]}" || found=$?
    target=${running[$process]}
    unset "running[$process]"
    said=$scratch/$target.said
    if ((found)); then
        cat "$said" >&2
        echo "$target found something" >&2
        exit 1
    fi
    if [ -z "$runs" ]; then
        echo "$target, for $seconds s:"
        grep 'stat::number_of_executed' "$said"
        return
    fi
    echo "$target, $runs executions:"
    grep 'stat::number_of_executed' "$said"
    # Coverage and corpus at the end, and how long it took.
    grep -E '^#[0-9]+[[:space:]]+DONE' "$said"
    grep -E '^Done [0-9]+ runs' "$said"
    executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$said")
    [ "$executed" -ge "$runs" ] || { echo "$target ended after $executed executions" >&2; exit 1; }
}

# As many at a time as there are processors.
for target in "${targets[@]}"; do
    ((${#running[@]} < $(nproc))) || ended
    # In a group of its own, which can be ended.
    set -m
    one "$target" &
    set +m
    running[$!]=$target
done
while ((${#running[@]})); do ended; done
echo "nothing found"
