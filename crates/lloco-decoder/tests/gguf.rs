//! GGUF files: blocks against an independent dequantiser, names, and files that lie.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::PathBuf};

use lloco_decoder::{
    DecoderConfig, Error, Message, Tokenizer,
    gguf::{
        BlockType, Gguf, Value,
        hub::{hub_name, unpermute_rows},
    },
};

fn data(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data")).join(name)
}

/// Opens `bytes` as a file.
fn open(bytes: &[u8]) -> Result<Gguf, Error> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    Gguf::open(file.path())
}

/// A writer of small, possibly wrong, files.
#[derive(Clone)]
struct File {
    version: u32,
    metadata: Vec<(String, Vec<u8>)>,
    tensors: Vec<Tensor>,
    data: Vec<u8>,
}

#[derive(Clone)]
struct Tensor {
    name: String,
    dimensions: Vec<u64>,
    kind: u32,
    offset: u64,
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn tagged(kind: u32, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    [&kind.to_le_bytes(), bytes.as_ref()].concat()
}

fn u32_value(value: u32) -> Vec<u8> {
    tagged(4, value.to_le_bytes())
}

fn f32_value(value: f32) -> Vec<u8> {
    tagged(6, value.to_le_bytes())
}

fn text_value(value: &str) -> Vec<u8> {
    tagged(8, text(value))
}

fn array_value(kind: u32, count: u64, items: impl AsRef<[u8]>) -> Vec<u8> {
    tagged(9, tagged(kind, [&count.to_le_bytes(), items.as_ref()].concat()))
}

impl File {
    fn new() -> Self {
        Self { version: 3, metadata: Vec::new(), tensors: Vec::new(), data: Vec::new() }
    }

    /// A file with the metadata of a model: 2 layers, 4 query heads, 2 key heads of width 8.
    fn model(architecture: &str) -> Self {
        let own = |field: &str| format!("{architecture}.{field}");
        Self::new()
            .with("general.architecture", text_value(architecture))
            .with(&own("embedding_length"), u32_value(32))
            .with(&own("block_count"), u32_value(2))
            .with(&own("feed_forward_length"), u32_value(64))
            .with(&own("attention.head_count"), u32_value(4))
            .with(&own("attention.head_count_kv"), u32_value(2))
            .with(&own("attention.layer_norm_rms_epsilon"), f32_value(1e-5))
            .with(&own("context_length"), u32_value(128))
            .f32_tensor("token_embd.weight", &[10, 32], &[0.5; 320])
    }

    fn with(mut self, key: &str, value: Vec<u8>) -> Self {
        self.metadata.retain(|(known, _)| known != key);
        self.metadata.push((key.into(), value));
        self
    }

    fn tensor(mut self, name: &str, dimensions: &[u64], kind: u32, offset: u64) -> Self {
        self.tensors.push(Tensor { name: name.into(), dimensions: dimensions.to_vec(), kind, offset });
        self
    }

    /// Appends a tensor; `shape` counts from the slowest dimension.
    fn f32_tensor(mut self, name: &str, shape: &[u64], values: &[f32]) -> Self {
        self.data.resize(self.data.len().next_multiple_of(32), 0);
        let (offset, dimensions) = (self.data.len() as u64, shape.iter().rev().copied().collect::<Vec<_>>());
        self.data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self.tensor(name, &dimensions, 0, offset)
    }

    fn header(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            bytes.extend(text(key));
            bytes.extend(value);
        }
        for tensor in &self.tensors {
            bytes.extend(text(&tensor.name));
            bytes.extend((tensor.dimensions.len() as u32).to_le_bytes());
            bytes.extend(tensor.dimensions.iter().flat_map(|length| length.to_le_bytes()));
            bytes.extend(tensor.kind.to_le_bytes());
            bytes.extend(tensor.offset.to_le_bytes());
        }
        bytes
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.header();
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(&self.data);
        bytes
    }

    fn open(&self) -> Result<Gguf, Error> {
        open(&self.bytes())
    }

    fn config(&self) -> Result<DecoderConfig, Error> {
        let file = self.open()?;
        DecoderConfig::from_json(&file.hub_config()?, file.path())
    }
}

// --- reading ---

#[test]
fn blocks_equal_an_independent_dequantiser() {
    let file = Gguf::open(data("blocks.gguf")).unwrap();
    for kind in BlockType::ALL {
        let tensor = file.tensor(kind.name()).unwrap();
        assert_eq!(tensor.kind(), kind);
        let expected = file.tensor_values(&format!("{}.expected", kind.name())).unwrap();
        assert_eq!(file.tensor(&format!("{}.expected", kind.name())).unwrap().shape(), tensor.shape());
        assert_eq!(file.tensor_values(kind.name()).unwrap(), expected, "{}", kind.name());
        assert!(expected.iter().any(|value| *value != expected[0]));
        assert_eq!(tensor.values(), expected.len());
        assert_eq!(tensor.row_bytes() * tensor.shape()[0], file.tensor_bytes(kind.name()).unwrap().len());
    }
}

#[test]
fn blocks_computed_by_hand() {
    // f16: 1.0 = 0x3c00, 0.5 = 0x3800, -2.0 = 0xc000.
    let mut out = [0.0; 32];
    let nibbles: Vec<u8> = (0..16).map(|i| i | (15 - i) << 4).collect();
    BlockType::Q4_0.dequantize(&[&[0x00, 0x38], nibbles.as_slice()].concat(), &mut out);
    assert_eq!((out[0], out[15], out[16], out[31]), (-4.0, 3.5, 3.5, -4.0));
    BlockType::Q4_1.dequantize(&[&[0x00, 0x38, 0x00, 0xc0], nibbles.as_slice()].concat(), &mut out);
    assert_eq!((out[0], out[15], out[16], out[31]), (-2.0, 5.5, 5.5, -2.0));
    // High bits set for the first value of each half only.
    let high = [1, 0, 1, 0];
    BlockType::Q5_0.dequantize(&[&[0x00, 0x3c], high.as_slice(), &nibbles].concat(), &mut out);
    assert_eq!((out[0], out[1], out[16], out[17]), (0.0, -15.0, 15.0, -2.0));
    BlockType::Q5_1.dequantize(&[&[0x00, 0x3c, 0x00, 0xc0], high.as_slice(), &nibbles].concat(), &mut out);
    assert_eq!((out[0], out[1], out[16], out[17]), (14.0, -1.0, 29.0, 12.0));
    let signed: Vec<u8> = (0..32).map(|i| (i as i8 - 16) as u8).collect();
    BlockType::Q8_0.dequantize(&[&[0x00, 0x38], signed.as_slice()].concat(), &mut out);
    assert_eq!((out[0], out[16], out[31]), (-8.0, 0.0, 7.5));

    // Q4_K: group 0 has scale 3 and minimum 5, group 4 scale 0b10_0001 and minimum 0b01_0010.
    let mut block = [0_u8; 144];
    block[..4].copy_from_slice(&[0x00, 0x3c, 0x00, 0x38]);
    block[4] = 0b10_000011; // scale 0, top bits of scale 4
    block[8] = 0b01_000101; // minimum 0, top bits of minimum 4
    block[12] = 0b0010_0001; // low bits of scale 4 and minimum 4
    block[16] = 0x07;
    block[16 + 64] = 0x02;
    let mut out = [0.0; 256];
    BlockType::Q4K.dequantize(&block, &mut out);
    assert_eq!((out[0], out[1]), (3.0 * 7.0 - 2.5, -2.5));
    assert_eq!((out[128], out[129]), (33.0 * 2.0 - 9.0, -9.0));

    // Q6_K: value 0 has low bits 5 and high bits 2, value 224 low bits 9 and high bits 3.
    let mut block = [0_u8; 210];
    block[208..].copy_from_slice(&[0x00, 0x38]);
    block[0] = 0x05;
    block[64 + 32] = 0x90;
    block[128] = 0b10;
    block[128 + 32] = 0b1100_0000;
    block[192] = 2;
    block[192 + 14] = (-3_i8) as u8;
    BlockType::Q6K.dequantize(&block, &mut out);
    assert_eq!((out[0], out[224]), (0.5 * 2.0 * 5.0, 0.5 * -3.0 * 25.0));
    assert_eq!((out[1], out[225]), (0.5 * 2.0 * -32.0, 0.5 * -3.0 * -32.0));
}

#[test]
fn metadata_of_every_type() {
    let file = Gguf::open(data("blocks.gguf")).unwrap();
    assert_eq!(file.version(), 3);
    let integers = [("u8", 200), ("u16", 60_000), ("u32", 4_000_000_000), ("u64", (1 << 63) + 1)];
    for (name, value) in integers {
        assert_eq!(file.integer(&format!("test.{name}")).unwrap(), Some(value));
    }
    for (name, expected) in [("i8", -100), ("i16", -30_000), ("i32", -2_000_000_000), ("i64", -(1_i64 << 62))] {
        let found = file.metadata(&format!("test.{name}")).unwrap();
        assert!(matches!(found, Some(Value::Signed(value)) if value == expected), "{found:?}");
    }
    // The shortest decimal of the f32, not its f64 expansion.
    assert_eq!(file.number("test.f32").unwrap(), Some(1e-5));
    assert_eq!(file.number("test.f64").unwrap(), Some(0.1));
    assert_eq!(file.flag("test.bool").unwrap(), Some(true));
    assert_eq!(file.text("test.text").unwrap(), Some("grüße"));
    let texts = file.array("test.texts").unwrap().unwrap();
    let texts: Vec<_> =
        texts.iter().filter_map(|item| if let Value::Text(text) = item { Some(text) } else { None }).collect();
    assert_eq!(texts, ["a", "", "ß"]);
    assert_eq!(file.array("test.numbers").unwrap().unwrap().len(), 3);
    assert_eq!(file.text("test.absent").unwrap(), None);
    for wrong in [file.text("test.u8").err(), file.integer("test.i8").err(), file.flag("test.text").err()] {
        assert!(matches!(wrong, Some(Error::InvalidField { .. })), "{wrong:?}");
    }
}

// --- Hugging Face names and conventions ---

#[test]
fn names_follow_the_hub() {
    for (gguf, hub) in [
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("output_norm.weight", "model.norm.weight"),
        ("output.weight", "lm_head.weight"),
        ("blk.12.attn_norm.weight", "model.layers.12.input_layernorm.weight"),
        ("blk.0.attn_k.bias", "model.layers.0.self_attn.k_proj.bias"),
        ("blk.0.attn_output.weight", "model.layers.0.self_attn.o_proj.weight"),
        ("blk.3.attn_q_norm.weight", "model.layers.3.self_attn.q_norm.weight"),
        ("blk.3.ffn_norm.weight", "model.layers.3.post_attention_layernorm.weight"),
        ("blk.3.ffn_down.weight", "model.layers.3.mlp.down_proj.weight"),
    ] {
        assert_eq!(hub_name(gguf).as_deref(), Some(hub));
    }
    for unknown in
        ["", "weight", "blk.weight", "blk.x.attn_q.weight", "blk.0.attn_q.scale", "blk.0.ffn_gate_exps.weight"]
    {
        assert_eq!(hub_name(unknown), None, "{unknown}");
    }
}

#[test]
fn unpermuting_inverts_the_conversion() {
    for (heads, half, row) in [(1, 1, 1), (3, 2, 5), (9, 32, 7), (2, 4, 1)] {
        let head_dim = 2 * half;
        let original: Vec<usize> = (0..heads * head_dim * row).collect();
        // What the conversion does: rows `i` and `half + i` of a head become neighbours.
        let mut interleaved: Vec<usize> = Vec::new();
        for head in 0..heads {
            for i in 0..half {
                for part in 0..2 {
                    let first = (head * head_dim + part * half + i) * row;
                    interleaved.extend(&original[first..first + row]);
                }
            }
        }
        assert_eq!(unpermute_rows(&interleaved, heads, row), original);
    }
    assert!(unpermute_rows::<u8>(&[], 4, 3).is_empty());
}

#[test]
fn only_llama_files_are_permuted() {
    let rows: Vec<f32> = (0..16).map(|row| row as f32).collect();
    for (architecture, expected) in [("llama", Some(2)), ("qwen2", None), ("qwen3", None)] {
        let file = File::model(architecture).f32_tensor("blk.0.attn_k.bias", &[16], &rows).open().unwrap();
        let tensor = file.tensor("blk.0.attn_k.bias").unwrap();
        assert_eq!(file.interleaved_heads(tensor).unwrap(), expected);
        let values = file.hub_values(tensor).unwrap();
        assert_eq!(values[1], if expected.is_some() { 2.0 } else { 1.0 });
        let embedding = file.tensor("token_embd.weight").unwrap();
        assert_eq!(file.interleaved_heads(embedding).unwrap(), None);
    }
}

#[test]
fn metadata_becomes_a_config() {
    let config = File::model("llama")
        .with("llama.rope.freq_base", f32_value(500_000.0))
        .with("tokenizer.ggml.bos_token_id", u32_value(1))
        .with("tokenizer.ggml.eos_token_id", u32_value(2))
        .with("tokenizer.ggml.eot_token_id", u32_value(7))
        .config()
        .unwrap();
    assert_eq!((config.model_type.as_str(), config.vocab_size, config.hidden_size), ("llama", 10, 32));
    assert_eq!((config.num_hidden_layers, config.intermediate_size, config.head_dim), (2, 64, 8));
    assert_eq!((config.num_attention_heads, config.num_key_value_heads), (4, 2));
    assert_eq!((config.rms_norm_eps, config.rope_theta), (1e-5, 500_000.0));
    assert_eq!((config.bos_token_id, config.eos_token_ids), (Some(1), vec![2, 7]));
    assert!(config.tie_word_embeddings && !config.qkv_bias && !config.qk_norm);

    let qwen = File::model("qwen2").f32_tensor("output.weight", &[10, 32], &[0.0; 320]).config().unwrap();
    assert!(qwen.qkv_bias && !qwen.output_bias && !qwen.tie_word_embeddings);
    let qwen = File::model("qwen3").with("qwen3.attention.key_length", u32_value(16)).config().unwrap();
    assert!(qwen.qk_norm && qwen.head_dim == 16);
    // One number for every layer is as good as one number.
    let heads = [4_u32, 4].map(u32::to_le_bytes).concat();
    let listed = File::model("llama").with("llama.attention.head_count", array_value(4, 2, heads)).config();
    assert_eq!(listed.unwrap().num_attention_heads, 4);
}

#[test]
fn rotary_factors_are_carried_out() {
    let file = File::model("llama").f32_tensor("rope_freqs.weight", &[4], &[1.0, 1.0, 2.5, 8.0]).open().unwrap();
    assert_eq!(file.rope_factors().unwrap(), Some(vec![1.0, 1.0, 2.5, 8.0]));
    assert!(file.hub_tensors().unwrap().iter().all(|(name, _)| !name.contains("rope")));
    for factors in [&[1.0; 3][..], &[1.0, 1.0, 0.0, 1.0], &[1.0, 1.0, -1.0, 1.0]] {
        let file =
            File::model("llama").f32_tensor("rope_freqs.weight", &[factors.len() as u64], factors).open().unwrap();
        assert!(matches!(file.rope_factors(), Err(Error::InvalidField { .. })));
    }
    assert_eq!(File::model("llama").open().unwrap().rope_factors().unwrap(), None);
}

#[test]
fn unsupported_models_are_refused_by_name() {
    let cases = [
        ("general.architecture", File::model("mamba")),
        ("llama.rope.scaling.type", File::model("llama").with("llama.rope.scaling.type", text_value("yarn"))),
        ("llama.expert_count", File::model("llama").with("llama.expert_count", u32_value(8))),
        ("llama.rope.dimension_count", File::model("llama").with("llama.rope.dimension_count", u32_value(4))),
        ("sliding_window", File::model("llama").with("llama.attention.sliding_window", u32_value(64))),
        (
            "llama.attention.head_count_kv",
            File::model("llama")
                .with("llama.attention.head_count_kv", array_value(4, 2, [2_u32, 1].map(u32::to_le_bytes).concat())),
        ),
    ];
    for (expected, file) in cases {
        match file.config() {
            Err(Error::Unsupported { field, .. }) => assert_eq!(field, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
    let stray = File::model("llama").f32_tensor("blk.0.ssm_a.weight", &[1], &[1.0]).open().unwrap();
    assert!(matches!(stray.hub_tensors(), Err(Error::Unsupported { value, .. }) if value == "blk.0.ssm_a.weight"));
    let missing = File::new().open().unwrap();
    assert!(matches!(missing.hub_config(), Err(Error::InvalidField { field, .. }) if field == "general.architecture"));
}

// --- files that lie ---

#[test]
fn every_truncation_is_an_error() {
    let file = File::model("llama").with("test.texts", array_value(8, 2, [text("a"), text("b")].concat()));
    let (header, bytes) = (file.header().len(), file.bytes());
    assert!(open(&bytes).is_ok());
    for length in (0..=header).chain([bytes.len() - 1, bytes.len() - 200]) {
        let error = open(&bytes[..length]).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. } | Error::Io { .. }), "{length}: {error:?}");
    }
}

#[test]
fn every_flipped_byte_is_survived() {
    let file = File::model("llama").with("test.texts", array_value(8, 2, [text("a"), text("b")].concat()));
    let (header, bytes) = (file.header().len(), file.bytes());
    for at in 0..header {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            // Some changes leave a valid file. None may panic.
            if let Ok(file) = open(&bytes) {
                let _ = (file.hub_config(), file.hub_tensors().map(|all| all.len()), file.rope_factors());
                for tensor in file.tensors() {
                    let _ = file.hub_values(tensor);
                }
            }
        }
    }
}

#[test]
fn lying_counts_and_lengths_are_errors() {
    let huge = [u64::MAX, u64::MAX / 2, 1 << 62, 1 << 40, 1_000_000];
    let malformed = |bytes: &[u8], what: &str| {
        let error = open(bytes).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{what}: {error:?}");
    };
    for count in huge {
        let bytes = File::model("llama").bytes();
        for at in [8, 16] {
            let mut bytes = bytes.clone();
            bytes[at..at + 8].copy_from_slice(&count.to_le_bytes());
            malformed(&bytes, "a count of the header");
        }
        let mut key = bytes.clone();
        key[24..32].copy_from_slice(&count.to_le_bytes());
        malformed(&key, "the length of a key");
        let value = tagged(8, count.to_le_bytes());
        malformed(&File::new().with("a", value).bytes(), "the length of a text");
        for kind in 0..13 {
            malformed(&File::new().with("a", array_value(kind, count, [])).bytes(), "the length of an array");
        }
        let dimensions = [&[count][..], &[count, count], &[32, count]];
        for dimensions in dimensions {
            malformed(&File::new().tensor("a", dimensions, 0, 0).bytes(), "a dimension");
        }
        malformed(&File::new().tensor("a", &[32], 2, count / 32 * 32).bytes(), "an offset");
    }
}

#[test]
fn impossible_directories_are_errors() {
    let sixteen = |file: File| File { data: vec![0; 64], ..file };
    let cases = [
        ("no dimensions", File::new().tensor("a", &[], 0, 0)),
        ("five dimensions", File::new().tensor("a", &[1, 1, 1, 1, 1], 0, 0)),
        ("a dimension of 0", File::new().tensor("a", &[4, 0], 0, 0)),
        ("half a block", File::new().tensor("a", &[16], 2, 0)),
        ("an offset off the alignment", File::new().tensor("a", &[4], 0, 4)),
        ("a tensor beyond the end", File::new().tensor("a", &[17], 0, 0)),
        ("tensors that overlap", File::new().tensor("a", &[16], 0, 0).tensor("b", &[4], 0, 32)),
        ("a tensor twice", File::new().tensor("a", &[4], 0, 0).tensor("a", &[4], 0, 32)),
        ("alignment 0", File::new().with("general.alignment", u32_value(0))),
        ("alignment 24", File::new().with("general.alignment", u32_value(24))),
        ("alignment of a gigabyte", File::new().with("general.alignment", u32_value(1 << 30))),
        ("an unknown value type", File::new().with("a", tagged(13, []))),
        ("text that is not UTF-8", File::new().with("a", tagged(8, [&1_u64.to_le_bytes()[..], &[0xff]].concat()))),
    ];
    for (what, file) in cases {
        let error = sixteen(file).open().unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{what}: {error:?}");
    }
    let mut twice = File::new().with("a", u32_value(1)).with("b", u32_value(1));
    twice.metadata[1].0 = "a".into();
    assert!(matches!(twice.open(), Err(Error::Malformed { .. })));
    let mut nested = array_value(0, 1, [7]);
    for _ in 0..1000 {
        nested = array_value(9, 1, &nested[4..]);
    }
    assert!(matches!(File::new().with("a", nested).open(), Err(Error::Malformed { .. })));
}

#[test]
fn other_versions_and_types_are_named() {
    for version in [0, 1, 4, 3_u32.swap_bytes()] {
        let error = File { version, ..File::new() }.open().unwrap_err();
        assert!(matches!(error, Error::Unsupported { ref field, .. } if field == "version"), "{error:?}");
    }
    assert_eq!(File { version: 2, ..File::new() }.open().unwrap().version(), 2);
    for kind in [4, 5, 9, 10, 16, 31, 39, u32::MAX] {
        let error = File::new().tensor("a.weight", &[256], kind, 0).open().unwrap_err();
        assert!(matches!(error, Error::Unsupported { ref field, .. } if field.contains("a.weight")), "{error:?}");
    }
    assert!(matches!(open(b"PK\x03\x04 not this format"), Err(Error::Malformed { .. })));
    assert!(matches!(Gguf::open("no such file"), Err(Error::Io { .. })));
}

#[test]
fn values_that_are_not_finite_are_errors() {
    for value in [f32::NAN, f32::INFINITY] {
        let file = File::new().f32_tensor("a", &[3], &[1.0, value, 2.0]).open().unwrap();
        assert!(matches!(file.tensor_values("a"), Err(Error::Malformed { detail, .. }) if detail.contains("`a`")));
    }
    // A scale of NaN: f16 0x7e00.
    let file = File { data: [&[0x00, 0x7e][..], &[0; 16]].concat(), ..File::new().tensor("a", &[32], 2, 0) };
    assert!(matches!(file.open().unwrap().tensor_values("a"), Err(Error::Malformed { .. })));
    assert!(matches!(file.open().unwrap().tensor_values("b"), Err(Error::MissingTensor { name, .. }) if name == "b"));
}

// --- tokenizers in the metadata ---

fn texts(texts: &[&str]) -> Vec<u8> {
    array_value(8, texts.len() as u64, texts.iter().flat_map(|item| text(item)).collect::<Vec<u8>>())
}

fn byte_level() -> File {
    File::new()
        .with("tokenizer.ggml.model", text_value("gpt2"))
        .with("tokenizer.ggml.pre", text_value("gpt-2"))
        .with("tokenizer.ggml.tokens", texts(&["<end>", "a", "b", "ab", ""]))
        .with("tokenizer.ggml.token_type", array_value(5, 5, [3_i32, 1, 1, 1, 5].map(i32::to_le_bytes).concat()))
        .with("tokenizer.ggml.merges", texts(&["a b"]))
        .with("tokenizer.ggml.eos_token_id", u32_value(0))
}

fn sentence_piece() -> File {
    File::new()
        .with("tokenizer.ggml.model", text_value("llama"))
        .with("tokenizer.ggml.tokens", texts(&["<unk>", "▁", "a", "▁a"]))
        .with("tokenizer.ggml.token_type", array_value(5, 4, [2_i32, 1, 1, 1].map(i32::to_le_bytes).concat()))
        .with("tokenizer.ggml.scores", array_value(6, 4, [0_f32, -2.0, -3.0, -1.0].map(f32::to_le_bytes).concat()))
}

#[test]
fn small_tokenizers_work() {
    let tokenizer = Tokenizer::from_gguf(&byte_level().open().unwrap()).unwrap();
    assert_eq!(tokenizer.encode("abba<end>").unwrap(), [3, 2, 1, 0]);
    assert_eq!((tokenizer.vocab_size(), tokenizer.max_id()), (5, 4));
    assert!(tokenizer.chat_template().unwrap().is_none());
    let tokenizer = Tokenizer::from_gguf(&sentence_piece().open().unwrap()).unwrap();
    assert_eq!(tokenizer.encode("a aa").unwrap(), [3, 3, 2]);
    assert_eq!(tokenizer.encode("xyz").unwrap(), [1, 0]);
    assert_eq!(tokenizer.decode(&[3, 3, 2]).unwrap(), "a aa");
    let bare = sentence_piece().with("tokenizer.ggml.add_space_prefix", tagged(7, [0]));
    assert_eq!(Tokenizer::from_gguf(&bare.open().unwrap()).unwrap().encode("a aa").unwrap(), [2, 3, 2]);
}

#[test]
fn chat_templates_come_with_their_tokens() {
    let source = text_value("{{ bos_token }}|{{ messages[0].content }}{{ eos_token }}");
    let file = byte_level().with("tokenizer.chat_template", source).open().unwrap();
    let chat = Tokenizer::from_gguf(&file).unwrap().chat_template().unwrap().unwrap();
    assert_eq!(chat.render(&[Message::user("Hi")], true).unwrap(), "|Hi<end>");
}

#[test]
fn tokenizers_that_lie_are_errors() {
    let broken = "tokenizer.ggml.";
    let cases = [
        ("model", File::new()),
        ("model", byte_level().with("tokenizer.ggml.model", text_value("bert"))),
        ("pre", byte_level().with("tokenizer.ggml.pre", text_value("mystery"))),
        ("tokens", byte_level().with("tokenizer.ggml.tokens", u32_value(1))),
        ("tokens", byte_level().with("tokenizer.ggml.tokens", texts(&["<end>", "a", "b", "ab", "a"]))),
        ("token_type", byte_level().with("tokenizer.ggml.tokens", texts(&["a", "b", "ab"]))),
        ("merges", byte_level().with("tokenizer.ggml.merges", texts(&["ab"]))),
        ("merges", byte_level().with("tokenizer.ggml.merges", array_value(5, 1, [0; 4]))),
        ("scores", sentence_piece().with("tokenizer.ggml.scores", array_value(6, 1, [0; 4]))),
        ("scores", sentence_piece().with("tokenizer.ggml.scores", array_value(6, 4, f32::NAN.to_le_bytes().repeat(4)))),
        ("tokens", sentence_piece().with("tokenizer.ggml.tokens", texts(&["<unk>", "▁", &"a".repeat(2000), "▁a"]))),
        (
            "eos_token_id",
            byte_level()
                .with("tokenizer.chat_template", text_value("x"))
                .with("tokenizer.ggml.eos_token_id", u32_value(5)),
        ),
    ];
    for (expected, file) in cases {
        match Tokenizer::from_gguf(&file.open().unwrap()) {
            Err(Error::InvalidField { field, .. } | Error::Unsupported { field, .. }) => {
                assert_eq!(field, format!("{broken}{expected}"));
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
    let unknown = byte_level().with("tokenizer.ggml.merges", texts(&["a x"]));
    assert!(matches!(Tokenizer::from_gguf(&unknown.open().unwrap()), Err(Error::Tokenizer { .. })));
}

// --- the default model ---

/// Run with `LLOCO_GGUF=SmolLM2-135M-Instruct.Q4_1.gguf cargo nextest run -p lloco-decoder --run-ignored only default_model`.
#[test]
#[ignore = "needs the default model's GGUF file"]
fn default_model_tensors_and_ids() {
    let file = Gguf::open(std::env::var_os("LLOCO_GGUF").expect("LLOCO_GGUF names the file")).unwrap();
    let reference: serde_json::Value =
        serde_json::from_slice(&fs::read(data("smollm2_reference.json")).unwrap()).unwrap();
    let tensors = file.hub_tensors().unwrap();
    let kinds = |kind| tensors.iter().filter(|(_, tensor)| tensor.kind() == kind).count();
    assert_eq!((kinds(BlockType::Q4_1), kinds(BlockType::Q8_0), kinds(BlockType::F32)), (210, 1, 61));
    for (name, expected) in reference["tensors"].as_object().unwrap() {
        let (_, tensor) = tensors.iter().find(|(hub, _)| hub == name).unwrap();
        let values = file.hub_values(tensor).unwrap();
        let listed = |key: &str| serde_json::from_value::<Vec<f32>>(expected[key].clone()).unwrap();
        assert_eq!(serde_json::json!(tensor.shape()), expected["shape"]);
        assert_eq!((values[..8].to_vec(), values[values.len() - 4..].to_vec()), (listed("first"), listed("last")));
        let sum: f64 = values.iter().map(|value| f64::from(*value)).sum();
        let squares: f64 = values.iter().map(|value| f64::from(*value).powi(2)).sum();
        assert!((sum - expected["sum"].as_f64().unwrap()).abs() < 1e-6, "{name}");
        assert!((squares / expected["squares"].as_f64().unwrap() - 1.0).abs() < 1e-9, "{name}");
    }
    let tokenizer = Tokenizer::from_gguf(&file).unwrap();
    for run in reference["runs"].as_array().unwrap() {
        let ids = tokenizer.encode(run["prompt"].as_str().unwrap()).unwrap();
        assert_eq!(serde_json::json!(ids), run["ids"]);
        let greedy: Vec<u32> = serde_json::from_value(run["greedy"].clone()).unwrap();
        assert_eq!(tokenizer.decode(&greedy).unwrap(), run["greedy_text"]);
    }
    let chat = tokenizer.chat_template().unwrap().unwrap();
    let prompt = chat.render(&[Message::user("Name three primary colours.")], true).unwrap();
    assert_eq!(prompt, reference["runs"][2]["prompt"]);
}
