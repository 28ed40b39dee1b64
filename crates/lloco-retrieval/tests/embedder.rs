//! Loading and embedding: batches, lengths, progress, and what bad files are answered with.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Copy, device, tiny};
use lloco_retrieval::{
    BertConfig, DenseIndex, DenseRetriever, Embedder, EmbedderConfig, Error, Pooling, Retriever, RowType,
};
use serde_json::json;
use std::path::Path;

fn embedder() -> Embedder {
    Embedder::load(tiny(), &device()).unwrap()
}

#[track_caller]
fn load_error(copy: &Copy) -> Error {
    let error = Embedder::load(copy.path(), &device()).err().unwrap();
    assert!(!error.to_string().is_empty());
    error
}

#[test]
fn a_batch_gives_the_vectors_of_its_texts() {
    let texts: Vec<String> = (0..300).map(|n| "pump cellar budget ".repeat(n % 23) + &n.to_string()).collect();
    let embedder = embedder();
    let together = embedder.embed_passages(&texts).unwrap();
    assert_eq!((together.len(), together.dim()), (300, embedder.dim()));
    for (n, text) in texts.iter().enumerate().step_by(17) {
        let alone = embedder.embed_passages(&[text]).unwrap();
        for (a, b) in alone.as_slice().iter().zip(together.row(n).unwrap()) {
            assert!((a - b).abs() < 1e-5, "{n}");
        }
    }
}

#[test]
fn a_retriever_compares_every_vector_or_the_likeliest() {
    let words = ["pump", "cellar", "budget", "valve", "river", "meeting", "lamp"];
    let texts: Vec<String> = (0..600).map(|n| (0..5).map(|at| words[n / 7_usize.pow(at) % 7]).collect()).collect();
    let embedder = embedder();
    let mut index = DenseIndex::new(embedder.dim(), embedder.fingerprint(), RowType::F16).unwrap();
    index.add(&(0..600).collect::<Vec<_>>(), &embedder.embed_passages(&texts).unwrap()).unwrap();
    let ask = |candidates, question: &str| {
        let retriever = DenseRetriever { embedder: &embedder, index: &index, candidates };
        retriever.retrieve(question, 10, Some(&|key| key % 2 == 0)).unwrap()
    };
    let (mut found, mut few) = (0, 0);
    for question in words.iter().flat_map(|a| words.map(|b| format!("{a} {b}"))) {
        let exact = ask(None, &question);
        assert!(exact.len() == 10 && exact.iter().all(|hit| hit.key % 2 == 0));
        assert_eq!(ask(Some(600), &question), exact);
        let common = |candidates| ask(candidates, &question).iter().filter(|hit| exact.contains(hit)).count();
        found += common(Some(150));
        few += common(Some(10));
    }
    assert!(found > few && found >= 441, "{found} and {few} of 490");
}

#[test]
fn no_text_has_no_vector_and_an_empty_text_has_one() {
    let embedder = embedder();
    assert!(embedder.embed_passages::<&str>(&[]).unwrap().is_empty());
    assert_eq!(embedder.embed_passages(&[""]).unwrap().len(), 1);
    assert_eq!(embedder.embed_query("").unwrap().len(), embedder.dim());
}

#[test]
fn text_beyond_the_maximum_length_is_cut_off() {
    let embedder = embedder();
    let long = "pump ".repeat(100);
    let huge = "pump ".repeat(400_000);
    let strange = "\u{0}x".repeat(1_000_000);
    let vectors = embedder.embed_passages(&[&long, &huge, &strange]).unwrap();
    assert_eq!(vectors.row(0), vectors.row(1));
    assert!(vectors.as_slice().iter().all(|v| v.is_finite()));
}

#[test]
fn progress_is_reported_to_the_end() {
    let texts = vec!["The pump stands in the cellar."; 1000];
    let mut seen = Vec::new();
    let observer = &mut |progress: lloco_retrieval::Progress| {
        assert_eq!(progress.total, 1000);
        seen.push(progress.done);
    };
    embedder().embed_observed("", &texts, observer).unwrap();
    assert!(seen.is_sorted());
    assert_eq!(seen.last(), Some(&1000));
}

#[test]
fn fingerprints_tell_embedders_apart() {
    let original = embedder().fingerprint().to_owned();
    assert_eq!(original.len(), 64);
    let copy = Copy::of_tiny();
    let fingerprint = |copy: &Copy| {
        let embedder = Embedder::load(copy.path(), &device()).unwrap();
        embedder.fingerprint().to_owned()
    };
    assert_eq!(fingerprint(&copy), original);
    copy.set("sentence_bert_config.json", "max_seq_length", json!(20));
    let shorter = fingerprint(&copy);
    assert_ne!(shorter, original);
    copy.rewrite_weights(|name| name.to_owned(), safetensors::Dtype::F16);
    assert_ne!(fingerprint(&copy), shorter);
}

#[test]
fn without_sentence_transformers_files_vectors_are_plain_means() {
    let copy = Copy::of_tiny();
    copy.remove("modules.json");
    copy.remove("sentence_bert_config.json");
    copy.remove("config_sentence_transformers.json");
    let config = EmbedderConfig::from_dir(copy.path()).unwrap();
    assert_eq!(config.pooling, Pooling::Mean);
    assert!(!config.normalize);
    assert_eq!(config.max_seq_length, 48);
    assert_eq!((config.query_prefix.as_str(), config.passage_prefix.as_str()), ("", ""));
}

#[test]
fn first_token_pooling_and_prompts_are_read() {
    let copy = Copy::of_tiny();
    copy.set("1_Pooling/config.json", "pooling_mode_cls_token", json!(true));
    copy.set("1_Pooling/config.json", "pooling_mode_mean_tokens", json!(false));
    let prompts = json!({ "query": "q: ", "document": "d: ", "other": null });
    copy.set("config_sentence_transformers.json", "prompts", prompts);
    let config = EmbedderConfig::from_dir(copy.path()).unwrap();
    assert_eq!(config.pooling, Pooling::Cls);
    assert_eq!((config.query_prefix.as_str(), config.passage_prefix.as_str()), ("q: ", "d: "));
}

#[test]
fn unsupported_settings_are_named() {
    for (file, field, value) in [
        ("config.json", "model_type", json!("distilbert")),
        ("config.json", "hidden_act", json!("swish")),
        ("config.json", "position_embedding_type", json!("relative_key")),
        ("config.json", "is_decoder", json!(true)),
        ("config.json", "add_cross_attention", json!(true)),
        ("config.json", "embedding_size", json!(16)),
        ("config.json", "pruned_heads", json!({ "0": [1] })),
        ("config.json", "quantization_config", json!({ "bits": 8 })),
        ("config.json", "auto_map", json!({ "AutoModel": "x" })),
        ("sentence_bert_config.json", "do_lower_case", json!(true)),
        ("1_Pooling/config.json", "include_prompt", json!(false)),
    ] {
        let copy = Copy::of_tiny();
        copy.set(file, field, value);
        let error = load_error(&copy);
        assert!(
            matches!(&error, Error::Unsupported { field: f, path, .. }
            if f == field && path.ends_with(file)),
            "{field}: {error}"
        );
    }
}

#[test]
fn unsupported_modules_and_poolings_are_named() {
    let copy = Copy::of_tiny();
    copy.set("1_Pooling/config.json", "pooling_mode_max_tokens", json!(true));
    assert!(load_error(&copy).to_string().contains("pooling_mode_max_tokens"));

    let module = |kind: &str, path: &str| json!({ "type": kind, "path": path });
    let transformer = module("sentence_transformers.models.Transformer", "");
    for (modules, word) in [
        (json!([transformer, module("a.Pooling", "1_Pooling"), module("a.Dense", "2_Dense")]), "Dense"),
        (json!([module("a.CLIPModel", "")]), "CLIPModel"),
        (json!([module("a.Transformer", "0_BERT")]), "0_BERT"),
        (json!([transformer, module("a.Pooling", "../../etc")]), "not a folder"),
        (json!([transformer, module("a.Pooling", "/etc")]), "not a folder"),
    ] {
        let copy = Copy::of_tiny();
        copy.write("modules.json", modules.to_string());
        let error = load_error(&copy).to_string();
        assert!(error.contains(word), "{word}: {error}");
    }
}

#[test]
fn wrong_fields_are_named() {
    for (field, value) in [
        ("vocab_size", json!(null)),
        ("hidden_size", json!("wide")),
        ("hidden_size", json!(-1)),
        ("num_hidden_layers", json!(0)),
        ("num_attention_heads", json!(5)),
        ("layer_norm_eps", json!(-1.0)),
        ("max_position_embeddings", json!(2.5)),
    ] {
        let copy = Copy::of_tiny();
        copy.set("config.json", field, value);
        let error = load_error(&copy);
        assert!(matches!(&error, Error::Malformed { .. }) && error.to_string().contains(field), "{error}");
    }
    let error = BertConfig::from_json("[]", Path::new("some.json")).unwrap_err();
    assert!(error.to_string().contains("some.json"));
}

#[test]
fn weights_of_another_shape_are_refused() {
    for (field, value, tensor) in [
        ("hidden_size", 64, "embeddings.word_embeddings.weight"),
        ("intermediate_size", 32, "encoder.layer.0.intermediate.dense.weight"),
        ("max_position_embeddings", 4096, "embeddings.position_embeddings.weight"),
        ("type_vocab_size", 1, "embeddings.token_type_embeddings.weight"),
    ] {
        let copy = Copy::of_tiny();
        copy.set("config.json", field, json!(value));
        let error = load_error(&copy);
        assert!(matches!(&error, Error::TensorShape { tensor: t, .. } if t == tensor), "{error}");
    }
    let copy = Copy::of_tiny();
    copy.set("config.json", "num_hidden_layers", json!(u32::MAX));
    let error = load_error(&copy);
    assert!(matches!(&error, Error::MissingTensor { tensor, .. } if tensor.contains("layer.2.")), "{error}");
    let copy = Copy::of_tiny();
    copy.rewrite_weights(|name| name.to_owned(), safetensors::Dtype::I32);
    assert!(matches!(load_error(&copy), Error::TensorType { .. }));
    let copy = Copy::of_tiny();
    copy.rewrite_weights(|name| format!("roberta.{name}"), safetensors::Dtype::F32);
    assert!(matches!(load_error(&copy), Error::MissingTensor { .. }));
}

#[test]
fn missing_files_are_named_with_the_next_step() {
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        let copy = Copy::of_tiny();
        copy.remove(file);
        assert!(matches!(load_error(&copy), Error::MissingFile { file: f, .. } if f == file));
    }
    let copy = Copy::of_tiny();
    copy.remove("model.safetensors");
    copy.write("pytorch_model.bin", "pickled");
    assert!(load_error(&copy).to_string().contains("save_file"));
    let copy = Copy::of_tiny();
    copy.remove("1_Pooling/config.json");
    assert!(matches!(load_error(&copy), Error::Io { .. }));
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let copy = Copy::of_tiny();
    let path = copy.path().join("tokenizer.json");
    let mut tokenizer: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    tokenizer["model"]["vocab"]["surplus"] = json!(5000);
    copy.write("tokenizer.json", tokenizer.to_string());
    assert!(matches!(load_error(&copy), Error::TokenizerMismatch { id: 5000, .. }));
}

#[test]
fn a_tokenizer_that_contradicts_itself_is_an_error() {
    let copy = Copy::of_tiny();
    let path = copy.path().join("tokenizer.json");
    let mut tokenizer: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    tokenizer["post_processor"]["single"][0]["SpecialToken"]["id"] = json!("[GONE]");
    copy.write("tokenizer.json", tokenizer.to_string());
    let embedded = Embedder::load(copy.path(), &device()).and_then(|embedder| embedder.embed_query("a pump"));
    assert!(matches!(embedded, Err(Error::Tokenize(_))));
}

#[test]
fn a_tokenizer_that_is_no_json_within_its_decoder_is_an_error() {
    let copy = Copy::of_tiny();
    let good = std::fs::read_to_string(copy.path().join("tokenizer.json")).unwrap();
    for decoder in ["nul", "18446744073709551616e999", "{\"type\":", ""] {
        copy.write("tokenizer.json", good.replace("\"decoder\": null", &format!("\"decoder\": {decoder}")));
        assert!(matches!(load_error(&copy), Error::Malformed { .. }), "{decoder}");
    }
}

#[test]
fn a_length_beyond_the_positions_is_refused_or_cut() {
    let copy = Copy::of_tiny();
    copy.set("sentence_bert_config.json", "max_seq_length", json!(4000));
    let mut config = EmbedderConfig::from_dir(copy.path()).unwrap();
    assert_eq!(config.max_seq_length, 48);
    for length in [0, 2, 49] {
        config.max_seq_length = length;
        let error = Embedder::load_with(copy.path(), config.clone(), &device()).err().unwrap();
        assert!(matches!(error, Error::InvalidConfig { field: "max_seq_length", .. }));
    }
}

/// Truncated and flipped files: an error, never a panic.
#[test]
fn hostile_bytes_give_errors() {
    for file in ["config.json", "modules.json", "tokenizer.json", "model.safetensors"] {
        let good = std::fs::read(tiny().join(file)).unwrap();
        let copy = Copy::of_tiny();
        for part in 0..12 {
            copy.write(file, &good[..good.len() * part / 12]);
            load_error(&copy);
        }
        for place in (0..good.len()).step_by(good.len() / 40) {
            let mut bad = good.clone();
            bad[place] ^= 0x15;
            copy.write(file, &bad);
            if let Ok(embedder) = Embedder::load(copy.path(), &device()) {
                let _ = embedder.embed_query("pump");
            }
        }
    }
    // A header that promises more than the file holds.
    let copy = Copy::of_tiny();
    for promised in [u64::MAX, 1 << 40, 100_000_000, 200_000, 8] {
        let mut bytes = promised.to_le_bytes().to_vec();
        bytes.extend(b"{}      ");
        copy.write("model.safetensors", bytes);
        load_error(&copy);
    }
}
