//! What a run refuses before its first step.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{fs, ops::ControlFlow, path::Path};

use common::{BASE, Bytes, auto_curriculum, curriculum, jsonl, tiny_decoder};
use lloco_encoder::{CompressorTrainer, Corpus, Curriculum, Error};

fn corpus(dir: &Path, name: &str, contents: &str) -> Corpus {
    let path = dir.join(name);
    fs::write(&path, contents).unwrap();
    Corpus::open(&[path]).unwrap()
}

/// What a run of these settings is refused with.
fn refused(corpus: &Corpus, settings: Curriculum) -> Error {
    CompressorTrainer::new(&tiny_decoder(), BASE, settings, corpus, &Bytes).err().unwrap()
}

/// Twenty-eight tokens: enough for the first stage, too few for the second.
const SHORT: &str = "a text of few words, no more";

#[test]
fn a_later_stage_without_a_sample_is_named_before_the_first_step() {
    let (decoder, dir) = (tiny_decoder(), tempfile::tempdir().unwrap());
    let short = corpus(dir.path(), "short.txt", SHORT);
    let found = refused(&short, curriculum());
    assert!(matches!(&found, Error::NoSample { stage, tokens: 32, .. } if stage == "read"), "{found}");
    assert!(found.to_string().contains("short.txt"), "{found}");

    let long = jsonl(dir.path(), 7);
    let mut settings = curriculum();
    settings.stages[0].continuation = 8;
    let mut trainer = CompressorTrainer::new(&decoder, BASE, settings, &long, &Bytes).unwrap().with_held_out(&short);
    let run = dir.path().join("run");
    let found = trainer.run(&run, None, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(&found, Error::NoSample { stage, .. } if stage == "read"), "{found}");
    assert!(found.to_string().contains("short.txt"), "{found}");
    assert_eq!(trainer.steps_done(), 0);
    assert_eq!(fs::read_dir(&run).unwrap().count(), 0);
}

#[test]
fn settings_made_in_code_are_checked_as_those_of_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let data = jsonl(dir.path(), 7);
    let auto = Curriculum::from_json(&auto_curriculum(), "c.json").unwrap();
    type Change = fn(&mut Curriculum);
    let pooled: [(Change, &str); 4] = [
        (|c| c.stages[1].ratios = vec![2, 8], "stages[1].ratios"),
        (|c| c.stages[0].learning_rates.connector = f64::INFINITY, "stages[0].learning_rates.connector"),
        (|c| c.save_every = 0, "save_every"),
        (|c| c.stages.clear(), "stages"),
    ];
    // What is read while the text is encoded teaches the encoder alone.
    let auto_only: [(Change, &str); 2] = [
        (
            |c| (c.stages[0].learning_rates.encoder, c.stages[0].learning_rates.reader) = (0.0, 1e-3),
            "stages[0].losses.next_token",
        ),
        (
            |c| (c.stages[0].learning_rates.encoder, c.stages[0].learning_rates.connector) = (0.0, 1e-3),
            "stages[0].losses.next_token",
        ),
    ];
    let cases = pooled.into_iter().map(|case| (curriculum(), case));
    for (mut settings, (change, expected)) in cases.chain(auto_only.into_iter().map(|case| (auto.clone(), case))) {
        change(&mut settings);
        let found = refused(&data, settings);
        assert!(matches!(&found, Error::Curriculum { field, .. } if field == expected), "{expected}: {found}");
    }
}

#[test]
fn stages_that_read_beyond_the_window_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = jsonl(dir.path(), 7);
    let auto = Curriculum::from_json(&auto_curriculum(), "c.json").unwrap();
    type Change = fn(&mut Curriculum);
    let cases: [(&Curriculum, Change, &str); 7] = [
        // The model has 128 positions; `kl` reads a text of 121 tokens and 8 behind it.
        (&curriculum(), |c| c.stages[2].context = 121, "stages[2].context"),
        (&curriculum(), |c| c.stages[0].context = 100, "stages[0].target_tokens"),
        (&curriculum(), |c| c.stages[1].continuation = 120, "stages[1].continuation"),
        (
            &curriculum(),
            |c| {
                let stage = &mut c.stages[2];
                (stage.losses.kl, stage.losses.continuation, stage.context, stage.target_tokens) = (0.0, 0.0, 256, 8);
                stage.continuation = 8;
            },
            "stages[2].distractors",
        ),
        // Evaluations continue the text of every stage.
        (&curriculum(), |c| c.stages[0].continuation = 120, "stages[0].continuation"),
        (&auto, |c| c.stages[0].context = 500, "stages[0].context"),
        (&auto, |c| (c.stages[0].context, c.stages[0].longest_segment) = (240, Some(120)), "stages[0].context"),
    ];
    for (settings, change, expected) in cases {
        let mut settings = settings.clone();
        change(&mut settings);
        let found = refused(&data, settings);
        assert!(matches!(&found, Error::Curriculum { field, .. } if field == expected), "{expected}: {found}");
        assert!(found.to_string().contains("the model's window has 128"), "{found}");
    }
    // As many as there are positions are none too many.
    let mut settings = curriculum();
    (settings.stages[2].context, settings.stages[2].target_tokens) = (120, 32);
    assert!(CompressorTrainer::new(&tiny_decoder(), BASE, settings, &data, &Bytes).is_ok());
}

#[test]
fn a_stage_of_which_no_answer_fits_into_the_window_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let line = |answer: &str| {
        serde_json::json!({"text": SHORT, "questions": [{"question": "what?", "answers": [answer]}]}).to_string() + "\n"
    };
    let mut settings = curriculum();
    settings.stages = settings.stages.split_off(2);
    (settings.stages[0].losses.kl, settings.stages[0].losses.continuation) = (0.0, 0.0);
    let long = corpus(dir.path(), "long.jsonl", &line(&"a".repeat(1200)));
    let found = refused(&long, settings.clone());
    assert!(matches!(&found, Error::NoSample { stage, .. } if stage == "answer"), "{found}");
    assert!(found.to_string().contains("fit into the model's window"), "{found}");
    let both = corpus(dir.path(), "both.jsonl", &(line(&"a".repeat(1200)) + &line("words")));
    assert!(CompressorTrainer::new(&tiny_decoder(), BASE, settings, &both, &Bytes).is_ok());
}
