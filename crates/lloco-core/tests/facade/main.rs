//! The facade's verbs, end to end, on models small enough for any machine.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod context;
mod evaluate;
mod finetune;
mod kill;
mod study;
mod together;

use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use lloco_core::{
    AskOptions, EncoderOptions, Error, Event, FinetuneConfig, GenerateConfig, Lloco, LlocoBuilder, Search, TrainConfig,
    dataset::{QaDocument, Question},
    store::{NewDocument, Precision, Shard, Store},
};
use serde_json::json;

const MEETING: &str = "The council met on Monday. Ada proposed to paint the bridge green, and Bram asked what it would \
    cost. Ada said nine hundred. The council voted seven to two in favour. Bram will buy the paint before Friday. \
    Then the council spoke about the harbour, and about the new lamps along the quay.";
const MANUAL: &str = "The pump has three valves. Open the red valve first, wait ten seconds, then open the blue valve. \
    Never open the yellow valve while the pump is running. Change the filter every two hundred hours of work. \
    The reset button is under the lid, behind the small grey cover.";

/// A test's directory with a model, an embedder and room for a store.
struct Fixture {
    path: PathBuf,
    /// Goes with the test, unless the directory is another process's.
    _dir: Option<tempfile::TempDir>,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let golden = repository("testdata/goldens/smollm-gqa-tied");
        let model = dir.path().join("model");
        fs::create_dir(&model).unwrap();
        for name in ["config.json", "model.safetensors"] {
            fs::copy(golden.join(name), model.join(name)).unwrap();
        }
        fs::write(model.join("tokenizer.json"), byte_tokenizer()).unwrap();
        Self { path: dir.path().to_owned(), _dir: Some(dir) }
    }

    /// The fixture that another process made.
    fn at(path: PathBuf) -> Self {
        Self { path, _dir: None }
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn store(&self) -> PathBuf {
        self.path().join("library")
    }

    fn builder(&self) -> LlocoBuilder {
        Lloco::builder()
            .store(self.store())
            .model(self.path().join("model"))
            .embedder(repository("crates/lloco-retrieval/tests/data/tiny-bert"))
            .encoder(EncoderOptions { segment_length: Some(56), ..Default::default() })
    }

    fn lloco(&self) -> Lloco {
        self.builder().build().unwrap()
    }
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// A tokenizer of one token a byte behind three special ones, as the tiny models' vocabulary allows.
fn byte_tokenizer() -> Vec<u8> {
    let printable = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut shifted = 256u32..;
    let letters = (0..256u32).map(|byte| if printable(byte) { byte } else { shifted.next().unwrap() });
    let letters = letters.map(|code| char::from_u32(code).unwrap().to_string());
    let words = ["<unk>", "<s>", "</s>"].map(str::to_owned).into_iter().chain(letters);
    let vocab: serde_json::Map<_, _> = words.zip(0..).map(|(word, id)| (word, json!(id))).collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []
        }
    });
    serde_json::to_vec(&tokenizer).unwrap()
}

fn documents() -> [NewDocument<'static>; 2] {
    [NewDocument::new("meeting", MEETING).group("town"), NewDocument::new("manual", MANUAL).group("pumps")]
}

fn questions() -> Vec<QaDocument> {
    vec![QaDocument {
        id: "meeting".into(),
        title: String::new(),
        text: MEETING.into(),
        questions: vec![
            Question::new("m-1", "What colour will the bridge be?", "green"),
            Question::new("m-2", "Who buys the paint?", "Bram"),
        ],
    }]
}

fn training() -> FinetuneConfig {
    let training = TrainConfig::default().with_epochs(6).with_learning_rate(1e-2).with_batches(2, 1);
    FinetuneConfig::new("in memory").with_training(training)
}

fn short() -> AskOptions {
    AskOptions::default().generation(GenerateConfig::greedy(8))
}

#[test]
fn documents_are_compressed_once() {
    let fixture = Fixture::new();
    let added = fixture.lloco().add(&documents()).unwrap();
    let tokens = (MEETING.len() + MANUAL.len()) as u64;
    assert_eq!((added.documents, added.unchanged, added.tokens, added.tokens_read), (2, 0, tokens, tokens));
    let segments = MEETING.len().div_ceil(56) + MANUAL.len().div_ceil(56);
    assert_eq!(added.summary_vectors, 6 * segments as u64);
    assert!(added.passages >= 2);

    let again = fixture.lloco().add(&documents()).unwrap();
    assert_eq!((again.documents, again.unchanged, again.tokens_read, again.passages), (0, 2, 0, 0));
}

#[test]
fn an_answer_says_what_it_rests_on() {
    let fixture = Fixture::new();
    let lloco = fixture.lloco();
    lloco.add(&documents()).unwrap();
    let mut stream = lloco.ask_stream("Which valve is opened first?", &short().group("pumps")).unwrap();
    assert_eq!(stream.sources()[0].document, "manual");
    let pieces: String = stream.by_ref().map(Result::unwrap).collect();
    let answer = stream.finish().unwrap();
    assert_eq!(answer.text, pieces.trim());
    let source = &answer.sources[0];
    assert_eq!(source.passage, MANUAL[source.range.clone()]);
    assert_eq!(answer.adapter, None);
    assert_eq!(answer.usage.document_tokens, MANUAL.len() as u64);
    assert_eq!(answer.usage.context_positions, 6 * MANUAL.len().div_ceil(56));
    assert!(answer.usage.prompt_positions > answer.usage.context_positions);

    let read = lloco.ask_text("Which valve is opened first?", &short().group("pumps")).unwrap().finish().unwrap();
    assert_eq!(read.usage.context_positions, MANUAL.len());
}

#[test]
fn a_group_learns_once_and_answers_with_its_adapter() {
    let fixture = Fixture::new();
    let lloco = fixture.lloco();
    lloco.add(&documents()).unwrap();
    let before = lloco.ask_with("Who buys the paint?", &short().group("town")).unwrap();
    let before_other = lloco.ask_with("Who buys the paint?", &short().group("pumps")).unwrap();

    let learned = lloco.finetune_on("town", &questions(), &training()).unwrap();
    assert_eq!((learned.version, learned.examples, learned.steps), (1, 2, 6));
    let (first, last) = learned.losses.unwrap();
    assert!(last < first, "the loss went from {first} to {last}");

    let after = lloco.ask_with("Who buys the paint?", &short().group("town")).unwrap();
    assert_eq!(after.adapter, Some(1));
    assert_ne!(after.text, before.text, "the adapter changed nothing");
    let after_other = lloco.ask_with("Who buys the paint?", &short().group("pumps")).unwrap();
    assert_eq!((after_other.text, after_other.adapter), (before_other.text, None), "another group's answer changed");

    let again = fixture_again(lloco, &fixture).finetune_on("town", &questions(), &training()).unwrap();
    assert_eq!((again.version, again.steps), (1, 0), "the same adapter was trained twice");
}

#[test]
fn the_adapter_that_does_best_on_held_out_questions_is_kept_and_the_last_one_too() {
    let fixture = Fixture::new();
    let (looks, seen) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let (found, counted) = (looks.clone(), seen.clone());
    let builder = fixture.builder().on_event(move |event| {
        match *event {
            Event::HeldOut { step, loss, best } => found.lock().unwrap().push((step, loss, best)),
            Event::Finetuned { .. } => drop(counted.fetch_add(1, Ordering::Relaxed)),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    let lloco = builder.build().unwrap();
    lloco.add(&documents()).unwrap();
    // What is learned contradicts what is asked, so that learning too well shows.
    let mut other = questions();
    other[0].questions = vec![Question::new("m-3", "Who buys the paint?", "~~ {} ~~")];
    let held_out = fixture.path().join("held-out.jsonl");
    fs::write(&held_out, serde_json::to_vec(&other[0]).unwrap()).unwrap();
    let mut config = training().with_held_out(&held_out);
    config.training.patience = Some(2);
    let learned = lloco.finetune_on("town", &questions(), &config).unwrap();

    let looks = looks.lock().unwrap().clone();
    let (nll, best) = learned.held_out.unwrap();
    let least = looks.iter().map(|look| look.1).fold(f64::INFINITY, f64::min);
    assert_eq!(nll, least);
    assert_eq!(looks.iter().rfind(|look| look.2).unwrap().0, best);
    assert!(best < learned.steps, "the best step is the last, {best}: nothing was told apart");
    assert!(learned.steps == 6 || learned.steps == best + 2, "{} steps, the best {best}", learned.steps);
    assert_eq!((learned.version, seen.load(Ordering::Relaxed)), (2, learned.steps));
    let adapter = lloco.store().adapter("town").unwrap().unwrap().path;
    let metrics = fs::read_to_string(adapter.join("metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().count(), learned.steps + looks.len(), "a line a step, and a line a look");
    assert!(fs::read_to_string(adapter.join("curves.svg")).unwrap().contains("<svg"));
    let weights = || fs::read(lloco.store().adapter("town").unwrap().unwrap().path.join("adapter_model.safetensors"));
    let best = weights().unwrap();
    lloco.store().set_adapter("town", Some(1)).unwrap();
    assert_ne!(weights().unwrap(), best, "the last adapter is the best one");
    lloco.store().set_adapter("town", Some(2)).unwrap();

    let again = lloco.finetune_on("town", &questions(), &config).unwrap();
    assert_eq!((again.version, again.steps), (2, 0), "the same adapter was trained twice");
    let without = lloco.finetune_on("town", &questions(), &training()).unwrap();
    assert_eq!(without.steps, 6, "a run without held-out questions is another one");
}

/// The store opened anew.
fn fixture_again(lloco: Lloco, fixture: &Fixture) -> Lloco {
    drop(lloco);
    fixture.lloco()
}

#[test]
fn an_adapter_never_changes_encoding() {
    let fixture = Fixture::new();
    let lloco = fixture.lloco();
    lloco.add(&documents()).unwrap();
    let before = lloco.store().summary("meeting", lloco.encoder_info()).unwrap();
    lloco.finetune_on("town", &questions(), &training()).unwrap();
    let copy = NewDocument::new("meeting again", MEETING).group("town");
    let added = lloco.add(&[copy]).unwrap();
    assert_eq!(added.tokens_read, 0, "the same text was compressed twice");
    let other = Fixture::new();
    let fresh = other.lloco();
    fresh.add(&documents()).unwrap();
    let after = fresh.store().summary("meeting", fresh.encoder_info()).unwrap();
    assert_eq!(before.data(), after.data());
}

#[test]
fn append_equals_compressing_the_whole() {
    let (whole, parts) = (Fixture::new(), Fixture::new());
    let text = format!("{MEETING} {MANUAL}");
    let lloco = whole.lloco();
    lloco.add(&[NewDocument::new("all", &text)]).unwrap();
    let expected = lloco.store().summary("all", lloco.encoder_info()).unwrap();

    let lloco = parts.lloco();
    lloco.add(&[NewDocument::new("all", MEETING)]).unwrap();
    let added = lloco.append("all", &format!(" {MANUAL}")).unwrap();
    let kept = MEETING.len() / 56 * 56;
    assert_eq!(added.tokens_read, (text.len() - kept) as u64, "only the tail is read again");
    let found = lloco.store().summary("all", lloco.encoder_info()).unwrap();
    assert_eq!(expected.rows(), found.rows());
    // Both go on from the rows as stored; only the order of sums in one product differs, and where a CPU rounds factors to
    // bf16, what falls to this side or that.
    let length = |numbers: &mut dyn Iterator<Item = f32>| numbers.map(|x| x * x).sum::<f32>().sqrt();
    let apart = length(&mut expected.data().iter().zip(found.data()).map(|(a, b)| a - b));
    let share = apart / length(&mut expected.data().iter().copied());
    assert!(share < 1e-2, "differs by {share}");
}

#[test]
fn an_interrupted_run_goes_on_where_it_stopped() {
    let fixture = Fixture::new();
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = seen.clone();
    let stopping = fixture.builder().on_event(move |_| match counter.fetch_add(1, Ordering::SeqCst) {
        2 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    let lloco = stopping.build().unwrap();
    assert!(matches!(lloco.add(&documents()), Err(Error::Interrupted)));
    drop(lloco);

    let lloco = fixture.lloco();
    let added = lloco.add(&documents()).unwrap();
    assert_eq!(added.documents, 2);
    assert_eq!(added.tokens_read, added.tokens - 3 * 56, "three segments were kept");
}

#[test]
fn a_removed_document_is_not_found() {
    let fixture = Fixture::new();
    let lloco = fixture.lloco();
    lloco.add(&documents()).unwrap();
    assert!(lloco.remove("manual").unwrap());
    assert!(!lloco.remove("manual").unwrap());
    let answer = lloco.ask_with("Which valve is opened first?", &short()).unwrap();
    assert_eq!(answer.sources[0].document, "meeting");
    let nothing = lloco.ask_with("Which valve is opened first?", &short().group("pumps"));
    assert!(matches!(nothing, Err(Error::NothingToAsk { .. })));
}

#[test]
fn one_text_in_two_groups_is_found_in_each() {
    let fixture = Fixture::new();
    let lloco = fixture.lloco();
    let both = [NewDocument::new("a", MANUAL).group("pumps"), NewDocument::new("b", MANUAL).group("copies")];
    let twin = NewDocument::new("c", MANUAL).group("copies");
    lloco.add(&[both[0], both[1], twin, NewDocument::new("meeting", MEETING).group("town")]).unwrap();
    let ask = |group: &str| {
        let answer = lloco.ask_with("Which valve first?", &short().group(group).top_k(3)).unwrap();
        answer.sources.into_iter().map(|source| source.document).collect::<Vec<_>>()
    };
    // A text is read once, under the first of its documents.
    assert_eq!((ask("pumps"), ask("copies")), (vec!["a".to_owned()], vec!["b".to_owned()]));
    lloco.remove("b").unwrap();
    assert_eq!(ask("copies"), ["c"]);
    lloco.remove("c").unwrap();
    let error = lloco.ask_with("Which valve first?", &short().group("copies")).unwrap_err();
    assert!(matches!(&error, Error::NothingToAsk { group: Some(group), .. } if group == "copies"), "{error}");
    assert_eq!(ask("pumps"), ["a"]);
}

#[test]
fn another_encoder_is_refused() {
    let fixture = Fixture::new();
    fixture.lloco().add(&documents()).unwrap();
    let other = fixture.builder().precision(Precision::F32).build().unwrap();
    let answer = other.ask_with("Which valve is opened first?", &short());
    assert!(matches!(answer, Err(Error::EncoderMismatch { .. })), "{answer:?}");
}

#[test]
fn reencoding_replaces_another_encoders_summaries_and_goes_on() {
    let fixture = Fixture::new();
    fixture.lloco().add(&documents()).unwrap();
    let other = || fixture.builder().encoder(EncoderOptions { segment_length: Some(40), ..Default::default() });

    // Adding with another encoder leaves alone what it is not asked to compress.
    let lloco = other().build().unwrap();
    let added = lloco.add(&[NewDocument::new("new", "Something short.")]).unwrap();
    assert_eq!((added.documents, added.stale), (1, 2));
    let error = lloco.ask_with("Who buys the paint?", &short().group("town")).unwrap_err();
    assert!(matches!(error, Error::EncoderMismatch { .. }) && error.to_string().contains("reencode"), "{error}");
    drop(lloco);

    let seen = AtomicUsize::new(0);
    let stopping = other().on_event(move |_| match seen.fetch_add(1, Ordering::SeqCst) {
        2 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    let lloco = stopping.build().unwrap();
    assert!(matches!(lloco.reencode(), Err(Error::Interrupted)));
    drop(lloco);
    let old = fixture.lloco();
    assert!(old.store().summary("meeting", old.encoder_info()).is_ok(), "the old summary serves meanwhile");
    let former = old.encoder_info().id();
    drop(old);

    let lloco = other().build().unwrap();
    let report = lloco.reencode().unwrap();
    assert_eq!((report.documents, report.stale), (2, 0));
    assert_eq!(report.tokens_read, report.tokens - 3 * 40, "three segments were kept");
    assert!(lloco.ask_with("Who buys the paint?", &short().group("town")).is_ok());
    let again = lloco.reencode().unwrap();
    assert_eq!((again.documents, again.tokens_read), (0, 0));
    assert_eq!(lloco.store().forget_encoder(&former).unwrap().texts, 2);
    let stats = lloco.store().stats().unwrap();
    let vectors = [MEETING, MANUAL, "Something short."].map(|text| 6 * text.len().div_ceil(40) as u64);
    assert_eq!(stats.vectors, vectors.iter().sum::<u64>(), "the old summaries are gone");
}

#[test]
fn shards_of_all_texts_merge_into_what_one_process_makes() {
    let texts: Vec<(String, String)> = (0..8).map(|i| (format!("{i}"), format!("{i} {}", &MEETING[i * 9..]))).collect();
    let all: Vec<NewDocument<'_>> = texts.iter().map(|(id, text)| NewDocument::new(id, text)).collect();
    let whole = Fixture::new();
    whole.lloco().add(&all).unwrap();
    let merged = Fixture::new();
    let mut documents = 0;
    for index in 0..3 {
        let part = Fixture::new();
        let lloco = part.builder().shard(Shard::new(index, 3).unwrap()).build().unwrap();
        documents += lloco.add(&all).unwrap().documents;
        let report = merged.lloco().store().merge(lloco.store(), |_| true).unwrap();
        assert!(report.conflicts.is_empty() && report.damaged.is_empty());
    }
    assert_eq!(documents, 8, "no document was compressed twice");
    let (whole, merged) = (whole.lloco(), merged.lloco());
    assert_eq!(merged.add(&all).unwrap().tokens_read, 0, "nothing is left to compress");
    for (id, _) in &texts {
        let [expected, found] = [&whole, &merged].map(|lloco| lloco.store().summary(id, lloco.encoder_info()).unwrap());
        assert_eq!(expected, found, "document {id}");
    }
    assert_eq!(whole.store().stats().unwrap().summaries, merged.store().stats().unwrap().summaries);
}

#[test]
fn documents_that_cannot_be_taken_are_named() {
    let fixture = Fixture::new();
    let lloco = fixture.builder().document_limit(500).build().unwrap();
    let dir = fixture.path().join("texts");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("good.txt"), "x").unwrap();
    fs::write(dir.join("long.txt"), "x".repeat(501)).unwrap();
    let added = lloco.add_files("g", &dir.join("*.txt").to_string_lossy()).unwrap();
    assert_eq!((added.documents, added.failed.len()), (1, 1));
    let (path, error) = &added.failed[0];
    assert!(path.ends_with("long.txt") && matches!(error, Error::DocumentTooLong { bytes: 501, limit: 500, .. }));
    let long = "x".repeat(501);
    let both = [NewDocument::new("fine", "y"), NewDocument::new("long", &long)];
    assert!(matches!(lloco.add(&both), Err(Error::DocumentTooLong { .. })));
    assert!(lloco.store().document("fine").unwrap().is_none(), "nothing is stored if one cannot be");
    assert!(matches!(lloco.append("missing", &long), Err(Error::DocumentNotFound { .. })));

    lloco.add(&[NewDocument::new("grows", &long[..500])]).unwrap();
    assert!(matches!(lloco.append("grows", "!"), Err(Error::DocumentTooLong { bytes: 501, .. })));

    // Two of one id: the later counts.
    let twice = [NewDocument::new("twice", "One."), NewDocument::new("twice", "Two, and longer.")];
    lloco.add(&twice).unwrap();
    let document = lloco.store().document("twice").unwrap().unwrap();
    assert_eq!(lloco.store().text(&document.text).unwrap(), "Two, and longer.");
}

#[cfg(unix)]
#[test]
fn files_whose_names_are_not_text_are_reported() {
    use std::os::unix::ffi::OsStrExt as _;
    let fixture = Fixture::new();
    let (dir, name) = (fixture.path().join("texts"), std::ffi::OsStr::from_bytes);
    fs::create_dir_all(dir.join(name(b"deep\xff/er"))).unwrap();
    for file in [&b"a\xff.txt"[..], b"a\xfe.txt", b"a\xff.md", b"new\nline.txt", b"deep\xff/er/b.txt"] {
        fs::write(dir.join(name(file)), "text").unwrap();
    }
    let lloco = fixture.lloco();
    let added = lloco.add_files("g", &dir.join("*.txt").to_string_lossy()).unwrap();
    assert_eq!(added.documents, 1);
    let left_out = |added: &lloco_core::Added| -> Vec<PathBuf> {
        added.failed.iter().for_each(|(_, error)| assert!(error.to_string().contains("not UTF-8"), "{error}"));
        added.failed.iter().map(|(path, _)| path.strip_prefix(&dir).unwrap().to_owned()).collect()
    };
    assert_eq!(left_out(&added), [name(b"a\xfe.txt"), name(b"a\xff.txt")].map(PathBuf::from));
    let added = lloco.add_files("g", &dir.join("**/b.*").to_string_lossy()).unwrap();
    assert_eq!(left_out(&added), [PathBuf::from(name(b"deep\xff/er/b.txt"))]);
    let id = dir.join("new\nline.txt").to_string_lossy().into_owned();
    assert!(lloco.store().document(&id).unwrap().is_some());
}

#[test]
fn wrong_inputs_are_named() {
    let fixture = Fixture::new();
    let lloco = fixture.lloco();
    assert!(matches!(lloco.ask("Anything?"), Err(Error::NothingToAsk { .. })));
    assert!(matches!(lloco.add_files("g", "no/such/*.txt"), Err(Error::NoFiles { .. })));
    assert!(matches!(lloco.add_files("g", "a[b"), Err(Error::Pattern { .. })));
    assert!(matches!(lloco.add(&[NewDocument::new("empty", "")]), Err(Error::EmptyText { .. })));
    assert!(matches!(lloco.finetune_on("town", &questions(), &training()), Err(Error::NothingToLearn { .. })));
    assert!(matches!(lloco.append("nobody", "more"), Err(Error::DocumentNotFound { .. })));
    lloco.add(&documents()).unwrap();
    let long = AskOptions::default().generation(GenerateConfig::greedy(4096));
    assert!(matches!(lloco.ask_with("Long?", &long), Err(Error::PromptTooLong { .. })));
}

#[test]
fn files_that_cannot_be_read_are_reported_and_the_rest_added() {
    let fixture = Fixture::new();
    let dir = fixture.path().join("texts");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("good.txt"), MEETING).unwrap();
    fs::write(dir.join("bad.txt"), [b'a', 0xFF, b'b']).unwrap();
    fs::write(dir.join("empty.txt"), "").unwrap();
    let lloco = fixture.lloco();
    let pattern = dir.join("*.txt").to_string_lossy().into_owned();
    let added = lloco.add_files("town", &pattern).unwrap();
    assert_eq!((added.documents, added.failed.len()), (1, 2));
    let reasons: Vec<_> = added.failed.iter().map(|(path, error)| (path.file_name().unwrap(), error)).collect();
    assert!(matches!(reasons[0], (name, Error::NotText { offset: 1, .. }) if name == "bad.txt"), "{reasons:?}");
    assert!(matches!(reasons[1], (name, Error::EmptyText { .. }) if name == "empty.txt"), "{reasons:?}");
    assert_eq!(lloco.add_files("town", &pattern).unwrap().unchanged, 1);
}

#[test]
fn a_source_says_on_which_page_it_stands() {
    let fixture = Fixture::new();
    let file = fixture.store().with_file_name("manual.txt");
    fs::write(&file, format!("{MEETING}\u{c}{MANUAL}\u{c}")).unwrap();
    let lloco = fixture.lloco();
    lloco.add_files("pumps", file.to_str().unwrap()).unwrap();
    lloco.add(&[NewDocument::new("meeting", MEETING)]).unwrap();
    let source = |question: &str, group: &str| {
        let answer = lloco.ask_with(question, &short().group(group)).unwrap();
        answer.sources.into_iter().next().unwrap()
    };
    let found = source("Where is the reset button under the lid?", "pumps");
    assert!(found.page.is_some(), "{found:?}");
    assert_eq!(found.title, "manual");
    assert_eq!(source("Who buys the paint?", "default").page, None);
}

#[test]
fn a_lost_or_damaged_index_is_built_again() {
    let fixture = Fixture::new();
    fixture.lloco().add(&documents()).unwrap();
    let index = fixture.store().join("index");
    let ask = |read_only: bool| {
        let lloco = fixture.builder().read_only(read_only).build().unwrap();
        let answer = lloco.ask_with("Which valve is opened first?", &short().group("pumps")).unwrap();
        answer.sources[0].clone()
    };
    let expected = ask(true);
    for read_only in [true, false] {
        assert_eq!(ask(false), expected);
        for entry in fs::read_dir(&index).unwrap().map(|entry| entry.unwrap().path()) {
            let files = if entry.is_dir() {
                fs::read_dir(&entry).unwrap().map(|file| file.unwrap().path()).collect()
            } else {
                vec![entry]
            };
            files.iter().for_each(|file| fs::write(file, "damaged").unwrap());
        }
        assert_eq!(ask(read_only), expected);
        fs::remove_dir_all(&index).unwrap();
        assert_eq!(ask(read_only), expected);
    }
    assert!(index.is_dir());
    assert_eq!(ask(true), expected);
}

#[cfg(feature = "bm25")]
#[test]
fn every_way_of_searching_finds_and_forgets() {
    let near = [(Search::Dense, Some(64)), (Search::Hybrid, Some(1))];
    let exact = [Search::Dense, Search::Keyword, Search::Hybrid].map(|search| (search, None));
    for (search, candidates) in exact.into_iter().chain(near) {
        let fixture = Fixture::new();
        let lloco = fixture.builder().search(search).search_candidates(candidates).build().unwrap();
        let added = lloco.add(&documents()).unwrap();
        assert!(added.passages >= 2);
        let ask = |question: &str| lloco.ask_with(question, &short().top_k(2));
        let names = |question: &str| -> Vec<String> {
            ask(question).unwrap().sources.into_iter().map(|source| source.document).collect()
        };
        if search != Search::Dense {
            assert_eq!(names("Which VALVES are opened?"), ["manual"], "{search:?}");
            assert_eq!(names("the lamps along the quay"), ["meeting"], "{search:?}");
        }
        // A changed document is found by its new words only.
        lloco.add(&[NewDocument::new("manual", "A kettle boils water.").group("pumps")]).unwrap();
        if search != Search::Dense {
            assert_eq!(names("kettle")[0], "manual");
        }
        lloco.remove("manual").unwrap();
        match search {
            Search::Keyword => assert!(matches!(ask("kettle"), Err(Error::NothingFound { documents: 1, .. }))),
            _ => assert_eq!(names("kettle"), ["meeting"]),
        }
        for odd in ["", "\0", "?!", &"valve ".repeat(30_000)] {
            match ask(odd) {
                Ok(answer) => assert_eq!(answer.sources.len(), 1),
                Err(error) => assert!(
                    matches!(error, Error::NothingFound { .. } | Error::PromptTooLong { .. }),
                    "{search:?} {error}"
                ),
            }
        }
    }
}
