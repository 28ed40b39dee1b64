//! Learning from a teacher beside the answers.
#![allow(clippy::unwrap_used, dead_code, reason = "a test fails by panicking, and not every test uses all of `common`")]

mod common;

use common::{busy_adapter, distance, examples, largest, noise, tiny_decoder, to_vec};
use lloco_decoder::Decoder;
use lloco_lora::{Adapter, Error, Example, LoraConfig, TrainConfig, Trainer, finetune::Teacher};

fn config() -> TrainConfig {
    let lora = LoraConfig::default().with_rank(3, 6.0).with_dropout(0.0);
    TrainConfig::default().with_lora(lora).with_learning_rate(5e-3).with_batches(2, 2).with_distillation(0.7)
}

/// Every other example has a teacher.
fn taught(decoder: &Decoder, count: usize, top: usize) -> Vec<Example> {
    let teach = |(index, example): (usize, Example)| {
        let rows = noise([example.answer_ids.len(), 32], index as u64).mul_scalar(8.0);
        match index % 2 {
            0 => example.with_teacher(Teacher::new(decoder, &rows, top).unwrap()),
            _ => example,
        }
    };
    examples(count).into_iter().enumerate().map(teach).collect()
}

fn trainer(decoder: &Decoder, config: TrainConfig, adapter: Adapter) -> Trainer<'_> {
    Trainer::new(decoder, config, taught(decoder, 4, 6)).unwrap().with_adapter(adapter)
}

#[test]
fn gradients_are_those_of_both_losses() {
    let decoder = tiny_decoder();
    let adapter = busy_adapter(&config().lora, 1);
    let found = trainer(&decoder, config(), adapter.clone()).gradients().unwrap();
    let loss = |adapter: Adapter| {
        let report = trainer(&decoder, config(), adapter).step().unwrap();
        report.loss + 0.7 * report.divergence.unwrap()
    };
    for name in ["model.layers.0.self_attn.q_proj.lora_A.weight", "model.layers.1.self_attn.o_proj.lora_B.weight"] {
        let direction = noise::<2>(adapter.parameters()[name].dims(), 3);
        let shifted = |by: f64| {
            adapter.map(|other, tensor| if other == name { tensor + direction.clone().mul_scalar(by) } else { tensor })
        };
        let slope = (loss(shifted(1e-2)) - loss(shifted(-1e-2))) / 2e-2;
        let expected = to_vec((found.gradients.get(name).unwrap().clone() * direction.clone()).sum())[0];
        let expected = f64::from(expected);
        assert!((slope - expected).abs() < 3e-3 * expected.abs().max(1e-2), "{name}: {slope}, {expected}");
    }
}

#[test]
fn a_padded_batch_equals_single_examples() {
    let decoder = tiny_decoder();
    let adapter = busy_adapter(&config().lora, 1);
    let gradients =
        |size| trainer(&decoder, config().with_batches(size, 4 / size), adapter.clone()).gradients().unwrap();
    let single = gradients(1);
    for size in [2, 4] {
        let batch = gradients(size);
        assert!((batch.loss - single.loss).abs() < 1e-6, "size {size}: {} and {}", batch.loss, single.loss);
        for (name, gradient) in batch.gradients.iter() {
            let (found, expected) = (to_vec(gradient.clone()), to_vec(single.gradients.get(name).unwrap().clone()));
            assert!(distance(&found, &expected) < 1e-4 * largest(&expected).max(1e-6), "size {size}, {name}");
        }
    }
}

#[test]
fn without_weight_or_teacher_nothing_changes() {
    let decoder = tiny_decoder();
    let adapter = busy_adapter(&config().lora, 1);
    let plain = |config, examples| Trainer::new(&decoder, config, examples).unwrap().with_adapter(adapter.clone());
    let expected = plain(config(), examples(4)).step().unwrap();
    assert_eq!(expected.divergence, None);
    let mut unweighted = plain(config().with_distillation(0.0), taught(&decoder, 4, 6)).step().unwrap();
    unweighted.seconds = expected.seconds;
    assert_eq!(unweighted, expected);
    let (found, beside) = (trainer(&decoder, config(), adapter.clone()).step().unwrap(), expected.loss);
    assert!((found.loss - beside).abs() < 1e-6 && found.divergence.is_some_and(|kl| kl > 0.0), "{found:?}");
}

#[test]
fn the_divergence_falls() {
    let decoder = tiny_decoder();
    let config = config().with_learning_rate(2e-2).with_distillation(5.0).with_epochs(30).with_batches(4, 1);
    let mut trainer = trainer(&decoder, config, busy_adapter(&self::config().lora, 1));
    let divergence: Vec<f64> = (0..30).map(|_| trainer.step().unwrap().divergence.unwrap()).collect();
    assert!(divergence[29] < 0.8 * divergence[0], "{divergence:?}");
}

#[test]
fn another_teacher_is_another_run() {
    let decoder = tiny_decoder();
    let dir = tempfile::tempdir().unwrap();
    let adapter = busy_adapter(&config().lora, 1);
    trainer(&decoder, config(), adapter).save(dir.path()).unwrap();
    assert!(Trainer::new(&decoder, config(), taught(&decoder, 4, 6)).unwrap().resume(dir.path()).unwrap());
    let found = Trainer::new(&decoder, config(), taught(&decoder, 4, 5)).unwrap().resume(dir.path());
    assert!(matches!(&found, Err(Error::CheckpointMismatch { field, .. }) if field == "examples"), "{found:?}");
}

#[test]
fn teachers_that_do_not_fit_are_named() {
    let decoder = tiny_decoder();
    let mut wrong = taught(&decoder, 4, 6);
    wrong[2].teacher = wrong[0].teacher.clone();
    let error = Trainer::new(&decoder, config(), wrong).err();
    assert!(matches!(&error, Some(Error::Example { index: 2, detail, .. }) if detail.contains("teacher")), "{error:?}");
    let mixed = [taught(&decoder, 1, 6), taught(&decoder, 1, 5)].concat();
    let error = Trainer::new(&decoder, config(), mixed).err();
    assert!(matches!(&error, Some(Error::Setting { field, .. }) if field == "teacher"), "{error:?}");
    let error = config().with_distillation(-1.0).check();
    assert!(matches!(&error, Err(Error::Setting { field, .. }) if field == "distillation"), "{error:?}");
}
