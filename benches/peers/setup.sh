#!/usr/bin/env bash
# Installs and builds what lloco is compared with: PyTorch, transformers and peft, llama.cpp, and candle. Needs python3
# with venv, and cargo. Then see compare.py.
set -euo pipefail
cd "$(dirname "$0")"

[ -d .venv ] || python3 -m venv .venv
.venv/bin/pip install --quiet --disable-pip-version-check torch==2.15.0 transformers peft gguf safetensors numpy
# llama.cpp as wheels bring it, for CPUs with AVX2.
.venv/bin/pip install --quiet --disable-pip-version-check --only-binary :all: xllamacpp || echo "no llama.cpp here"
cargo build --release --manifest-path candle/Cargo.toml
(cd ../.. && cargo build --release --locked -p lloco-benches --bin measure)
