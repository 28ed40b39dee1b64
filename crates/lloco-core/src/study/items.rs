//! Questions that a text answers by itself: a word is missing, or what comes next.

use std::{collections::HashMap, ops::Range};

/// Words of a sentence that is asked about.
const WORDS: Range<usize> = 6..41;
/// Words of a cue, at most.
const CUE: usize = 12;
/// Words of a continuation, at most.
const NEXT: usize = 16;
/// Words that are hidden together, at most.
const HIDDEN: usize = 4;

/// A question and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) question: String,
    pub(super) answer: String,
}

/// How often each word stands in a text, in lower case.
pub(super) fn counts(text: &str) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for word in text.split_whitespace() {
        *counts.entry(bare(word).to_lowercase()).or_default() += 1;
    }
    counts
}

/// Up to `n` sentences of a passage with a number, a name or a rare word hidden; the most telling ones, in the order of
/// the text.
pub(super) fn cloze(passage: &str, counts: &HashMap<String, usize>, n: usize) -> Vec<Item> {
    let mut found: Vec<(usize, u32, Item)> = Vec::new();
    for (place, sentence) in sentences(passage).into_iter().enumerate() {
        let words: Vec<&str> = sentence.split_whitespace().collect();
        if !WORDS.contains(&words.len()) {
            continue;
        }
        let worth = |at: &usize| words.get(*at).map_or(0, |word| worth(word, *at == 0, counts));
        let best = (0..words.len()).rev().max_by_key(worth);
        let Some(at) = best.filter(|at| worth(at) > 0) else { continue };
        let run = run(&words, at);
        let hidden = words.get(run.clone()).unwrap_or_default().join(" ");
        let answer = bare(&hidden);
        let gap = hidden.replacen(answer, "____", 1);
        let (before, after) = (words.get(..run.start), words.get(run.end..));
        let parts = [before.unwrap_or_default(), &[gap.as_str()], after.unwrap_or_default()].concat();
        let question = format!("What is missing in \"{}\"?", parts.join(" "));
        found.push((place, worth(&at), Item { question, answer: answer.to_owned() }));
    }
    found.sort_by_key(|(place, worth, _)| (std::cmp::Reverse(*worth), *place));
    found.truncate(n);
    found.sort_by_key(|(place, ..)| *place);
    found.into_iter().map(|(.., item)| item).collect()
}

/// Up to `n` questions for the words that follow a sentence, evenly spread over the passage.
pub(super) fn continuations(passage: &str, n: usize) -> Vec<Item> {
    let sentences = sentences(passage);
    let pairs: Vec<Item> = sentences
        .windows(2)
        .filter_map(|pair| {
            let [cue, next] = pair else { return None };
            let (cue, next): (Vec<&str>, Vec<&str>) =
                (cue.split_whitespace().collect(), next.split_whitespace().collect());
            let enough = cue.len() >= 4 && next.len() >= 4;
            let cue = cue.get(cue.len().saturating_sub(CUE)..).unwrap_or_default().join(" ");
            let answer = next.get(..next.len().min(NEXT)).unwrap_or_default().join(" ");
            enough.then(|| Item { question: format!("Which words follow \"{cue}\"?"), answer })
        })
        .collect();
    evenly(pairs.len(), n).filter_map(|at| pairs.get(at).cloned()).collect()
}

/// `n` of `len` places, evenly spread, each once.
pub(super) fn evenly(len: usize, n: usize) -> impl Iterator<Item = usize> {
    let n = n.min(len);
    (0..n).map(move |i| (2 * i + 1) * len / (2 * n))
}

/// A passage's sentences: what ends in a full stop, a question mark or an exclamation mark before white space, or at the
/// end of a line. The ends of the passage count as ends of sentences.
fn sentences(passage: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut before = ' ';
    for (at, c) in passage.char_indices() {
        if c == '\n' || c == '\u{c}' || (c.is_whitespace() && ends(passage.get(start..at).unwrap_or_default(), before))
        {
            found.push(passage.get(start..at).unwrap_or_default().trim());
            start = at;
        }
        if !matches!(c, '"' | '\u{201d}' | '\'' | '\u{2019}' | ')') {
            before = c;
        }
    }
    found.push(passage.get(start..).unwrap_or_default().trim());
    found.retain(|sentence| !sentence.is_empty());
    found
}

/// Whether a sentence ends behind `before`; initials and short titles, as in "Mr. Vane", do not end one.
fn ends(sentence: &str, before: char) -> bool {
    let last = sentence.split_whitespace().next_back().unwrap_or_default();
    let title = before == '.' && last.chars().count() <= 3 && last.starts_with(char::is_uppercase);
    matches!(before, '.' | '?' | '!') && !title
}

/// How much a word says about its text: a number or a name, else a long word that is rare in the text, else nothing.
fn worth(word: &str, first: bool, counts: &HashMap<String, usize>) -> u32 {
    let bare = bare(word);
    let rare = counts.get(&bare.to_lowercase()).is_none_or(|count| *count <= 2);
    let name = !first && bare.chars().count() > 1 && bare.starts_with(char::is_uppercase);
    match (bare.contains(|c: char| c.is_ascii_digit()), name) {
        (true, _) => 5 + u32::from(rare),
        (_, true) => 3 + u32::from(rare),
        _ => u32::from(rare && bare.chars().count() >= 7),
    }
}

/// The words that are hidden with the one at `at`: a name's other parts.
fn run(words: &[&str], at: usize) -> Range<usize> {
    let name = |at: usize| words.get(at).is_some_and(|word| bare(word).starts_with(char::is_uppercase));
    let closed = |at: usize| words.get(at).is_some_and(|word| word.ends_with(|c: char| c.is_ascii_punctuation()));
    let (mut start, mut end) = (at, at + 1);
    if name(at) {
        while end - start < HIDDEN && name(end) && !closed(end - 1) {
            end += 1;
        }
        while end - start < HIDDEN && start > 1 && name(start - 1) && !closed(start - 1) {
            start -= 1;
        }
    }
    start..end
}

/// A word without the punctuation around it.
fn bare(word: &str) -> &str {
    word.trim_matches(|c: char| !c.is_alphanumeric())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const TEXT: &str = "The council met on Monday evening in the old hall. Mr. Vane asked what the new roof would cost. \
        \"Nine hundred pounds,\" said Ada Marsh (the treasurer). It voted 7 to 2 in favour!\nNext: the harbour.";

    #[test]
    fn sentences_end_where_people_end_them() {
        let expected = [
            "The council met on Monday evening in the old hall.",
            "Mr. Vane asked what the new roof would cost.",
            "\"Nine hundred pounds,\" said Ada Marsh (the treasurer).",
            "It voted 7 to 2 in favour!",
            "Next: the harbour.",
        ];
        assert_eq!(sentences(TEXT), expected);
        assert!(sentences("").is_empty() && sentences(" \n\n ").is_empty());
        assert_eq!(sentences("no end"), ["no end"]);
    }

    #[test]
    fn numbers_and_names_are_hidden_first() {
        let answers = |n| cloze(TEXT, &counts(TEXT), n).into_iter().map(|item| item.answer).collect::<Vec<_>>();
        assert_eq!(answers(4), ["Monday", "Vane", "Ada Marsh", "7"]);
        assert_eq!(answers(2), ["Monday", "7"]);
        let items = cloze(TEXT, &counts(TEXT), 4);
        assert_eq!(items[2].question, "What is missing in \"\"Nine hundred pounds,\" said ____ (the treasurer).\"?");
        for Item { question, answer } in cloze(TEXT, &counts(TEXT), 9) {
            assert!(TEXT.contains(&answer) && question.matches("____").count() == 1, "{question} {answer}");
        }
        assert!(cloze("All of it is so very low.", &HashMap::new(), 5).is_empty());
    }

    #[test]
    fn continuations_stand_behind_their_cue() {
        let items = continuations(TEXT, 10);
        assert_eq!(items.len(), 3);
        assert_eq!(items[0].question, "Which words follow \"The council met on Monday evening in the old hall.\"?");
        assert_eq!(items[0].answer, "Mr. Vane asked what the new roof would cost.");
        assert_eq!(continuations(TEXT, 1), items[1..2]);
        assert!(continuations("One sentence only.", 3).is_empty());
    }

    #[test]
    fn places_are_spread_evenly() {
        assert_eq!(evenly(10, 2).collect::<Vec<_>>(), [2, 7]);
        assert_eq!(evenly(3, 9).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(evenly(0, 4).count(), 0);
    }
}
