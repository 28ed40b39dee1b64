//! Adapters and finetuning agree with PEFT and PyTorch on every folder of reference outputs.
//!
//! `LLOCO_GOLDENS` names another directory of such folders.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Golden, distance, goldens, largest, to_vec};
use lloco_decoder::{GenerateConfig, Pass};
use lloco_lora::{LoraConfig, Schedule, TrainConfig, Trainer};

#[test]
fn parity_logits_with_adapter() {
    for golden in goldens() {
        let adapter = golden.adapter();
        let input = golden.decoder.embed_prompt(&golden.prompt(), &adapter).unwrap();
        let pass = Pass::new().adapter(&adapter).last_rows(golden.cases.prompt_ids.len());
        let logits = to_vec(golden.decoder.logits_with(golden.decoder.forward(input, pass).unwrap(), &adapter));
        let difference = distance(&logits, golden.values("logits_adapter"));
        assert!(difference < 1e-4, "{}: logits differ by {difference}", golden.name);
        let without = distance(&logits, golden.values("logits_no_adapter"));
        assert!(without > 1e-2, "{}: the adapter changes nothing", golden.name);
    }
}

#[test]
fn parity_greedy_tokens_with_adapter() {
    for golden in goldens() {
        let adapter = golden.adapter();
        let mut config = GenerateConfig::greedy(golden.cases.greedy_adapter.len());
        config.stop_at_end = false;
        let tokens = golden.decoder.generate(&golden.prompt(), &config, &adapter).unwrap();
        let tokens: Vec<u32> = tokens.collect::<Result<_, _>>().unwrap();
        assert_eq!(tokens, golden.cases.greedy_adapter, "{}", golden.name);
    }
}

#[test]
fn parity_gradients_of_the_first_step() {
    for golden in goldens() {
        let found = trainer(&golden).gradients().unwrap();
        let names: Vec<&str> = golden.names().filter_map(|name| name.strip_prefix("grad.")).collect();
        assert_eq!(names, found.gradients.iter().map(|(name, _)| name).collect::<Vec<_>>(), "{}", golden.name);
        let top = names.iter().map(|name| largest(golden.values(&format!("grad.{name}")))).fold(0.0, f32::max);
        for name in names {
            let gradient = to_vec(found.gradients.get(name).unwrap().clone());
            let difference = distance(&gradient, golden.values(&format!("grad.{name}")));
            assert!(difference < 1e-4 * top, "{}: {name} differs by {difference} of {top}", golden.name);
        }
    }
}

#[test]
fn parity_four_steps_of_adamw() {
    for golden in goldens() {
        let mut trainer = trainer(&golden);
        for (step, expected) in golden.cases.finetune.losses.iter().enumerate() {
            let loss = trainer.step().unwrap().loss;
            assert!(
                (loss - expected).abs() < 1e-4 * expected,
                "{}: loss {step} is {loss}, not {expected}",
                golden.name
            );
        }
        let mut compared = 0;
        for (name, tensor) in trainer.adapter().parameters() {
            let expected = golden.values(&format!("after4.{name}"));
            let difference = distance(&to_vec(tensor), expected);
            assert!(difference < 1e-3 * largest(expected), "{}: {name} differs by {difference}", golden.name);
            compared += 1;
        }
        assert_eq!(compared, golden.names().filter(|name| name.starts_with("after4.")).count(), "{}", golden.name);
    }
}

/// The reference's settings: one example, AdamW at a constant rate.
fn trainer(golden: &Golden) -> Trainer<'_> {
    let config = TrainConfig::default()
        .with_lora(LoraConfig::default().with_dropout(0.0))
        .with_learning_rate(1e-2)
        .with_schedule(Schedule::Constant, 0.0)
        .with_max_grad_norm(None)
        .with_batches(1, 1)
        .with_epochs(golden.cases.finetune.losses.len());
    Trainer::new(&golden.decoder, config, vec![golden.example()]).unwrap().with_adapter(golden.adapter())
}
