//! The default model gives what PyTorch gives on the same dequantised weights
//! (`data/smollm2_reference.json`, made by the script beside it):
//! `LLOCO_GGUF=SmolLM2-135M-Instruct.Q4_1.gguf cargo nextest run -p lloco-decoder --run-ignored only default_model`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use lloco_decoder::{
    Checkpoint, Decoder, GenerateConfig, NoAdapter, Pass, Prompt, WeightType,
    burn::tensor::{Device, activation::log_softmax, s},
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    prompt: String,
    ids: Vec<u32>,
    mean_nll: f32,
    top_logits: Vec<(u32, f32)>,
    greedy: Vec<u32>,
}

fn runs() -> Vec<Run> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/smollm2_reference.json");
    serde_json::from_slice::<Reference>(&std::fs::read(path).unwrap()).unwrap().runs
}

#[test]
#[ignore = "needs the default model's GGUF file"]
fn default_model_parity() {
    let path = std::env::var_os("LLOCO_GGUF").expect("LLOCO_GGUF names the file");
    let decoder = Decoder::load(&Checkpoint::open(path).unwrap(), WeightType::F32, &Device::flex()).unwrap();
    for run in runs() {
        let hidden = decoder.forward(decoder.embed(&run.ids).unwrap(), Pass::default()).unwrap();
        let logits = decoder.logits(hidden);
        let [_, rows, _] = logits.dims();

        let last: Vec<f32> = logits.clone().slice(s![.., rows - 1.., ..]).into_data().try_to_vec().unwrap();
        for &(id, expected) in &run.top_logits {
            let found = last[id as usize];
            assert!((found - expected).abs() < 2e-3, "{:?}: logit of {id} is {found}, not {expected}", run.prompt);
        }

        let scores: Vec<f32> = log_softmax(logits, 2).into_data().try_to_vec().unwrap();
        let width = scores.len() / rows;
        let next = run.ids.iter().skip(1).enumerate();
        let nll = -next.map(|(row, &id)| scores[row * width + id as usize]).sum::<f32>() / (rows - 1) as f32;
        assert!((nll - run.mean_nll).abs() < 1e-3, "{:?}: mean NLL is {nll}, not {}", run.prompt, run.mean_nll);

        let mut config = GenerateConfig::greedy(run.greedy.len());
        config.stop_at_end = false;
        let generation = decoder.generate(&Prompt::new().text(&run.ids), &config, NoAdapter).unwrap();
        let greedy: Vec<u32> = generation.map(Result::unwrap).collect();
        assert_eq!(greedy, run.greedy, "{:?}", run.prompt);
    }
}

/// What the other types cost on the same texts, in nats a token. Few tokens: a guard, not a measurement.
#[test]
#[ignore = "needs the default model's GGUF file"]
fn other_weights_stay_near() {
    let path = std::env::var_os("LLOCO_GGUF").expect("LLOCO_GGUF names the file");
    let checkpoint = Checkpoint::open(path).unwrap();
    let types = [(WeightType::Bf16, 0.01), (WeightType::Auto, 0.01), (WeightType::Int8, 0.01), (WeightType::Q4, 0.1)];
    let found = types.map(|(weights, tolerance)| {
        let decoder = Decoder::load(&checkpoint, weights, &Device::flex()).unwrap();
        let (mut sum, mut wanted, mut tokens) = (0.0, 0.0, 0);
        for run in runs() {
            let hidden = decoder.forward(decoder.embed(&run.ids).unwrap(), Pass::default()).unwrap();
            let rows = run.ids.len() - 1;
            let hidden = hidden.squeeze_dim::<2>(0).slice(s![0..rows, ..]);
            sum += decoder.losses(hidden, &run.ids[1..], &NoAdapter).unwrap().into_data().iter::<f32>().sum::<f32>();
            wanted += run.mean_nll * rows as f32;
            tokens += rows;
        }
        (weights, (sum - wanted) / tokens as f32, tolerance, tokens)
    });
    assert!(found.iter().all(|(_, distance, tolerance, _)| distance.abs() < *tolerance), "{found:?}");
}
