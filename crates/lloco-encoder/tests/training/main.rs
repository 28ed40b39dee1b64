//! Training runs: what they learn, what they leave, and what they survive.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod data;
mod learning;
mod leaves;
mod resumed;

use std::ops::ControlFlow;

use common::{BASE, Bytes, CURRICULUM};
use lloco_decoder::Decoder;
use lloco_encoder::{CompressorTrainer, Corpus, Curriculum, TrainingEvent};

fn trainer<'a>(decoder: &'a Decoder, corpus: &'a Corpus, curriculum: Curriculum) -> CompressorTrainer<'a> {
    CompressorTrainer::new(decoder, BASE, curriculum, corpus, &Bytes).unwrap()
}

fn go_on(_: &TrainingEvent) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// The curriculum with an encoder of one layer that is trained in full.
fn full() -> String {
    let lora = r#"{"r": 4, "lora_alpha": 8.0, "lora_dropout": 0.1, "target_modules": "all-linear"}"#;
    CURRICULUM.replacen(lora, r#""full""#, 1).replacen(r#""ratios": [4, 2]"#, r#""ratios": [4, 2], "layers": 1"#, 1)
}
