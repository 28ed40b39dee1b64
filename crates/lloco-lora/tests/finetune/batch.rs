//! What a batch says: the sum of its examples, and the slope of its loss.

use lloco_lora::{
    Example, LoraConfig, SummaryVectors, evaluate,
    finetune::{NamedGradients, batch_gradients},
};

use crate::common::{busy_adapter, distance, examples, largest, noise, tiny_decoder, to_vec};

fn worst(a: &NamedGradients, b: &NamedGradients) -> f32 {
    let pairs = a.iter().map(|(name, gradient)| {
        let (a, b) = (to_vec(gradient.clone()), to_vec(b.get(name).unwrap().clone()));
        distance(&a, &b) / largest(&a).max(1e-6)
    });
    pairs.fold(0.0, f32::max)
}

#[test]
fn a_batch_equals_single_examples() {
    let decoder = tiny_decoder();
    let adapter = busy_adapter(&LoraConfig::default().with_all_linear(), 1);
    let examples = examples(7);
    let examples: Vec<&Example> = examples.iter().collect();
    let gradients = |size| batch_gradients(&decoder, &adapter, &examples, size, None).unwrap();
    let single = gradients(1);
    for size in [2, 3, 7] {
        let batch = gradients(size);
        assert_eq!(batch.tokens, single.tokens);
        assert!((batch.loss - single.loss).abs() < 1e-6, "size {size}: {} and {}", batch.loss, single.loss);
        let difference = worst(&single.gradients, &batch.gradients);
        assert!(difference < 1e-4, "size {size}: gradients differ by {difference}");
    }
}

#[test]
fn questions_that_share_documents_and_words_equal_single_examples() {
    let decoder = tiny_decoder();
    let adapter = busy_adapter(&LoraConfig::default().with_all_linear(), 1);
    let table = decoder.embed(&(0..decoder.config().vocab_size as u32).collect::<Vec<_>>()).unwrap().squeeze_dim(0);
    let adapter = adapter.with_saved("embed_tokens", table).unwrap();
    let [first, second] = [5, 3].map(|rows| {
        let width = decoder.config().hidden_size;
        SummaryVectors::new(to_vec(noise::<2>([rows, width], rows as u64)), width).unwrap()
    });
    // Two documents in turns; one prompt that others go on from, an empty one, and one twice.
    let asked = |name: &str, prompt: &[u32], answer: &[u32]| Example::new(name, prompt.to_vec(), answer.to_vec());
    let examples = [
        asked("a", &[7, 8, 9], &[1, 2, 3]).with_prefix(first.clone()),
        asked("b", &[7, 8], &[4]).with_prefix(second.clone()),
        asked("c", &[7, 8, 10, 11], &[5, 6]).with_prefix(first.clone()),
        asked("d", &[7, 8, 9], &[2]).with_prefix(first.clone()),
        asked("e", &[], &[9, 2]).with_prefix(second.clone()),
        asked("f", &[7, 8, 9], &[3, 3]).with_prefix(first).with_prefix(second),
        asked("g", &[7], &[6]),
    ];
    let single = evaluate(&decoder, &adapter, &examples, 1).unwrap();
    let all: Vec<&Example> = examples.iter().collect();
    let alone = batch_gradients(&decoder, &adapter, &all, 1, None).unwrap();
    for size in [2, 4, 7] {
        let batch = evaluate(&decoder, &adapter, &examples, size).unwrap();
        for (one, many) in single.by_example.iter().zip(&batch.by_example) {
            assert!((one - many).abs() < 1e-5, "size {size}: {one} and {many}");
        }
        let together = batch_gradients(&decoder, &adapter, &all, size, None).unwrap();
        let difference = worst(&alone.gradients, &together.gradients);
        assert!(difference < 1e-4, "size {size}: gradients differ by {difference}");
    }
}

#[test]
fn the_loss_is_the_mean_over_all_answer_tokens() {
    let decoder = tiny_decoder();
    let adapter = busy_adapter(&LoraConfig::default(), 1);
    let examples = examples(5);
    let evaluation = evaluate(&decoder, &adapter, &examples, 2).unwrap();
    let sum: f64 = evaluation.by_example.iter().zip(&examples).map(|(nll, e)| nll * e.answer_ids.len() as f64).sum();
    assert_eq!(evaluation.tokens, examples.iter().map(|e| e.answer_ids.len()).sum::<usize>());
    assert!((evaluation.nll - sum / evaluation.tokens as f64).abs() < 1e-9);
    let all: Vec<&Example> = examples.iter().collect();
    let trained = batch_gradients(&decoder, &adapter, &all, 3, None).unwrap();
    assert!((trained.loss - evaluation.nll).abs() < 1e-6);
}

#[test]
fn gradients_agree_with_finite_differences() {
    let decoder = tiny_decoder();
    let lora = LoraConfig::default().with_all_linear();
    let adapter = busy_adapter(&lora, 1);
    let examples = examples(3);
    let all: Vec<&Example> = examples.iter().collect();
    let found = batch_gradients(&decoder, &adapter, &all, 3, None).unwrap();
    for name in ["model.layers.0.self_attn.q_proj.lora_A.weight", "model.layers.1.mlp.down_proj.lora_B.weight"] {
        let direction = noise::<2>(adapter.parameters()[name].dims(), 3);
        let shifted = |by: f64| {
            let adapter = adapter.map(|other, tensor| match other == name {
                true => tensor + direction.clone().mul_scalar(by),
                false => tensor,
            });
            evaluate(&decoder, &adapter, &examples, 3).unwrap().nll
        };
        let slope = (shifted(1e-2) - shifted(-1e-2)) / 2e-2;
        let expected: f32 = to_vec((found.gradients.get(name).unwrap().clone() * direction.clone()).sum())[0];
        assert!(
            (slope - f64::from(expected)).abs() < 2e-3 * f64::from(expected).abs().max(1e-2),
            "{name}: {slope}, {expected}"
        );
    }
}
