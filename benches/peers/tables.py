"""The tables that compare.py prints."""

import datetime, os, platform, statistics
from importlib import metadata

BEGIN, END = "<!-- figures: written by benches/peers/compare.py -->", "<!-- end of figures -->"
NAMES = {"finetune": "LoRA step, 300 summary vectors + 200 tokens", "compress": "compress"}


def median(runs, field):
    return statistics.median(run[field] for run in runs)


def ratio(figures, case, name):
    """How many times faster lloco is, the median over the rounds; None where the program has no figure."""
    by_name = figures.get(case, {})
    if name not in by_name or "lloco" not in by_name:
        return None
    others, own = by_name[name], by_name["lloco"]
    if len(others) != len(own):
        return median(others, "seconds") / median(own, "seconds")
    return statistics.median(other["seconds"] / own["seconds"] for other, own in zip(others, own))


def title(case):
    name, tokens = case
    return NAMES[name] if name == "finetune" else f"{name} {'behind ' if name == 'decode' else ''}{tokens:,}"


def speeds(figures, cases, names):
    yield "| case | " + " | ".join(names) + " |\n|---|" + "---|" * len(names)
    for case in cases:
        cells = []
        for name in names:
            runs = figures[case].get(name)
            if not runs:
                cells.append("")
                continue
            once = "" if len(runs) > 1 else " (once)"
            rate = f"{median(runs, 'per_second'):,.1f}{once}"
            times = ratio(figures, case, name)
            cells.append(rate if name == "lloco" or times is None else f"{rate}: **{times:.2f}**")
        yield f"| {title(case)} | " + " | ".join(cells) + " |"


def memory(figures, cases, names):
    yield "| case | " + " | ".join(names) + " |\n|---|" + "---|" * len(names)
    for case in cases:
        runs = figures[case]
        cells = [f"{median(runs[name], 'peak_rss_bytes') / 1e6:,.0f}" if name in runs else "" for name in names]
        yield f"| {title(case)} | " + " | ".join(cells) + " |"


def shares(figures, cases):
    """Rows of the table of limits, and the share of each case."""
    limits = figures[("limits", 1)]["lloco"]
    limit = {"operations": median(limits, "product_flops"), "bytes": median(limits, "bandwidth")}
    rows, found = ["| case | reached | limit | share |\n|---|---|---|---|"], {}
    for case in cases:
        runs = figures[case].get("lloco")
        if not runs:
            continue
        field = "operations" if "operations" in runs[0] else "bytes"
        rate = statistics.median(run[field] / run["seconds"] for run in runs)
        found[case] = rate / limit[field]
        unit = "GFLOP/s" if field == "operations" else "GB/s"
        rows.append(f"| {title(case)} | {rate / 1e9:.1f} {unit} | {limit[field] / 1e9:.1f} {unit} | {found[case]:.0%} |")
    return rows, found


def answers(figures, names):
    """Answers behind summaries and behind the text, where any were measured."""
    for (case, tokens), runs in figures.items():
        if case != "answer" or not runs:
            continue
        yield f"\n32 tokens of answer behind {tokens:,} tokens:\n"
        yield "| program | from summaries, s | from the text, s | ratio |\n|---|---|---|---|"
        for name in filter(runs.get, names):
            short, long, times = (median(runs[name], field) for field in ("seconds", "text_seconds", "ratio"))
            yield f"| {name} | {short:.2f} | {long:.2f} | {times:.2f} |"


def targets(figures, cases, share):
    def row(what, aim, found, least=True):
        if found is None:
            return f"| {what} | {aim} | not measured | |"
        met = found >= aim if least else found <= aim
        number = (lambda x: f"{x:.0%}") if aim < 1 else (lambda x: f"{x:.2f}")
        by = "met" if met else f"missed: {found / aim:.2f} of it" if least else f"missed: {found / aim:.2f} times as much"
        return f"| {what} | {'>=' if least else '<='} {number(aim)} | {number(found)} | {by} |"

    yield "| target | aim | found | |\n|---|---|---|---|"
    for case in cases:
        name = title(case)
        f32, bf16 = (ratio(figures, case, f"PyTorch {dtype}") for dtype in ("f32", "bf16"))
        if case[0] in ("compress", "prefill"):
            yield row(f"{name}, against PyTorch bf16", 1.0, bf16)
            yield row(f"{name}, against PyTorch f32", 4.0, f32)
            yield row(f"{name}, share of the matrix-product rate", 0.5, share.get(case))
        elif case[0] == "decode":
            yield row(f"{name}, against the better PyTorch", 1.0, min([r for r in (f32, bf16) if r], default=None))
            yield row(f"{name}, share of the memory bandwidth", 0.6, share.get(case))
        else:
            yield row(f"{name}, against PyTorch and peft bf16", 1.0, bf16)
    alone = {case: figures[case]["lloco"] for case in figures if "lloco" in figures[case]}
    step, text = alone.get(("finetune", 300)), alone.get(("finetune-text", 9216))
    yield row("LoRA step, against the step on 9,216 tokens of text", 11.52,
              median(text, "seconds") / median(step, "seconds") if step and text else None)
    answer = alone.get(("answer", 7936))
    yield row("32 tokens of answer from summaries, against 7,936 tokens of text", 7.62,
              median(answer, "ratio") if answer else None)
    one, many = alone.get(("memory", 1536)), alone.get(("memory", 122880))
    yield row("peak memory of compressing 122,880 tokens, against one segment", 1.1,
              median(many, "peak_rss_bytes") / median(one, "peak_rss_bytes") if one and many else None, least=False)


def machine():
    info = open("/proc/cpuinfo").read().splitlines()
    field = lambda name: next((line.split(":", 1)[1].strip() for line in info if line.startswith(name)), "")
    flags = field("flags").split()
    sets = [name for name, flag in [("AVX2", "avx2"), ("FMA", "fma"), ("AVX-512", "avx512f"), ("AVX-512 BF16", "avx512_bf16"),
                                    ("AMX", "amx_bf16")] if flag in flags]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return (f"{field('model name') or platform.machine()} (family {field('cpu family')}, model {field('model')}), "
            f"{os.cpu_count()} cores, {', '.join(sets)}; {memory:.0f} GB")


def version(package):
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return f"no {package}"


def page(figures, cases, args):
    names = [name for name in ("lloco", "PyTorch f32", "PyTorch bf16", "candle", "llama.cpp")
             if any(name in figures[case] for case in cases)]
    lines = [f"Machine: {machine()}. {args.threads} threads. Date: {datetime.date.today()}. "
             + ", ".join(map(version, ("torch", "transformers", "peft", "xllamacpp"))) + ".\n",
             "Tokens a second, and in bold how many times faster lloco is:\n", *speeds(figures, cases, names),
             "\nPeak memory, MB:\n", *memory(figures, cases, names), *answers(figures, names)]
    share = {}
    if ("limits", 1) in figures:
        rows, share = shares(figures, cases)
        lines += ["\nShare of what this machine can do, the linear kernel alone or its memory:\n", *rows]
    lines += ["\nTargets:\n", *targets(figures, cases, share)]
    text = "\n".join(lines)
    print(text)
    if args.page:
        with open(args.page) as file:
            before, rest = file.read().split(BEGIN)
        with open(args.page, "w") as file:
            file.write(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}")
