//! Where sentences begin.

/// Byte offsets of the characters that begin a sentence, in order.
///
/// A sentence ends at `.`, `!`, `?` or `…`, closing quotes and brackets included, before
/// whitespace; at their full-width forms anywhere; and at an empty line. A lower-case
/// letter after a full stop ("e.g. this") begins no sentence. Reads the text once.
pub(crate) fn sentence_starts(text: &str) -> impl Iterator<Item = usize> {
    let mut before = Before::EmptyLine;
    text.char_indices().filter_map(move |(place, c)| {
        if c.is_whitespace() {
            before = before.whitespace(c);
            return None;
        }
        let begins = match before {
            Before::Stop { spaced: true, .. } => !c.is_lowercase(),
            Before::Mark { spaced: true, .. } | Before::EmptyLine => true,
            Before::FullWidth => !closes(c),
            _ => false,
        };
        before = before.character(c);
        begins.then_some(place)
    })
}

/// What stands before a character, as far as it matters.
#[derive(Clone, Copy)]
enum Before {
    /// Anything else.
    Words { newlines: u8 },
    /// A full stop.
    Stop { spaced: bool, newlines: u8 },
    /// Another mark that ends a sentence before whitespace.
    Mark { spaced: bool, newlines: u8 },
    /// A mark that ends a sentence without whitespace.
    FullWidth,
    /// An empty line, or the text's beginning.
    EmptyLine,
}

impl Before {
    fn whitespace(self, c: char) -> Self {
        let more = u8::from(c == '\n');
        match self {
            Self::Words { newlines } | Self::Stop { newlines, .. } | Self::Mark { newlines, .. }
                if newlines + more >= 2 =>
            {
                Self::EmptyLine
            }
            Self::Words { newlines } => Self::Words { newlines: newlines + more },
            Self::Stop { newlines, .. } => Self::Stop { spaced: true, newlines: newlines + more },
            Self::Mark { newlines, .. } => Self::Mark { spaced: true, newlines: newlines + more },
            Self::FullWidth | Self::EmptyLine => self,
        }
    }

    fn character(self, c: char) -> Self {
        match (c, self) {
            ('.', _) => Self::Stop { spaced: false, newlines: 0 },
            ('!' | '?' | '…', _) => Self::Mark { spaced: false, newlines: 0 },
            ('。' | '！' | '？' | '｡', _) => Self::FullWidth,
            // Quotes and brackets that close belong to the sentence that has just ended.
            (c, Self::Stop { spaced: false, .. } | Self::Mark { spaced: false, .. }) if closes(c) => self,
            (c, Self::FullWidth) if closes(c) => self,
            _ => Self::Words { newlines: 0 },
        }
    }
}

fn closes(c: char) -> bool {
    matches!(c, '"' | '\'' | ')' | ']' | '}' | '”' | '’' | '»' | '›' | '」' | '』' | '）' | '】')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentences(text: &str) -> Vec<&str> {
        let starts: Vec<_> = sentence_starts(text).collect();
        let ends = starts.iter().skip(1).copied().chain([text.len()]);
        starts.iter().zip(ends).map(|(&start, end)| text[start..end].trim_end()).collect()
    }

    #[test]
    fn marks_end_sentences() {
        assert_eq!(
            sentences("One. Two! \"Three?\" (Four.) Five… Six"),
            ["One.", "Two!", "\"Three?\"", "(Four.)", "Five…", "Six"]
        );
    }

    #[test]
    fn numbers_and_abbreviations_do_not() {
        assert_eq!(sentences("It cost 3.14, e.g. for a pump. Done."), ["It cost 3.14, e.g. for a pump.", "Done."]);
    }

    #[test]
    fn empty_lines_do_and_line_ends_do_not() {
        assert_eq!(
            sentences("A heading\n\nfirst line\nsecond line\n \nlast"),
            ["A heading", "first line\nsecond line", "last"]
        );
    }

    #[test]
    fn full_width_marks_need_no_space() {
        assert_eq!(sentences("今天。「好！」走"), ["今天。", "「好！」", "走"]);
    }

    #[test]
    fn nothing_begins_in_whitespace() {
        assert!(sentences("").is_empty());
        assert!(sentences(" \n\n\t").is_empty());
    }
}
