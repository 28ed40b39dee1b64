//! New adapters that begin as others.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{busy_adapter, distance, largest, logits, noise, tiny_config, tiny_decoder, to_vec};
use lloco_decoder::burn::tensor::Device;
use lloco_lora::{Adapter, Error, LoraConfig};

#[test]
fn a_larger_adapter_begins_as_a_smaller_one_and_can_learn_more() {
    let (decoder, model, device) = (tiny_decoder(), tiny_config(), Device::flex());
    let small = busy_adapter(&LoraConfig::default().with_rank(2, 6.0).with_targets(["q_proj", "v_proj"]), 1);
    let large = LoraConfig::default().with_rank(5, 8.0).with_all_linear().with_modules_to_save(["lm_head"]);
    let head = noise([model.vocab_size, model.hidden_size], 3);
    let new = Adapter::init(&large, &model, 2, &device).unwrap().with_saved("lm_head", head.clone()).unwrap();
    let begun = new.clone().beginning_as(&small).unwrap();
    assert_eq!((begun.config(), begun.sites().count()), (&large, 7 * model.num_hidden_layers));

    let input = noise([2, 5, 32], 4);
    let both = small.clone().with_saved("lm_head", head).unwrap();
    let [expected, found] = [&both, &begun].map(|adapter| logits(&decoder, input.clone(), adapter));
    assert!(distance(&expected, &found) < 1e-4 * largest(&expected), "the model says something else");
    assert_ne!(found, logits(&decoder, input, &new), "nothing has begun");

    // The further ranks can learn: their A is not zero, though their B is.
    let name = "model.layers.0.self_attn.q_proj.lora_A.weight";
    let a = to_vec(begun.parameters()[name].clone());
    assert_eq!(a[..2 * 32], to_vec(small.parameters()[name].clone()));
    assert_eq!(a[2 * 32..], to_vec(new.parameters()[name].clone())[2 * 32..]);
    let same = Adapter::init(small.config(), &model, 9, &device).unwrap().beginning_as(&small).unwrap();
    for (name, tensor) in small.parameters() {
        assert_eq!(to_vec(tensor), to_vec(same.parameters()[&name].clone()), "{name}");
    }
}

#[test]
fn an_adapter_that_would_lose_something_does_not_begin_as_another() {
    let (model, device) = (tiny_config(), Device::flex());
    let whole = busy_adapter(&LoraConfig::default().with_rank(3, 6.0), 1);
    let begin = |config: LoraConfig| Adapter::init(&config, &model, 2, &device).unwrap().beginning_as(&whole);
    let fewer = LoraConfig::default().with_rank(3, 6.0).with_targets(["q_proj"]);
    for (config, shape) in [(LoraConfig::default().with_rank(2, 6.0), "rank 2"), (fewer, "rank 3 on [\"q_proj\"]")] {
        let error = begin(config).unwrap_err();
        assert!(matches!(error, Error::Setting { .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains(shape) && message.contains("at least rank 3 on [\"q_proj\", \"k_proj\""), "{message}");
    }
}
