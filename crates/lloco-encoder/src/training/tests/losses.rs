//! Which tokens a loss is of, and how texts are cut.

use std::collections::BTreeMap;

use lloco_decoder::NoAdapter;
use lloco_lora::finetune::Teacher;
use rand::{SeedableRng, rngs::StdRng};

use super::*;
use crate::training::{
    batch::groups,
    evaluate::evaluate,
    reading::{Reading, read},
    recurrent::Cut,
};

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

#[test]
fn no_sample_is_alone_where_it_could_have_company() {
    let samples = samples(9);
    let sizes =
        |count: usize, most| groups(&samples[..count], most).iter().map(|group| group.len()).collect::<Vec<_>>();
    assert_eq!(sizes(8, 4), [4, 4]);
    assert_eq!(sizes(9, 4), [3, 3, 3]);
    assert_eq!(sizes(9, 8), [5, 4]);
    assert_eq!(sizes(5, 2), [3, 2]);
    assert_eq!(sizes(3, 1), [1, 1, 1]);
    assert_eq!(sizes(1, 8), [1]);
    assert_eq!(groups(&samples, 2).concat(), samples);
}

#[test]
fn nothing_is_dropped_in_an_evaluation() {
    let (decoder, samples) = (decoder(), samples(2));
    for mode in [auto_compressor(), pooled()] {
        let stage = stage(all_losses(), if matches!(mode, Mode::Pooled(_)) { vec![2] } else { vec![] });
        let found = [0.0, 0.5].map(|dropout| {
            let encoder = LoraConfig::default().with_rank(3, 6.0).with_dropout(dropout).with_all_linear();
            let compressor = busy_with(encoder, mode.clone(), own_reader(), &decoder);
            evaluate(&decoder, &compressor, &stage, &samples, 2).unwrap()
        });
        assert_eq!(found[0], found[1]);
    }
}

#[test]
fn a_gap_beyond_the_margin_earns_nothing() {
    let (decoder, mut samples) = (decoder(), samples(2));
    samples[0].questions.truncate(1);
    let compressor = busy(pooled(), own_reader(), &decoder);
    let binding = |margin: f64| {
        let losses = Losses { answer: 1e-9, binding: 1.0, binding_margin: margin, ..Losses::default() };
        let (tally, gradients) =
            batch_gradients(&decoder, &compressor, &stage(losses, vec![2]), &samples, 2, 9).unwrap();
        (tally.mean("binding").unwrap(), tally.mean("gap").unwrap(), gradients.norm().unwrap())
    };
    let (_, gap, _) = binding(100.0);
    let (short, _, pull) = binding(gap + 0.1);
    assert!((short - 0.1).abs() < 1e-6 && pull > 1e-3, "{short} {pull}");
    let (met, _, pull) = binding(gap - 0.1);
    assert!(met == 0.0 && pull < 1e-6, "{met} {pull}");
}

#[test]
fn a_stage_warms_up_and_cools_down() {
    let mut stage = stage(all_losses(), vec![2]);
    (stage.steps, stage.warmup_steps, stage.final_rate) = (10, 4, 0.2);
    let rates: Vec<f64> = (0..10).map(|step| stage.rate_at(step)).collect();
    let rising = [0.2, 0.4, 0.6, 0.8, 1.0];
    assert!(rates.iter().zip(rising).all(|(rate, expected)| (rate - expected).abs() < 1e-12), "{rates:?}");
    assert!(rates[4..].windows(2).all(|pair| pair[1] < pair[0]) && rates[9] > 0.2, "{rates:?}");
    assert!((stage.rate_at(10) - 0.2).abs() < 1e-12);
    // Halfway down the cosine; behind a warm-up that is longer than the stage there is no way down.
    assert!((stage.rate_at(7) - 0.6).abs() < 1e-12);
    (stage.steps, stage.warmup_steps) = (3, 1 << 20);
    assert!(stage.rate_at(2) < 1e-5);
}
