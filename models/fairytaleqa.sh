#!/usr/bin/env bash
# Trains an adapter for one domain, children's stories, and measures it on stories and questions that it has not seen.
#   models/fairytaleqa.sh LIBRARY TRAIN.jsonl VALIDATION.jsonl
# The files are the two parts of FairytaleQA with a story a line, {"id", "text", "questions": [{"id", "question", "answers"}]}:
# 232 and 23 stories, whose ids are `fairytale-` and FairytaleQA's name of the story. Of TRAIN, the 20 stories that
# models/fairytaleqa/chosen-by.txt lists are not learned: the adapter that does best on their questions, looked at every 130 steps,
# is kept. HOLD_OUT_EVERY=N holds out every Nth story by the SHA-256 of their ids instead, whatever they are; 0 learns from all.
# RATIO is 16 by default, EPOCHS 1, QUESTIONS of the control table 150, its ROWS all. Run it again and it goes on.
# SKIP_BUILD=1 takes the programs in target/release/examples as they are.
set -euo pipefail
library=$1 train=$2 validation=$3
root=$(cd "$(dirname "$0")/.." && pwd)
options=(--store "$library" --ratio "${RATIO:-16}" ${MODEL:+--model "$MODEL" --compressor "$root/models/smollm2-135m-lloco"})
parts=$(mktemp -d)
trap 'rm -rf "$parts"' EXIT
case ${HOLD_OUT_EVERY-} in
    '')
        # A data file may write an id with or without a space behind the colon.
        sed 'p; s/: /:/' "$root/models/fairytaleqa/chosen-by.txt" > "$parts/ids"
        grep -F -f "$parts/ids" "$train" > "$parts/chosen-by.jsonl" || true
        grep -v -F -f "$parts/ids" "$train" > "$parts/learned.jsonl" || true
        found=$(wc -l < "$parts/chosen-by.jsonl")
        [ "$found" -eq 20 ] || { echo "$train: $found of the 20 stories in models/fairytaleqa/chosen-by.txt; HOLD_OUT_EVERY needs no list" >&2; exit 1; }
        choice=(--questions "$parts/learned.jsonl" --held-out "$parts/chosen-by.jsonl" --evaluate-every 130 --control 0) ;;
    0) choice=(--questions "$train") ;;
    *) choice=(--questions "$train" --hold-out-every "$HOLD_OUT_EVERY" --evaluate-every 130 --control 0) ;;
esac
[ -n "${SKIP_BUILD:-}" ] || cargo build --manifest-path "$root/Cargo.toml" --release -p lloco-examples --example ingest --example finetune --example evaluate
bin=$root/target/release/examples
"$bin/ingest" "${options[@]}" --group stories --data "$train"
"$bin/ingest" "${options[@]}" --group stories --data "$validation"
"$bin/finetune" "${options[@]}" --group stories "${choice[@]}" --epochs "${EPOCHS:-1}" --learning-rate 5e-4 --batch-size 16 --accumulation 1
"$bin/evaluate" "${options[@]}" --group stories --data "$validation" --questions "${QUESTIONS:-150}" \
    --max-new-tokens 16 ${ROWS:+--rows "$ROWS"}
