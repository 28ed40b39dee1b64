"""The cases of `measure` that llama.cpp has, through the package xllamacpp, whose wheels bring it built:
llamacpp.py GGUF prefill|decode TOKENS IDS.json [RUNS] [--threads N]

It reads the GGUF's blocks as they are. The times are llama.cpp's own; a decoded token is also picked, the likeliest one.
Prints one line of JSON.
"""

import argparse, json, resource, statistics

import xllamacpp

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
    ids = json.load(open(args.ids))["ids"][:args.tokens]
    params = xllamacpp.CommonParams()
    params.model.path = args.gguf
    params.n_ctx = args.tokens + STEPS + 8
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = args.threads
    params.verbosity = -1
    server = xllamacpp.Server(params)

    def times(prompt, predict):
        reply = server.handle_completions({"prompt": prompt, "n_predict": predict, "cache_prompt": False,
                                           "ignore_eos": True, "samplers": ["top_k"], "top_k": 1})
        times = reply["timings"]
        expected = (len(prompt), predict)
        if (times["prompt_n"], times["predicted_n"]) != expected:
            raise SystemExit(f"llama.cpp read and made {times['prompt_n'], times['predicted_n']} tokens, not {expected}")
        return times

    count = args.tokens if args.case == "prefill" else STEPS
    seconds = []
    for _ in range(args.runs):
        if args.case == "prefill":
            seconds.append(times(ids, 1)["prompt_ms"] / 1000)
        else:
            # The first token comes of the prompt.
            found = times(ids, STEPS + 1)
            seconds.append(found["predicted_ms"] / 1000 * STEPS / (STEPS + 1))
    median = statistics.median_high(seconds)
    print(json.dumps({"case": args.case, "tokens": args.tokens, "seconds": median, "per_second": count / median,
                      "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


main()
