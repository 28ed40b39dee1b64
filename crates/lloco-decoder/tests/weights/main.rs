//! The types that weights are held in: how far each is from f32, what each refuses, and that neither a machine's
//! instructions nor its threads change what comes out.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod blocks;
mod fused;
mod machines;
mod numbers;
mod threads;

use std::path::Path;

use lloco_decoder::{
    Checkpoint, Decoder, DecoderConfig, Error, KvCache, LinearAdapter, NoAdapter, Pass, Projection, Site, WeightType,
    backward,
    burn::tensor::{Device, Tensor, TensorData},
    low_rank,
};
use serde_json::{Value, json};

const ALL: [WeightType; 5] = [WeightType::Auto, WeightType::F32, WeightType::Bf16, WeightType::Int8, WeightType::Q4];

/// One row, a few, and so many that tiles multiply weights of every type, without filling a block of 32.
fn texts() -> [Vec<u32>; 3] {
    [vec![17], vec![3, 41, 7, 0, 12, 50, 50, 9, 22], text(45)]
}

/// Some tokens of a vocabulary of 51.
fn text(len: u32) -> Vec<u32> {
    (0..len).map(|i| (i * i + 7) % 51).collect()
}

/// Hidden numbers, those of a feed-forward, and tokens; the first two are no multiples of 32, nor of 16.
const ODD: [usize; 3] = [44, 75, 51];

/// Two layers of random weights.
fn random(shape: [usize; 3]) -> Checkpoint {
    random_with(shape, &json!({}))
}

/// The same, with other fields in the configuration.
fn random_with([hidden, inner, vocab]: [usize; 3], fields: &Value) -> Checkpoint {
    let mut config = json!({
        "model_type": "llama", "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 10, "vocab_size": vocab,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": true,
    });
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    Checkpoint::random(DecoderConfig::from_json(&config.to_string(), Path::new("odd")).unwrap(), 5)
}

fn odd() -> Checkpoint {
    random(ODD)
}

fn load(checkpoint: &Checkpoint, weights: WeightType) -> Decoder {
    Decoder::load(checkpoint, weights, &Device::flex()).unwrap()
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_to_vec().unwrap()
}

/// Scores behind every token.
fn scores(decoder: &Decoder, ids: &[u32]) -> Vec<f32> {
    values(decoder.logits(decoder.forward(decoder.embed(ids).unwrap(), Pass::new()).unwrap()))
}

/// Two factors beside the value projections, of two heads of ten numbers.
struct Factors {
    a: Tensor<2>,
    b: Tensor<2>,
}

impl LinearAdapter for Factors {
    fn apply(&self, site: Site, input: &Tensor<3>, output: Tensor<3>) -> Tensor<3> {
        if self.adapts(site) { low_rank(output, input.clone(), &self.a, &self.b, 0.5) } else { output }
    }

    fn adapts(&self, site: Site) -> bool {
        site.projection == Projection::Value
    }
}

/// A training step's gradients: of the input, and of the two factors of an adapter.
fn gradients(decoder: &Decoder, ids: &[u32]) -> [Vec<f32>; 3] {
    let factor = |rows: usize, columns: usize| {
        let numbers: Vec<f32> = (0..rows * columns).map(|i| (i as f32 * 0.7).sin() * 0.3).collect();
        let device = decoder.device().clone().autodiff();
        Tensor::<2>::from_data(TensorData::new(numbers, [rows, columns]), &device).require_grad()
    };
    let adapter = Factors { a: factor(3, decoder.config().hidden_size), b: factor(20, 3) };
    let input = decoder.embed(ids).unwrap().autodiff().require_grad();
    let hidden = decoder.forward(input.clone(), Pass::new().adapter(&adapter)).unwrap().squeeze_dim::<2>(0);
    let gradients = backward(&decoder.losses(hidden, ids, &adapter).unwrap().sum());
    let [a, b] = [&adapter.a, &adapter.b].map(|x| values(x.grad(&gradients).unwrap()));
    [values(input.grad(&gradients).unwrap()), a, b]
}

/// `|found - wanted| / |wanted|`, as vectors.
fn distance(found: &[f32], wanted: &[f32]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(wanted).map(|(a, b)| f64::from(a - b)));
    difference / norm(&mut wanted.iter().map(|x| f64::from(*x)))
}

#[test]
fn each_type_stays_within_its_tolerance() {
    let checkpoint = odd();
    let exact = load(&checkpoint, WeightType::F32);
    for (weights, tolerance) in
        [(WeightType::Auto, 0.01), (WeightType::Bf16, 0.01), (WeightType::Int8, 0.02), (WeightType::Q4, 0.2)]
    {
        let decoder = load(&checkpoint, weights);
        for ids in texts() {
            let found = distance(&scores(&decoder, &ids), &scores(&exact, &ids));
            assert!(found < tolerance, "{weights:?} of {}: {found}", ids.len());
            assert!(found > 1e-6, "{weights:?} is not what was loaded: {found}");
        }
    }
}

#[test]
fn decoding_token_by_token_equals_reading_at_once() {
    let checkpoint = odd();
    for (weights, ids) in ALL.into_iter().flat_map(|weights| texts().map(|ids| (weights, ids))) {
        let decoder = load(&checkpoint, weights);
        let mut cache = KvCache::new(&decoder, 1, ids.len());
        let mut found = Vec::new();
        for id in &ids {
            let hidden = decoder.forward(decoder.embed(&[*id]).unwrap(), Pass::new().cache(&mut cache)).unwrap();
            found.extend(values(decoder.logits(hidden)));
        }
        // Where the CPU multiplies tiles, many rows are rounded to bf16, and few are not; but few rows are rounded to eight
        // bits beside weights of four.
        let tolerance = match weights {
            WeightType::F32 => 1e-5,
            WeightType::Q4 => 0.03,
            _ => 0.02,
        };
        let found = distance(&found, &scores(&decoder, &ids));
        assert!(found < tolerance, "{weights:?} of {}: {found}", ids.len());
    }
}

#[test]
fn losses_are_those_of_the_scores() {
    let checkpoint = odd();
    for (weights, ids) in ALL.into_iter().flat_map(|weights| texts().map(|ids| (weights, ids))) {
        let decoder = load(&checkpoint, weights);
        let hidden = decoder.forward(decoder.embed(&ids).unwrap(), Pass::new()).unwrap().squeeze_dim::<2>(0);
        let targets: Vec<u32> = ids.iter().rev().copied().collect();
        let found = values(decoder.losses(hidden.clone(), &targets, &NoAdapter).unwrap());
        let scores = scores(&decoder, &ids);
        for ((scores, target), found) in scores.chunks_exact(51).zip(&targets).zip(found) {
            let log = scores.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
            let wanted = log - f64::from(scores[*target as usize]);
            assert!((f64::from(found) - wanted).abs() < 1e-3, "{weights:?}: {found} for {wanted}");
        }
        let refused = decoder.losses(hidden.clone(), &vec![51; ids.len()], &NoAdapter);
        assert!(matches!(refused, Err(Error::OutOfVocabulary { id: 51, position: 0, vocab_size: 51 })));
        assert!(matches!(decoder.losses(hidden, &[1, 1], &NoAdapter), Err(Error::Mismatch { .. })));
    }
}

#[test]
fn gradients_point_the_same_way() {
    let checkpoint = odd();
    let exact = load(&checkpoint, WeightType::F32);
    for (weights, tolerance) in [(WeightType::Bf16, 0.03), (WeightType::Int8, 0.05), (WeightType::Q4, 0.4)] {
        let decoder = load(&checkpoint, weights);
        for ids in texts() {
            let all = gradients(&decoder, &ids).into_iter().zip(gradients(&exact, &ids)).zip(["input", "a", "b"]);
            for ((found, wanted), of) in all {
                let found = distance(&found, &wanted);
                assert!(found < tolerance, "{weights:?}, {of} of {}: {found}", ids.len());
            }
        }
    }
}
