"""Measures other programs on what `quality` and `speed` measure.

    pip install numpy bm25s PyStemmer faiss-cpu torch transformers
    python retrieval_peers.py quality SET... [--vectors DIRECTORY]   the same sets; vectors as `quality --vectors` wrote them
    python retrieval_peers.py hotpotqa FILE FOLDER                   makes a set of HotpotQA's paragraphs
    python retrieval_peers.py search ROWS DIMENSIONS
    python retrieval_peers.py keyword FILE
    python retrieval_peers.py embed MODEL_DIRECTORY FILE
"""

import json
import math
import random
import re
import statistics
import sys
import time
from pathlib import Path

THREADS = 2


def tokens(texts):
    """Words of letters and digits in lower case, cut to their English stems: as the keyword index cuts them."""
    import Stemmer

    stemmer = Stemmer.Stemmer("english")
    cut = lambda text: stemmer.stemWords([w.lower() for w in re.findall(r"[^\W_]+", text)])
    return [cut(text) for text in texts]


def best(times):
    """The shortest, in milliseconds: what the machine does when nothing else runs on it."""
    return min(times) * 1e3


def timed(work):
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def read_set(folder):
    lines = lambda name: [json.loads(line) for line in open(folder / name, encoding="utf-8")]
    corpus = lines("corpus.jsonl")
    whole = lambda d: d["text"] if d["text"].startswith(d.get("title", "")) else d["title"] + "\n" + d["text"]
    key = lambda d: str(d.get("_id", d.get("id")))
    relevant = {}
    for line in open(folder / "qrels.tsv", encoding="utf-8"):
        query, document, relevance = line.rstrip("\n").split("\t")
        if relevance.lstrip("-").isdigit() and int(relevance) > 0:
            relevant.setdefault(query, {})[document] = int(relevance)
    ids = [key(d) for d in corpus]
    known = set(ids)
    relevant = {q: {d: r for d, r in found.items() if d in known} for q, found in relevant.items()}
    queries = [(key(q), q["text"]) for q in lines("queries.jsonl") if relevant.get(key(q))]
    return ids, [whole(d) for d in corpus], queries, relevant


def scores(rankings, queries, relevant):
    ndcg = recall10 = recall100 = mrr = 0
    discounted = lambda gains: sum(g / math.log2(n + 2) for n, g in enumerate(gains[:10]))
    for ranking, (query, _) in zip(rankings, queries):
        wanted = relevant[query]
        gains = [wanted.get(d, 0) for d in ranking[:100]]
        ndcg += discounted(gains) / discounted(sorted(wanted.values(), reverse=True))
        recall10 += sum(g > 0 for g in gains[:10]) / len(wanted)
        recall100 += sum(g > 0 for g in gains) / len(wanted)
        mrr += next((1 / (n + 1) for n, g in enumerate(gains) if g > 0), 0)
    return " | ".join(f"{x / len(queries):.4f}" for x in (ndcg, recall10, recall100, mrr))


def quality(sets, vectors):
    import bm25s
    import numpy as np

    print("| set | search | nDCG@10 | recall@10 | recall@100 | MRR |\n|---|---|---|---|---|---|")
    for folder in map(Path, sets):
        ids, texts, queries, relevant = read_set(folder)
        index = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
        index.index(tokens(texts), show_progress=False)
        rankings = []
        for words in tokens([text for _, text in queries]):
            found = index.get_scores(words)
            order = np.argsort(-found, kind="stable")[:100]
            rankings.append([ids[n] for n in order if found[n] > 0])
        print(f"| {folder.name} | bm25s | {scores(rankings, queries, relevant)} |")
        if vectors:
            load = lambda what: np.fromfile(f"{vectors}/{folder.name}.{what}.f32", dtype="<f4").reshape(-1, 384)
            order = np.argsort(-(load("queries") @ load("documents").T), axis=1, kind="stable")[:, :100]
            rankings = [[ids[n] for n in row] for row in order]
            print(f"| {folder.name} | numpy | {scores(rankings, queries, relevant)} |")


def hotpotqa(file, folder):
    """All paragraphs of a HotpotQA file as one corpus; a question's supporting paragraphs are the relevant ones.

    A line has `text`, paragraphs between empty lines with the title first, and `questions` with `gold_titles`.
    """
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    numbers, queries, relevant = {}, [], []
    for line in open(file, encoding="utf-8"):
        line = json.loads(line)
        own = {}
        for paragraph in line["text"].split("\n\n"):
            title = paragraph.split("\n", 1)[0]
            own[title] = numbers.setdefault(paragraph, f"p{len(numbers)}")
        for question in line["questions"]:
            found = [own[title] for title in question["gold_titles"] if title in own]
            queries.append({"id": question["id"], "text": question["question"]})
            relevant += [f"{question['id']}\t{paragraph}\t1\n" for paragraph in dict.fromkeys(found)]
    write = lambda name, lines: (folder / name).write_text("".join(lines), encoding="utf-8")
    corpus = [dict(zip(("title", "text"), (text.split("\n", 1) + [""])[:2]), id=key) for text, key in numbers.items()]
    write("corpus.jsonl", [json.dumps(paragraph) + "\n" for paragraph in corpus])
    write("queries.jsonl", [json.dumps(query) + "\n" for query in queries])
    write("qrels.tsv", relevant)
    print(f"{len(corpus)} paragraphs, {len(queries)} questions, {len(relevant)} relevant pairs")


def search(rows, dim):
    import faiss
    import numpy as np

    faiss.omp_set_num_threads(THREADS)
    generator = np.random.default_rng(1)
    matrix = generator.standard_normal((rows, dim), dtype=np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    queries = generator.standard_normal((32, dim), dtype=np.float32)

    def top(found):
        ten = np.argpartition(found, -10, axis=-1)[..., -10:]
        return np.take_along_axis(ten, np.argsort(-np.take_along_axis(found, ten, -1), -1), -1)

    single = best([timed(lambda: top(matrix @ queries[0]))[1] for _ in range(60)])
    batch = best([timed(lambda: top(queries @ matrix.T))[1] for _ in range(6)])
    print(f"| {rows} | numpy f32 | {single:.2f} | {batch / 32:.3f} |")
    scalar = faiss.ScalarQuantizer
    for name, make in [
        ("faiss f32", lambda: faiss.IndexFlatIP(dim)),
        ("faiss f16", lambda: faiss.IndexScalarQuantizer(dim, scalar.QT_fp16, faiss.METRIC_INNER_PRODUCT)),
        ("faiss i8", lambda: faiss.IndexScalarQuantizer(dim, scalar.QT_8bit, faiss.METRIC_INNER_PRODUCT)),
    ]:
        index = make()
        index.train(matrix[:100_000])
        index.add(matrix)
        single = best([timed(lambda: index.search(queries[:1], 10))[1] for _ in range(60)])
        batch = best([timed(lambda: index.search(queries, 10))[1] for _ in range(6)])
        print(f"| {rows} | {name} | {single:.2f} | {batch / 32:.3f} |")
        del index


def keyword(file):
    import bm25s

    texts = [line.split() for line in open(file, encoding="utf-8")]
    index = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    _, building = timed(lambda: index.index(texts, show_progress=False))
    random.seed(3)
    times = []
    for _ in range(200):
        query = [f"w{int(10 * 10_000 ** random.random())}" for _ in range(6)]
        times.append(best([timed(lambda: index.retrieve([query], k=10, show_progress=False))[1] for _ in range(5)]))
    print(
        f"{len(texts)} texts, tokenised before: indexed in {building:.2f} s, {statistics.median(times):.3f} ms a query (median of the "
        f"fastest of 5), {statistics.mean(times):.3f} ms on average"
    )


def embed(model, file):
    import torch
    from transformers import AutoModel, AutoTokenizer

    torch.set_num_threads(THREADS)
    tokenizer, bert = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model).eval()
    texts = [line.rstrip("\n") for line in open(file, encoding="utf-8")]

    @torch.inference_mode()
    def run(texts):
        order = sorted(range(len(texts)), key=lambda n: -len(texts[n]))
        for first in range(0, len(order), 32):
            part = [texts[n] for n in order[first : first + 32]]
            inputs = tokenizer(part, padding=True, truncation=True, max_length=256, return_tensors="pt")
            states = bert(**inputs).last_hidden_state
            mask = inputs["attention_mask"].unsqueeze(-1)
            torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)

    run(texts[:32])
    _, seconds = timed(lambda: run(texts))
    print(f"{len(texts)} texts in {seconds:.2f} s: {len(texts) / seconds:.1f} texts/s")
    query = ["Who decided on the budget for the pump in the cellar?"]
    print(f"one query: {best([timed(lambda: run(query))[1] for _ in range(50)]):.2f} ms")


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    vectors = None
    if "--vectors" in rest:
        place = rest.index("--vectors")
        vectors = rest[place + 1]
        del rest[place : place + 2]
    if what == "quality":
        quality(rest, vectors)
    elif what == "hotpotqa":
        hotpotqa(*rest)
    elif what == "search":
        search(int(rest[0]), int(rest[1]))
    elif what == "keyword":
        keyword(rest[0])
    else:
        embed(*rest)
