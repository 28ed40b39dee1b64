//! Which tokens a loss is of, and how texts are cut.

use std::collections::BTreeMap;

use lloco_decoder::NoAdapter;
use lloco_lora::finetune::Teacher;
use rand::{SeedableRng, rngs::StdRng};

use super::*;
use crate::training::{
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
