//! Several models in one process.

use std::{array, thread};

use lloco_decoder::WeightType;

use super::{ALL, ODD, gradients, load, random, scores, texts};

/// What a model of this type makes of each text: scores, or the gradients of a training step.
fn outcome(weights: WeightType, shape: [usize; 3], training: bool) -> Vec<Vec<f32>> {
    let decoder = load(&random(shape), weights);
    let of = |ids: Vec<u32>| if training { gradients(&decoder, &ids).concat() } else { scores(&decoder, &ids) };
    texts().into_iter().map(of).collect()
}

#[test]
fn several_models_in_threads_do_not_disturb_each_other() {
    // Every type in two shapes; half of the models are trained meanwhile.
    let models: [_; 10] = array::from_fn(|i| (ALL[i % 5], if i < 5 { ODD } else { [70, 33, 64] }, i % 2 == 1));
    let alone = models.map(|(weights, shape, training)| outcome(weights, shape, training));
    for _ in 0..3 {
        thread::scope(|scope| {
            let started =
                models.map(|(weights, shape, training)| scope.spawn(move || outcome(weights, shape, training)));
            for ((alone, together), model) in alone.iter().zip(started).zip(models) {
                assert_eq!(alone, &together.join().unwrap(), "{model:?}");
            }
        });
    }
}
