#!/usr/bin/env python3
"""Times lloco and its peers on the same work, in turns, and prints a table of ratios.

    benches/peers/setup.sh                    # once: builds and installs what is compared
    benches/peers/.venv/bin/python benches/peers/compare.py --gguf FILE.gguf [--rounds 3] [--only prefill] [--json FILE]

Every figure is the median over the rounds; a ratio above 1 means that lloco is faster, or holds less memory. One
round runs each program once on each case, one after the other, each in a process of its own.
"""

import argparse, json, os, platform, statistics, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
CASES = [("compress", 6144), ("prefill", 512), ("prefill", 1536), ("prefill", 4096), ("decode", 64), ("decode", 1024),
         ("decode", 4096), ("finetune", 300)]


def programs(args):
    python = os.path.join(HERE, ".venv", "bin", "python")
    threads = ["--threads", str(args.threads)]
    measure = os.path.join(ROOT, "target", "release", "measure")
    candle = os.path.join(HERE, "candle", "target", "release", "candle-peer")
    torch = lambda dtype: lambda case, tokens, ids: [python, os.path.join(HERE, "pytorch.py"), args.gguf, case,
                                                     str(tokens), ids, args.runs, "--dtype", dtype, *threads]
    found = {"lloco": lambda case, tokens, ids: [measure, case, str(tokens), args.runs]}
    found["PyTorch f32"] = torch("f32")
    found["PyTorch bf16"] = torch("bf16")
    if os.path.exists(candle):
        found["candle"] = lambda case, tokens, ids: case in ("prefill", "decode") and [
            candle, args.gguf, case, str(tokens), ids, args.runs]
    if subprocess.run([python, "-c", "import llama_cpp"], capture_output=True).returncode == 0:
        found["llama.cpp"] = lambda case, tokens, ids: case in ("prefill", "decode") and [
            python, os.path.join(HERE, "llamacpp.py"), args.gguf, case, str(tokens), ids, args.runs, *threads]
    return found


def run(command, environment):
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", required=True, help="the default model's file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", default="1", help="timed runs in a process; the median counts")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", help="one case")
    parser.add_argument("--json", help="where to write every figure")
    args = parser.parse_args()
    environment = dict(os.environ, LLOCO_MODEL=args.gguf, RAYON_NUM_THREADS=str(args.threads),
                       OMP_NUM_THREADS=str(args.threads), TOKENIZERS_PARALLELISM="false")
    found = programs(args)
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        ids = os.path.join(folder, "ids.json")
        with open(ids, "w") as file:
            json.dump(run([os.path.join(ROOT, "target", "release", "measure"), "ids", "8000"], environment), file)
        for case, tokens in CASES:
            if args.only not in (None, case):
                continue
            for turn in range(args.rounds):
                for name, command in found.items():
                    command = command(case, tokens, ids)
                    if command:
                        print(f"{case} {tokens}, round {turn + 1}: {name}", file=sys.stderr)
                        figures.setdefault((case, tokens), {}).setdefault(name, []).append(run(command, environment))
    table(figures, list(found), args)
    if args.json:
        with open(args.json, "w") as file:
            json.dump([{"case": case, "tokens": tokens, "program": name, "runs": runs}
                       for (case, tokens), by_name in figures.items() for name, runs in by_name.items()], file, indent=1)


def table(figures, names, args):
    median = lambda runs, field: statistics.median(run[field] for run in runs)
    print(f"{platform.machine()}, {args.threads} threads, medians of {args.rounds} rounds; tokens/s, and in brackets "
          "how many times faster lloco is\n")
    print("| case | tokens | " + " | ".join(names) + " |\n|---|---|" + "---|" * len(names))
    for (case, tokens), by_name in figures.items():
        cells = []
        for name in names:
            if name not in by_name:
                cells.append("")
                continue
            rate = median(by_name[name], "per_second")
            pairs = zip(by_name[name], by_name["lloco"])
            ratio = statistics.median(other["seconds"] / own["seconds"] for other, own in pairs)
            cells.append(f"{rate:,.1f}" if name == "lloco" else f"{rate:,.1f} ({ratio:.2f})")
        print(f"| {case} | {tokens:,} | " + " | ".join(cells) + " |")
    print("\nPeak memory, MB\n\n| case | tokens | " + " | ".join(names) + " |\n|---|---|" + "---|" * len(names))
    for (case, tokens), by_name in figures.items():
        memory = lambda name: f"{median(by_name[name], 'peak_rss_bytes') / 1e6:,.0f}" if name in by_name else ""
        print(f"| {case} | {tokens:,} | " + " | ".join(map(memory, names)) + " |")


main()
