//! Cutting a long text where tokens cannot cross.
//!
//! A tokenizer keeps some hundred bytes for each character it reads, so a long text is read in pieces. A cut
//! must not change the ids: it is made only in pipelines whose words are known to end there.

use std::{collections::HashMap, ops::Range};

use tokenizers::{
    AddedToken, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer,
    pre_tokenizers::split::SplitPattern,
};

use crate::gguf::{LLAMA3_WORDS, QWEN2_WORDS, SPACE};

/// A piece ends at the first cut after this many bytes.
const PIECE_BYTES: usize = 1 << 12;

/// Where a text may be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Nowhere: the pipeline is not one of those below.
    Nowhere,
    /// Before a space that follows a word, and after the only line break between two words: the patterns of
    /// GPT-2, Llama 3 and Qwen start a new word there.
    Words,
    /// Before a space that follows a word: a SentencePiece vocabulary without pieces that cross it.
    BeforeSpace,
    /// As `BeforeSpace`, where the pipeline itself puts a space before each text: the piece leaves it out.
    AtSpace,
}

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// The bytes to encode.
    pub(super) read: Range<usize>,
    /// Where the first token's bytes begin: one space before `read` for [`Cut::AtSpace`].
    pub(super) covers: usize,
}

impl Cut {
    /// Where `tokenizer` allows cuts.
    pub(super) fn of(tokenizer: &Tokenizer, vocabulary: &HashMap<String, u32>) -> Self {
        if !tokenizer.get_added_tokens_decoder().values().all(stands_alone) {
            return Self::Nowhere;
        }
        let bare = matches!(tokenizer.get_normalizer(), None | Some(NormalizerWrapper::NFC(_)));
        match tokenizer.get_pre_tokenizer() {
            Some(words) if bare && steps(words).any(cuts_words) && steps(words).all(keeps_words) => Self::Words,
            Some(PreTokenizerWrapper::Metaspace(spaces)) if bare && spaces.get_replacement().to_string() == SPACE => {
                if spaces.split || spaces_lead(vocabulary) {
                    Self::BeforeSpace
                } else {
                    Self::Nowhere
                }
            }
            None if spaces_lead(vocabulary) => match tokenizer.get_normalizer() {
                Some(NormalizerWrapper::Sequence(normalizers)) => match normalizers.as_ref() {
                    [NormalizerWrapper::Replace(_)] => Self::BeforeSpace,
                    [NormalizerWrapper::Prepend(prepend), NormalizerWrapper::Replace(_)]
                        if prepend.prepend == SPACE =>
                    {
                        Self::AtSpace
                    }
                    _ => Self::Nowhere,
                },
                _ => Self::Nowhere,
            },
            _ => Self::Nowhere,
        }
    }

    /// `text` in pieces of a bounded size, as far as it has places to cut.
    pub(super) fn pieces(self, text: &str) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut piece = Piece { read: 0..text.len(), covers: 0 };
        while let Some((end, next)) = self.next(text, piece.read.start) {
            pieces.push(Piece { read: piece.read.start..end, ..piece });
            piece = Piece { read: next..text.len(), covers: end };
        }
        pieces.push(piece);
        pieces
    }

    /// The first cut at least [`PIECE_BYTES`] after `start`: where the piece ends and where the next begins.
    fn next(self, text: &str, start: usize) -> Option<(usize, usize)> {
        if self == Self::Nowhere {
            return None;
        }
        let from = text.ceil_char_boundary(start.checked_add(PIECE_BYTES)?);
        let mut before = ' ';
        let mut rest = text.get(from..)?.char_indices().peekable();
        while let Some((at, c)) = rest.next() {
            let after = rest.peek().map_or(' ', |(_, after)| *after);
            if !before.is_whitespace() && !after.is_whitespace() {
                match (self, c) {
                    (Self::Words | Self::BeforeSpace, ' ') => return Some((from + at, from + at)),
                    (Self::Words, '\n') => return Some((from + at + 1, from + at + 1)),
                    (Self::AtSpace, ' ') if after.is_alphanumeric() => return Some((from + at, from + at + 1)),
                    _ => {}
                }
            }
            before = c;
        }
        None
    }
}

/// Whether an added token neither swallows spaces around it, nor holds one, nor begins like a word.
fn stands_alone(token: &AddedToken) -> bool {
    let plain = !token.lstrip && !token.rstrip && !token.single_word;
    plain && !token.content.contains(char::is_whitespace) && !token.content.starts_with(char::is_alphanumeric)
}

/// Whether no piece of the vocabulary has a space after another character.
fn spaces_lead(vocabulary: &HashMap<String, u32>) -> bool {
    vocabulary.keys().all(|piece| !piece.trim_start_matches(SPACE).contains(SPACE))
}

/// A pre-tokenizer's parts.
fn steps(words: &PreTokenizerWrapper) -> impl Iterator<Item = &PreTokenizerWrapper> {
    match words {
        PreTokenizerWrapper::Sequence(steps) => steps.as_ref().iter(),
        one => std::slice::from_ref(one).iter(),
    }
}

/// Whether the step cuts words by one of the known patterns.
fn cuts_words(step: &PreTokenizerWrapper) -> bool {
    match step {
        PreTokenizerWrapper::ByteLevel(bytes) => bytes.use_regex,
        PreTokenizerWrapper::Split(split) => {
            let known = |pattern: &str| [LLAMA3_WORDS, QWEN2_WORDS].contains(&pattern);
            matches!(&split.pattern, SplitPattern::Regex(pattern) if known(pattern))
                && split.behavior == SplitDelimiterBehavior::Isolated
                && !split.invert
        }
        _ => false,
    }
}

/// Whether the step leaves known word ends where they are.
fn keeps_words(step: &PreTokenizerWrapper) -> bool {
    match step {
        PreTokenizerWrapper::ByteLevel(bytes) => !bytes.add_prefix_space,
        PreTokenizerWrapper::Digits(_) => true,
        other => cuts_words(other),
    }
}
