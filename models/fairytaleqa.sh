#!/usr/bin/env bash
# Trains an adapter for one domain, children's stories, and measures it on stories and questions that it has not seen.
#   models/fairytaleqa.sh LIBRARY TRAIN.jsonl HELD_OUT.jsonl
# Both files have a document a line, {"id", "text", "questions": [{"id", "question", "answers"}]}. RATIO is 16 by default,
# EPOCHS 1, QUESTIONS of the control table 150, its ROWS all. With CHOOSE=FILE.jsonl the adapter that does best on those questions
# is kept, looked at every 130 steps. Run it again and it goes on.
set -euo pipefail
library=$1 train=$2 held_out=$3
root=$(cd "$(dirname "$0")/.." && pwd)
options=(--store "$library" --ratio "${RATIO:-16}" ${MODEL:+--model "$MODEL" --compressor "$root/models/smollm2-135m-lloco"})
[ -n "${SKIP_BUILD:-}" ] || cargo build --manifest-path "$root/Cargo.toml" --release -p lloco-examples --example ingest --example finetune --example evaluate
bin=$root/target/release/examples
"$bin/ingest" "${options[@]}" --group stories --data "$train"
"$bin/ingest" "${options[@]}" --group stories --data "$held_out"
[ -z "${CHOOSE:-}" ] || "$bin/ingest" "${options[@]}" --group stories --data "$CHOOSE"
"$bin/finetune" "${options[@]}" --group stories --questions "$train" ${CHOOSE:+--held-out "$CHOOSE" --evaluate-every 130} --epochs "${EPOCHS:-1}" --learning-rate 5e-4 \
    --batch-size 16 --accumulation 1
"$bin/evaluate" "${options[@]}" --group stories --data "$held_out" --questions "${QUESTIONS:-150}" \
    --max-new-tokens 16 ${ROWS:+--rows "$ROWS"}
