//! Self-study: questions that nobody wrote, the file they are in, and learning from them.

use std::{
    fs,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use lloco_core::{Error, FinetuneConfig, SelfStudyConfig, dataset, store::NewDocument};

use crate::{Fixture, MANUAL, MEETING, documents, questions, short, training};

/// Short passages, and no questions by a model that cannot write any.
fn config() -> SelfStudyConfig {
    SelfStudyConfig::default().with_items(0, 1, 1).with_passage_tokens(24)
}

#[test]
fn questions_are_made_of_each_passage_and_learned() {
    let fixture = Fixture::new();
    let lloco = fixture.lloco();
    lloco.add(&documents()).unwrap();
    let out = fixture.path().join("study.jsonl");
    let studied = lloco.self_study("town", &config(), &out).unwrap();
    assert!(studied.passages >= 2 && studied.cloze >= 2, "{studied:?}");
    assert_eq!((studied.written, studied.dropped), (0, 0));
    assert_eq!(
        fs::read_dir(fixture.path())
            .unwrap()
            .filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|e| e == "part"))
            .count(),
        0
    );

    let data = dataset::read(&out).unwrap();
    assert_eq!((data.len(), data[0].id.as_str(), data[0].text.as_str()), (1, "meeting", ""));
    assert_eq!(data[0].questions.len(), studied.cloze + studied.continuations);
    for question in &data[0].questions {
        let (start, end) = question.passage.unwrap();
        let passage = MEETING[start..end].split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(passage.contains(question.answers[0].trim_end_matches('…')), "{question:?}");
        assert!(["cloze", "continuation"].contains(&question.kind.as_str()));
    }
    // What is written can be read, written and read again.
    let copy = fixture.path().join("copy.jsonl");
    dataset::write(&copy, &data).unwrap();
    assert_eq!(dataset::read(&copy).unwrap(), data);

    let learned = lloco.finetune("town", &FinetuneConfig::new(out).with_training(training().training)).unwrap();
    assert_eq!(learned.examples, data[0].questions.len());
    assert_eq!(learned.divergences, None);
}

#[test]
fn a_finished_file_is_never_written_again() {
    let fixture = Fixture::new();
    let lloco = fixture.lloco();
    lloco.add(&documents()).unwrap();
    let out = fixture.path().join("study.jsonl");
    fs::write(&out, "edited by hand").unwrap();
    let error = lloco.self_study("town", &config(), &out).unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("study.jsonl"), "{error}");
    assert_eq!(fs::read_to_string(&out).unwrap(), "edited by hand");

    let other = fixture.path().join("other.jsonl");
    assert!(matches!(lloco.self_study("nobody", &config(), &other), Err(Error::NothingToAsk { .. })));
    let nothing = config().with_items(0, 0, 0);
    assert!(matches!(lloco.self_study("town", &nothing, &other), Err(Error::NothingToStudy { .. })));
    assert!(lloco.self_study("town", &config().with_passage_tokens(0), &other).is_err());
    assert!(lloco.self_study("town", &config(), fixture.path().join("missing/study.jsonl")).is_err());
    let left: Vec<_> = fs::read_dir(fixture.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("other")), "{left:?}");
}

#[test]
fn an_interrupted_run_goes_on_and_ends_with_the_same_file() {
    let fixture = Fixture::new();
    let lloco = fixture.lloco();
    lloco.add(&[NewDocument::new("a", MEETING), NewDocument::new("b", MANUAL)]).unwrap();
    let whole = fixture.path().join("whole.jsonl");
    let expected = lloco.self_study("default", &config(), &whole).unwrap();
    let expected_text = fs::read_to_string(&whole).unwrap();
    drop(lloco);

    let out = fixture.path().join("study.jsonl");
    let part = || {
        let entries = fs::read_dir(fixture.path()).unwrap().map(|entry| entry.unwrap().path());
        entries.into_iter().find(|path| path.extension().is_some_and(|end| end == "part"))
    };
    for stop in 1..expected.passages {
        let seen = Arc::new(AtomicUsize::new(0));
        let stopping = fixture.builder().on_event(move |_| match seen.fetch_add(1, Ordering::SeqCst) + 1 {
            n if n >= stop => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        let lloco = stopping.build().unwrap();
        assert!(matches!(lloco.self_study("default", &config(), &out), Err(Error::Interrupted)));
        drop(lloco);
        // A kill may also tear the last line.
        let draft = part().unwrap();
        let text = fs::read(&draft).unwrap();
        fs::write(&draft, &text[..text.len().saturating_sub(stop * 7)]).unwrap();
        let lloco = fixture.lloco();
        let found = lloco.self_study("default", &config(), &out).unwrap();
        assert_eq!(fs::read_to_string(&out).unwrap(), expected_text, "stopped behind passage {stop}");
        let counts = [found.passages, found.cloze, found.continuations];
        assert_eq!(counts, [expected.passages, expected.cloze, expected.continuations]);
        assert_eq!(part(), None);
        fs::remove_file(&out).unwrap();
    }
}

#[test]
fn what_the_model_writes_must_stand_in_the_text() {
    let fixture = Fixture::new();
    // Two questions of others stand before the passage, and this model reads bytes.
    let config_file = fixture.path().join("model/config.json");
    let model = fs::read_to_string(&config_file).unwrap();
    fs::write(&config_file, model.replace("\"max_position_embeddings\": 512", "\"max_position_embeddings\": 1024"))
        .unwrap();
    let lloco = fixture.lloco();
    lloco.add(&documents()).unwrap();
    let out = fixture.path().join("study.jsonl");
    // This model writes noise.
    let studied = lloco.self_study("town", &config().with_items(1, 1, 0), &out).unwrap();
    assert_eq!((studied.written, studied.dropped), (0, studied.passages));
}

#[test]
fn the_reading_of_the_text_is_learned_beside_the_answers() {
    let fixture = Fixture::new();
    let lloco = fixture.lloco();
    lloco.add(&documents()).unwrap();
    let plain = lloco.finetune_on("town", &questions(), &training()).unwrap();
    let config = training().with_distillation(20);
    let taught = lloco.finetune_on("town", &questions(), &config).unwrap();
    assert_eq!((plain.version, taught.version, taught.steps), (1, 2, 6));
    let (first, last) = taught.divergences.unwrap();
    assert!(first > 0.0 && last > 0.0, "the divergence went from {first} to {last}");
    assert_eq!(lloco.finetune_on("town", &questions(), &config).unwrap().steps, 0, "the same run was done twice");

    let mut wrong = questions();
    wrong[0].questions[0].passage = Some((3, 10_000));
    let error = lloco.finetune_on("town", &wrong, &config).unwrap_err();
    assert!(matches!(&error, Error::NoSuchPassage { end: 10_000, .. }) && error.to_string().contains("m-1"), "{error}");
    wrong[0].questions[0].passage = Some((0, 30));
    assert_eq!(lloco.finetune_on("town", &wrong, &config).unwrap().steps, 6, "the passage is part of what is learned");
    assert!(lloco.finetune_on("town", &questions(), &training().with_distillation(0)).is_err());
}

#[test]
fn several_documents_stand_before_a_question() {
    let fixture = Fixture::new();
    let lloco = fixture.lloco();
    lloco.add(&[NewDocument::new("a", MEETING), NewDocument::new("b", MANUAL)]).unwrap();
    let line =
        |documents: &str| format!(r#"{{"documents":{documents},"question":"Paint or valve?","answers":["both"]}}"#);
    let positions = |documents: &str| {
        let path = fixture.path().join("qa.jsonl");
        fs::write(&path, line(documents)).unwrap();
        let config = FinetuneConfig::new(path).with_training(training().training);
        lloco.finetune("default", &config).map(|learned| (learned.version, learned.positions))
    };
    let (one, alone) = positions(r#"["a"]"#).unwrap();
    let (two, both) = positions(r#"["a","b"]"#).unwrap();
    let (three, turned) = positions(r#"["b","a"]"#).unwrap();
    assert_eq!((one, two, three), (1, 2, 3), "the order counts");
    assert_eq!(both, turned);
    assert_eq!(both - alone, 6 * 6 * MANUAL.len().div_ceil(56) as u64, "six steps behind six vectors a segment");
    assert!(matches!(positions(r#"["a","elsewhere"]"#), Err(Error::NothingToLearn { .. })));

    let asked = |documents: &[&str]| {
        let answer = lloco.ask_with("Paint or valve?", &short().documents(documents.iter().copied()))?;
        let names: Vec<String> = answer.sources.iter().map(|source| source.document.clone()).collect();
        Ok::<_, Error>((names.join(" "), answer.usage.context_positions, answer.adapter))
    };
    let vectors = |text: &str| 6 * text.len().div_ceil(56);
    assert_eq!(asked(&["b", "a"]).unwrap(), ("b a".into(), vectors(MANUAL) + vectors(MEETING), Some(3)));
    assert_eq!(asked(&["a"]).unwrap(), ("a".into(), vectors(MEETING), Some(3)));
    assert!(matches!(asked(&["a", "elsewhere"]), Err(Error::DocumentNotFound { id, .. }) if id == "elsewhere"));
    lloco.add(&[NewDocument::new("far", MANUAL).group("other")]).unwrap();
    let error = asked(&["a", "far"]).unwrap_err();
    assert!(matches!(error, Error::InvalidName { .. }) && error.to_string().contains("far"), "{error}");
}
