//! What is learned, and of what.

use std::fs;

use lloco_encoder::{Compressor, Curriculum, EncoderOptions, Error, TrainingOutcome};

use crate::{
    common::{BASE, curriculum, jsonl, tiny_decoder, values, worst},
    full, go_on, trainer,
};

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
    assert!(worst(&trained, &before) > 1e-2 && worst(&trained, &read) < 1e-2);
    assert_ne!(own, old);
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

#[test]
fn a_step_counts_texts_that_are_read_twice_and_what_is_read_behind_their_summaries() {
    let (decoder, dir) = (tiny_decoder(), tempfile::tempdir().unwrap());
    let corpus = jsonl(dir.path(), 7);
    let mut trainer = trainer(&decoder, &corpus, curriculum());
    let steps = [(); 4].map(|()| trainer.step().unwrap());
    let config = decoder.config();
    let text = |segments: &[usize]| -> f64 { segments.iter().map(|&n| config.operations(n, 0, n)).sum() };
    // So many positions, and targets, which the output head predicts.
    let behind = |readings: &[(usize, usize)]| -> f64 {
        let head = |targets: usize| (2 * targets * config.hidden_size * config.vocab_size) as f64;
        readings.iter().map(|&(n, targets)| config.operations(n, 0, n) + head(targets)).sum()
    };
    // Three texts of one segment, whose connector learns; then of two, and all parts learn. For the way back they are read
    // with gradients, as is what stands behind the summary vectors: a task and what it is to say, of which the last
    // token is only predicted.
    let one = (text(&[16]), behind(&[(8 + 1 + 15, 16)]));
    let two = (text(&[16, 8]), [12, 6].map(|vectors| behind(&[(vectors + 1 + 8 + 11, 12), (vectors + 1 + 7, 8)])));
    for (step, text, behind) in [(&steps[2], one.0, &[one.1][..]), (&steps[3], two.0, &two.1[..])] {
        let expected: Vec<f64> = behind.iter().map(|behind| 3.0 * (3.0 * text + 2.0 * behind)).collect();
        let close = |expected: &f64| (step.operations / expected - 1.0).abs() < 1e-9;
        assert!(expected.iter().any(close), "{step:?}, {expected:?}");
    }
}
