//! Bad files and bad inputs give typed errors that name the place; nothing panics.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use lloco_decoder::{
    Checkpoint, Decoder, DecoderConfig, Error, GenerateConfig, KvCache, NoAdapter, Pass, Prompt, Result, WeightType,
    burn::tensor::{Device, Tensor},
};
use serde_json::{Value, json};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/goldens/smollm-gqa-tied")
}

/// A copy of a tiny model that a test may damage.
struct Model(tempfile::TempDir);

impl Model {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["config.json", "model.safetensors"] {
            fs::copy(golden().join(name), dir.path().join(name)).unwrap();
        }
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn configure(&self, change: impl FnOnce(&mut Value)) {
        let path = self.path("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        fs::write(path, serde_json::to_vec(&config).unwrap()).unwrap();
    }

    fn load(&self) -> Result<Decoder> {
        Decoder::load(&Checkpoint::open(self.0.path())?, WeightType::F32, &Device::flex())
    }
}

fn decoder() -> Decoder {
    Model::new().load().unwrap()
}

#[test]
fn missing_files_are_named() {
    assert!(matches!(Checkpoint::open("no/such/model"), Err(Error::Io { .. })));
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(Checkpoint::open(empty.path()), Err(Error::NoCheckpoint { .. })));
    fs::write(empty.path().join("pytorch_model.bin"), b"x").unwrap();
    let error = Checkpoint::open(empty.path()).unwrap_err().to_string();
    assert!(error.contains("convert"), "{error}");

    let model = Model::new();
    fs::remove_file(model.path("config.json")).unwrap();
    assert!(matches!(model.load(), Err(Error::Io { path, .. }) if path.ends_with("config.json")));
    assert!(matches!(Checkpoint::open(golden()).unwrap().tokenizer(), Err(Error::Io { .. } | Error::Tokenizer { .. })));
}

#[test]
fn truncated_weights_are_refused_at_any_length() {
    let model = Model::new();
    let path = model.path("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    for length in [0, 1, 7, 8, 9, 100, 1000, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).unwrap();
        assert!(
            matches!(model.load(), Err(Error::Malformed { .. } | Error::Io { .. })),
            "{length} bytes were accepted"
        );
    }
}

#[test]
fn a_header_that_lies_about_sizes_is_refused() {
    let model = Model::new();
    let path = model.path("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    for length in [u64::MAX, 1 << 40, bytes.len() as u64 + 1, 2] {
        let mut lying = bytes.clone();
        lying[..8].copy_from_slice(&length.to_le_bytes());
        fs::write(&path, lying).unwrap();
        assert!(matches!(model.load(), Err(Error::Malformed { .. })), "a header of {length} bytes was accepted");
    }
}

#[test]
fn tensors_of_another_model_are_named() {
    let model = Model::new();
    model.configure(|config| config["intermediate_size"] = json!(96));
    let error = model.load().unwrap_err();
    assert!(
        matches!(&error, Error::ShapeMismatch { name, expected, found, .. }
            if name == "model.layers.0.mlp.gate_proj.weight" && expected == &[96, 64] && found == &[160, 64]),
        "{error}"
    );
    let model = Model::new();
    model.configure(|config| config["num_hidden_layers"] = json!(4));
    assert!(matches!(model.load(), Err(Error::MissingTensor { name, .. }) if name.starts_with("model.layers.3.")));
    let model = Model::new();
    model.configure(|config| config["tie_word_embeddings"] = json!(false));
    assert!(matches!(model.load(), Err(Error::MissingTensor { name, .. }) if name == "lm_head.weight"));
}

#[test]
fn unsupported_fields_are_named_never_ignored() {
    let cases = [
        ("model_type", json!("gpt2")),
        ("hidden_act", json!("gelu")),
        ("sliding_window", json!(64)),
        ("layer_types", json!(["full_attention", "sliding_attention", "full_attention"])),
        ("rope_scaling", json!({"rope_type": "yarn", "factor": 4.0})),
        ("quantization_config", json!({"quant_method": "gptq"})),
        ("logit_scale", json!(0.5)),
        ("num_local_experts", json!(8)),
    ];
    for (field, value) in cases {
        let model = Model::new();
        model.configure(|config| config[field] = value);
        let error = model.load().unwrap_err();
        assert!(
            matches!(&error, Error::Unsupported { field: named, .. } if named.starts_with(field)),
            "{field}: {error}"
        );
    }
}

#[test]
fn impossible_sizes_are_named() {
    let cases = [
        ("hidden_size", json!(0)),
        ("num_attention_heads", json!(0)),
        ("num_key_value_heads", json!(3)),
        ("head_dim", json!(15)),
        ("vocab_size", json!(u64::MAX)),
        ("rms_norm_eps", json!(-1.0)),
    ];
    for (field, value) in cases {
        let model = Model::new();
        model.configure(|config| config[field] = value);
        let error = model.load().unwrap_err();
        assert!(matches!(&error, Error::InvalidField { field: named, .. } if named == field), "{field}: {error}");
    }
    let not_json = DecoderConfig::from_json("{", "config.json".as_ref());
    assert!(matches!(not_json, Err(Error::Malformed { .. })));
}

#[test]
fn shards_cannot_leave_their_directory() {
    let model = Model::new();
    fs::remove_file(model.path("model.safetensors")).unwrap();
    let index = json!({"weight_map": {"model.norm.weight": "../../etc/passwd"}});
    fs::write(model.path("model.safetensors.index.json"), index.to_string()).unwrap();
    assert!(matches!(model.load(), Err(Error::Malformed { .. })));
}

#[test]
fn sharded_weights_load_like_one_file() {
    let model = Model::new();
    let whole = model.path("model.safetensors");
    let bytes = fs::read(&whole).unwrap();
    let parsed = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut map = serde_json::Map::new();
    for (shard, half) in [("model-1.safetensors", 0), ("model-2.safetensors", 1)] {
        let tensors: Vec<_> = parsed.iter().enumerate().filter(|(i, _)| i % 2 == half).map(|(_, t)| t).collect();
        map.extend(tensors.iter().map(|(name, _)| (name.to_string(), json!(shard))));
        fs::write(model.path(shard), safetensors::serialize(tensors, None).unwrap()).unwrap();
    }
    fs::write(model.path("model.safetensors.index.json"), json!({"weight_map": map}).to_string()).unwrap();
    fs::remove_file(whole).unwrap();

    let run = |decoder: &Decoder| {
        let hidden = decoder.forward(decoder.embed(&[1, 2, 3]).unwrap(), Pass::new()).unwrap();
        hidden.into_data().try_to_vec::<f32>().unwrap()
    };
    assert_eq!(run(&model.load().unwrap()), run(&decoder()));
    fs::remove_file(model.path("model-2.safetensors")).unwrap();
    assert!(matches!(model.load(), Err(Error::Io { path, .. }) if path.ends_with("model-2.safetensors")));
}

#[test]
fn inputs_that_do_not_fit_are_named() {
    let decoder = decoder();
    let prompt = |ids: &[u32]| Prompt::new().text(ids);
    let generate = |prompt: &Prompt| decoder.generate(prompt, &GenerateConfig::greedy(1), NoAdapter).map(drop);
    assert!(matches!(generate(&prompt(&[])), Err(Error::EmptyPrompt)));
    assert!(matches!(
        generate(&prompt(&[1, 320])),
        Err(Error::OutOfVocabulary { id: 320, position: 1, vocab_size: 320 })
    ));
    let rows = Tensor::zeros([2, 65], decoder.device());
    assert!(matches!(generate(&Prompt::new().embeddings(rows)), Err(Error::Mismatch { .. })));

    let mut cache = KvCache::new(&decoder, 2, 8);
    let input = decoder.embed(&[1]).unwrap();
    let result = decoder.forward(input.clone(), Pass::new().cache(&mut cache));
    assert!(matches!(result, Err(Error::Mismatch { what: "sequences in the KV cache", .. })));
    let result = decoder.forward(input, Pass::new().padding(&[0, 0]));
    assert!(matches!(result, Err(Error::Mismatch { what: "paddings for a batch", .. })));
}

#[test]
fn generation_stops_where_it_should() {
    let decoder = decoder();
    let tokens = |config: &GenerateConfig| -> Vec<u32> {
        let generation = decoder.generate(&Prompt::new().text(&[5, 6]), config, NoAdapter).unwrap();
        generation.map(Result::unwrap).collect()
    };
    let free = tokens(&GenerateConfig::greedy(6));
    assert_eq!(free.len(), 6);
    let stop = free[3];
    let first = free.iter().position(|&id| id == stop).unwrap();
    assert_eq!(tokens(&GenerateConfig::greedy(6).with_stop_tokens(&[stop])), free[..first]);
    assert!(tokens(&GenerateConfig::greedy(0)).is_empty());
}
