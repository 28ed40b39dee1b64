//! Questions that the model writes itself, and which of them are worth learning.

use std::collections::HashSet;

use super::items::Item;
use crate::eval::words;

/// Words of a question, and of an answer, that are believed.
const QUESTION: std::ops::Range<usize> = 3..41;
const ANSWER: std::ops::Range<usize> = 1..25;
/// Share of an answer's words that stand in the passage.
const FOUND: f64 = 0.7;

/// The question that a model's text begins with.
pub(super) fn question(text: &str) -> Option<&str> {
    let line = text.trim_start().lines().next()?;
    let end = line.find('?')? + 1;
    Some(undressed(&line[..end]))
}

/// The answer that it begins with.
pub(super) fn answer(text: &str) -> &str {
    undressed(text.trim_start().lines().next().unwrap_or_default().trim_end().trim_end_matches('.'))
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

/// Text without the quotations and marks of emphasis around it.
fn undressed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || matches!(c, '*' | '#' | '-' | '"' | '_' | '\u{201c}' | '\u{201d}'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_first_line_counts() {
        for text in
            [" Who buys the paint?", "\nWho buys the paint? Bram\nAnswer", "**Who buys the paint?**\nAnswer: Ada"]
        {
            assert_eq!(question(text), Some("Who buys the paint?"), "{text:?}");
        }
        for text in ["", "Bram", "He sang.\nWho?", "\u{0}\n::\n??"] {
            assert_eq!(question(text), None, "{text:?}");
        }
        assert_eq!(answer(" \"Bram\".\n\nText: Another"), "Bram");
        assert_eq!([answer("Bram."), answer(" Bram\nQuestion:"), answer("")], ["Bram", "Bram", ""]);
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
