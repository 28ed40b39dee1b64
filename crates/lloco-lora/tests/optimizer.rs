//! What a step makes of the gradients.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use common::{busy_adapter, distance, examples, largest, noise, tiny_decoder, to_vec};
use lloco_decoder::{
    Decoder,
    burn::tensor::{Device, Tensor},
};
use lloco_lora::{
    Adapter, Error, LoraConfig, Schedule, StoredType, TrainConfig, Trainer,
    durable::{Checkpoints, read_tensors, tensor_bytes},
    finetune::AdamW,
};

fn config() -> TrainConfig {
    let lora = LoraConfig::default().with_rank(3, 6.0).with_dropout(0.0);
    let config = TrainConfig::default().with_lora(lora).with_learning_rate(0.5).with_batches(2, 2);
    config.with_schedule(Schedule::Constant, 0.0).with_max_grad_norm(None)
}

fn trainer(decoder: &Decoder, config: TrainConfig) -> Trainer<'_> {
    let adapter = busy_adapter(&config.lora, 1);
    Trainer::new(decoder, config, examples(11)).unwrap().with_adapter(adapter)
}

fn values(adapter: &Adapter) -> BTreeMap<String, Vec<f32>> {
    adapter.parameters().into_iter().map(|(name, tensor)| (name, to_vec(tensor))).collect()
}

#[test]
fn gradients_above_the_largest_norm_are_scaled_down_to_it() {
    let decoder = tiny_decoder();
    let gradients = trainer(&decoder, config()).gradients().unwrap().gradients;
    let norm = gradients.norm().unwrap();
    for (most, share) in [(norm / 10.0, 0.1), (norm * 1.01, 1.0)] {
        let mut config = config().with_max_grad_norm(Some(most));
        // Of the size of the gradients, so that the step depends on how large they are.
        config.epsilon = (norm / 10.0) as f32;
        let mut run = trainer(&decoder, config.clone());
        let before = values(run.adapter());
        let report = run.step().unwrap();
        assert!((report.grad_norm - norm).abs() < 1e-9, "what is told is the norm before clipping");
        for (name, after) in values(run.adapter()) {
            let gradient = to_vec(gradients.get(&name).unwrap().clone());
            let moved = |share: f64| {
                let by = |g: f32| {
                    let g = f64::from(g) * share;
                    0.5 * g / (g.abs() + f64::from(config.epsilon))
                };
                let pairs = before[&name].iter().zip(&gradient);
                pairs.map(|(&p, &g)| (f64::from(p) - by(g)) as f32).collect::<Vec<f32>>()
            };
            let (error, other) = (distance(&after, &moved(share)), distance(&moved(1.0), &moved(0.1)));
            assert!(error < 1e-5 && other > 1e-3, "{name}: off by {error}, where clipping makes {other}");
        }
    }
}

#[test]
fn weight_decay_is_decoupled_from_the_moments() {
    let mut config = config();
    (config.weight_decay, config.beta_1, config.beta_2, config.epsilon) = (0.1, 0.8, 0.95, 1e-3);
    let (rate, shape) = (0.05, [3, 5]);
    let mut optimizer = AdamW::new(&config);
    let mut found: Tensor<2> = noise(shape, 1);
    let mut expected: Vec<f64> = to_vec(found.clone()).into_iter().map(f64::from).collect();
    let (mut m, mut v) = (vec![0.0; 15], vec![0.0; 15]);
    for step in 1..=3 {
        let gradient: Tensor<2> = noise(shape, 10 + step as u64);
        found = optimizer.update(rate, "weight", found, &gradient);
        for (i, g) in to_vec(gradient).into_iter().map(f64::from).enumerate() {
            m[i] = 0.8 * m[i] + 0.2 * g;
            v[i] = 0.95 * v[i] + 0.05 * g * g;
            let corrected: (f64, f64) = (m[i] / (1.0 - 0.8f64.powi(step)), v[i] / (1.0 - 0.95f64.powi(step)));
            expected[i] -= rate * 0.1 * expected[i];
            expected[i] -= rate * corrected.0 / (corrected.1.sqrt() + 1e-3);
        }
        let expected: Vec<f32> = expected.iter().map(|&value| value as f32).collect();
        let error = distance(&to_vec(found.clone()), &expected);
        assert!(error < 1e-5, "step {step}: off by {error}");
    }
    // A gradient of zero leaves the decay alone, for the first step.
    let weight: Tensor<2> = noise(shape, 1);
    let alone = AdamW::new(&config).update(rate, "weight", weight.clone(), &Tensor::zeros(shape, &Device::flex()));
    let shrunk = to_vec(weight.mul_scalar(1.0 - 0.05 * 0.1));
    assert!(distance(&to_vec(alone), &shrunk) < 1e-6 * largest(&shrunk));
}

/// Makes the moments of a checkpoint so large that the next step goes beyond all numbers.
fn inflate(checkpoint: &Path) {
    let path = checkpoint.join("optimizer.safetensors");
    let tensors = read_tensors(&path).unwrap().into_iter().map(|(name, data)| {
        let tensor = Tensor::<2>::from_data(data, &Device::flex());
        let tensor = match name.rsplit('.').next() {
            Some("exp_avg") => tensor.ones_like().mul_scalar(3e38),
            Some("exp_avg_sq") => tensor.zeros_like(),
            _ => tensor,
        };
        (name, tensor)
    });
    let bytes = tensor_bytes(&tensors.collect(), StoredType::F32, &path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_step_beyond_all_numbers_is_refused_before_it_is_saved() {
    let decoder = tiny_decoder();
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    config.save_every = 1;
    let mut first = trainer(&decoder, config.clone());
    first.step().unwrap();
    let checkpoint: PathBuf = first.save(dir.path()).unwrap();
    inflate(&checkpoint);
    let mut run = trainer(&decoder, config);
    assert!(run.resume(dir.path()).unwrap());
    let before = values(run.adapter());
    for _ in 0..2 {
        match run.run(Some(dir.path()), &mut |_| ControlFlow::Continue(())) {
            Err(Error::NotFinite { step: 2, what, examples }) => {
                assert!(what.contains("lora_"), "{what}");
                assert!(examples.len() == 4 && examples.iter().all(|name| name.starts_with("example ")));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!((run.steps_done(), values(run.adapter())), (1, before.clone()));
        assert_eq!(Checkpoints::new(dir.path()).newest().unwrap(), Some((1, checkpoint.clone())));
    }
    assert!(before.values().flatten().all(|value| value.is_finite()));
}
