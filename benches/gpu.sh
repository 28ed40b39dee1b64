#!/usr/bin/env bash
# Everything that is measured on a GPU, in one run: parity with the CPU, then the tables, as Markdown on standard output.
#   benches/gpu.sh [cuda|wgpu|vulkan]
# Build on the machine itself, or build elsewhere, carry target/release/measure and set SKIP_BUILD=1.
# CUDA needs an LLVM bundle at build time (see docs/gpu.md) and no CUDA toolkit. Where python3 has torch and transformers,
# PyTorch does the same work beside.
set -uo pipefail
cd "$(dirname "$0")/.."
backend=${1:-cuda}
measure=./target/release/measure
export LLOCO_DEVICE=$backend

if [ -z "${SKIP_BUILD:-}" ]; then
    cargo nextest run -p lloco-encoder --features "$backend" --test gpu || exit 1
    cargo build --release -p lloco-benches --features "$backend" --bin measure || exit 1
fi
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>/dev/null || true

# The most memory that the card held while a command ran, in MiB.
watched() {
    nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits -lms 200 >"$memory" 2>/dev/null &
    local watcher=$!
    timeout 300 "$@" 2>"$errors" || echo "{\"failed\": \"$(tail -n 1 "$errors" | tr -d '"\\' | cut -c1-120)\"}"
    kill $watcher 2>/dev/null
    wait $watcher 2>/dev/null
}
memory=$(mktemp) errors=$(mktemp)
trap 'rm -f "$memory" "$errors"' EXIT

table() {
    local shapes=$1; shift
    printf '\n### %s\n\n| case | tokens | program | tokens/s | seconds | card memory, MiB |\n|---|---|---|---|---|---|\n' "$shapes"
    for work in "$@"; do
        local case=${work%:*} tokens=${work#*:}
        row lloco "$case" "$tokens" "$measure" "$case" "$tokens" 3
        if [ "$case" != answer ] && [ "$case" != limits ] && python3 -c 'import torch, transformers' 2>/dev/null; then
            row PyTorch "$case" "$tokens" python3 benches/peers/pytorch.py "${LLOCO_MODEL:-default}" "$case" "$tokens" - 3 \
                --dtype bf16 --device cuda
        fi
    done
}

row() {
    local program=$1 case=$2 tokens=$3; shift 3
    local report
    report=$(watched "$@" | tail -n 1)
    python3 - "$program" "$case" "$tokens" "$report" "$(sort -n "$memory" | tail -n 1)" <<'PY'
import json, sys
program, case, tokens, report, memory = sys.argv[1:]
report = json.loads(report or '{"failed": "no output"}')
if "failed" in report:
    print(f"| {case} | {tokens} | {program} | {report['failed']} | | {memory} |")
elif case == "answer":
    print(f"| {case} | {tokens} | {program} | {report['ratio']:.2f} times faster from summaries | "
          f"{report['seconds']:.3f} against {report['text_seconds']:.3f} | {memory} |")
elif case == "limits":
    print(f"| limits | | {program} | {report['product_flops'] / 1e12:.1f} TFLOP/s bf16, {report['bandwidth'] / 1e9:.0f} GB/s | | |")
else:
    print(f"| {case} | {tokens} | {program} | {report['per_second']:,.1f} | {report['seconds']:.3f} | {memory} |")
PY
}

# Shapes first: they need no download. The default model follows where it can be had.
LLOCO_MODEL=random:benches/shapes/llama-2-7b.json LLOCO_WEIGHTS=bf16
export LLOCO_MODEL LLOCO_WEIGHTS
table "LLaMA-2-7B shapes, random bf16 weights" limits:1 prefill:1536 prefill:4096 decode:1024 decode:4096 compress:6144 \
    finetune:300 answer:4096 answer:8192 answer:32768 answer:65536 answer:131072
unset LLOCO_MODEL
[ -n "${GGUF:-}" ] && export LLOCO_MODEL=$GGUF
table "SmolLM2-135M" limits:1 prefill:1536 prefill:4096 decode:1024 decode:4096 compress:6144 finetune:300 answer:2048 \
    answer:4096 answer:7936
