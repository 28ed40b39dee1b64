#!/usr/bin/env bash
# Installs and builds what lloco is compared with: PyTorch, transformers and peft, candle, and, where it builds,
# llama.cpp. Needs python3 with venv, a C++ compiler and cmake for llama.cpp. Then see compare.py.
set -euo pipefail
cd "$(dirname "$0")"

python3 -m venv .venv
.venv/bin/pip install --quiet --disable-pip-version-check \
    torch==2.15.0 transformers peft gguf safetensors numpy
cargo build --release --manifest-path candle/Cargo.toml
.venv/bin/pip install --quiet --disable-pip-version-check llama-cpp-python || echo "llama.cpp does not build here"
(cd ../.. && cargo build --release --locked -p lloco-benches --bin measure)
