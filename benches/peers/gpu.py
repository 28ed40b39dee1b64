#!/usr/bin/env python3
"""The tables of benches/gpu.sh: lloco and PyTorch on the same card, beside the limits that lloco's kernels reach alone.

    benches/peers/gpu.py --figures FILE.jsonl [--gguf FILE.gguf] [--device cuda] [--seconds 1500]

Each figure is appended to FILE.jsonl as soon as it is there; started again, only what is missing is measured. A case that
does not fit in the card's memory, or takes too long, is a row that says so. Shares are of lloco's count of operations or
bytes, whichever program did the work.
"""

import argparse, json, os, queue, re, subprocess, sys, tempfile, threading, time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
WORK = ["limits:1", "prefill:1536", "prefill:4096", "decode:1024", "decode:4096", "compress:6144", "finetune:300"]


def answers(*lengths):
    return [f"answer-{side}:{tokens}" for tokens in lengths for side in ("summaries", "text")]


# Shapes first: they need no download.
SHAPES, SMALL = "LLaMA-2-7B shapes, random bf16 weights", "SmolLM2-135M, bf16"
TABLES = {SHAPES: WORK + answers(4096, 8192, 32768, 65536, 131072), SMALL: WORK + answers(2048, 4096, 7936)}
# From this many tokens on a case is measured once, with more time.
LONG = 65536
# Seconds that a case may take, and a long one, and how much more the first of a process, which loads the model.
PATIENCE, LONG_PATIENCE, LOADING = 180, 420, 240
FULL, LATE = "out of memory", "no time left"


class Memory:
    """The most memory that the card held, in MiB, where nvidia-smi tells."""

    def __init__(self):
        self.most = None
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-lms", "200"]
        try:
            self.watcher = subprocess.Popen(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        except OSError:
            self.watcher = None
            return
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        for line in self.watcher.stdout:
            if line.strip().isdigit():
                self.most = max(self.most or 0, int(line))

    def end(self):
        if self.watcher:
            self.watcher.kill()
            self.watcher.wait()


def reports(command, cases, environment, end, memory):
    """The report of each case as soon as it is there, from a program that prints a line of JSON for each. Where the program
    ends or stays too long, the case has failed, and the program starts again for the rest."""
    cases = list(cases)
    while cases:
        with tempfile.TemporaryFile("w+") as errors:
            if time.monotonic() >= end:
                yield cases.pop(0), {"failed": LATE}
                continue
            process = subprocess.Popen(command(cases), stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
            lines, loading = queue.Queue(), LOADING
            threading.Thread(target=listen, args=(process.stdout, lines), daemon=True).start()
            try:
                while cases:
                    memory.most = None
                    report = next_report(lines, loading + patience(cases[0]), end, errors)
                    yield cases.pop(0), dict(report, card_mib=memory.most)
                    loading = 0
                    if "failed" in report:
                        break
            finally:
                process.kill()
                process.wait()


def listen(stream, lines):
    for line in stream:
        if line.startswith("{"):
            lines.put(line)
    lines.put(None)


def patience(case):
    return LONG_PATIENCE if int(case.split(":")[1]) >= LONG else PATIENCE


def next_report(lines, limit, end, errors):
    left = end - time.monotonic()
    try:
        line = lines.get(timeout=max(0, min(limit, left)))
    except queue.Empty:
        return {"failed": f"longer than {limit} s" if limit < left else LATE}
    if line is not None:
        return json.loads(line)
    errors.seek(0)
    text = errors.read()
    if re.search("out.of.memory|OutOfMemory|can't allocate", text, re.IGNORECASE):
        return {"failed": FULL}
    said = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("note:")]
    return {"failed": said[-1][:120].replace("|", "/") if said else "ended without a word"}


def share(counted, limits, seconds, field, limit):
    if not seconds or field not in counted or limit not in limits:
        return None
    return f"{counted[field] / seconds / limits[limit]:.0%} of {'products' if field == 'operations' else 'bandwidth'}"


def row(table, program, case, found):
    """One row; `found` has all reports so far, by table, program and case."""
    report, name, tokens = found[table, program, case], *case.split(":")
    memory = report.get("card_mib") or ""
    start = f"| {name} | {int(tokens):,} | {program} |"
    if "failed" in report:
        return f"{start} {report['failed']} | | | {memory} |"
    if name == "limits":
        return (f"| limits | | {program} | {report['product_flops'] / 1e12:.1f} TFLOP/s, "
                f"{report['bandwidth'] / 1e9:.0f} GB/s | | | {memory} |")
    own = lambda case: found.get((table, "lloco", case), {})
    counted, limits, speed = own(case), own("limits:1"), ""
    if name.startswith("answer"):
        shares = [share(counted, limits, report["prefill_seconds"], "operations", "product_flops"),
                  share(counted, limits, report["decode_seconds"], "bytes", "bandwidth")]
        short = found.get((table, program, f"answer-summaries:{tokens}"), {}).get("seconds")
        if name == "answer-text" and short:
            speed = f"{report['seconds'] / short:.2f} times as long as from summaries"
    else:
        speed = f"{report['per_second']:,.1f}"
        shares = [share(counted, limits, report["seconds"], "operations", "product_flops"),
                  share(counted, limits, report["seconds"], "bytes", "bandwidth")]
    return f"{start} {speed} | {report['seconds']:.3f} | {', '.join(filter(None, shares))} | {memory} |"


def kept(path):
    """What earlier runs found. What failed for another reason than memory is tried again."""
    if not os.path.exists(path):
        return {}
    with open(path) as file:
        entries = [json.loads(line) for line in file if line.endswith("\n")]
    return {(entry["table"], entry["program"], entry["case"]): entry["report"] for entry in entries
            if entry["report"].get("failed", FULL) == FULL}


def has(python, *modules):
    return subprocess.run([python, "-c", f"import {', '.join(modules)}"], capture_output=True).returncode == 0


def programs(args, table):
    """The programs of a table: name, how many cases a process takes, and the command for those."""
    runs = lambda case: "1" if int(case.split(":")[1]) >= LONG else "3"
    lloco = lambda cases: [args.measure, "--device", args.device, "each", *(f"{case}:{runs(case)}" for case in cases)]
    yield "lloco", True, lloco
    python, model = sys.executable, shapes() if table == SHAPES else args.gguf
    if not has(python, "torch", "transformers"):
        print("PyTorch is left out: this Python has no torch and transformers.\n")
    elif model is None:
        print("PyTorch is left out: it needs the small model's file (GGUF=FILE.gguf).\n")
    elif table == SMALL and not has(python, "gguf"):
        print("PyTorch is left out: this Python has no gguf.\n")
    else:
        device = "cpu" if args.device == "cpu" else "cuda"
        yield "PyTorch", False, lambda cases: [
            python, os.path.join(HERE, "pytorch.py"), model, *cases[0].split(":"), "-", runs(cases[0]),
            "--dtype", "bf16", "--device", device]


def shapes():
    return "random:" + os.path.join(ROOT, "benches", "shapes", "llama-2-7b.json")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", required=True, help="a file that keeps every figure")
    parser.add_argument("--gguf", help="the small model's file")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--measure", default=os.path.join(ROOT, "target", "release", "measure"))
    parser.add_argument("--seconds", type=float, default=1500, help="when to end")
    parser.add_argument("--tables", help="a part of a table's name")
    parser.add_argument("--cases", nargs="+", help="other cases than the tables'")
    args = parser.parse_args()
    end, found, memory = time.monotonic() + args.seconds, kept(args.figures), Memory()
    try:
        for table, cases in TABLES.items():
            if args.tables and args.tables not in table:
                continue
            cases = args.cases or cases
            environment = dict(os.environ, LLOCO_WEIGHTS="bf16")
            model = shapes() if table == SHAPES else args.gguf
            environment.pop("LLOCO_MODEL", None)
            if model:
                environment["LLOCO_MODEL"] = model
            print(f"\n### {table}\n")
            # Told in front of the rows.
            listed = list(programs(args, table))
            print("| case | tokens | program | tokens/s | seconds | share of the card's limit | card memory, MiB |\n"
                  "|---|---|---|---|---|---|---|", flush=True)
            for program, together, command in listed:
                measure(args, table, program, together, command, cases, environment, end, memory, found)
    finally:
        memory.end()


def measure(args, table, program, together, command, cases, environment, end, memory, found):
    """Prints and keeps the rows of one program. The limits are lloco's."""
    cases = [case for case in cases if program == "lloco" or case != "limits:1"]
    for case in cases:
        if (table, program, case) in found:
            print(row(table, program, case, found), flush=True)
    missing = [case for case in cases if (table, program, case) not in found]
    for batch in [missing] if together else [[case] for case in missing]:
        for case, report in reports(command, batch, environment, end, memory):
            found[table, program, case] = report
            with open(args.figures, "a") as file:
                print(json.dumps({"table": table, "program": program, "case": case, "report": report}), file=file)
            print(row(table, program, case, found), flush=True)


if __name__ == "__main__":
    main()
