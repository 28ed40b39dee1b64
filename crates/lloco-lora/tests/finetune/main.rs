//! Finetuning: what a step depends on, and what a run survives.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod batch;
mod held_out;
mod learning;
mod refused;
mod resumed;

use common::{busy_adapter, examples};
use lloco_decoder::Decoder;
use lloco_lora::{LoraConfig, TrainConfig, Trainer};

fn config() -> TrainConfig {
    let lora = LoraConfig::default().with_rank(3, 6.0).with_dropout(0.0);
    TrainConfig::default().with_lora(lora).with_learning_rate(5e-3).with_batches(2, 2).with_epochs(2)
}

fn trainer(decoder: &Decoder, config: TrainConfig) -> Trainer<'_> {
    let adapter = busy_adapter(&config.lora, 1);
    Trainer::new(decoder, config, examples(11)).unwrap().with_adapter(adapter)
}

fn losses(trainer: &mut Trainer, steps: usize) -> Vec<f64> {
    (0..steps).map(|_| trainer.step().unwrap().loss).collect()
}
