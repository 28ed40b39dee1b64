//! Bad input ends an example with code 1 and a message that names the culprit, and leaves nothing behind.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{fs, path::PathBuf};

use common::{failure, json, model_with_tokenizer, repository, run, text};

const PROGRAMS: [&str; 10] =
    ["ask", "compress", "evaluate", "finetune", "generate", "ingest", "quickstart", "self_study", "store", "train"];

fn golden(name: &str) -> PathBuf {
    repository("testdata/goldens").join(name)
}

#[test]
fn every_example_explains_itself() {
    for program in PROGRAMS {
        let output = run(program, &["--help"]);
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && help.contains("--json"), "{program}: {help}");
    }
}

#[test]
fn compress_refuses_what_it_cannot_read() {
    let work = tempfile::tempdir().unwrap();
    let out = work.path().join("out.safetensors");
    let model = golden("llama2-mha");
    let file = |name: &str, contents: &str| {
        let path = work.path().join(name);
        fs::write(&path, contents).unwrap();
        path
    };
    let broken = work.path().join("broken");
    fs::create_dir(&broken).unwrap();
    fs::copy(model.join("config.json"), broken.join("config.json")).unwrap();
    let weights = fs::read(model.join("model.safetensors")).unwrap();
    fs::write(broken.join("model.safetensors"), &weights[..weights.len() / 2]).unwrap();

    let ids = file("ids.json", "[1, 2, 3]");
    let cases = [
        (work.path().join("nowhere"), ids.clone(), "nowhere"),
        (broken, ids, "model.safetensors"),
        (model.clone(), work.path().join("missing.json"), "missing.json"),
        (model.clone(), file("words.json", r#"["one"]"#), "words.json: expected a JSON array"),
        (model.clone(), file("none.json", "[]"), "empty"),
        (model.clone(), file("far.json", "[1, 4000000000]"), "4000000000"),
    ];
    for (model, ids, expected) in cases {
        let message = failure("compress", &["--model", text(&model), "--token-ids", text(&ids), "--out", text(&out)]);
        assert!(message.contains(expected), "{message}");
        assert!(!out.exists());
    }
    let page = file("page.txt", "no tokenizer reads this");
    let message = failure("compress", &["--model", text(&model), "--input", text(&page), "--out", text(&out)]);
    assert!(message.contains("tokenizer.json") && !out.exists(), "{message}");
}

#[test]
fn generate_refuses_what_does_not_fit() {
    let work = tempfile::tempdir().unwrap();
    let ids = work.path().join("ids.json");
    fs::write(&ids, r#"{"ids": [1, 2, 3]}"#).unwrap();
    let model = golden("llama2-mha");
    let given = ["--model", text(&model), "--token-ids", text(&ids), "--max-new-tokens", "2"];
    assert_eq!(json("generate", &given)["token_ids"].as_array().map(Vec::len), Some(2));

    let other = golden("wide-head-dim").join("adapter");
    let damaged = work.path().join("damaged.safetensors");
    fs::write(&damaged, [255; 40]).unwrap();
    let cases = [
        (["--adapter", text(&other)], "adapter"),
        (["--summary", text(&damaged)], "damaged.safetensors"),
        (["--temperature", "-1"], "temperature"),
        (["--device", "abacus"], "abacus"),
        (["--context", "missing.txt"], "tokenizer"),
    ];
    for (more, expected) in cases {
        let message = failure("generate", &[&given[..], &more].concat());
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_library_that_is_not_there_is_not_made() {
    let work = tempfile::tempdir().unwrap();
    let (store, model) = (work.path().join("store"), model_with_tokenizer(work.path()));
    let embedder = repository("crates/lloco-retrieval/tests/data/tiny-bert");
    let given = ["--store", text(&store), "--model", text(&model), "--embedder", text(&embedder)];
    let message = failure("ask", &[&given[..], &["Who?"]].concat());
    assert!(message.contains(text(&store)) && !store.exists(), "{message}");

    let message = failure("ingest", &[&given[..], &["nothing/*.txt"]].concat());
    assert!(message.contains("nothing/*.txt"), "{message}");
    let message = failure("finetune", &[&given[..], &["--questions", "missing.jsonl"]].concat());
    assert!(message.contains("missing.jsonl"), "{message}");
    let message = failure("evaluate", &[&given[..], &["--data", "missing.jsonl", "--questions", "0"]].concat());
    assert!(message.contains("missing.jsonl"), "{message}");
}

#[test]
fn train_names_what_is_wrong_with_curriculum_and_data() {
    let work = tempfile::tempdir().unwrap();
    let model = model_with_tokenizer(work.path());
    let out = work.path().join("run");
    let data = work.path().join("data.jsonl");
    fs::write(&data, "{\"id\": \"a\", \"text\": \"some text\"}\n{\"id\": 3}\n").unwrap();
    let shipped = |name: &str| repository("examples/data").join(format!("curriculum-{name}.json"));
    let train = |curriculum: &std::path::Path| {
        let more = ["--curriculum", text(curriculum), "--data", text(&data), "--out", text(&out)];
        failure("train", &[&["--model", text(&model)][..], &more[..]].concat())
    };
    // The curricula beside the examples are read; what is wrong is the data.
    for name in ["135m", "overfit", "autocompressor"] {
        let error = train(&shipped(name));
        assert!(error.contains("data.jsonl, line 2"), "{name}: {error}");
    }
    let curriculum = work.path().join("c.json");
    let json = fs::read_to_string(shipped("overfit")).unwrap();
    fs::write(&curriculum, json.replace("\"steps\": 1000", "\"steps\": 0")).unwrap();
    assert!(train(&curriculum).contains("stages[0].steps"));
    fs::write(&curriculum, json.replace("\"steps\"", "\"stepz\"")).unwrap();
    assert!(train(&curriculum).contains("stepz"));
    assert!(!out.exists());
}
