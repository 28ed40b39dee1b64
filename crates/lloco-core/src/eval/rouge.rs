//! ROUGE-1, ROUGE-2 and ROUGE-L F-measures, as google's `rouge_score` computes them with stemming.

use std::collections::HashMap;

use super::answer::f_measure;
use super::stem::stem;

/// Runs of `a-z0-9` of the lower-cased text; those of more than three characters are stemmed.
pub(super) fn tokens(text: &str) -> Vec<String> {
    text.to_lowercase()
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|token| !token.is_empty())
        .map(|token| if token.len() > 3 { stem(token) } else { token.to_owned() })
        .collect()
}

/// Overlap of n-grams, in per cent.
pub(super) fn rouge_n(n: usize, prediction: &[String], reference: &[String]) -> f64 {
    let mut left: HashMap<&[String], usize> = HashMap::new();
    for gram in reference.windows(n) {
        *left.entry(gram).or_default() += 1;
    }
    let mut shared = 0;
    for gram in prediction.windows(n) {
        if let Some(count) = left.get_mut(gram).filter(|count| **count > 0) {
            *count -= 1;
            shared += 1;
        }
    }
    let grams = |tokens: &[String]| (tokens.len() + 1).saturating_sub(n);
    100.0 * f_measure(shared, grams(prediction), grams(reference))
}

/// Longest common subsequence, in per cent.
pub(super) fn rouge_l(prediction: &[String], reference: &[String]) -> f64 {
    // row[j] is the length for the tokens seen so far against the first j of the prediction.
    let mut row = vec![0_usize; prediction.len() + 1];
    for expected in reference {
        let mut diagonal = 0;
        let mut before = 0;
        for (cell, found) in row.iter_mut().skip(1).zip(prediction) {
            let above = *cell;
            *cell = if found == expected { diagonal + 1 } else { above.max(before) };
            diagonal = above;
            before = *cell;
        }
    }
    100.0 * f_measure(row.last().copied().unwrap_or_default(), prediction.len(), reference.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_grams_and_subsequences() {
        let (a, b) = (tokens("the cat sat on the mat"), tokens("the cat on a mat"));
        assert!((rouge_n(1, &a, &b) - 100.0 * 8.0 / 11.0).abs() < 1e-9);
        assert!((rouge_n(2, &a, &b) - 100.0 * 2.0 / 9.0).abs() < 1e-9);
        assert!((rouge_l(&a, &b) - 100.0 * 8.0 / 11.0).abs() < 1e-9);
    }

    #[test]
    fn accented_letters_split_words() {
        assert_eq!(tokens("naïve plans"), ["na", "ve", "plan"]);
    }

    #[test]
    fn empty_answers_score_nothing() {
        let (none, some) = (tokens(""), tokens("yes"));
        for n in [1, 2] {
            assert_eq!(rouge_n(n, &none, &some), 0.0);
            assert_eq!(rouge_n(n, &some, &none), 0.0);
        }
        assert_eq!(rouge_l(&none, &none), 0.0);
    }
}
