//! Passages: complete, in bounds, overlapping, linear.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Copy, device, tiny};
use lloco_retrieval::{Embedder, EmbedderConfig, Error, Passage, PassageConfig, PassageSplitter};

fn config(max_tokens: usize, overlap: usize) -> PassageConfig {
    let mut config = PassageConfig::default();
    config.max_tokens = max_tokens;
    config.overlap = overlap;
    config
}

fn embedder() -> Embedder {
    let mut config = EmbedderConfig::from_dir(tiny()).unwrap();
    config.passage_prefix = String::new();
    Embedder::load_with(tiny(), config, &device()).unwrap()
}

fn split(text: &str, max_tokens: usize, overlap: usize) -> Vec<Passage> {
    let embedder = embedder();
    let splitter = PassageSplitter::new(&embedder, config(max_tokens, overlap)).unwrap();
    let passages = splitter.split(text).unwrap();
    check(text, &passages, max_tokens);
    passages
}

/// What holds of the passages of any text.
fn check(text: &str, passages: &[Passage], max_tokens: usize) {
    for passage in passages {
        assert!(passage.tokens <= max_tokens && passage.tokens > 0);
        assert!(!text.get(passage.range.clone()).unwrap().is_empty());
    }
    for pair in passages.windows(2) {
        assert!(pair[0].range.start < pair[1].range.start);
        assert!(pair[0].range.end < pair[1].range.end);
        // Nothing but space between one passage and the next.
        if let Some(gap) = text.get(pair[0].range.end..pair[1].range.start) {
            assert_eq!(gap.trim(), "");
        }
    }
    let first = passages.first().map_or(text.len(), |p| p.range.start);
    let last = passages.last().map_or(0, |p| p.range.end);
    assert_eq!(text[..first].trim(), "");
    assert_eq!(text[last.max(first)..].trim(), "");
}

#[test]
fn a_short_text_is_one_passage() {
    let text = "  The pump stands in the cellar. ";
    let passages = split(text, 30, 4);
    assert_eq!(passages.len(), 1);
    assert_eq!(&text[passages[0].range.clone()], text.trim());
}

#[test]
fn an_empty_text_has_none() {
    assert!(split("", 30, 4).is_empty());
    assert!(split(" \n\t\n ", 30, 4).is_empty());
}

#[test]
fn passages_end_with_sentences_and_overlap_by_sentences() {
    let sentence = "The pump stands in the cellar.";
    let tokens = split(sentence, 30, 0)[0].tokens;
    let text = [sentence; 12].join(" ");
    let passages = split(&text, 4 * tokens + 2, tokens);
    for passage in &passages {
        let text = &text[passage.range.clone()];
        assert!(text.starts_with("The pump") && text.ends_with("cellar."), "{text}");
    }
    for pair in passages.windows(2) {
        assert_eq!(pair[0].range.end - pair[1].range.start, sentence.len());
    }
}

#[test]
fn a_long_sentence_is_cut_between_words() {
    let text = "pump cellar budget ".repeat(60);
    for passage in split(&text, 20, 5) {
        let text = &text[passage.range];
        assert!(text.split(' ').all(|word| ["pump", "cellar", "budget"].contains(&word)), "{text}");
    }
}

#[test]
fn texts_without_spaces_and_odd_characters_are_cut_between_characters() {
    for text in [
        "北京的天气很好".repeat(500),
        "\u{0}\u{1}pump\u{0} cellar\u{feff} ".repeat(300),
        "e\u{301}\u{302}\u{303} שלום עולם مرحبا ".repeat(300),
        "👩‍👩‍👧‍👦🏴󠁧󠁢󠁥󠁮󠁧󠁿".repeat(300),
        "x".repeat(100_000),
        "\n".repeat(100_000),
    ] {
        let embedder = embedder();
        let splitter = PassageSplitter::new(&embedder, config(16, 4)).unwrap();
        for passage in splitter.split(&text).unwrap() {
            assert!(text.get(passage.range).is_some());
        }
    }
}

/// Blocks in which the text is tokenised leave no trace in the passages.
#[test]
fn a_long_text_has_the_passages_of_its_parts() {
    let sentence = "The committee met at nine and decided on the budget. ";
    let long = sentence.repeat(4000);
    let passages = split(&long, 24, 0);
    let per_passage = passages[0].range.len() + 1;
    for (n, passage) in passages.iter().enumerate() {
        assert_eq!(passage.range.start, n * per_passage);
    }
}

#[test]
fn passages_fit_the_embedder() {
    let embedder = Embedder::load(tiny(), &device()).unwrap();
    let splitter = PassageSplitter::new(&embedder, PassageConfig::default()).unwrap();
    // 40 tokens read, less [CLS], [SEP] and the prefix "passage: ".
    assert!((20..38).contains(&splitter.max_tokens()), "{}", splitter.max_tokens());
    let copy = Copy::of_tiny();
    let prompts = serde_json::json!({ "passage": "pump ".repeat(50) });
    copy.set("config_sentence_transformers.json", "prompts", prompts);
    let embedder = Embedder::load(copy.path(), &device()).unwrap();
    let error = PassageSplitter::new(&embedder, PassageConfig::default()).err().unwrap();
    assert!(matches!(error, Error::InvalidConfig { field: "passage_prefix", .. }));
}

#[test]
fn impossible_sizes_are_refused() {
    let embedder = embedder();
    for (max_tokens, overlap, wrong) in [(0, 0, "max_tokens"), (16, 5, "overlap")] {
        let error = PassageSplitter::new(&embedder, config(max_tokens, overlap)).err().unwrap();
        assert!(matches!(error, Error::InvalidConfig { field, .. } if field == wrong));
    }
    assert!(PassageSplitter::new(&embedder, config(1, 0)).is_ok());
}
