#!/usr/bin/env bash
# Trains a compressor for the default model. Run it again and it goes on from its last checkpoint.
#   models/train.sh RUN HELD_OUT.jsonl DATA.jsonl...
# DEVICE=cuda (or wgpu, ...) trains there, CURRICULUM names another curriculum, MINUTES ends a run after so long.
# FROM names a trained compressor to begin with.
# Behind the last step, the control table says what came of it: CONTROL (60; 0 for none) of the questions in HELD_OUT, if it has any,
# are asked at RATIO (the curriculum's first). MINUTES do not count for it.
# SKIP_BUILD=1 takes target/release/examples/train as it is, carried from another machine; without a network, MODEL and EMBEDDER name
# what that machine has.
set -euo pipefail
run=${1%/} held_out=$2
shift 2
root=$(cd "$(dirname "$0")/.." && pwd)
device=${DEVICE:-cpu}
case $device in
    cpu) features=() curriculum=${CURRICULUM:-$root/examples/data/curriculum-135m-cpu.json} ;;
    *) features=(--features "$device") curriculum=${CURRICULUM:-$root/examples/data/curriculum-135m.json} ;;
esac
[ -n "${SKIP_BUILD:-}" ] || cargo build --manifest-path "$root/Cargo.toml" --release -p lloco-examples --example train "${features[@]}"
train=("$root/target/release/examples/train" --device "$device" ${MODEL:+--model "$MODEL"} ${FROM:+--from "$FROM"} --curriculum "$curriculum"
    --data "$@" --held-out "$held_out" --out "$run" ${EMBEDDER:+--embedder "$EMBEDDER"} ${RATIO:+--ratio "$RATIO"})
# An interrupt saves; the limit of a rented machine should not cost a checkpoint.
report=$(timeout --foreground -s INT "${MINUTES:-25}m" "${train[@]}" --control 0 --json) || {
    status=$?
    [ $status -eq 124 ] || exit $status # 124: the time was up, and the run is saved
}
echo "$report"
case $report in *'"finished":true'*) "${train[@]}" --control "${CONTROL:-60}" ;; esac
