#!/usr/bin/env bash
# Every check of the project: format, lints, documentation, tests, documentation tests.
# All steps share one target directory and one feature set, so dependencies compile once for checking and once to run.
set -euo pipefail
cd "$(dirname "$0")"

step() {
    printf '\n==> %s\n' "$*"
    "$@"
}

if ! cargo nextest --version >/dev/null 2>&1; then
    step cargo install cargo-nextest --version 0.9.151 --locked --no-default-features --features default-no-update
fi

step cargo fmt --all --check
step cargo clippy --workspace --all-targets --locked -- --deny warnings
RUSTDOCFLAGS="--deny warnings" step cargo doc --workspace --no-deps --locked
# Each test that changes bytes at random gets ten seconds.
LLOCO_FUZZ_SECONDS=${LLOCO_FUZZ_SECONDS:-10} step cargo nextest run --workspace --locked
step cargo test --workspace --doc --locked
