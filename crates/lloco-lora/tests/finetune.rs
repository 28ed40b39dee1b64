//! Finetuning: what a step depends on, and what a run survives.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{fs, ops::ControlFlow};

use common::{busy_adapter, distance, examples, largest, noise, tiny_decoder, to_vec};
use lloco_decoder::{Decoder, burn::tensor::s};
use lloco_lora::{
    Error, Event, Example, LoraConfig, Outcome, Schedule, SummaryVectors, TrainConfig, Trainer, evaluate,
    finetune::{NamedGradients, batch_gradients},
};

fn config() -> TrainConfig {
    let lora = LoraConfig::default().with_rank(3, 6.0).with_dropout(0.0);
    TrainConfig::default().with_lora(lora).with_learning_rate(5e-3).with_batches(2, 2).with_epochs(2)
}

fn trainer(decoder: &Decoder, config: TrainConfig) -> Trainer<'_> {
    let adapter = busy_adapter(&config.lora, 1);
    Trainer::new(decoder, config, examples(11)).unwrap().with_adapter(adapter)
}

fn losses(trainer: &mut Trainer, steps: usize) -> Vec<f64> {
    (0..steps).map(|_| trainer.step().unwrap().loss).collect()
}

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
        let direction = common::noise::<2>(adapter.parameters()[name].dims(), 3);
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
fn a_run_among_distractors_learns_another_thing_and_resumes() {
    let decoder = tiny_decoder();
    let config = config().with_distractors(2);
    let plain = losses(&mut trainer(&decoder, self::config()), 6);
    let mut straight = trainer(&decoder, config.clone());
    let expected = losses(&mut straight, 6);
    assert_ne!(expected, plain);
    let dir = tempfile::tempdir().unwrap();
    let mut first = trainer(&decoder, config.clone());
    let mut found = losses(&mut first, 3);
    first.save(dir.path()).unwrap();
    let mut second = trainer(&decoder, config);
    assert!(second.resume(dir.path()).unwrap());
    found.extend(losses(&mut second, 3));
    assert_eq!(found, expected);
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
fn a_resumed_run_equals_one_that_never_stopped() {
    let decoder = tiny_decoder();
    let config = || config().with_lora(LoraConfig::default().with_rank(3, 6.0).with_dropout(0.1)).with_seed(9);
    let mut straight = trainer(&decoder, config());
    let expected = losses(&mut straight, 6);
    let dir = tempfile::tempdir().unwrap();
    let mut first = trainer(&decoder, config());
    assert!(!first.resume(dir.path().join("nothing yet")).unwrap());
    let mut found = losses(&mut first, 3);
    first.save(dir.path()).unwrap();
    drop(first);
    let mut second = trainer(&decoder, config());
    assert!(second.resume(dir.path()).unwrap());
    assert_eq!(second.steps_done(), 3);
    found.extend(losses(&mut second, 3));
    assert_eq!(found, expected);
    for (name, tensor) in second.adapter().parameters() {
        assert_eq!(to_vec(tensor), to_vec(straight.adapter().parameters()[&name].clone()), "{name}");
    }
}

#[test]
fn an_interrupted_run_is_saved_and_goes_on() {
    let decoder = tiny_decoder();
    let dir = tempfile::tempdir().unwrap();
    let stop_at = |stop: usize, trainer: &mut Trainer| {
        let mut seen = Vec::new();
        let outcome = trainer.run(Some(dir.path()), &mut |event| match event {
            Event::Step(report) => {
                seen.push((report.step, report.loss));
                if report.step == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            }
            _ => ControlFlow::Continue(()),
        });
        (outcome.unwrap(), seen)
    };
    let (outcome, mut seen) = stop_at(2, &mut trainer(&decoder, config()));
    assert_eq!(outcome, Outcome::Interrupted);
    let mut again = trainer(&decoder, config());
    assert!(again.resume(dir.path()).unwrap());
    let (outcome, rest) = stop_at(0, &mut again);
    assert_eq!(outcome, Outcome::Finished);
    seen.extend(rest);
    let expected = losses(&mut trainer(&decoder, config()), 6);
    assert_eq!(seen, (1..).zip(expected).collect::<Vec<_>>());
    // Finished runs have nothing left to do.
    let mut third = trainer(&decoder, config());
    third.resume(dir.path()).unwrap();
    assert_eq!(stop_at(0, &mut third), (Outcome::Finished, Vec::new()));
    // A new run does not write into the directory of one that is further.
    let mut fresh = trainer(&decoder, config());
    let ahead = fresh.run(Some(dir.path()), &mut |_| ControlFlow::Continue(()));
    assert!(matches!(ahead, Err(Error::CheckpointAhead { found: 6, step: 0, .. })));
    assert_eq!(fresh.steps_done(), 0);
}

#[test]
fn only_complete_checkpoints_count() {
    let decoder = tiny_decoder();
    let dir = tempfile::tempdir().unwrap();
    let mut run = trainer(&decoder, config());
    for _ in 0..4 {
        run.step().unwrap();
        run.save(dir.path()).unwrap();
    }
    let names = || {
        let entries = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = entries.collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["step-00000003", "step-00000004"]);
    // A process killed while writing leaves a hidden directory that nobody reads.
    let partial = dir.path().join(".step-00000005.partial");
    fs::create_dir(&partial).unwrap();
    fs::write(partial.join("trainer.json"), b"{").unwrap();
    let mut again = trainer(&decoder, config());
    again.resume(dir.path()).unwrap();
    assert_eq!(again.steps_done(), 4);
    again.step().unwrap();
    again.save(dir.path()).unwrap();
    assert_eq!(names(), ["step-00000004", "step-00000005"]);
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let decoder = tiny_decoder();
    let dir = tempfile::tempdir().unwrap();
    let mut run = trainer(&decoder, config());
    run.step().unwrap();
    let path = run.save(dir.path()).unwrap();
    let field = |mut other: Trainer| match other.resume(dir.path()) {
        Err(Error::CheckpointMismatch { field, .. }) => {
            assert_eq!(other.steps_done(), 0);
            field
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(field(trainer(&decoder, config().with_learning_rate(1e-4))), "learning_rate");
    assert_eq!(field(trainer(&decoder, config().with_lora(LoraConfig::default()))), "lora");
    let others = Trainer::new(&decoder, config(), examples(10)).unwrap().with_adapter(busy_adapter(&config().lora, 1));
    assert_eq!(field(others), "examples");
    let judged = trainer(&decoder, config()).with_held_out(examples(2)).unwrap();
    assert_eq!(field(judged), "held_out");

    let file = path.join("trainer.json");
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, good.replace("\"format\": 1", "\"format\": 2")).unwrap();
    assert_eq!(field(trainer(&decoder, config())), "format");
    let damaged = |name: &str, bytes: &[u8]| {
        let kept = fs::read(path.join(name)).unwrap();
        fs::write(path.join(name), bytes).unwrap();
        let result = trainer(&decoder, config()).resume(dir.path());
        fs::write(path.join(name), kept).unwrap();
        assert!(matches!(result, Err(Error::Malformed { .. })), "{name}: {result:?}");
    };
    damaged("trainer.json", &good.as_bytes()[..40]);
    fs::write(&file, &good).unwrap();
    damaged("optimizer.safetensors", b"not a tensor file");
    damaged("adapter_model.safetensors", b"");
    assert!(trainer(&decoder, config()).resume(dir.path()).unwrap());
}

#[test]
fn a_failed_write_leaves_the_last_checkpoint() {
    let decoder = tiny_decoder();
    let dir = tempfile::tempdir().unwrap();
    let mut run = trainer(&decoder, config());
    run.step().unwrap();
    run.save(dir.path()).unwrap();
    run.step().unwrap();
    // A file stands where the draft would be made.
    fs::write(dir.path().join(".step-00000002.partial"), b"").unwrap();
    assert!(matches!(run.save(dir.path()), Err(Error::Io { action: "write", .. })));
    let mut again = trainer(&decoder, config());
    again.resume(dir.path()).unwrap();
    assert_eq!(again.steps_done(), 1);
}

#[test]
fn held_out_examples_pick_the_best_and_stop_the_run() {
    let decoder = tiny_decoder();
    let mut config = config().with_epochs(40).with_learning_rate(5e-2).with_schedule(Schedule::Constant, 0.0);
    config.evaluate_every = 1;
    config.patience = Some(3);
    let held_out = || examples(16).split_off(11);
    let dir = tempfile::tempdir().unwrap();
    let mut run = trainer(&decoder, config.clone()).with_held_out(held_out()).unwrap();
    let mut scores = Vec::new();
    let outcome = run.run(Some(dir.path()), &mut |event| {
        if let Event::Evaluated { step, evaluation, .. } = event {
            scores.push((evaluation.nll, *step));
        }
        ControlFlow::Continue(())
    });
    assert_eq!(outcome.unwrap(), Outcome::StoppedEarly);
    let (nll, step) = scores.iter().copied().min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    let (best, best_nll, best_step) = run.best().unwrap();
    assert_eq!((best_nll, best_step), (nll, step));
    assert_eq!(step + 3, run.steps_done());
    // A mean over batches cut another way rounds differently in the last digits.
    let rescored = evaluate(&decoder, best, &held_out(), 4).unwrap().nll;
    assert!((rescored - nll).abs() < 1e-6 * nll, "{rescored} against {nll}");
    let mut again = trainer(&decoder, config).with_held_out(held_out()).unwrap();
    again.resume(dir.path()).unwrap();
    assert_eq!(again.best().unwrap().1, nll);
    // Others held out have another best.
    let mut other = trainer(&decoder, again.config().clone()).with_held_out(examples(17).split_off(11)).unwrap();
    let found = other.resume(dir.path());
    assert!(matches!(&found, Err(Error::CheckpointMismatch { field, .. }) if field == "held_out"), "{found:?}");
    assert!(other.best().is_none());
    assert_eq!(again.run(None, &mut |_| ControlFlow::Continue(())).unwrap(), Outcome::StoppedEarly);
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_names_the_batch() {
    let decoder = tiny_decoder();
    let spoiled = trainer(&decoder, config()).adapter().map(|_, tensor| tensor.mul_scalar(1e30));
    let mut run = Trainer::new(&decoder, config(), examples(3)).unwrap().with_adapter(spoiled);
    match run.step() {
        Err(Error::NotFinite { step: 1, examples, .. }) => {
            assert!(!examples.is_empty() && examples.iter().all(|name| name.starts_with("example ")));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(run.steps_done(), 0);
}

#[test]
fn examples_that_do_not_fit_are_named() {
    let decoder = tiny_decoder();
    let detail = |example: Example| match Trainer::new(&decoder, config(), vec![examples(1).remove(0), example]).err() {
        Some(Error::Example { index: 1, name, detail }) => {
            assert_eq!(name, "bad");
            detail
        }
        other => panic!("{other:?}"),
    };
    assert!(detail(Example::new("bad", vec![1], vec![])).contains("no answer"));
    assert!(detail(Example::new("bad", vec![], vec![1, 2])).contains("nothing stands before"));
    assert!(detail(Example::new("bad", vec![1], vec![96])).contains("vocabulary"));
    let narrow = SummaryVectors::new(vec![0.0; 16], 16).unwrap();
    assert!(detail(Example::new("bad", vec![1], vec![1]).with_prefix(narrow)).contains("wide"));
    assert!(matches!(Trainer::new(&decoder, config(), Vec::new()).err(), Some(Error::NoExamples)));
    assert!(SummaryVectors::new(vec![0.0; 33], 32).is_err());
    assert!(SummaryVectors::new(vec![f32::INFINITY; 32], 32).is_err());
    // A softprompt alone may stand before an answer.
    let bare = Example::new("bare", vec![], vec![4]).with_prefix(SummaryVectors::new(vec![0.1; 32], 32).unwrap());
    assert!(Trainer::new(&decoder, config(), vec![bare]).unwrap().step().is_ok());
}

#[test]
fn a_reading_longer_than_the_window_is_named_with_its_positions() {
    let decoder = tiny_decoder();
    let vectors = |rows: usize| SummaryVectors::new(vec![0.1; rows * 32], 32).unwrap();
    let example = |name: &str, rows: usize, text: usize| {
        Example::new(name, vec![1; text], vec![1]).with_prefix(vectors(rows / 2)).with_prefix(vectors(rows - rows / 2))
    };
    let detail = |found: Option<Error>| match found {
        Some(Error::Example { index: 1, name, detail }) if name == "long" => detail,
        other => panic!("{other:?}"),
    };
    let run = |examples: Vec<Example>, most: usize| {
        Trainer::new(&decoder, config().with_distractors(most), examples).map(|mut run| run.step().unwrap())
    };
    // The last token of an answer is predicted and not read.
    let short = || example("short", 10, 10);
    assert!(run(vec![short(), example("fits", 100, 28)], 0).is_ok());
    for long in [example("long", 100, 29), example("long", 0, 129), example("long", 1900, 2)] {
        let rows: usize = long.prefix.iter().map(SummaryVectors::rows).sum();
        let positions = rows + long.prompt_ids.len();
        let found = detail(run(vec![short(), long.clone()], 0).err());
        assert!(found.contains(&format!("{positions} positions")) && found.contains("window 128"), "{found}");
        let held_out = Trainer::new(&decoder, config(), vec![short()]).unwrap().with_held_out(vec![short(), long]);
        assert_eq!(detail(held_out.err()), found);
    }
    // As many distractors as may come to stand there, the longest first: 5 and 5 rows, or 20 beside them.
    assert!(run(vec![short(), example("fits", 100, 18)], 2).is_ok());
    let found = detail(run(vec![short(), example("long", 100, 19)], 2).err());
    assert!(found.contains("129 positions") && found.contains("10 of distractors"), "{found}");
    let longer = Example::new("longer", vec![1], vec![1]).with_prefix(vectors(20));
    let found = detail(run(vec![short(), example("long", 100, 9), longer], 1).err());
    assert!(found.contains("129 positions") && found.contains("20 of distractors"), "{found}");
}

#[test]
fn settings_out_of_range_are_named() {
    let field = |json: &str| {
        let config: TrainConfig = serde_json::from_str(json).unwrap();
        match config.check() {
            Err(Error::Setting { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    };
    for (json, expected) in [
        (r#"{"learning_rate": 0}"#, "learning_rate"),
        (r#"{"learning_rate": -1e-4}"#, "learning_rate"),
        (r#"{"warmup_ratio": 1.5}"#, "warmup_ratio"),
        (r#"{"epochs": 0}"#, "epochs"),
        (r#"{"batch_size": 0}"#, "batch_size"),
        (r#"{"weight_decay": -0.1}"#, "weight_decay"),
        (r#"{"max_grad_norm": 0}"#, "max_grad_norm"),
        (r#"{"patience": 0}"#, "patience"),
        (r#"{"lora": {"r": 0}}"#, "r"),
        (r#"{"beta_2": 1.0}"#, "beta_2"),
    ] {
        assert_eq!(field(json), expected, "{json}");
    }
    assert!(serde_json::from_str::<TrainConfig>(r#"{"learning_rte": 1}"#).is_err());
    assert!(serde_json::from_str::<TrainConfig>(r#"{"lora": {"rank": 1}}"#).is_err());
    TrainConfig::default().check().unwrap();
}
