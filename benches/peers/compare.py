#!/usr/bin/env python3
"""Times lloco and its peers on the same work, in turns, and prints the tables of docs/results/cpu.md.

    benches/peers/setup.sh                    # once: builds and installs what is compared
    benches/peers/.venv/bin/python benches/peers/compare.py --gguf FILE.gguf [--rounds 3] [--page docs/results/cpu.md]

One round runs each program once on each case, one after the other, each in a process of its own. Figures are medians
over the rounds; a ratio is the median over the rounds too, above 1 where lloco is faster. A program that took more than
a minute and a half on a case does not run it again; a run that other work disturbed is repeated once.

It takes an hour. `--figures FILE.json` keeps every figure, and `--only CASE` measures one case and leaves the others as
they are in that file; `--only none` measures nothing. `--page` puts the tables between the two marks of that page.
"""

import argparse, json, os, resource, subprocess, sys, tempfile, time

from tables import page

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
# What all programs do, as far as they can.
CASES = [("prefill", 512), ("prefill", 1536), ("prefill", 4096), ("decode", 64), ("decode", 1024), ("decode", 4096),
         ("compress", 3072), ("finetune", 300)]
# What lloco does alone, but for answers, which PyTorch gives too: limits of the machine, the paper's two claims, and memory.
ALONE = [("limits", 1), ("answer", 7936), ("finetune-text", 9216), ("memory", 1536), ("memory", 122880)]
# Seconds after which a program does not run a case again, and the share of the machine that others may take.
SLOW, DISTURBED = 90, 0.1


def programs(args, folder):
    python = os.path.join(HERE, ".venv", "bin", "python")

    def weights(dtype):
        """The GGUF's weights as PyTorch loads them quickest."""
        path = os.path.join(folder, dtype)
        if not os.path.exists(path):
            subprocess.run([python, os.path.join(HERE, "pytorch.py"), args.gguf, "save", "0", path, "--dtype", dtype],
                           check=True, capture_output=True)
        return path

    threads = ["--threads", str(args.threads)]
    measure = os.path.join(TARGET, "release", "measure")
    candle = os.path.join(HERE, "candle", "target", "release", "candle-peer")
    torch = lambda dtype: lambda case, tokens, ids: [python, os.path.join(HERE, "pytorch.py"), weights(dtype), case,
                                                     str(tokens), ids, args.runs, "--dtype", dtype, *threads]
    # Memory is that of compression.
    found = {"lloco": lambda case, tokens, ids: [measure, case.replace("memory", "compress"), str(tokens), args.runs]}
    found["PyTorch f32"] = torch("f32")
    found["PyTorch bf16"] = torch("bf16")
    if os.path.exists(candle):
        # Minutes for 1,536 tokens: longer texts are left out.
        found["candle"] = lambda case, tokens, ids: case in ("prefill", "decode") and tokens <= 1536 and [
            candle, args.gguf, case, str(tokens), ids, args.runs]
    if subprocess.run([python, "-c", "import xllamacpp"], capture_output=True).returncode == 0:
        found["llama.cpp"] = lambda case, tokens, ids: case in ("prefill", "decode") and [
            python, os.path.join(HERE, "llamacpp.py"), args.gguf, case, str(tokens), ids, args.runs, *threads]
    return found


def run(command, environment):
    """The line of JSON that a command prints, and `others`, the share of the machine that other programs took."""
    before, own, start = busy(), children(), time.monotonic()
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}:\n{result.stderr[-2000:]}")
    others = (busy() - before) - (children() - own)
    report = json.loads(result.stdout.strip().splitlines()[-1])
    return dict(report, others=max(0, others) / (os.cpu_count() * (time.monotonic() - start)))


def busy():
    """Seconds that all cores together have worked; 0 where the system does not tell."""
    try:
        with open("/proc/stat") as file:
            user, nice, system, _, _, *interrupts = map(int, file.readline().split()[1:8])
    except OSError:
        return 0
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def children():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def undisturbed(command, environment):
    """The run that others disturbed least: the first with less than a tenth of the machine gone, of two at most."""
    first = run(command, environment)
    if first["others"] < DISTURBED:
        return first
    print(f"  others took {first['others']:.0%} of the machine: again", file=sys.stderr)
    return min(first, run(command, environment), key=lambda report: report["others"])


def measure(args, found, case, tokens, ids, environment, figures, keep):
    """Puts the figures of one case into `figures`: a list for each program."""
    slow = set()
    for name in found:
        figures.pop(name, None)
    for turn in range(args.rounds):
        for name, command in found.items():
            command = name not in slow and command(case, tokens, ids)
            if not command:
                continue
            print(f"{case} {tokens}, round {turn + 1}: {name}", file=sys.stderr)
            start = time.monotonic()
            figures.setdefault(name, []).append(undisturbed(command, environment))
            keep()
            if time.monotonic() - start > SLOW:
                slow.add(name)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", required=True, help="the default model's file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", default="1", help="timed runs in a process; the median counts")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", action="append", help="a case, such as prefill or prefill:512; may be repeated")
    parser.add_argument("--programs", action="append", help="a program; may be repeated")
    parser.add_argument("--figures", help="a file that keeps every figure")
    parser.add_argument("--folder", help="a directory that keeps the weights for PyTorch")
    parser.add_argument("--page", help="a page to put the tables into")
    args = parser.parse_args()
    environment = dict(os.environ, LLOCO_MODEL=args.gguf, RAYON_NUM_THREADS=str(args.threads),
                       OMP_NUM_THREADS=str(args.threads), TOKENIZERS_PARALLELISM="false")
    figures = {}
    if args.figures and os.path.exists(args.figures):
        with open(args.figures) as file:
            figures = {(entry["case"], entry["tokens"]): entry["programs"] for entry in json.load(file)}

    def keep():
        if args.figures:
            with open(args.figures, "w") as file:
                json.dump([{"case": case, "tokens": tokens, "programs": programs}
                           for (case, tokens), programs in figures.items()], file, indent=1)

    with tempfile.TemporaryDirectory() as folder:
        folder = args.folder or folder
        found = programs(args, folder)
        ids = os.path.join(folder, "ids.json")
        with open(ids, "w") as file:
            json.dump(run([os.path.join(TARGET, "release", "measure"), "ids", "8000"], environment), file)
        for case, tokens in CASES + ALONE:
            if args.only is not None and case not in args.only and f"{case}:{tokens}" not in args.only:
                continue
            asked = {name: command for name, command in found.items()
                     if name in (args.programs or found) and (name == "lloco" or case == "answer" or (case, tokens) in CASES)}
            measure(args, asked, case, tokens, ids, environment, figures.setdefault((case, tokens), {}), keep)
    page(figures, [case for case in CASES if case in figures], args)


main()
