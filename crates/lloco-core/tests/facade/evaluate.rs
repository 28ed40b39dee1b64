//! The control table, on a model that knows nothing: not what it says, but that it says the right things of each row.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use lloco_core::{
    Adapter, Checkpoint, Error, Event, Prompts,
    dataset::{QaDocument, Question},
    eval::{Context, ControlTable, EvaluateConfig, Measure},
    store::{NewDocument, Store},
    training::Wording as _,
};
use lloco_lora::{Example, SummaryVectors};

use crate::{Fixture, MANUAL, MEETING, documents, questions, short, training};

fn config() -> EvaluateConfig {
    EvaluateConfig::new("in memory").with_max_new_tokens(8)
}

fn json(table: &ControlTable) -> String {
    serde_json::to_string(table).unwrap()
}

#[test]
fn every_context_is_read_with_and_without_adapter() {
    let fixture = Fixture::new();
    let lloco = fixture.lloco();
    lloco.add(&documents()).unwrap();
    lloco.finetune_on("town", &questions(), &training()).unwrap();
    let table = lloco.evaluate_on("town", &questions(), &config()).unwrap();
    assert_eq!((table.adapter, table.questions, table.documents, table.rows.len()), (Some(1), 2, 1, 14));
    let positions = |context| table.row(context, true).unwrap().positions;
    let vectors = (6 * MEETING.len().div_ceil(56)) as f64;
    assert_eq!(positions(Context::Nothing), 0.0);
    assert_eq!(positions(Context::Compressed), vectors);
    assert_eq!(positions(Context::Shuffled), (6 * MANUAL.len().div_ceil(56)) as f64);
    assert_eq!(positions(Context::Truncated), vectors);
    assert_eq!(positions(Context::Retrieved), vectors);
    assert_eq!(positions(Context::Both), 2.0 * vectors);
    assert_eq!(positions(Context::FullText), MEETING.len() as f64);
    assert_eq!(table.summaries.vectors, vectors);
    assert!(table.summaries.effective_rank > 1.0 && table.summaries.norm_ratio > 0.0, "{:?}", table.summaries);

    // The rows are what the verbs and the trainer's own evaluation say.
    let compressed = table.row(Context::Compressed, true).unwrap();
    let text = table.row(Context::FullText, false).unwrap();
    let stored = lloco.store().adapter("town").unwrap().unwrap();
    let decoder = lloco.encoder().decoder();
    let adapter = Adapter::load(&stored.path, decoder.config(), decoder.device()).unwrap();
    let summary = lloco.store().summary("meeting", lloco.encoder_info()).unwrap();
    let tokenizer = Checkpoint::open(fixture.path().join("model")).unwrap().tokenizer().unwrap();
    let prompts = Prompts::new(tokenizer, decoder.config()).unwrap();
    let vectors = SummaryVectors::new(summary.data().to_vec(), summary.hidden()).unwrap();
    for (index, Question { id, question, answers, .. }) in questions()[0].questions.iter().enumerate() {
        let asked = lloco.ask_with(question, &short().group("town")).unwrap();
        assert_eq!((&compressed.answers[index].question, &compressed.answers[index].text), (id, &asked.text));
        let asked = lloco.ask_text(question, &short().group("town")).unwrap().finish().unwrap();
        assert_eq!(text.answers[index].text, asked.text);
        let (prompt, answer) = (prompts.question(question).unwrap(), prompts.answer(&answers[0]).unwrap());
        let example = Example::new(id, prompt, answer).with_prefix(vectors.clone());
        let expected = lloco_lora::evaluate(decoder, &adapter, &[example], 1).unwrap();
        let found = &compressed.answers[index];
        assert_eq!(found.tokens, expected.tokens);
        let found = found.nll / found.tokens as f64;
        assert!((found - expected.nll).abs() < 1e-2 * expected.nll.abs().max(1.0), "{found} and {}", expected.nll);
    }
    // The adapter has learned these answers.
    let gain = table.difference(compressed, table.row(Context::Compressed, false).unwrap(), Measure::Nll).unwrap();
    assert!(gain.high < 0.0, "{gain:?}");

    let printed = table.to_string();
    for expected in [
        "| no context + adapter | 0 |",
        "| full text |",
        "| compressed + adapter - shuffled summaries + adapter |",
        "| compressed and retrieved text + adapter - retrieved text + adapter |",
    ] {
        assert!(printed.contains(expected), "{printed}");
    }
    assert!(printed.ends_with("times that of the embeddings."), "{printed}");
}

#[test]
fn the_same_seed_gives_the_same_table() {
    let fixture = Fixture::new();
    let lloco = fixture.lloco();
    lloco.add(&documents()).unwrap();
    let mut data = questions();
    for number in 0..6 {
        data[0].questions.push(Question::new(format!("x-{number}"), format!("What about lamp {number}?"), "lit"));
    }
    let few = config().with_limit(3).with_contexts([Context::Compressed, Context::Truncated]);
    let table = lloco.evaluate_on("town", &data, &few).unwrap();
    assert_eq!((table.adapter, table.questions, table.rows.len()), (None, 3, 2));
    assert_eq!(json(&table), json(&lloco.evaluate_on("town", &data, &few).unwrap()));
    let ids = |table: &ControlTable| -> Vec<String> {
        table.rows[0].answers.iter().map(|answer| answer.question.clone()).collect()
    };
    assert_eq!(ids(&table).len(), 3);
    let others = (1..6).map(|seed| ids(&lloco.evaluate_on("town", &data, &few.clone().with_seed(seed)).unwrap()));
    assert!(others.into_iter().any(|other| other != ids(&table)), "the seed chooses the questions");
    let all = lloco.evaluate_on("town", &data, &few.clone().with_limit(100)).unwrap();
    assert_eq!(all.questions, 8);
}

#[test]
fn questions_may_be_about_several_documents() {
    let fixture = Fixture::new();
    let lloco = fixture.lloco();
    lloco.add(&[NewDocument::new("a", MEETING), NewDocument::new("b", MANUAL)]).unwrap();
    let questions = vec![Question::new("both", "Paint or valve?", "both").about(["b", "a"])];
    let data = [QaDocument { id: "a".into(), title: String::new(), text: MEETING.into(), questions }];
    let contexts = [Context::Compressed, Context::Shuffled, Context::Truncated, Context::FullText];
    let config = config().with_contexts(contexts);
    let table = lloco.evaluate_on("default", &data, &config).unwrap();
    assert!(table.row(Context::Shuffled, false).is_none(), "there are no two other documents");
    let positions: Vec<f64> = table.rows.iter().map(|row| row.positions).collect();
    let vectors = 6 * (MEETING.len().div_ceil(56) + MANUAL.len().div_ceil(56));
    assert_eq!(positions[..2], [vectors as f64; 2]);
    // The window of this model is shorter than both texts.
    assert!((MANUAL.len() as f64..512.0).contains(&positions[2]), "{positions:?}");
    lloco.add(&[NewDocument::new("c", "Something."), NewDocument::new("d", "Other.").group("far")]).unwrap();
    let table = lloco.evaluate_on("default", &data, &config).unwrap();
    assert_eq!(table.row(Context::Shuffled, false).unwrap().positions, 12.0);
}

#[test]
fn what_cannot_be_evaluated_is_named() {
    let fixture = Fixture::new();
    let lloco = fixture.lloco();
    lloco.add(&documents()).unwrap();
    for (wrong, field) in [
        (config().with_limit(0), "limit"),
        (config().with_contexts([]), "contexts"),
        (config().with_max_new_tokens(0), "max_new_tokens"),
    ] {
        let error = lloco.evaluate_on("town", &questions(), &wrong).unwrap_err();
        assert!(matches!(error, Error::Eval(_)) && error.to_string().contains(field), "{error}");
    }
    assert!(matches!(lloco.evaluate_on("pumps", &questions(), &config()), Err(Error::NothingToLearn { .. })));
    assert!(matches!(lloco.evaluate("town", &EvaluateConfig::new("missing.jsonl")), Err(Error::Dataset(_))));
    let long = config().with_max_new_tokens(100_000).with_contexts([Context::FullText]);
    assert!(matches!(lloco.evaluate_on("town", &questions(), &long), Err(Error::QuestionTooLong { .. })));
    drop(lloco);
    let stopping = fixture.builder().on_event(|event| match event {
        Event::Evaluated { done: 3, .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    let lloco = stopping.build().unwrap();
    assert!(matches!(lloco.evaluate_on("town", &questions(), &config()), Err(Error::Interrupted)));
}

#[test]
fn a_reference_answer_that_does_not_fit_behind_the_summaries_is_refused() {
    let fixture = Fixture::new();
    let lloco = fixture.lloco();
    lloco.add(&documents()).unwrap();
    let window = lloco.encoder().decoder().config().max_position_embeddings;
    let summaries = 6 * MEETING.len().div_ceil(56);
    let tokenizer = Checkpoint::open(fixture.path().join("model")).unwrap().tokenizer().unwrap();
    let prompts = Prompts::new(tokenizer, lloco.encoder().decoder().config()).unwrap();
    let room = window - summaries - prompts.question("What was said?").unwrap().len();
    let ends = prompts.answer("x").unwrap().len() - 1;
    let evaluate = |context, letters: usize| {
        let mut data = questions();
        data[0].questions = vec![Question::new("long", "What was said?", "x".repeat(letters))];
        lloco.evaluate_on("town", &data, &config().with_contexts([context]))
    };
    let fits = evaluate(Context::Compressed, room - ends).unwrap();
    assert_eq!(fits.rows[0].answers[0].tokens, room);
    for context in [Context::Compressed, Context::Both] {
        let error = evaluate(context, room - ends + 1).unwrap_err();
        assert!(
            matches!(&error, Error::QuestionTooLong { question, positions, window: found, .. } if question == "long" && *positions > window && *found == window),
            "{error}"
        );
    }
    // Behind nothing there is room for more, and at last for no more.
    assert!(evaluate(Context::Nothing, room - ends + 1).is_ok());
    assert!(matches!(evaluate(Context::Nothing, window), Err(Error::QuestionTooLong { .. })));
}

#[test]
fn what_does_not_fit_the_window_is_refused_before_the_first_answer() {
    let fixture = Fixture::new();
    let told = Arc::new(AtomicUsize::new(0));
    let seen = told.clone();
    let counting = fixture.builder().on_event(move |event| {
        if let Event::Evaluated { .. } = event {
            seen.fetch_add(1, Ordering::Relaxed);
        }
        ControlFlow::Continue(())
    });
    let lloco = counting.build().unwrap();
    lloco.add(&documents()).unwrap();
    // The last question of the last row does not fit; all others do.
    let window = lloco.encoder().decoder().config().max_position_embeddings;
    let mut data = questions();
    data[0].questions.push(Question::new("long", "What was said?", "x".repeat(window - 100)));
    let config = config().with_contexts([Context::Nothing, Context::Compressed]);
    let found = lloco.evaluate_on("town", &data, &config);
    assert!(matches!(&found, Err(Error::QuestionTooLong { question, .. }) if question == "long"), "{found:?}");
    assert_eq!(told.load(Ordering::Relaxed), 0);
    let fits = lloco.evaluate_on("town", &data, &config.with_contexts([Context::Nothing])).unwrap();
    assert_eq!(told.load(Ordering::Relaxed), fits.questions);
}
