//! An encoder that is trained in full.

use super::*;
use crate::EncoderOptions;

#[test]
fn gradients_agree_with_finite_differences() {
    let (decoder, samples) = (decoder(), samples(3));
    let one =
        Mode::Pooled(PooledConfig { segment_length: 8, ratios: vec![2, 4], layers: Some(1), bidirectional: false });
    let names = ["self_attn.q_proj.delta", "self_attn.o_proj.delta", "mlp.down_proj.delta", "connector.up"];
    let auto_names = ["layers.0.self_attn.k_proj.delta", "layers.1.mlp.up_proj.delta", "embed_summary"];
    for (mode, ratios, names) in [(one, vec![4], &names[..]), (auto_compressor(), vec![], &auto_names)] {
        let compressor = busy_with(Tuning::Full, mode, own_reader(), &decoder);
        let mut stage = stage(all_losses(), ratios);
        (stage.substeps, stage.segments_per_substep) = (1, 3);
        let run = |compressor: &Compressor| batch_gradients(&decoder, compressor, &stage, &samples, 3, 9).unwrap();
        let gradients = run(&compressor).1;
        agree(&compressor, &gradients, names, |compressor| sum_of(&run(compressor).0, &stage.losses));
    }
}

#[test]
fn full_differences_are_what_an_adapter_adds() {
    let decoder = std::sync::Arc::new(decoder());
    for mode in [pooled(), auto_compressor()] {
        let lora = busy(mode.clone(), own_reader(), &decoder);
        let mut full = busy_with(Tuning::Full, mode, own_reader(), &decoder);
        let (adapter, parameters) = (lora.weights.encoder.adapter().unwrap(), lora.weights.parameters());
        full.weights = full.weights.map(|name, _| match parameters.get(name) {
            Some(same) => same.clone(),
            None => {
                let path = name.strip_prefix("encoder.").unwrap().strip_suffix(".delta.weight").unwrap();
                adapter.merged_delta(adapter.sites().find(|site| site.path() == path).unwrap()).unwrap()
            }
        });
        let ids: Vec<u32> = (0..19).map(|i| i * 31 % 96).collect();
        let rows = |compressor: &Compressor| {
            let encoder = compressor.encoder(decoder.clone(), &EncoderOptions::default()).unwrap();
            values("rows", encoder.encode(&ids).unwrap()).unwrap()
        };
        let (a, b) = (rows(&lora), rows(&full));
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-4), "{a:?} {b:?}");
    }
}
