"""The cases of `measure` that llama.cpp has, through llama-cpp-python:
llamacpp.py GGUF prefill|decode TOKENS IDS.json [RUNS] [--threads N]

It reads the GGUF's blocks as they are. Prints one line of JSON.
"""

import argparse, json, resource, statistics, time

from llama_cpp import Llama

STEPS = 32


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf")
    parser.add_argument("case", choices=["prefill", "decode"])
    parser.add_argument("tokens", type=int)
    parser.add_argument("ids")
    parser.add_argument("runs", type=int, nargs="?", default=1)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    ids = json.load(open(args.ids))["ids"]
    model = Llama(args.gguf, n_ctx=args.tokens + STEPS + 8, n_batch=512, n_threads=args.threads,
                  n_threads_batch=args.threads, verbose=False)

    def prefill():
        model.reset()
        model.eval(ids[:args.tokens])

    def decode():
        for _ in range(STEPS):
            model.eval(ids[:1])

    count, work = args.tokens, prefill
    if args.case == "decode":
        count, work = STEPS, decode
    seconds = []
    for _ in range(args.runs):
        if args.case == "decode":
            prefill()
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    median = statistics.median_high(seconds)
    print(json.dumps({"case": args.case, "tokens": args.tokens, "seconds": median, "per_second": count / median,
                      "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


main()
