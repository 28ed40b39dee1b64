#!/usr/bin/env bash
# Everything that is measured on a GPU, in one run: parity with the CPU, then the tables.
# Build on the machine itself, or elsewhere and carry target/release/measure and the test binary:
#   benches/gpu.sh [cuda|wgpu|vulkan]
# CUDA needs an LLVM bundle at build time (see docs/gpu.md) and no CUDA toolkit.
set -euo pipefail
cd "$(dirname "$0")/.."
backend=${1:-cuda}

cargo nextest run -p lloco-encoder --features "$backend" --test gpu
cargo build --release -p lloco-benches --features "$backend" --bin measure
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>/dev/null || true
LLOCO_DEVICE=$backend ./target/release/measure
