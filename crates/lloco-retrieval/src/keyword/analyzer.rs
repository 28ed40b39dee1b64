//! From text to the terms that are counted.

use tantivy::tokenizer::{
    Language, LowerCaser, RemoveLongFilter, Stemmer, TextAnalyzer, Token, TokenStream, Tokenizer,
};

/// Names the analyzer in an index: another one would look for other terms. Change it with the code below.
pub(super) const NAME: &str = "words-lowercase-english-1";

/// Terms longer than this are no words.
const LONGEST: usize = 100;

/// Words in lower case, cut to their English stems; pairs of characters in scripts without spaces.
pub(super) fn analyzer() -> TextAnalyzer {
    TextAnalyzer::builder(Words::default())
        .filter(RemoveLongFilter::limit(LONGEST))
        .filter(LowerCaser)
        .filter(Stemmer::new(Language::English))
        .build()
}

/// Cuts a text into runs of letters and digits.
#[derive(Clone, Default)]
struct Words {
    token: Token,
}

impl Tokenizer for Words {
    type TokenStream<'a> = WordStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> WordStream<'a> {
        self.token.reset();
        WordStream { text, place: 0, in_run: false, token: &mut self.token }
    }
}

struct WordStream<'a> {
    text: &'a str,
    /// Where to go on.
    place: usize,
    /// Whether the character at `place` was the second of the last pair.
    in_run: bool,
    token: &'a mut Token,
}

impl WordStream<'_> {
    fn emit(&mut self, from: usize, to: usize) -> bool {
        self.token.text.clear();
        self.token.text.push_str(self.text.get(from..to).unwrap_or_default());
        (self.token.offset_from, self.token.offset_to) = (from, to);
        self.token.position = self.token.position.wrapping_add(1);
        true
    }
}

impl TokenStream for WordStream<'_> {
    fn advance(&mut self) -> bool {
        loop {
            let rest = self.text.get(self.place..).unwrap_or_default();
            let Some((skipped, first)) = rest.char_indices().find(|(_, c)| c.is_alphanumeric()) else {
                return false;
            };
            let continues = self.in_run && skipped == 0;
            self.in_run = false;
            let start = self.place + skipped;
            let second = start + first.len_utf8();
            let rest = self.text.get(second..).unwrap_or_default();
            self.place = second;
            if has_no_spaces(first) {
                match rest.chars().next().filter(|&next| next.is_alphanumeric() && has_no_spaces(next)) {
                    Some(next) => {
                        self.in_run = true;
                        return self.emit(start, second + next.len_utf8());
                    }
                    None if continues => {}
                    None => return self.emit(start, second),
                }
            } else {
                let within = |&c: &char| (c.is_alphanumeric() && !has_no_spaces(c)) || joins(c);
                let length: usize = rest.chars().take_while(within).map(char::len_utf8).sum();
                self.place += length;
                return self.emit(start, second + length);
            }
        }
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

/// Scripts that set no spaces between words: Thai, Lao, Burmese, Khmer, Kana, Han.
fn has_no_spaces(c: char) -> bool {
    matches!(c, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}'
        | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// Marks that stand on or between the letters of a word.
fn joins(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{200c}' | '\u{200d}' | '\u{5b0}'..='\u{5c7}' | '\u{64b}'..='\u{65f}'
        | '\u{93c}' | '\u{94d}' | '\u{9bc}' | '\u{9cd}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(text: &str) -> Vec<String> {
        let mut analyzer = analyzer();
        let mut stream = analyzer.token_stream(text);
        let mut terms = Vec::new();
        stream.process(&mut |token| {
            assert_eq!(text.get(token.offset_from..token.offset_to).is_some(), !token.text.is_empty());
            terms.push(token.text.clone());
        });
        terms
    }

    #[test]
    fn words_are_lowered_and_stemmed() {
        assert_eq!(terms("The Pumps' valves, re-opened (2nd)!"), ["the", "pump", "valv", "re", "open", "2nd"]);
    }

    #[test]
    fn scripts_without_spaces_give_pairs() {
        assert_eq!(terms("今天好 pump 水"), ["今天", "天好", "pump", "水"]);
        assert_eq!(terms("東京tower"), ["東京", "tower"]);
    }

    #[test]
    fn marks_belong_to_their_word() {
        assert_eq!(terms("cafe\u{301} naïve"), ["cafe\u{301}", "naïv"]);
    }

    #[test]
    fn nothing_gives_nothing() {
        assert!(terms(" \0\n…—").is_empty());
        assert!(terms(&"x".repeat(5000)).is_empty());
    }
}
