//! A pooling encoder that reads its segments in both directions.

use std::sync::Arc;

use super::*;
use crate::EncoderOptions;

pub(super) fn pooled(bidirectional: bool) -> Mode {
    Mode::Pooled(PooledConfig { segment_length: 8, ratios: vec![2, 4], layers: None, bidirectional })
}

#[test]
fn gradients_agree_with_finite_differences() {
    let (decoder, samples) = (decoder(), samples(3));
    let stage = stage(all_losses(), vec![4]);
    let run = |compressor: &Compressor| batch_gradients(&decoder, compressor, &stage, &samples, 3, 9).unwrap();
    let compressor = busy(pooled(true), own_reader(), &decoder);
    let ((tally, gradients), (causal, _)) = (run(&compressor), run(&busy(pooled(false), own_reader(), &decoder)));
    assert_ne!(tally.mean("reconstruction"), causal.mean("reconstruction"));
    let names = [
        "encoder.model.layers.0.self_attn.q_proj.lora_A",
        "encoder.model.layers.0.self_attn.k_proj.lora_B",
        "encoder.model.layers.1.self_attn.v_proj.lora_A",
        "connector.score",
        "connector.up",
    ];
    agree(&compressor, &gradients, &names, |compressor| sum_of(&run(compressor).0, &stage.losses));
}

#[test]
fn a_vector_says_what_stands_behind_its_window_but_nothing_of_other_segments() {
    let decoder = Arc::new(decoder());
    let ids: Vec<u32> = (0..21).map(|i| i * 31 % 96).collect();
    // Vectors of two tokens each, of the first segment and of the third, which is short.
    for (bidirectional, changed) in [(true, [0..4, 8..11]), (false, [3..4, 10..11])] {
        let compressor = busy(pooled(bidirectional), own_reader(), &decoder);
        let encoder = compressor.encoder(decoder.clone(), &EncoderOptions::default()).unwrap();
        let vectors = |ids: &[u32]| -> Vec<Vec<f32>> {
            let rows = values("rows", encoder.encode(ids).unwrap()).unwrap();
            rows.chunks(32).map(<[f32]>::to_vec).collect()
        };
        let before = vectors(&ids);
        for (at, changed) in [7, 20].into_iter().zip(changed) {
            let mut other = ids.clone();
            other[at] += 1;
            let after = vectors(&other);
            let found: Vec<usize> = (0..after.len()).filter(|&i| after[i] != before[i]).collect();
            assert_eq!(found, changed.collect::<Vec<_>>(), "token {at}, bidirectional {bidirectional}");
        }
    }
}

#[test]
fn files_and_fingerprints_tell_the_two_apart_and_older_ones_are_causal() {
    let decoder = Arc::new(decoder());
    let [both, causal] = [true, false].map(|bidirectional| {
        let compressor = busy(pooled(bidirectional), own_reader(), &decoder);
        let encoder = compressor.encoder(decoder.clone(), &EncoderOptions::default()).unwrap();
        (serde_json::to_string(&compressor.config.mode).unwrap(), encoder.fingerprint().to_owned())
    });
    assert!(both.0.contains(r#""bidirectional":true"#) && !causal.0.contains("bidirectional"), "{both:?} {causal:?}");
    assert_eq!(serde_json::from_str::<Mode>(&causal.0).unwrap(), pooled(false));
    assert_ne!(both.1, causal.1);
}
