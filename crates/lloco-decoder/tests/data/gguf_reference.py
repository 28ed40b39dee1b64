"""Small GGUF files with independently computed expectations.

    python3 -m pip install gguf numpy sentencepiece tokenizers
    python3 gguf_reference.py ../../../../examples/data

Writes, beside itself:
- `blocks.gguf`: for each block type a tensor `NAME` of random blocks and a tensor `NAME.expected` with the
  values that the `gguf` package's dequantiser gives, and metadata of every value type.
- `byte_level_{gpt-2,smollm,llama-bpe,qwen2}.gguf` and `sentence_piece.gguf`: tokenizers trained on the texts of
  the given folder, without tensors.
- `token_ids.json`: ids of test sentences by the `tokenizers` and `sentencepiece` packages.
"""

import io
import json
import pathlib
import sys

import numpy as np
import sentencepiece
from gguf import GGMLQuantizationType as Type, GGUFWriter, quants
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).parent
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SENTENCES = [
    "", " ", "a", "Hello world", "  two  spaces   three", "It's what I'd've DONE, isn'T it?", "1234567 and 12 34.5%",
    "tab\tnewline\n\n\nand \r\n windows\r\n", "punctuation!!!\n\n(yes); [no] -- ... ", "naïve façade Ünïcödé é",
    "東京タワー 漢字かな。\nです", "emoji \U0001f642\U0001f469\u200d\U0001f469\u200d\U0001f467 end", "\u0000\u0007 control",
    "<s>in the text</s> and <|im_start|>user\nHi<|im_end|>", "trailing space ", "mixed123abc456 x_1 y-2", "   \n   \n  x",
    "The expedition reached the camp at noon; the log says so.", "▁ literal ▁▁ markers", "ÅÅ \u0041\u030a",
]


def blocks():
    rng = np.random.default_rng(7)
    # Per type: values and bytes of a block, and where its f16 scales stand.
    layouts = {Type.Q4_0: (32, 18, [0]), Type.Q4_1: (32, 20, [0, 2]), Type.Q5_0: (32, 22, [0]),
               Type.Q5_1: (32, 24, [0, 2]), Type.Q8_0: (32, 34, [0]), Type.Q4_K: (256, 144, [0, 2]),
               Type.Q5_K: (256, 176, [0, 2]), Type.Q6_K: (256, 210, [208])}
    writer = GGUFWriter(HERE / "blocks.gguf", "llama")
    writer.add_uint8("test.u8", 200), writer.add_int8("test.i8", -100)
    writer.add_uint16("test.u16", 60000), writer.add_int16("test.i16", -30000)
    writer.add_uint32("test.u32", 4000000000), writer.add_int32("test.i32", -2000000000)
    writer.add_uint64("test.u64", 2**63 + 1), writer.add_int64("test.i64", -2**62)
    writer.add_float32("test.f32", 1e-5), writer.add_float64("test.f64", 0.1)
    writer.add_bool("test.bool", True), writer.add_string("test.text", "grüße")
    writer.add_array("test.numbers", [3, 1, 2]), writer.add_array("test.texts", ["a", "", "ß"])

    def add(name, raw, kind, expected):
        writer.add_tensor(name, raw, raw_dtype=kind)
        writer.add_tensor(f"{name}.expected", np.ascontiguousarray(expected, dtype=np.float32))

    for kind, (values, size, scales) in layouts.items():
        rows, columns = 2, 1 if values == 256 else 4
        raw = rng.integers(0, 256, (rows * columns, size), dtype=np.uint8)
        for at in scales:
            raw[:, at:at + 2] = rng.normal(0, 0.02, (rows * columns, 1)).astype(np.float16).view(np.uint8)
        raw = raw.reshape(rows, columns * size)
        add(kind.name, raw, kind, quants.dequantize(raw, kind))
    plain = rng.normal(0, 1, (3, 5)).astype(np.float32)
    writer.add_tensor("F32", plain), writer.add_tensor("F32.expected", plain)
    half = plain.astype(np.float16)
    writer.add_tensor("F16", half), writer.add_tensor("F16.expected", half.astype(np.float32))
    upper = (plain.view(np.uint32) >> 16).astype(np.uint16)
    add("BF16", upper.view(np.uint8).reshape(3, 10), Type.BF16, (upper.astype(np.uint32) << 16).view(np.float32))
    close(writer)


def close(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def byte_level(name, text, vocab_size=600):
    digits = {"llama-bpe": r"\p{N}{1,3}", "qwen2": r"\p{N}"}.get(name)
    bytes_ = lambda use_regex: pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    split = lambda: pre_tokenizers.Split(Regex(WORDS.replace("DIGITS", digits)), "isolated")
    steps = [split(), bytes_(False)] if digits else [bytes_(True)]
    if name == "smollm":
        steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
    tokenizer = Tokenizer(models.BPE(ignore_merges=name == "llama-bpe"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.normalizer = normalizers.NFC() if name == "qwen2" else None
    tokenizer.decoder = decoders.ByteLevel()
    control = ["<|im_start|>", "<|im_end|>"]
    tokenizer.train_from_iterator([text], trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=control, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    writer = GGUFWriter(HERE / f"byte_level_{name}.gguf", "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(name)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in control else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in model["merges"]])
    writer.add_bos_token_id(0), writer.add_eos_token_id(1)
    close(writer)
    return tokenizer


def sentence_piece(text, vocab_size=700):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text.splitlines()), model_writer=model, vocab_size=vocab_size, model_type="bpe",
        byte_fallback=True, split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True, character_coverage=0.9995, minloglevel=2)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    kinds = [2 if pieces.is_unknown(id) else 3 if pieces.is_control(id) else 6 if pieces.is_byte(id) else 1
             for id in range(len(pieces))]
    writer = GGUFWriter(HERE / "sentence_piece.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([pieces.id_to_piece(id) for id in range(len(pieces))])
    writer.add_token_scores([pieces.get_score(id) for id in range(len(pieces))])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1), writer.add_eos_token_id(2), writer.add_add_space_prefix(True)
    close(writer)
    return pieces


def main():
    texts = sorted(path for path in pathlib.Path(sys.argv[1]).iterdir() if path.suffix in (".txt", ".md"))
    text = "\n".join(path.read_text() for path in texts)[:60000]
    blocks()
    expected = {"sentences": SENTENCES}
    for name in ["gpt-2", "smollm", "llama-bpe", "qwen2"]:
        tokenizer = byte_level(name, text)
        expected[f"byte_level_{name}"] = [tokenizer.encode(sentence).ids for sentence in SENTENCES]
    # Control pieces are text to SentencePiece; the sentence that names them is left out of this comparison.
    pieces = sentence_piece(text)
    expected["sentence_piece"] = [None if "<s>" in sentence else pieces.encode(sentence) for sentence in SENTENCES]
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(value)}" for name, value in expected.items())
    (HERE / "token_ids.json").write_text("{\n" + lines + "\n}\n")


main()
