#!/usr/bin/env bash
# Trains an adapter for one domain, children's stories, and measures it on stories and questions that it has not seen.
#   models/fairytaleqa.sh LIBRARY TRAIN.jsonl VALIDATION.jsonl
# The files are the two parts of FairytaleQA with a story a line, {"id", "text", "questions": [{"id", "question", "answers"}]}:
# 232 and 23 stories. Of TRAIN, every twelfth story in the order of the SHA-256 of their ids is not learned, 20 stories: the adapter
# that does best on their questions, looked at every 130 steps, is kept. HOLD_OUT_EVERY sets another number than 12; 0 learns from all.
# RATIO is 16 by default, EPOCHS 1, QUESTIONS of the control table 150, its ROWS all. Run it again and it goes on.
# SKIP_BUILD=1 takes the programs in target/release/examples as they are.
set -euo pipefail
library=$1 train=$2 validation=$3
root=$(cd "$(dirname "$0")/.." && pwd)
options=(--store "$library" --ratio "${RATIO:-16}" ${MODEL:+--model "$MODEL" --compressor "$root/models/smollm2-135m-lloco"})
choice=(--hold-out-every "${HOLD_OUT_EVERY:-12}" --evaluate-every 130 --control 0)
[ "${HOLD_OUT_EVERY:-12}" != 0 ] || choice=()
[ -n "${SKIP_BUILD:-}" ] || cargo build --manifest-path "$root/Cargo.toml" --release -p lloco-examples --example ingest --example finetune --example evaluate
bin=$root/target/release/examples
"$bin/ingest" "${options[@]}" --group stories --data "$train"
"$bin/ingest" "${options[@]}" --group stories --data "$validation"
"$bin/finetune" "${options[@]}" --group stories --questions "$train" "${choice[@]}" --epochs "${EPOCHS:-1}" --learning-rate 5e-4 \
    --batch-size 16 --accumulation 1
"$bin/evaluate" "${options[@]}" --group stories --data "$validation" --questions "${QUESTIONS:-150}" \
    --max-new-tokens 16 ${ROWS:+--rows "$ROWS"}
