//! What cannot be trained on, or with.

use lloco_lora::{Error, Example, SummaryVectors, TrainConfig, Trainer};

use crate::{
    common::{examples, tiny_decoder},
    config, trainer,
};

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
