"""Writes scores.json: answers with the scores that the Python originals give them.

    pip install rouge_score==0.1.2
    python scores.py < answers.json > scores.json

F1 and exact match follow SQuAD's evaluation script; ROUGE is rouge_score with its stemmer; the best reference counts
for each metric; everything is in per cent.
"""

import collections
import json
import re
import string
import sys

from rouge_score import rouge_scorer

ROUGE = {"rouge1": "rouge1", "rouge2": "rouge2", "rougeL": "rougeL"}
SCORER = rouge_scorer.RougeScorer(list(ROUGE), use_stemmer=True)


def words(text):
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def f1(prediction, reference):
    prediction, reference = words(prediction), words(reference)
    shared = sum((collections.Counter(prediction) & collections.Counter(reference)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(prediction), shared / len(reference)
    return 2 * precision * recall / (precision + recall)


def score(prediction, references):
    rouge = [SCORER.score(reference, prediction) for reference in references]
    scores = {
        "f1": max(f1(prediction, reference) for reference in references),
        "exact_match": max(float(words(prediction) == words(reference)) for reference in references),
        **{name: max(one[key].fmeasure for one in rouge) for name, key in ROUGE.items()},
    }
    scores = {name: 100 * value for name, value in scores.items()}
    scores["rouge_geometric_mean"] = (scores["rouge1"] * scores["rouge2"] * scores["rougeL"]) ** (1 / 3)
    return scores


if __name__ == "__main__":
    cases = json.load(sys.stdin)
    cases = [{**case, **score(case["prediction"], case["references"])} for case in cases]
    json.dump(cases, sys.stdout, ensure_ascii=True, indent=1)
    print()
