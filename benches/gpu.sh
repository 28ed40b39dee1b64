#!/usr/bin/env bash
# Everything that is measured on a GPU, in one run: parity with the CPU, then the tables, as Markdown on standard output.
#   GGUF=SmolLM2-135M-Instruct.Q4_1.gguf benches/gpu.sh [cuda|wgpu|vulkan]
# Build on the machine itself, or build elsewhere, carry target/release/measure and set SKIP_BUILD=1.
# CUDA needs an LLVM bundle at build time (see docs/gpu.md) and no CUDA toolkit. Where PYTHON (python3) has torch and
# transformers, PyTorch does the same work beside; peft and gguf are for finetuning and the small model.
# Each figure is appended to FIGURES (target/gpu.jsonl) as soon as it is there, and what is there is not measured again.
# All ends after MINUTES (25), building included; run it again for what is missing.
set -uo pipefail
cd "$(dirname "$0")/.."
backend=${1:-cuda}
seconds=$((${MINUTES:-25} * 60))
target=${CARGO_TARGET_DIR:-target}

if [ -z "${SKIP_BUILD:-}" ]; then
    timeout $seconds cargo build --release --locked -p lloco-benches --features "$backend" --bin measure || exit 1
    timeout $((seconds > SECONDS ? seconds - SECONDS : 1)) \
        cargo nextest run --locked -p lloco-encoder --features "$backend" --test gpu || exit 1
fi
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>/dev/null
exec "${PYTHON:-python3}" benches/peers/gpu.py --device "$backend" --measure "$target/release/measure" \
    --figures "${FIGURES:-$target/gpu.jsonl}" --seconds $((seconds - SECONDS)) ${GGUF:+--gguf "$GGUF"}
