"""The cases of `measure`, in PyTorch: pytorch.py MODEL CASE TOKENS IDS.json [RUNS] [--dtype f32|bf16] [--device cuda]

Same weights (a GGUF file, dequantised; random:CONFIG.json for random ones; or a directory, which `pytorch.py GGUF save 0
DIRECTORY` makes of a GGUF file, to start quicker), same token ids ("-": of no meaning). transformers does the model with scaled_dot_product_attention, peft the adapter. Prints one line of JSON. The peak memory
is that of the work and the model, without the copies that dequantising needed.
"""

import argparse, ctypes, gc, json, os, resource, statistics, time

import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

SEGMENT, SUMMARY, STEPS = 1536, 50, 32
# Tokens of a question in front of an answer of STEPS tokens.
QUESTION = 12


def load(path, dtype, device):
    if path.startswith("random:"):
        shape = json.load(open(path.removeprefix("random:")))
        torch.set_default_dtype(dtype)
        with torch.device(device):
            return LlamaForCausalLM(LlamaConfig(**shape, attn_implementation="sdpa")).eval()
    if os.path.isdir(path):
        return LlamaForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="sdpa").to(device).eval()
    from gguf import GGUFReader
    from gguf.quants import dequantize

    reader = GGUFReader(path)
    field = lambda name: reader.fields[name].contents()
    key = lambda name: field("llama." + name)
    heads, kv_heads = key("attention.head_count"), key("attention.head_count_kv")
    config = LlamaConfig(
        vocab_size=len(field("tokenizer.ggml.tokens")), hidden_size=key("embedding_length"),
        intermediate_size=key("feed_forward_length"), num_hidden_layers=key("block_count"),
        num_attention_heads=heads, num_key_value_heads=kv_heads,
        max_position_embeddings=key("context_length"), rms_norm_eps=key("attention.layer_norm_rms_epsilon"),
        rope_theta=key("rope.freq_base"), tie_word_embeddings=True, attn_implementation="sdpa",
    )
    names = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
             "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
             "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
    weights = {}
    for tensor in reader.tensors:
        values = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy()).float()
        values = values.reshape(tuple(int(n) for n in reversed(tensor.shape)))
        parts = tensor.name.split(".")
        if parts[0] == "blk":
            if parts[2] in ("attn_q", "attn_k"):
                n = heads if parts[2] == "attn_q" else kv_heads
                rows, width = values.shape
                values = values.reshape(n, rows // n // 2, 2, width).swapaxes(1, 2).reshape(rows, width)
            name = f"model.layers.{parts[1]}.{names[parts[2]]}.weight"
        else:
            name = {"token_embd": "model.embed_tokens.weight", "output_norm": "model.norm.weight"}[parts[0]]
        weights[name] = values
    model = LlamaForCausalLM(config).eval()
    missing, unexpected = model.load_state_dict(weights, strict=False, assign=True)
    if set(missing) - {"lm_head.weight"} or unexpected:
        raise SystemExit(f"{path}: missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    return model.to(device, dtype)


@torch.no_grad()
def compress(model, ids):
    """The AutoCompressor loop: each segment with its summary tokens, behind the summaries so far."""
    embed = model.get_input_embeddings()
    summary_tokens = embed(torch.full((1, SUMMARY), model.config.eos_token_id or 0, device=model.device))
    softprompt = summary_tokens[:, :0]
    for start in range(0, len(ids), SEGMENT):
        segment = embed(torch.tensor([ids[start:start + SEGMENT]], device=model.device))
        hidden = model.model(inputs_embeds=torch.cat([softprompt, segment, summary_tokens], 1)).last_hidden_state
        softprompt = torch.cat([softprompt, hidden[:, -SUMMARY:]], 1)
    return softprompt


@torch.no_grad()
def prefill(model, ids):
    cache = DynamicCache()
    model(torch.tensor([ids], device=model.device), past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache


def filled(model, past):
    """A cache of `past` positions. Their values do not matter to the time, and a prefill takes minutes in bf16."""
    cache, config = DynamicCache(), model.config
    shape = (1, config.num_key_value_heads, past, config.head_dim)
    for layer in range(config.num_hidden_layers):
        cache.update(*(torch.randn(shape, dtype=model.dtype, device=model.device) for _ in range(2)), layer)
    return cache


@torch.no_grad()
def decode(model, cache, ids):
    for _ in range(STEPS):
        model(torch.tensor([ids[:1]], device=model.device), past_key_values=cache, use_cache=True)
        cache.crop(-1)


@torch.no_grad()
def answer(model, ids, tokens, summaries):
    """Positions of the prompt, seconds until the first of 32 tokens is there, and seconds of the others. The prompt is a
    question behind `tokens` tokens of text, or behind as many made-up vectors as lloco's summaries of them have."""
    question = torch.tensor([ids[:QUESTION]], device=model.device)
    if summaries:
        embed = model.get_input_embeddings()
        shape = (1, -(-tokens // SEGMENT) * SUMMARY, embed.weight.shape[1])
        softprompt = torch.randn(shape, dtype=model.dtype, device=model.device) * 0.1
        prompt = {"inputs_embeds": torch.cat([softprompt, embed(question)], 1)}
    else:
        prompt = {"input_ids": torch.cat([torch.tensor([ids[:tokens]], device=model.device), question], 1)}
    positions = next(iter(prompt.values())).shape[1]
    start, cache = now(model), DynamicCache()
    scores = model(**prompt, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
    first = now(model)
    for _ in range(STEPS - 1):
        scores = model(scores[:, -1].argmax(-1, keepdim=True), past_key_values=cache, use_cache=True).logits
    return positions, first - start, now(model) - first


def now(model):
    """The time at which the device has done all that it was asked for."""
    if model.device.type != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def answers(model, ids, args):
    """The report of `answer`, both sides in turns, or of one side."""
    run = lambda summaries: answer(model, ids, args.tokens, summaries)
    middle = statistics.median_high
    if args.case != "answer":
        runs = [run(args.case == "answer-summaries") for _ in range(args.runs)]
        return {"positions": runs[0][0], "seconds": middle(prefill + decode for _, prefill, decode in runs),
                "prefill_seconds": middle(run[1] for run in runs), "decode_seconds": middle(run[2] for run in runs)}
    pairs = [(run(True), run(False)) for _ in range(args.runs)]
    seconds = [(sum(short[1:]), sum(long[1:])) for short, long in pairs]
    return {"seconds": middle(short for short, _ in seconds), "summaries_positions": pairs[0][0][0],
            "text_seconds": middle(long for _, long in seconds), "text_positions": pairs[0][1][0],
            "ratio": middle(long / short for short, long in seconds)}


def finetuning(model, vectors, ids):
    from peft import LoraConfig, get_peft_model

    prompt, answer = ids[:150], ids[150:200]
    model.requires_grad_(False)
    model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]))
    model.train()
    embed = model.get_input_embeddings()
    softprompt = torch.randn(1, vectors, embed.weight.shape[1], dtype=embed.weight.dtype, device=model.device) * 0.1
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-4)
    targets = torch.tensor(answer, device=model.device)

    def step(vectors=vectors):
        inputs = torch.cat([softprompt[:, :vectors], embed(torch.tensor([prompt + answer[:-1]], device=model.device))], 1)
        logits = model(inputs_embeds=inputs, logits_to_keep=len(answer)).logits[0]
        torch.nn.functional.cross_entropy(logits.float(), targets).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def forget_peak():
    """From here on counts the peak anew, where the system can."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except (AttributeError, OSError):
        pass


def peak():
    try:
        lines = open("/proc/self/status").read().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("case", choices=["compress", "prefill", "decode", "answer", "answer-summaries",
                                         "answer-text", "finetune", "save"])
    parser.add_argument("tokens", type=int)
    parser.add_argument("ids")
    parser.add_argument("runs", type=int, nargs="?", default=1)
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = load(args.model, torch.float32 if args.dtype == "f32" else torch.bfloat16, args.device)
    if args.case == "save":
        return model.save_pretrained(args.ids)
    forget_peak()
    if args.ids == "-":
        ids = [i * 2654435761 % model.config.vocab_size for i in range(max(args.tokens, 200))]
    else:
        ids = json.load(open(args.ids))["ids"]
    if args.case.startswith("answer"):
        # The first answers of a GPU do not count.
        if args.device != "cpu":
            answers(model, ids, argparse.Namespace(**dict(vars(args), runs=1)))
        report = answers(model, ids, args)
        return print(json.dumps(dict(report, case=args.case, tokens=args.tokens, peak_rss_bytes=peak())))
    count = args.tokens
    if args.case == "compress":
        work = lambda: compress(model, ids[:args.tokens])
    elif args.case == "prefill":
        work = lambda: prefill(model, ids[:args.tokens])
    elif args.case == "decode":
        cache = filled(model, args.tokens)
        decode(model, cache, ids)
        work, count = lambda: decode(model, cache, ids), STEPS
    else:
        work, count = finetuning(model, args.tokens, ids), args.tokens + 200
        # A small step first, which does not count.
        work(vectors=8)
    # The first run of a GPU does not count.
    if args.device != "cpu":
        work()
    seconds = []
    for _ in range(args.runs):
        start = now(model)
        work()
        seconds.append(now(model) - start)
    median = statistics.median_high(seconds)
    print(json.dumps({"case": args.case, "tokens": args.tokens, "seconds": median, "per_second": count / median,
                      "peak_rss_bytes": peak()}))


main()
