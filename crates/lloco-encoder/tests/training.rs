//! Training runs: what they learn, what they leave, and what they survive.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write,
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use common::{BASE, Bytes, CURRICULUM, auto_curriculum, curriculum, jsonl, text, tiny_decoder, values};
use lloco_decoder::Decoder;
use lloco_encoder::{
    Compressor, CompressorConfig, CompressorTrainer, Corpus, Curriculum, EncoderOptions, Error, TrainingEvent,
    TrainingOutcome,
};

fn trainer<'a>(decoder: &'a Decoder, corpus: &'a Corpus, curriculum: Curriculum) -> CompressorTrainer<'a> {
    CompressorTrainer::new(decoder, BASE, curriculum, corpus, &Bytes).unwrap()
}

fn go_on(_: &TrainingEvent) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn a_run_leaves_checkpoints_metrics_curves_and_a_compressor() {
    let (decoder, dir) = (tiny_decoder(), tempfile::tempdir().unwrap());
    let corpus = jsonl(dir.path(), 7);
    let mut trainer = trainer(&decoder, &corpus, curriculum());
    let (mut stages, mut evaluations) = (Vec::new(), 0);
    let outcome = trainer.run(dir.path(), None, &mut |event| {
        match event {
            TrainingEvent::Step(step) => stages.push((step.stage.clone(), step.losses.clone())),
            TrainingEvent::Evaluated { .. } => evaluations += 1,
            _ => {}
        }
        ControlFlow::Continue(())
    });
    assert_eq!(outcome.unwrap(), TrainingOutcome::Finished);
    let names: Vec<&str> = stages.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, [vec!["connector"; 3], vec!["read"; 5], vec!["answer"; 6]].concat());
    assert_eq!(evaluations, 3);
    let losses: Vec<&str> = stages.last().unwrap().1.keys().map(String::as_str).collect();
    assert_eq!(losses, ["answer", "binding", "continuation", "gap", "kl"]);
    let lines = fs::read_to_string(dir.path().join("metrics.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 14 + 3);
    let svg = fs::read_to_string(dir.path().join("curves.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("reconstruction"));
    let left = fs::read_dir(dir.path().join("checkpoints")).unwrap().count();
    assert_eq!(left, 2);

    trainer.export(dir.path().join("compressor")).unwrap();
    let compressor = Compressor::load(dir.path().join("compressor"), &decoder, BASE).unwrap();
    assert_eq!(compressor.config().steps, 14);
    let kept = Curriculum::from_file(dir.path().join("compressor/curriculum.json")).unwrap();
    assert_eq!(&kept, trainer.curriculum());
    let encoder = compressor.encoder(decoder.clone(), &EncoderOptions::default()).unwrap();
    assert_eq!(encoder.encode(&[3; 40]).unwrap().dims(), [10, 32]);
    assert!(encoder.reader().is_some());
    assert!(matches!(Compressor::load(dir.path().join("compressor"), &decoder, "x"), Err(Error::OtherModel { .. })));
}

#[test]
fn summaries_are_learned_and_read() {
    let json = r#"{
        "mode": {"pooled": {"segment_length": 16, "ratios": [2]}},
        "encoder": {"r": 8, "lora_alpha": 16.0, "lora_dropout": 0.0, "target_modules": "all-linear"},
        "reader": {"own": {"r": 8, "lora_alpha": 16.0, "lora_dropout": 0.0, "target_modules": "all-linear"}},
        "micro_batch": 4, "save_every": 1000,
        "stages": [{"name": "overfit", "steps": 150, "batch": 4, "context": 12, "documents": 4, "ratios": [2],
            "losses": {"reconstruction": 1.0},
            "learning_rates": {"encoder": 1e-2, "connector": 1e-2, "reader": 1e-2}}]
    }"#;
    let (decoder, dir) = (tiny_decoder(), tempfile::tempdir().unwrap());
    let corpus = jsonl(dir.path(), 6);
    let mut trainer = trainer(&decoder, &corpus, Curriculum::from_json(json, "c.json").unwrap());
    let before = trainer.evaluate(0).unwrap().reconstruction;
    assert_eq!(trainer.run(dir.path(), None, &mut go_on).unwrap(), TrainingOutcome::Finished);
    let after = trainer.evaluate(0).unwrap().reconstruction;
    assert_eq!(after.tokens, 48);
    assert!(before.accuracy < 0.3 && after.accuracy > 0.9, "{before:?} -> {after:?}");
    assert!(after.shuffled_nll - after.nll > 0.1, "read off other summaries as well: {after:?}");
}

#[test]
fn a_run_in_parts_is_the_run_in_one_go() {
    let (decoder, dir) = (tiny_decoder(), tempfile::tempdir().unwrap());
    let corpus = jsonl(dir.path(), 7);
    let auto = auto_curriculum();
    for (name, json) in [("pooled", CURRICULUM), ("auto", auto.as_str()), ("full", &full())] {
        let curriculum = Curriculum::from_json(json, "c.json").unwrap();
        let mut straight = trainer(&decoder, &corpus, curriculum.clone());
        let expected: Vec<u64> = (0..14).map(|_| straight.step().unwrap().loss.to_bits()).collect();
        let run = dir.path().join(name);
        let mut found = Vec::new();
        loop {
            let mut part = trainer(&decoder, &corpus, curriculum.clone());
            part.resume(&run).unwrap();
            let outcome = part.run(&run, Some(5), &mut |event| {
                if let TrainingEvent::Step(step) = event {
                    found.push(step.loss.to_bits());
                }
                ControlFlow::Continue(())
            });
            if outcome.unwrap() == TrainingOutcome::Finished {
                break;
            }
        }
        assert_eq!(found, expected, "{name}");
    }
}

/// The curriculum with an encoder of one layer that is trained in full.
fn full() -> String {
    let lora = r#"{"r": 4, "lora_alpha": 8.0, "lora_dropout": 0.1, "target_modules": "all-linear"}"#;
    CURRICULUM.replacen(lora, r#""full""#, 1).replacen(r#""ratios": [4, 2]"#, r#""ratios": [4, 2], "layers": 1"#, 1)
}

#[test]
fn full_training_changes_all_projections_of_the_layers_that_read_and_no_others() {
    let (decoder, dir) = (tiny_decoder(), tempfile::tempdir().unwrap());
    let corpus = jsonl(dir.path(), 7);
    let mut trainer = trainer(&decoder, &corpus, Curriculum::from_json(&full(), "c.json").unwrap());
    let rows = |compressor: &Compressor| {
        let encoder = compressor.encoder(decoder.clone(), &EncoderOptions::default()).unwrap();
        (values(encoder.encode(&[4, 9, 30, 7, 7, 1, 80, 90]).unwrap()), encoder.fingerprint().to_owned())
    };
    let (before, old) = rows(trainer.compressor());
    trainer.run(dir.path(), None, &mut go_on).unwrap();
    trainer.export(dir.path().join("compressor")).unwrap();
    let bytes = fs::read(dir.path().join("compressor/compressor.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut names: Vec<&str> = tensors.names().into_iter().filter(|name| name.starts_with("encoder.")).collect();
    names.sort_unstable();
    let modules = ["mlp.down_proj", "mlp.gate_proj", "mlp.up_proj"];
    let attention = ["k_proj", "o_proj", "q_proj", "v_proj"].map(|name| format!("self_attn.{name}"));
    let projections = modules.into_iter().chain(attention.iter().map(String::as_str));
    let expected: Vec<String> = projections.map(|name| format!("encoder.model.layers.0.{name}.delta.weight")).collect();
    assert_eq!(names, expected);
    for name in names {
        let tensor = tensors.tensor(name).unwrap();
        assert!(tensor.data().iter().any(|&byte| byte != 0), "{name} has not changed");
    }
    assert_eq!(tensors.tensor("encoder.model.layers.0.mlp.down_proj.delta.weight").unwrap().shape(), [32, 48]);

    let compressor = Compressor::load(dir.path().join("compressor"), &decoder, BASE).unwrap();
    let ((trained, own), (read, _)) = (rows(trainer.compressor()), rows(&compressor));
    assert!(common::worst(&trained, &before) > 1e-2 && common::worst(&trained, &read) < 1e-2);
    assert_ne!(own, old);
}

#[test]
fn breaking_off_saves() {
    let (decoder, dir) = (tiny_decoder(), tempfile::tempdir().unwrap());
    let corpus = jsonl(dir.path(), 7);
    let mut settings = curriculum();
    settings.save_every = 1000;
    let mut first = trainer(&decoder, &corpus, settings.clone());
    let stop = |event: &TrainingEvent| match event {
        TrainingEvent::Step(step) if step.step == 4 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    assert_eq!(first.run(dir.path(), None, &mut { stop }).unwrap(), TrainingOutcome::Interrupted);
    let mut second = trainer(&decoder, &corpus, settings.clone());
    assert!(second.resume(dir.path()).unwrap());
    assert_eq!(second.steps_done(), 4);
    // A new run must not take over the directory, nor one of other settings or data go on there.
    let mut fresh = trainer(&decoder, &corpus, settings.clone());
    assert!(matches!(
        fresh.run(dir.path(), None, &mut go_on),
        Err(Error::Lora(lloco_lora::Error::CheckpointAhead { .. }))
    ));
    // More stages behind the others are welcome, fewer are not.
    let mut longer = settings.clone();
    longer.stages.push(longer.stages[0].clone());
    let mut third = trainer(&decoder, &corpus, longer);
    assert!(third.resume(dir.path()).unwrap());
    assert_eq!(third.steps_done(), 4);
    let mut shorter = settings.clone();
    shorter.stages.pop();
    let found = trainer(&decoder, &corpus, shorter).resume(dir.path());
    assert!(
        matches!(&found, Err(Error::CheckpointMismatch { field, .. }) if field == "curriculum.stages"),
        "{found:?}"
    );
    settings.stages[1].losses.continuation = 0.4;
    let found = trainer(&decoder, &corpus, settings).resume(dir.path());
    assert!(
        matches!(&found, Err(Error::CheckpointMismatch { field, .. }) if field.ends_with("losses.continuation")),
        "{found:?}"
    );
    let other = tempfile::tempdir().unwrap();
    let corpus = jsonl(other.path(), 6);
    let mut same = curriculum();
    same.save_every = 1000;
    let found = trainer(&decoder, &corpus, same).resume(dir.path());
    assert!(matches!(&found, Err(Error::CheckpointMismatch { field, .. }) if field == "data"), "{found:?}");
}

/// All weights of a compressor.
fn bytes(compressor: &Compressor) -> Vec<u8> {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("compressor");
    compressor.save(&dir, lloco_lora::StoredType::F32, &[]).unwrap();
    fs::read(dir.join("compressor.safetensors")).unwrap()
}

#[test]
fn a_run_begins_with_a_trained_compressor_on_other_data() {
    let (decoder, dir) = (tiny_decoder(), tempfile::tempdir().unwrap());
    let mut settings = curriculum();
    settings.stages.truncate(1);
    let first_corpus = jsonl(dir.path(), 7);
    let mut first = trainer(&decoder, &first_corpus, settings.clone());
    first.run(dir.path().join("first"), None, &mut go_on).unwrap();
    let trained = first.compressor().clone();
    let steps = trained.config().steps;

    let other = tempfile::tempdir().unwrap();
    let corpus = jsonl(other.path(), 6);
    let begin = || trainer(&decoder, &corpus, settings.clone()).start_from(trained.clone()).unwrap();
    let mut second = begin();
    assert_eq!(bytes(second.compressor()), bytes(&trained));
    second.step().unwrap();
    assert_ne!(bytes(second.compressor()), bytes(&trained));
    assert_eq!(second.compressor().config().steps, steps + 1);
    second.save(other.path()).unwrap();

    // It goes on from the same start, and from no other.
    let mut third = begin();
    assert!(third.resume(other.path()).unwrap());
    assert_eq!(bytes(third.compressor()), bytes(second.compressor()));
    assert!(matches!(third.start_from(trained.clone()), Err(Error::InvalidSetting { .. })));
    let found = trainer(&decoder, &corpus, settings.clone()).resume(other.path());
    assert!(matches!(&found, Err(Error::CheckpointMismatch { field, .. }) if field == "origin"), "{found:?}");
    let changed = second.compressor().clone();
    let found = trainer(&decoder, &corpus, settings.clone()).start_from(changed).unwrap().resume(other.path());
    assert!(matches!(&found, Err(Error::CheckpointMismatch { field, .. }) if field == "origin"), "{found:?}");

    let mut wider = settings.clone();
    wider.reader = lloco_encoder::Reader::Base;
    let found = trainer(&decoder, &corpus, wider).start_from(trained);
    assert!(matches!(found.err(), Some(Error::InvalidSetting { field: "reader", .. })));
}

#[test]
fn numbers_that_are_none_stop_the_run_and_name_the_batch() {
    let (decoder, dir) = (tiny_decoder(), tempfile::tempdir().unwrap());
    let corpus = jsonl(dir.path(), 5);
    let trainer = trainer(&decoder, &corpus, curriculum());
    // Weights that are numbers, and whose products are none.
    let large = dir.path().join("large");
    trainer.compressor().save(&large, lloco_lora::StoredType::F32, &[]).unwrap();
    let file = large.join("compressor.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let header = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    bytes[header..].as_chunks_mut().0.iter_mut().for_each(|value| *value = 3e38f32.to_le_bytes());
    fs::write(&file, bytes).unwrap();
    let mut trainer = trainer.start_from(Compressor::load(&large, &decoder, BASE).unwrap()).unwrap();
    let found = trainer.run(dir.path(), None, &mut go_on);
    let Err(Error::NotFinite { step: 1, samples, .. }) = found else { panic!("{found:?}") };
    assert_eq!(samples.len(), 3);
    assert!(samples.iter().all(|name| name.contains("data.jsonl:")), "{samples:?}");
    assert_eq!(trainer.steps_done(), 0);
    assert!(!dir.path().join("checkpoints").exists());
}

/// Names the run's directory to the child process.
const DIR: &str = "LLOCO_ENCODER_KILL_DIR";

/// The child: goes on with the run and writes each loss down.
#[test]
#[ignore = "started by the test below"]
fn child() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else { return };
    let decoder = tiny_decoder();
    let corpus = Corpus::open(&[dir.join("data.jsonl")]).unwrap();
    let mut trainer = trainer(&decoder, &corpus, curriculum());
    trainer.resume(dir.join("run")).unwrap();
    let mut log = OpenOptions::new().create(true).append(true).open(dir.join("losses")).unwrap();
    let outcome = trainer.run(dir.join("run"), None, &mut |event| {
        if let TrainingEvent::Step(step) = event {
            writeln!(log, "{} {}", step.step, step.loss.to_bits()).unwrap();
        }
        ControlFlow::Continue(())
    });
    outcome.unwrap();
    trainer.export(dir.join("compressor")).unwrap();
}

#[test]
fn a_run_killed_at_any_instant_keeps_its_losses() {
    let (decoder, dir) = (tiny_decoder(), tempfile::tempdir().unwrap());
    let corpus = jsonl(dir.path(), 7);
    let mut straight = trainer(&decoder, &corpus, curriculum());
    let expected: Vec<u64> = (0..14).map(|_| straight.step().unwrap().loss.to_bits()).collect();
    let mut kills = 0;
    while !dir.path().join("compressor").exists() {
        let before = lines(dir.path()).len();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored"])
            .env(DIR, dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while lines(dir.path()).len() < before + 3 && child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < Duration::from_secs(120), "the child does nothing");
            std::thread::sleep(Duration::from_millis(1));
        }
        if kills < 3 {
            std::thread::sleep(Duration::from_micros(3100 * kills));
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
        } else {
            assert!(child.wait().unwrap().success());
        }
    }
    // Steps that were lost and done again have the same loss as well.
    let mut seen = BTreeMap::new();
    for (step, loss) in lines(dir.path()) {
        assert_eq!(loss, expected[step - 1], "step {step}");
        *seen.entry(step).or_insert(0) += 1;
    }
    assert_eq!((seen.len(), kills), (14, 3));
    // The metrics tell each step once.
    let metrics = fs::read_to_string(dir.path().join("run/metrics.jsonl")).unwrap();
    let steps = metrics.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let steps: Vec<u64> =
        steps.filter(|line| line.get("loss").is_some()).map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, (1..=14).collect::<Vec<u64>>());
    let compressor = Compressor::load(dir.path().join("compressor"), &decoder, BASE).unwrap();
    let rows = |compressor: &Compressor| {
        let encoder = compressor.encoder(decoder.clone(), &EncoderOptions::default()).unwrap();
        values(encoder.encode(&[4, 9, 30, 7, 7, 1, 80, 90]).unwrap())
    };
    assert!(common::worst(&rows(&compressor), &rows(straight.compressor())) < 1e-2);
}

/// Steps and losses so far; a line cut short by the kill is left out.
fn lines(dir: &Path) -> Vec<(usize, u64)> {
    let text = fs::read_to_string(dir.join("losses")).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |line: &str| line.split_once(' ').map(|(step, loss)| (step.parse().unwrap(), loss.parse().unwrap()));
    whole.lines().filter_map(parse).collect()
}

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
    let names = [
        "135m",
        "135m-cpu",
        "135m-cpu-stories",
        "135m-12-layers",
        "135m-12-layers-stories",
        "autocompressor",
        "overfit",
        "overfit-small",
    ];
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
