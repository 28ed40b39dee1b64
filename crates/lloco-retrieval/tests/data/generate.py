#!/usr/bin/env python3
"""Writes the tests' data: a tiny random BERT and the reference vectors of the parity tests.

    pip install torch transformers tokenizers safetensors
    python3 generate.py                      # tiny-bert/ and tiny-bert.json
    python3 generate.py --minilm DIRECTORY   # minilm.json, from all-MiniLM-L6-v2

Vectors come from transformers' BertModel in f32, pooled as sentence-transformers does.
"""

import argparse
import json
import pathlib

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerFast

HERE = pathlib.Path(__file__).parent

TEXTS = [
    "The pump stands in the cellar.",
    "",
    "Who decided on the budget?",
    "The committee met at nine. It decided on the budget for the new pump, and on the "
    "inspection of the cellar; nothing else was on the list for that day.",
    "Größe, naïve café — crème brûlée!",
    "北京的天气很好",
    "pump",
    "Numbers: 3.14, 1,536 and 2024-02-29.\n\n\tTabs,  spaces\nand line ends.",
]


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def vectors(model, tokenizer, texts, max_length, prefix=""):
    """Mean-pooled and first-token vectors, one text at a time: no padding involved."""
    mean, first = [], []
    for text in texts:
        batch = tokenizer(prefix + text, truncation=True, max_length=max_length, return_tensors="pt")
        batch.pop("token_type_ids", None)
        with torch.no_grad():
            states = model(**batch).last_hidden_state[0]
        mean.append(states.mean(0))
        first.append(states[0])
    return torch.stack(mean), torch.stack(first)


def rounded(matrix):
    return [[float(f"{value:.8g}") for value in row] for row in matrix.tolist()]


def tiny():
    out = HERE / "tiny-bert"
    (out / "1_Pooling").mkdir(parents=True, exist_ok=True)

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        TEXTS, trainers.WordPieceTrainer(vocab_size=220, special_tokens=special, show_progress=False)
    )
    ids = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    # Settings that a loader must not obey: lengths come from sentence_bert_config.json.
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=16)
    tokenizer.save(str(out / "tokenizer.json"))

    torch.manual_seed(20240411)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=48,
        initializer_range=0.2,
        layer_norm_eps=1e-12,
    )
    model = BertModel(config, add_pooling_layer=False).eval()
    with torch.no_grad():  # biases and norms start as 0 and 1; make them matter
        for name, parameter in model.named_parameters():
            if "bias" in name or "LayerNorm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(out)

    write_json(out / "modules.json", [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ])
    write_json(out / "1_Pooling" / "config.json", {
        "word_embedding_dimension": 32,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    })
    write_json(out / "sentence_bert_config.json", {"max_seq_length": 40, "do_lower_case": False})
    write_json(out / "config_sentence_transformers.json", {
        "prompts": {"query": "query: ", "passage": "passage: "},
    })

    tokenizer.no_truncation()
    tokenizer.no_padding()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    reference = {"texts": TEXTS}
    for name, prefix in (("plain", ""), ("query", "query: ")):
        mean, first = vectors(model, fast, TEXTS, 40, prefix)
        reference[name] = {"mean": rounded(mean), "cls": rounded(first)}
    write_json(HERE / "tiny-bert.json", reference)


def minilm(directory):
    model = BertModel.from_pretrained(directory, add_pooling_layer=False).eval()
    mean, _ = vectors(model, AutoTokenizer.from_pretrained(directory), TEXTS, 256)
    mean = torch.nn.functional.normalize(mean)
    write_json(HERE / "minilm.json", {"texts": TEXTS, "vectors": rounded(mean)})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minilm", metavar="DIRECTORY")
    directory = parser.parse_args().minilm
    minilm(directory) if directory else tiny()
