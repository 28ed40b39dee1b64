//! Token F1 and exact match of short answers, as SQuAD's evaluation script has them.

use std::collections::HashMap;

/// Words of a normalised answer: lower-case, without ASCII punctuation, without articles, split at white space.
pub(crate) fn words(text: &str) -> Vec<String> {
    let text: String = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    without_articles(&text).split(is_space).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Replaces each `a`, `an` or `the` that stands between non-word characters by a space.
///
/// Words are runs of letters and digits, which is not the same as what stands between spaces: in `the—end` the dash
/// ends a word.
fn without_articles(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        kept.push_str(if matches!(word, "a" | "an" | "the") { " " } else { word });
        let next = after.find(char::is_alphanumeric).unwrap_or(after.len());
        let (gap, after) = after.split_at(next);
        kept.push_str(gap);
        rest = after;
    }
    kept
}

/// White space as Python's `str.split` sees it: Unicode's, and the four ASCII separators.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Token F1 in per cent; 0 where no word is shared, even if both are empty.
pub(super) fn f1(prediction: &[String], reference: &[String]) -> f64 {
    let mut left: HashMap<&str, usize> = HashMap::new();
    for word in reference {
        *left.entry(word).or_default() += 1;
    }
    let mut shared = 0;
    for word in prediction {
        if let Some(count) = left.get_mut(word.as_str()).filter(|count| **count > 0) {
            *count -= 1;
            shared += 1;
        }
    }
    100.0 * f_measure(shared, prediction.len(), reference.len())
}

/// 100 for equal answers, else 0.
pub(super) fn exact_match(prediction: &[String], reference: &[String]) -> f64 {
    if prediction == reference { 100.0 } else { 0.0 }
}

/// Harmonic mean of `shared / predicted` and `shared / referenced`.
pub(super) fn f_measure(shared: usize, predicted: usize, referenced: usize) -> f64 {
    if shared == 0 {
        return 0.0;
    }
    let precision = shared as f64 / predicted as f64;
    let recall = shared as f64 / referenced as f64;
    2.0 * precision * recall / (precision + recall)
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn normalises_in_the_published_order() {
        assert_eq!(words("The  Cat, an' A Dog!"), ["cat", "dog"]);
        // Punctuation goes first, so "a.b" is one word and "a-" is an article.
        assert_eq!(words("a.b a- the"), ["ab"]);
        assert_eq!(words("U.S.A. and them"), ["usa", "and", "them"]);
    }

    #[test]
    fn unicode_is_treated_as_python_does() {
        assert_eq!(words("the—End"), ["—end"]);
        assert_eq!(words("naïve thé"), ["naïve", "thé"]);
        assert_eq!(words("x\u{1f}y\u{a0}z\u{85}w"), ["x", "y", "z", "w"]);
        assert_eq!(words("ΟΔΟΣ İ"), ["οδος", "i\u{307}"]);
        // A zero-width space is no white space, but it ends a word.
        assert_eq!(words("the\u{200b}x"), ["\u{200b}x"]);
    }
}
