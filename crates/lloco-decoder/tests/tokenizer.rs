//! Tokenizers: ids equal to other implementations, offsets, streaming, long texts, damaged files.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, ops::Range, path::PathBuf};

use lloco_decoder::{Error, Tokenizer, gguf::Gguf};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

const ALL: [&str; 5] =
    ["byte_level_gpt-2", "byte_level_smollm", "byte_level_llama-bpe", "byte_level_qwen2", "sentence_piece"];

fn data(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data")).join(name)
}

fn tokenizer(name: &str) -> Tokenizer {
    Tokenizer::from_gguf(&Gguf::open(data(&format!("{name}.gguf"))).unwrap()).unwrap()
}

/// The test sentences, and their ids by another implementation.
fn sentences(name: &str) -> Vec<(String, Option<Vec<u32>>)> {
    let all: Value = serde_json::from_slice(&fs::read(data("token_ids.json")).unwrap()).unwrap();
    let sentences: Vec<String> = serde_json::from_value(all["sentences"].clone()).unwrap();
    let ids: Vec<Option<Vec<u32>>> = serde_json::from_value(all[name].clone()).unwrap();
    assert_eq!(sentences.len(), ids.len());
    sentences.into_iter().zip(ids).collect()
}

/// Prose-like text with everything that cutting could get wrong.
fn long_text(bytes: usize, seed: u64) -> String {
    let mut random = StdRng::seed_from_u64(seed);
    let words =
        ["The", "log", "of", "1894", "camp.", "it's", "naïve", "東京", "x_1", "(yes)", "\u{301}b", "<|im_end|>"];
    let breaks = [" ", " ", " ", " ", " ", "\n", "\n\n", "  ", ". ", ".\n", "\t", " \n", "\r\n"];
    let mut text = String::new();
    while text.len() < bytes {
        text += words[random.random_range(0..words.len())];
        text += breaks[random.random_range(0..breaks.len())];
    }
    text
}

// --- ids ---

#[test]
fn ids_equal_other_implementations() {
    for name in ALL {
        let tokenizer = tokenizer(name);
        let mut compared = 0;
        for (sentence, ids) in sentences(name) {
            let Some(ids) = ids else { continue };
            assert_eq!(tokenizer.encode(&sentence).unwrap(), ids, "{name}: {sentence:?}");
            compared += 1;
        }
        assert!(compared >= 18);
    }
}

#[test]
fn control_tokens_in_a_text_are_read_and_skipped() {
    let tokenizer = tokenizer("byte_level_smollm");
    let (start, end) = (tokenizer.token_id("<|im_start|>").unwrap(), tokenizer.token_id("<|im_end|>").unwrap());
    let ids = tokenizer.encode("<|im_start|>Hi<|im_end|>").unwrap();
    assert_eq!((ids[0], *ids.last().unwrap()), (start, end));
    assert_eq!(tokenizer.decode(&ids).unwrap(), "Hi");
    assert_eq!(tokenizer.decode_raw(&ids).unwrap(), "<|im_start|>Hi<|im_end|>");
    assert_eq!(tokenizer.token(start).as_deref(), Some("<|im_start|>"));
    // Nothing is added to a text.
    assert!(tokenizer.encode("").unwrap().is_empty());
    assert_eq!(tokenizer.vocab_size(), 600);
    assert_eq!(tokenizer.max_id(), 599);
}

#[test]
fn decoding_returns_the_text() {
    for name in ALL {
        let tokenizer = tokenizer(name);
        for (sentence, _) in sentences(name) {
            let ids = tokenizer.encode(&sentence).unwrap();
            let decoded = tokenizer.decode_raw(&ids).unwrap();
            match name {
                // Composes characters by design.
                "byte_level_qwen2" if sentence.contains('\u{30a}') => assert_eq!(decoded, "ÅÅ Å"),
                // Writes spaces as this character, so cannot tell them apart.
                "sentence_piece" if sentence.contains('▁') => {}
                // Puts a space before each text, also after a control token.
                "sentence_piece" if sentence.contains("<s>") => {}
                _ => assert_eq!(decoded, sentence, "{name}"),
            }
        }
    }
}

#[test]
fn an_unknown_id_is_named() {
    let tokenizer = tokenizer("byte_level_gpt-2");
    let error = tokenizer.decode(&[5, 6, 600]).unwrap_err();
    assert!(matches!(error, Error::OutOfVocabulary { id: 600, position: 2, vocab_size: 600 }), "{error:?}");
    let mut stream = tokenizer.stream();
    assert_eq!(stream.push(u32::MAX).unwrap(), "");
    assert_eq!(stream.push(tokenizer.encode("a").unwrap()[0]).unwrap(), "a");
}

// --- offsets ---

fn assert_covers(text: &str, offsets: &[Range<usize>], name: &str) {
    let mut end = 0;
    for range in offsets {
        assert!(range.start <= end && range.end >= end, "{name}: {range:?} after {end} in {text:?}");
        assert!(text.get(range.clone()).is_some(), "{name}: {range:?} splits a character");
        end = range.end;
    }
    assert_eq!(end, text.len(), "{name}: {text:?}");
}

#[test]
fn offsets_cover_the_text() {
    for name in ALL {
        let tokenizer = tokenizer(name);
        for (sentence, _) in sentences(name) {
            let (ids, offsets) = tokenizer.encode_with_offsets(&sentence).unwrap();
            assert_eq!(ids.len(), offsets.len());
            assert_covers(&sentence, &offsets, name);
        }
    }
}

#[test]
fn pieces_of_a_long_text_join_without_a_seam() {
    for name in ALL {
        let tokenizer = tokenizer(name);
        for seed in 0..4 {
            let text = long_text(400_000, seed);
            let (ids, offsets) = tokenizer.encode_with_offsets(&text).unwrap();
            assert_covers(&text, &offsets, name);
            // The same text read through the library in one go.
            let json = serde_json::to_value(tokenizers_json(name)).unwrap();
            let whole: tokenizers::Tokenizer = serde_json::from_value(json).unwrap();
            assert!(whole.encode(text.as_str(), false).unwrap().get_ids() == ids, "{name}, seed {seed}");
        }
    }
}

/// The tokenizer as the library's own JSON.
fn tokenizers_json(name: &str) -> Value {
    let file = Gguf::open(data(&format!("{name}.gguf"))).unwrap();
    let debug = Tokenizer::from_gguf(&file).unwrap();
    serde_json::from_str(&debug.to_json().unwrap()).unwrap()
}

#[test]
fn texts_without_words_are_read() {
    let tokenizer = tokenizer("byte_level_llama-bpe");
    for text in [" ".repeat(300_000), "a".repeat(300_000), "\n".repeat(300_000), "漢字".repeat(60_000)] {
        let (_, offsets) = tokenizer.encode_with_offsets(&text).unwrap();
        assert_covers(&text, &offsets, "llama-bpe");
    }
}

// --- streaming ---

fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let mut stream = tokenizer.stream();
    let mut text: String = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
    text += &stream.finish().unwrap();
    text
}

#[test]
fn streamed_text_is_the_decoded_text() {
    for name in ALL {
        let tokenizer = tokenizer(name);
        for (sentence, _) in sentences(name) {
            let ids = tokenizer.encode(&sentence).unwrap();
            assert_eq!(streamed(&tokenizer, &ids), tokenizer.decode(&ids).unwrap(), "{name}: {sentence:?}");
        }
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..200 {
            let ids: Vec<u32> = (0..40).map(|_| random.random_range(0..=tokenizer.max_id())).collect();
            let (streamed, decoded) = (streamed(&tokenizer, &ids), tokenizer.decode(&ids).unwrap());
            // Random bytes of SentencePiece may spoil a character that was complete before.
            if name != "sentence_piece" {
                assert_eq!(streamed, decoded, "{name}: {ids:?}");
            }
        }
    }
}

#[test]
fn pieces_end_at_characters() {
    let tokenizer = tokenizer("byte_level_gpt-2");
    let ids = tokenizer.encode("a東🙂b").unwrap();
    let mut stream = tokenizer.stream();
    let pieces: Vec<String> = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
    assert_eq!(pieces.iter().filter(|piece| !piece.is_empty()).collect::<Vec<_>>(), ["a", "東", "🙂", "b"]);
    // A character that is cut off is held back, then shown as damaged.
    let mut stream = tokenizer.stream();
    assert_eq!(stream.push(tokenizer.encode("東").unwrap()[0]).unwrap(), "");
    assert_eq!(stream.finish().unwrap(), "\u{fffd}");
}

// --- files ---

fn write(directory: &tempfile::TempDir, json: &Value) -> PathBuf {
    let path = directory.path().join("tokenizer.json");
    fs::write(&path, json.to_string()).unwrap();
    path
}

#[test]
fn a_file_and_its_gguf_agree() {
    let directory = tempfile::tempdir().unwrap();
    for name in ALL {
        let from_gguf = tokenizer(name);
        let from_file = Tokenizer::from_file(write(&directory, &tokenizers_json(name))).unwrap();
        assert_eq!(from_file.fingerprint().unwrap(), from_gguf.fingerprint().unwrap());
        assert_eq!(from_file.fingerprint().unwrap().len(), 64);
        let text = long_text(100_000, 9);
        assert_eq!(from_file.encode(&text).unwrap(), from_gguf.encode(&text).unwrap());
    }
    assert_ne!(tokenizer(ALL[0]).fingerprint().unwrap(), tokenizer(ALL[1]).fingerprint().unwrap());
}

#[test]
fn truncation_padding_and_templates_of_a_file_are_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let mut json = tokenizers_json("byte_level_gpt-2");
    let plain = Tokenizer::from_file(write(&directory, &json)).unwrap();
    json["truncation"] = json!({"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0});
    json["padding"] = json!({"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<|im_start|>"});
    json["post_processor"] =
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    let padded = Tokenizer::from_file(write(&directory, &json)).unwrap();
    let text = "One sentence of more than four tokens.";
    assert_eq!(padded.encode_with_offsets(text).unwrap(), plain.encode_with_offsets(text).unwrap());
    assert_eq!(padded.fingerprint().unwrap(), plain.fingerprint().unwrap());
}

#[test]
fn damaged_files_are_errors() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(Tokenizer::from_file(directory.path().join("none.json")), Err(Error::Io { .. })));
    let good = tokenizers_json("byte_level_gpt-2");
    let text = good.to_string();
    for length in (0..text.len()).step_by(text.len() / 50) {
        let path = directory.path().join("tokenizer.json");
        fs::write(&path, &text.as_bytes()[..length]).unwrap();
        assert!(matches!(Tokenizer::from_file(&path), Err(Error::Tokenizer { .. })), "{length}");
    }
    let edits: [fn(&mut Value); 9] = [
        |json| json["model"]["merges"][0] = json!(["no", "such token"]),
        |json| json["model"]["vocab"] = json!({}),
        |json| {
            json["pre_tokenizer"] =
                json!({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": false})
        },
        |json| json["added_tokens"][0]["id"] = json!(77),
        |json| json["version"] = json!("9.0"),
        |json| json["model"] = json!({"type": "Oracle"}),
        |json| json["model"]["continuing_subword_prefix"] = json!("##"),
        |json| {
            json["decoder"] =
                json!({"type": "Sequence", "decoders": [{"type": "Strip", "content": "x", "start": 0, "stop": 1}]})
        },
        |json| json["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
    ];
    for (number, edit) in edits.iter().enumerate() {
        let mut json = good.clone();
        edit(&mut json);
        let result = Tokenizer::from_file(write(&directory, &json));
        assert!(matches!(result, Err(Error::Tokenizer { .. })), "edit {number}: {result:?}");
    }
}
