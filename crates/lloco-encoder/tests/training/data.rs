//! Curricula and data that are read, and what is refused of them.

use std::{fs, path::Path};

use lloco_encoder::{CompressorConfig, CompressorTrainer, Corpus, Curriculum, Error};

use crate::{
    common::{BASE, Bytes, CURRICULUM, curriculum, text, tiny_decoder},
    full,
};

#[test]
fn curricula_are_checked() {
    let fails = |from: &str, to: &str| Curriculum::from_json(&CURRICULUM.replacen(from, to, 1), "c.json").unwrap_err();
    for (from, to, expected) in [
        (r#""steps": 3"#, r#""steps": 0"#, "stages[0].steps"),
        (r#""ratios": [2]"#, r#""ratios": [3]"#, "stages[0].ratios"),
        (r#""ratios": [4, 2]"#, r#""ratios": [5]"#, "mode.ratios"),
        (r#""connector": 1e-3"#, r#""connector": -1.0"#, "stages[0].learning_rates.connector"),
        (r#""connector": 1e-3"#, r#""connector": 0.0"#, "stages[0].learning_rates"),
        (r#"{"reconstruction": 1.0}"#, "{}", "stages[0].losses"),
        (r#""binding": 0.2"#, r#""binding": 1e9"#, "stages[2].losses.binding"),
        (r#""micro_batch": 2"#, r#""micro_batch": 1"#, "stages[2].losses.binding"),
        (r#""distractors": 1"#, r#""distractors": 2"#, "stages[2].distractors"),
        (r#""final_rate": 0.1"#, r#""final_rate": 2"#, "stages[2].final_rate"),
    ] {
        let error = fails(from, to);
        assert!(matches!(&error, Error::Curriculum { field, .. } if field == expected), "{to}: {error}");
        assert!(error.to_string().contains("c.json"));
    }
    let shared = full().replacen(r#"{"own": {"r": 2, "lora_alpha": 4.0}}"#, r#""shared""#, 1);
    let found = Curriculum::from_json(&shared, "c.json");
    assert!(matches!(&found, Err(Error::Curriculum { field, .. }) if field == "reader"), "{found:?}");
    for (from, to, detail) in [
        (r#""steps": 3"#, r#""stepz": 3"#, "stepz"),
        (r#""seed": 4"#, r#""sead": 4"#, "sead"),
        (r#"{"r": 4,"#, r#"{"rr": 4,"#, "unknown field `rr`"),
        (
            r#"{"r": 4, "lora_alpha": 8.0, "lora_dropout": 0.1, "target_modules": "all-linear"}"#,
            r#""whole""#,
            "\"full\"",
        ),
        ("{", "", "line 2"),
    ] {
        let error = fails(from, to);
        assert!(matches!(&error, Error::Malformed { detail: found, .. } if found.contains(detail)), "{to}: {error}");
    }
}

#[test]
fn the_curricula_and_the_compressor_that_come_with_the_project_are_sound() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let names = ["135m", "135m-cpu", "135m-cpu-stories", "135m-cpu-more", "autocompressor", "overfit", "overfit-small"];
    for name in names {
        Curriculum::from_file(root.join(format!("examples/data/curriculum-{name}.json"))).unwrap();
    }
    let dir = root.join("models/smollm2-135m-lloco");
    let curriculum = Curriculum::from_file(dir.join("curriculum.json")).unwrap();
    let config: CompressorConfig = serde_json::from_slice(&fs::read(dir.join("compressor.json")).unwrap()).unwrap();
    assert_eq!((&config.mode, &config.encoder), (&curriculum.mode, &curriculum.encoder));
    assert_eq!(config.steps, curriculum.steps());
    let bytes = fs::read(dir.join("compressor.safetensors")).unwrap();
    assert!(bytes.len() < 20 << 20);
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for tensor in tensors.names() {
        let values = tensors.tensor(tensor).unwrap();
        let finite = values.data().chunks_exact(2).all(|f16| f16[1] & 0x7c != 0x7c);
        assert!(values.dtype() == safetensors::Dtype::F16 && finite, "{tensor}");
    }
    assert!(tensors.tensor("connector.center.weight").is_ok() && tensors.tensor("tasks.weight").is_ok());
}

#[test]
fn bad_data_is_named_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let open = |name: &str, contents: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, contents).unwrap();
        Corpus::open(&[path])
    };
    for (contents, bad) in [
        ("{\"id\": \"a\", \"text\": \"x\"}\n\n{\"id\": \"b\"}\n", 3),
        ("{\"id\": \"a\", \"text\": \"x\"}\n{\"id\": \"a\", \"text\": \"y\"}\n", 2),
        ("nonsense\n", 1),
        ("\n{\"text\": \"x\", \"questions\": [{\"question\": \"q\", \"answers\": []}]}\n", 2),
        ("{\"text\": \"x\", \"questions\": [{\"question\": \"q\", \"answers\": [\" \"]}]}\n", 1),
    ] {
        let found = open("bad.jsonl", contents.as_bytes());
        assert!(matches!(&found, Err(Error::Data { line, .. }) if *line == bad), "{found:?}");
    }
    let unanswered = open("asked.jsonl", br#"{"text": "x", "questions": [{"question": "q", "answers": []}]}"#);
    assert!(unanswered.unwrap_err().to_string().contains("a question has no answer"));
    assert!(matches!(open("empty.jsonl", b"\n \n"), Err(Error::NoData { .. })));
    assert!(matches!(open("bytes.txt", b"ab\xff cd"), Err(Error::Data { line: 0, .. })));
    // A long text is drawn in parts; characters of several bytes may lie on their border.
    let long = format!("x{}", "é".repeat(100_000));
    assert_eq!(open("long.txt", long.as_bytes()).unwrap().len(), 4);
    assert!(matches!(Corpus::open(&[dir.path().join("none.txt")]), Err(Error::Io { .. })));

    let decoder = tiny_decoder();
    let corpus = open("short.txt", text(1, 1).as_bytes()).unwrap();
    let found = CompressorTrainer::new(&decoder, BASE, curriculum(), &corpus, &Bytes).err();
    assert!(matches!(&found, Some(Error::NoSample { tokens: 16, .. })), "{found:?}");
}
