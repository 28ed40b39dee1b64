//! What is learned, and what a step tells of it.

use std::ops::ControlFlow;

use lloco_decoder::burn::tensor::s;
use lloco_lora::{Example, LoraConfig, Outcome, SummaryVectors, TrainConfig, Trainer};

use crate::{
    common::{examples, largest, tiny_decoder, to_vec},
    config, losses, trainer,
};

#[test]
fn losses_fall() {
    let decoder = tiny_decoder();
    // The random model's flat head could not tell tokens apart; a trained one can.
    let lora = config().lora.with_modules_to_save(["lm_head"]);
    let config = config().with_lora(lora).with_epochs(15).with_learning_rate(2e-2);
    let mut trainer = Trainer::new(&decoder, config, examples(11)).unwrap();
    let before = trainer.evaluate(&examples(11)).unwrap().nll;
    assert_eq!(trainer.run(None, &mut |_| ControlFlow::Continue(())).unwrap(), Outcome::Finished);
    let after = trainer.evaluate(&examples(11)).unwrap().nll;
    assert!(after < 0.6 * before, "{before} -> {after}");
}

#[test]
fn saved_modules_are_trained_from_the_models_own() {
    let decoder = tiny_decoder();
    let lora = LoraConfig::default().with_dropout(0.0).with_modules_to_save(["embed_tokens", "lm_head"]);
    let mut trainer = Trainer::new(&decoder, config().with_lora(lora), examples(4)).unwrap();
    let own = to_vec(decoder.embed(&[5]).unwrap());
    assert_eq!(to_vec(trainer.adapter().saved("embed_tokens").unwrap().clone().slice(s![5..6, ..])), own);
    // With a zero B and the model's own modules, nothing has changed yet.
    let plain = Trainer::new(&decoder, config(), examples(4)).unwrap();
    let nll = |trainer: &Trainer| trainer.evaluate(&examples(4)).unwrap().nll;
    assert!((nll(&trainer) - nll(&plain)).abs() < 1e-6);
    let gradients = trainer.gradients().unwrap().gradients;
    for name in ["model.embed_tokens.weight", "lm_head.weight"] {
        assert!(largest(&to_vec(gradients.get(name).unwrap().clone())) > 1e-4, "{name}");
    }
    let head = to_vec(trainer.adapter().saved("lm_head").unwrap().clone());
    losses(&mut trainer, 2);
    assert_ne!(to_vec(trainer.adapter().saved("lm_head").unwrap().clone()), head);
}

#[test]
fn every_projection_learns() {
    let decoder = tiny_decoder();
    let config = config().with_lora(LoraConfig::default().with_rank(3, 6.0).with_all_linear());
    let mut trainer = trainer(&decoder, config);
    let before = trainer.adapter().parameters();
    losses(&mut trainer, 2);
    let after = trainer.adapter().parameters();
    assert_eq!(after.len(), 2 * 7 * 2);
    for (name, tensor) in after {
        assert_ne!(to_vec(tensor), to_vec(before[&name].clone()), "{name}");
    }
}

#[test]
fn dropout_follows_the_seed_and_is_off_in_evaluation() {
    let decoder = tiny_decoder();
    let dropping = config().with_lora(LoraConfig::default().with_rank(3, 6.0).with_dropout(0.5));
    let run = |config: TrainConfig| losses(&mut trainer(&decoder, config), 3);
    assert_eq!(run(dropping.clone().with_seed(4)), run(dropping.clone().with_seed(4)));
    assert_ne!(run(dropping.clone()), run(config()));
    let evaluation = |config: TrainConfig| trainer(&decoder, config).evaluate(&examples(3)).unwrap();
    assert_eq!(evaluation(dropping), evaluation(config()));
}

#[test]
fn a_step_tells_all_positions_it_read() {
    let decoder = tiny_decoder();
    let all = |examples: &[Example]| {
        let rows = |e: &Example| e.prefix.iter().map(SummaryVectors::rows).sum::<usize>();
        examples.iter().map(|e| rows(e) + e.prompt_ids.len() + e.answer_ids.len() - 1).sum::<usize>()
    };
    let whole = |config: TrainConfig| trainer(&decoder, config.with_batches(11, 1)).step().unwrap();
    let report = whole(config());
    assert_eq!(report.positions, all(&examples(11)));
    assert!(report.seconds > 0.0);
    // Distractors are read as well.
    assert!(whole(config().with_distractors(3)).positions > report.positions);
}

#[test]
fn a_step_tells_the_operations_of_forward_and_gradients() {
    let decoder = tiny_decoder();
    let example = examples(2).remove(1);
    let (model, answer) = (decoder.config(), example.answer_ids.len());
    let rows = example.prefix[0].rows() + example.prompt_ids.len() + answer - 1;
    let forward = model.operations(rows, 0, rows) + (2 * answer * model.hidden_size * model.vocab_size) as f64;
    let mut run = Trainer::new(&decoder, config().with_batches(1, 1), vec![example]).unwrap();
    assert_eq!(run.step().unwrap().operations, 2.0 * forward);
    assert_eq!(run.step().unwrap().operations, 2.0 * forward);
}
