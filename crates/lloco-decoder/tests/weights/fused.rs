//! What a layer computes in one operation where no adapter looks on.

use lloco_decoder::{LinearAdapter, Pass, Site, WeightType, burn::tensor::Tensor};
use serde_json::json;

use super::{ALL, ODD, distance, load, random_with, scores, texts, values};

/// Adds nothing, but does not say so.
struct Silent;

impl LinearAdapter for Silent {
    fn apply(&self, _: Site, _: &Tensor<3>, output: Tensor<3>) -> Tensor<3> {
        output
    }
}

#[test]
fn layers_with_biases_and_without_are_their_parts() {
    let biases = [
        json!({}),
        json!({ "model_type": "qwen2" }),
        json!({ "attention_bias": true }),
        json!({ "attention_bias": true, "mlp_bias": true }),
    ];
    for (i, fields) in biases.into_iter().enumerate() {
        let checkpoint = random_with(ODD, &fields);
        for (weights, ids) in ALL.into_iter().flat_map(|weights| texts().map(|ids| (weights, ids))) {
            let decoder = load(&checkpoint, weights);
            let apart = decoder.forward(decoder.embed(&ids).unwrap(), Pass::new().adapter(&Silent)).unwrap();
            let found = distance(&scores(&decoder, &ids), &values(decoder.logits(apart)));
            // Tiles hand gates on in bf16, which are f32 otherwise; coarse inputs may round to the other side.
            let tolerance = if weights == WeightType::F32 { 1e-5 } else { 0.01 };
            assert!(found < tolerance, "case {i}, {weights:?} of {}: {found}", ids.len());
        }
    }
}
