"""Reference run of SmolLM2-135M-Instruct from its GGUF file, in PyTorch.

    python3 -m pip install gguf numpy torch transformers tokenizers
    python3 smollm2_reference.py SmolLM2-135M-Instruct.Q4_1.gguf > smollm2_reference.json

The blocks are dequantised by the `gguf` package and run as f32 by transformers' LlamaForCausalLM, so nothing
of this repository takes part in what its output is compared with.
"""

import json
import sys

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

PROMPTS = [
    "The quick brown fox jumps over the lazy dog. In 1984, it was a cold day in April.",
    "The capital of France is",
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\nName three primary colours.<|im_end|>\n<|im_start|>assistant\n",
    "def fibonacci(n):\n    \"\"\"Return the n-th number.\"\"\"\n    if n < 2:\n        return n\n    return",
    "Prices rose by 12.5% in 2023 — naïve façade, 東京, \U0001f642\n\n\tand so on...   ",
]
NEW_TOKENS = 32
NAMES = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}


def halves(rows, heads):
    """Undoes the interleaving of rotary pairs that conversion to GGUF makes."""
    return rows.reshape(heads, rows.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def load_model(reader, field):
    config = LlamaConfig(
        hidden_size=field("llama.embedding_length"), intermediate_size=field("llama.feed_forward_length"),
        num_hidden_layers=field("llama.block_count"), num_attention_heads=field("llama.attention.head_count"),
        num_key_value_heads=field("llama.attention.head_count_kv"), vocab_size=field("llama.vocab_size"),
        max_position_embeddings=field("llama.context_length"), rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": field("llama.rope.freq_base")},
        tie_word_embeddings=True, attn_implementation="eager",
    )
    assert abs(field("llama.attention.layer_norm_rms_epsilon") - config.rms_norm_eps) < 1e-9
    weights = {}
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        values = values.reshape([int(n) for n in reversed(tensor.shape)])
        parts = tensor.name.split(".")
        if parts[0] == "blk":
            if parts[2] in ("attn_q", "attn_k"):
                heads = config.num_attention_heads if parts[2] == "attn_q" else config.num_key_value_heads
                values = halves(values, heads)
            name = f"model.layers.{parts[1]}.{NAMES[parts[2]]}.weight"
        else:
            name = {"token_embd": "model.embed_tokens.weight", "output_norm": "model.norm.weight"}[parts[0]]
        weights[name] = torch.from_numpy(values.copy())
    model = LlamaForCausalLM(config).float().eval()
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert missing == ["lm_head.weight"] and not unexpected, (missing, unexpected)
    model.tie_weights()
    return model, weights


def load_tokenizer(field):
    tokens = field("tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in field("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE({token: id for id, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, field("tokenizer.ggml.token_type")) if kind == 3]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in control])
    return tokenizer


@torch.no_grad()
def run(model, tokenizer, prompt):
    ids = tokenizer.encode(prompt, add_special_tokens=False).ids
    logits = model(torch.tensor([ids])).logits[0]
    nll = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:])).item()
    final = logits[-1]
    top = torch.topk(final, 10)
    greedy, margins, step = [], [], model(torch.tensor([ids]), use_cache=True)
    for _ in range(NEW_TOKENS):
        best = torch.topk(step.logits[0, -1], 2)
        greedy.append(best.indices[0].item())
        margins.append(round((best.values[0] - best.values[1]).item(), 4))
        step = model(best.indices[None, :1], past_key_values=step.past_key_values, use_cache=True)
    return {
        "prompt": prompt, "ids": ids, "mean_nll": nll,
        "top_logits": [[i.item(), v.item()] for v, i in zip(top.values, top.indices)],
        "first_logits": final[:16].tolist(), "logits_l2": final.double().norm().item(),
        "greedy": greedy, "greedy_margins": margins, "greedy_text": tokenizer.decode(greedy, skip_special_tokens=True),
    }


def main():
    reader = GGUFReader(sys.argv[1])
    field = lambda name: reader.fields[name].contents()
    model, weights = load_model(reader, field)
    tokenizer = load_tokenizer(field)
    sampled = ["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight",
               "model.layers.17.self_attn.k_proj.weight", "model.layers.29.mlp.down_proj.weight", "model.norm.weight"]
    report = {
        "note": f"f32 on CPU, torch {torch.__version__}, greedy",
        "tensors": {name: {"shape": list(weights[name].shape), "first": weights[name].flatten()[:8].tolist(),
                           "last": weights[name].flatten()[-4:].tolist(),
                           "sum": weights[name].double().sum().item(),
                           "squares": weights[name].double().square().sum().item()} for name in sampled},
        "runs": [run(model, tokenizer, prompt) for prompt in PROMPTS],
    }
    json.dump(report, sys.stdout, indent=1, ensure_ascii=False)
    print()


main()
