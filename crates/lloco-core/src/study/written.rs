//! Questions that the model writes itself, and which of them are worth learning.

use std::collections::HashSet;

use super::items::Item;
use crate::eval::words;

/// Words of a question, and of an answer, that are believed.
const QUESTION: std::ops::Range<usize> = 3..41;
const ANSWER: std::ops::Range<usize> = 1..25;
/// Share of an answer's words that stand in the passage.
const FOUND: f64 = 0.7;

/// The question and the answer in what a model wrote, in whatever dress: `Q:`, `**Question 1:**`, `A.`
pub(super) fn parse(text: &str) -> Option<Item> {
    let (mut question, mut answer) = (None, None);
    for line in text.lines().map(undressed).filter(|line| !line.is_empty()) {
        let (kind, rest) = labelled(line);
        match (kind, &question, &answer) {
            (Some(Label::Question), None, _) => question = Some(rest),
            (Some(Label::Answer), Some(_), None) => answer = Some(rest),
            // The label stood on a line of its own, or the prompt ended with it.
            (None, Some(""), _) => question = Some(rest),
            (None, None, None) if rest.ends_with('?') => question = Some(rest),
            (None, Some(_), Some("")) => answer = Some(rest),
            _ => {}
        }
    }
    let (question, answer) = (undressed(question?), undressed(answer?));
    Some(Item { question: question.to_owned(), answer: answer.trim_end_matches('.').to_owned() })
}

/// Whether an item can be learned from: a question of some words that does not hold its answer, and an answer whose words
/// stand in the passage.
pub(super) fn sound(item: &Item, passage: &HashSet<String>) -> bool {
    let (question, answer) = (words(&item.question), words(&item.answer));
    if !item.question.ends_with('?') || !QUESTION.contains(&question.len()) || !ANSWER.contains(&answer.len()) {
        return false;
    }
    let known = answer.iter().filter(|word| passage.contains(*word)).count();
    let given = answer.iter().all(|word| question.contains(word));
    known as f64 >= FOUND * answer.len() as f64 && !given
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    Question,
    Answer,
}

/// A line's label, if it has one, and what follows it.
fn labelled(line: &str) -> (Option<Label>, &str) {
    let end = line.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(line.len());
    let (word, rest) = line.split_at(end);
    let label = match word.to_ascii_lowercase().as_str() {
        "question" | "q" => Label::Question,
        "answer" | "a" => Label::Answer,
        _ => return (None, line),
    };
    // A number may follow, then a colon, a full stop or a bracket.
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c.is_whitespace() || c == '*');
    match rest.strip_prefix([':', '.', ')']) {
        Some(rest) => (Some(label), undressed(rest)),
        None if rest.is_empty() => (Some(label), rest),
        None => (None, line),
    }
}

/// Text without the marks of lists, headings, emphasis and quotations around it.
fn undressed(text: &str) -> &str {
    let numbered = text.trim_start().trim_start_matches(|c: char| c.is_ascii_digit());
    let text = numbered.strip_prefix(". ").or_else(|| numbered.strip_prefix(") ")).unwrap_or(text);
    text.trim_matches(|c: char| c.is_whitespace() || matches!(c, '*' | '#' | '-' | '"' | '_' | '\u{201c}' | '\u{201d}'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_pair_is_found_in_any_dress() {
        let expected = Item { question: "Who buys the paint?".into(), answer: "Bram".into() };
        for text in [
            "Question: Who buys the paint?\nAnswer: Bram",
            "**Question:** Who buys the paint?\n\n**Answer:** Bram.",
            "Sure! Here is one.\nQ1: Who buys the paint?\nA1: Bram\nQ2: And who pays?\nA2: Ada",
            "Who buys the paint?\nAnswer: \"Bram\"",
            "Question:\nWho buys the paint?\nAnswer:\nBram\n",
            "1. Question: Who buys the paint?\n2. Answer: Bram",
            "# Question\nWho buys the paint?\n# Answer\nBram",
        ] {
            assert_eq!(parse(text).as_ref(), Some(&expected), "{text:?}");
        }
        for text in ["", "Bram", "Question: Who?", "Answer: Bram", "A man walked.\nHe sang.", "\u{0}\n::\n??"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn only_answers_of_the_passage_are_believed() {
        let passage: HashSet<String> = words("Bram will buy the green paint before Friday.").into_iter().collect();
        let sound =
            |question: &str, answer: &str| sound(&Item { question: question.into(), answer: answer.into() }, &passage);
        assert!(sound("Who buys the paint?", "Bram"));
        assert!(sound("When will he buy it?", "before Friday"));
        assert!(!sound("Who buys the paint?", "Ada"));
        assert!(!sound("Who buys the paint?", ""));
        assert!(!sound("Will Bram buy paint?", "Bram"));
        assert!(!sound("Who?", "Bram"));
        assert!(!sound("Bram buys the paint", "Friday"));
        assert!(!sound("What is it all about then?", &"paint ".repeat(40)));
    }
}
