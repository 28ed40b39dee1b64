//! Gradients against finite differences, and where they stop.

use super::*;
use crate::{
    training::{
        LearningRates,
        recurrent::{Cut, Recurrent},
    },
    weights::Weights,
};

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
        Recurrent { decoder, weights, tracked, accumulate: true, cut, texts: vec![text], dropout: None }
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
