//! Gradients against finite differences, and where they stop.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use lloco_decoder::{
    Checkpoint, Decoder, DecoderConfig, NoAdapter, WeightType,
    burn::tensor::{Device, Tensor, TensorData},
};
use lloco_lora::{
    LoraConfig,
    durable::values,
    finetune::{NamedGradients, Teacher},
};
use rand::{SeedableRng, rngs::StdRng};

use super::{
    LearningRates, Losses, Sample, Stage,
    batch::batch_gradients,
    losses::Tally,
    reading::{Reading, read},
    recurrent::{Cut, Recurrent},
};
use crate::{Compressor, EncoderConfig, Mode, PooledConfig, Reader, Tuning, weights::Weights};

mod bidirectional;
mod data;
mod finite;
mod fitting;
mod full;

fn decoder() -> Decoder {
    let json = r#"{"model_type": "llama", "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12,
        "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "eos_token_id": 2}"#;
    let config = DecoderConfig::from_json(json, "config.json".as_ref()).unwrap();
    Decoder::load(&Checkpoint::random(config, 3), WeightType::F32, &Device::flex()).unwrap()
}

fn noise<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let values: Vec<f32> = std::iter::repeat_with(next).take(shape.iter().product()).collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

fn busy(mode: Mode, reader: Reader, decoder: &Decoder) -> Compressor {
    busy_with(LoraConfig::default().with_rank(3, 6.0).with_dropout(0.0).with_all_linear(), mode, reader, decoder)
}

/// A compressor of which no part is zero.
fn busy_with(encoder: impl Into<Tuning>, mode: Mode, reader: Reader, decoder: &Decoder) -> Compressor {
    let mut compressor = Compressor::init(mode, encoder, reader, decoder, "base", 5).unwrap();
    let mut seed = 0;
    compressor.weights = compressor.weights.map(|_, tensor| {
        seed += 1;
        tensor.clone() + noise(tensor.dims(), seed).mul_scalar(0.15)
    });
    compressor
}

fn auto_compressor() -> Mode {
    Mode::AutoCompressor(EncoderConfig { segment_length: 16, summary_length: 3, accumulate_summary: true })
}

fn pooled() -> Mode {
    Mode::Pooled(PooledConfig { segment_length: 8, ratios: vec![2, 4], layers: None, bidirectional: false })
}

fn own_reader() -> Reader {
    Reader::Own(LoraConfig::default().with_rank(2, 4.0).with_dropout(0.0))
}

fn samples(count: usize) -> Vec<Sample> {
    let ids = |n: usize, seed: usize| (0..n).map(|i| ((i * 31 + seed * 17 + i * i) % 96) as u32).collect::<Vec<_>>();
    let sample = |i: usize| Sample {
        name: format!("sample {i}"),
        context: ids(if i == 1 { 15 } else { 19 }, i),
        continuation: ids(4 + i % 2, i + 50),
        questions: (0..[2, 0][i % 2]).map(|q| (ids(3 + i + q, i + 70), ids(2 + i, i + q + 80))).collect(),
    };
    (0..count).map(sample).collect()
}

fn stage(losses: Losses, ratios: Vec<usize>) -> Stage {
    let json = r#"{"name": "test", "steps": 1, "context": 19, "losses": {}, "target_tokens": 9}"#;
    let mut stage: Stage = serde_json::from_str(json).unwrap();
    stage.losses = losses;
    stage.ratios = ratios;
    stage
}

fn with(compressor: &Compressor, name: &str, step: &Tensor<2>, by: f64) -> Compressor {
    let weights = compressor.weights.map(|other, tensor| match other == name {
        true => tensor + step.clone().mul_scalar(by),
        false => tensor,
    });
    Compressor { config: compressor.config.clone(), weights }
}

fn dot(a: Tensor<2>, b: Tensor<2>) -> f64 {
    f64::from(values("dot", (a * b).sum()).unwrap()[0])
}

/// Compares gradients with slopes of `loss` along random directions, for every tensor of which `names` has a part.
fn agree(compressor: &Compressor, gradients: &NamedGradients, names: &[&str], loss: impl Fn(&Compressor) -> f64) {
    let parameters = compressor.weights.parameters();
    for part in names {
        let (name, parameter) = parameters.iter().find(|(name, _)| name.contains(part)).unwrap();
        let direction = noise::<2>(parameter.dims(), 11);
        let step = 4e-3;
        let slope = (loss(&with(compressor, name, &direction, step))
            - loss(&with(compressor, name, &direction, -step)))
            / (2.0 * step);
        let found = dot(gradients.get(name).unwrap().clone(), direction);
        assert!((slope - found).abs() < 0.02 * slope.abs().max(2e-3), "{name}: slope {slope}, gradient {found}");
    }
}

fn sum_of(tally: &Tally, losses: &Losses) -> f64 {
    let weights = [
        ("next_token", losses.next_token),
        ("reconstruction", losses.reconstruction),
        ("continuation", losses.continuation),
        ("answer", losses.answer),
        ("kl", losses.kl),
        ("binding", losses.binding),
    ];
    weights.into_iter().filter_map(|(name, weight)| Some(weight * tally.mean(name)?)).sum()
}

fn all_losses() -> Losses {
    Losses {
        reconstruction: 0.7,
        continuation: 0.5,
        answer: 0.9,
        kl: 1.3,
        kl_top: 7,
        binding: 0.4,
        ..Losses::default()
    }
}

#[test]
fn gradients_of_pooled_agree_with_finite_differences() {
    let (decoder, samples) = (decoder(), samples(4));
    let mut stage = stage(all_losses(), vec![4]);
    stage.distractors = 1;
    let run = |compressor: &Compressor| batch_gradients(&decoder, compressor, &stage, &samples, 4, 9).unwrap();
    // Read by the first of two layers alone, the second of the encoder's adapter has no part in it.
    let first =
        Mode::Pooled(PooledConfig { segment_length: 8, ratios: vec![2, 4], layers: Some(1), bidirectional: false });
    let (_, gradients) = run(&busy(first, own_reader(), &decoder));
    assert!(gradients.get("encoder.model.layers.0.mlp.down_proj.lora_B.weight").is_some());
    assert!(gradients.get("encoder.model.layers.1.mlp.down_proj.lora_B.weight").is_none());
    let compressor = busy(pooled(), own_reader(), &decoder);
    let (tally, gradients) = run(&compressor);
    for name in ["reconstruction", "continuation", "answer", "kl", "binding", "gap"] {
        assert!(tally.mean(name).unwrap().is_finite(), "{name}");
    }
    let names = [
        "encoder.model.layers.0.self_attn.q_proj.lora_A",
        "encoder.model.layers.1.mlp.down_proj.lora_B",
        "reader.model.layers.1.self_attn.v_proj.lora_B",
        "connector.score",
        "connector.center",
        "connector.norm",
        "connector.up",
        "connector.down",
        "connector.gain",
        "tasks",
    ];
    agree(&compressor, &gradients, &names, |compressor| sum_of(&run(compressor).0, &stage.losses));
}

#[test]
fn gradients_of_auto_compressor_agree_with_finite_differences() {
    let (decoder, samples) = (decoder(), samples(3));
    let compressor = busy(auto_compressor(), Reader::Shared, &decoder);
    let mut stage = stage(Losses { next_token: 1.0, ..all_losses() }, vec![]);
    // Without a border between substeps, gradients are those of the loss itself.
    (stage.substeps, stage.segments_per_substep) = (1, 3);
    let run = |compressor: &Compressor| batch_gradients(&decoder, compressor, &stage, &samples, 3, 9).unwrap();
    let gradients = run(&compressor).1;
    let names = [
        "encoder.model.layers.0.self_attn.k_proj.lora_A",
        "encoder.model.layers.1.mlp.up_proj.lora_B",
        "embed_summary",
        "tasks",
    ];
    agree(&compressor, &gradients, &names, |compressor| sum_of(&run(compressor).0, &stage.losses));
}

#[test]
fn gradients_stop_between_substeps_and_flow_within() {
    let (decoder, text) = (decoder(), (0..24).map(|i| i * 7 % 96).collect::<Vec<u32>>());
    let compressor = busy(auto_compressor(), Reader::Shared, &decoder);
    fn engine<'a>(
        decoder: &'a Decoder,
        (weights, tracked): (&'a Weights, &'a Weights),
        text: &'a [u32],
        substep: usize,
    ) -> Recurrent<'a> {
        let cut = Cut { lengths: vec![5, 7, 4, 8], substep };
        Recurrent { decoder, weights, tracked, accumulate: true, cut, texts: vec![text], seed: 0 }
    }
    let tracked = compressor.weights.tracked(|_| true);
    let fixed = engine(&decoder, (&compressor.weights, &tracked), &text, 2).summaries().unwrap();
    // What the last summary says, with the summaries before `first` as they are.
    let wanted: Tensor<3> = noise(fixed[3].dims(), 8);
    let said = |weights: &Weights, first: usize| {
        let engine = engine(&decoder, (weights, weights), &text, 2);
        let mut summaries = fixed[..first].to_vec();
        for segment in first..4 {
            summaries.push(engine.read_behind(segment, &summaries).unwrap());
        }
        f64::from(values("said", (summaries[3].clone() * wanted.clone()).sum()).unwrap()[0])
    };
    let mut found = Vec::new();
    // (segments a substep, first segment that the last one's gradient reaches)
    for (substep, first) in [(4, 0), (2, 2), (1, 3)] {
        let mut slopes: Vec<Tensor<3>> = fixed.iter().map(Tensor::zeros_like).collect();
        slopes[3] = wanted.clone();
        let mut gradients = NamedGradients::default();
        let engine = engine(&decoder, (&compressor.weights, &tracked), &text, substep);
        engine.backward(&fixed, slopes, 0.0, &mut Tally::default(), &mut gradients).unwrap();
        let names = ["encoder.embed_summary", "encoder.model.layers.0.self_attn.v_proj.lora_B"];
        agree(&compressor, &gradients, &names, |compressor| said(&compressor.weights, first));
        found.push(gradients.norm().unwrap());
    }
    // And the three are not the same.
    assert!(
        (found[0] - found[1]).abs() > 1e-3 * found[0] && (found[1] - found[2]).abs() > 1e-3 * found[1],
        "{found:?}"
    );
}

#[test]
fn the_next_token_loss_crosses_the_borders_of_segments() {
    let (decoder, samples) = (decoder(), samples(1));
    let compressor = busy(auto_compressor(), Reader::Base, &decoder);
    let stage = stage(Losses { next_token: 1.0, ..Losses::default() }, vec![]);
    let (tally, _) = batch_gradients(&decoder, &compressor, &stage, &samples, 1, 9).unwrap();
    // One segment without a summary before it: the model's own loss on the text.
    let mut whole = stage.clone();
    (whole.substeps, whole.segments_per_substep) = (1, 1);
    let (one, _) = batch_gradients(&decoder, &compressor, &whole, &samples, 1, 9).unwrap();
    assert_eq!(tally.count("next_token"), 18);
    assert_eq!(one.count("next_token"), 18);
    assert_ne!(tally.mean("next_token"), one.mean("next_token"));
}

#[test]
fn results_do_not_depend_on_the_micro_batch() {
    let (decoder, samples) = (decoder(), samples(5));
    let losses = Losses { binding: 0.0, ..all_losses() };
    for (mode, ratios, next_token) in
        [(pooled(), vec![2], 0.0), (bidirectional::pooled(true), vec![2], 0.0), (auto_compressor(), vec![], 0.6)]
    {
        let compressor = busy(mode, own_reader(), &decoder);
        let mut stage = stage(Losses { next_token, ..losses }, ratios);
        // Places of reconstructions and cuts are drawn anew for each group; leave nothing to draw.
        (stage.target_tokens, stage.substeps, stage.segments_per_substep) = (32, 2, 1);
        let run = |micro| batch_gradients(&decoder, &compressor, &stage, &samples, micro, 9).unwrap();
        let (one, by_one) = run(1);
        for micro in [2, 5] {
            let (all, together) = run(micro);
            for (name, mean) in one.means() {
                assert!((mean - all.mean(&name).unwrap()).abs() < 1e-5, "{name}, {micro}");
            }
            for (name, gradient) in by_one.iter() {
                let other = together.get(name).unwrap().clone();
                let worst = |t: Tensor<2>| values("t", t.abs().max()).unwrap()[0];
                let (size, difference) = (worst(gradient.clone()), worst(gradient.clone() - other));
                assert!(difference <= 1e-3 * size + 1e-7, "{name}, {micro}: {difference} of {size}");
            }
        }
    }
}

#[test]
fn parts_of_rate_zero_get_no_gradient() {
    let (decoder, samples) = (decoder(), samples(2));
    let compressor = busy(pooled(), own_reader(), &decoder);
    let mut stage = stage(Losses { reconstruction: 1.0, ..Losses::default() }, vec![2]);
    stage.learning_rates = LearningRates { encoder: 0.0, connector: 1e-3, reader: 0.0 };
    let (_, gradients) = batch_gradients(&decoder, &compressor, &stage, &samples, 2, 1).unwrap();
    let names: Vec<&str> = gradients.iter().map(|(name, _)| name).collect();
    assert!(!names.is_empty() && names.iter().all(|name| name.starts_with("connector.")), "{names:?}");
}

#[test]
fn divergence_from_oneself_is_zero_and_from_others_is_not() {
    let decoder = decoder();
    let compressor = busy(pooled(), Reader::Base, &decoder);
    let reading = Reading { prefix: vec![], task: None, prompt: vec![5, 6], targets: vec![7, 8, 9] };
    let nothing = Tensor::zeros([1, 32], &Device::flex());
    let hidden = read(&decoder, &compressor.weights, None, &nothing, &[], &[&reading]).unwrap();
    for top in [1, 5, 96] {
        let teacher = Teacher::new(&decoder, &hidden, top).unwrap();
        let own = teacher.divergence(&decoder, &NoAdapter, &hidden).unwrap().losses;
        assert!(own.iter().all(|kl| kl.abs() < 1e-4), "{own:?}");
        let other = hidden.clone() + noise(hidden.dims(), 3).mul_scalar(50.0);
        let kl = teacher.divergence(&decoder, &NoAdapter, &other).unwrap().losses;
        assert!(kl.iter().all(|&kl| kl > 1e-3), "{kl:?}");
    }
}

#[test]
fn random_cuts_fill_the_text_and_keep_their_bounds() {
    let mut rng = StdRng::seed_from_u64(1);
    let mut seen = BTreeMap::new();
    for _ in 0..200 {
        let cut = Cut::random(100, 2, 2, 40, &mut rng);
        assert_eq!(cut.lengths.iter().sum::<usize>(), 100);
        assert_eq!((cut.lengths.len(), cut.substep), (4, 2));
        assert!(cut.lengths.iter().all(|&length| (10..=40).contains(&length)), "{cut:?}");
        *seen.entry(cut.lengths[0]).or_insert(0) += 1;
    }
    assert!(seen.len() > 15, "{seen:?}");
    assert_eq!(Cut::random(3, 2, 2, 40, &mut rng).lengths.iter().sum::<usize>(), 3);
}
