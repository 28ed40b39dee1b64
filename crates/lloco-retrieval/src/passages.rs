use crate::sentences::sentence_starts;
use crate::tokenizer::Tokenizer;
use crate::{Embedder, Error, Result};
use std::collections::VecDeque;
use std::iter::Peekable;
use std::ops::Range;

/// Text is tokenised in pieces of about this many bytes, so that memory stays small.
const BLOCK: usize = 32 * 1024;

/// How a text is cut into passages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PassageConfig {
    /// Tokens of a passage at most; fewer where the embedder reads fewer.
    pub max_tokens: usize,
    /// Tokens that a passage shares with the one before at most: at most a quarter of
    /// `max_tokens`.
    pub overlap: usize,
}

impl Default for PassageConfig {
    /// 256 tokens, 32 of them shared with the passage before.
    fn default() -> Self {
        Self { max_tokens: 256, overlap: 32 }
    }
}

/// A stretch of a text that is embedded and found as one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Passage {
    /// Bytes of the source text; both ends are character boundaries.
    pub range: Range<usize>,
    /// Tokens in it, special tokens not counted.
    pub tokens: usize,
}

/// Cuts texts into overlapping passages, at sentence ends where it can.
///
/// ```no_run
/// use lloco_retrieval::{Embedder, PassageConfig, PassageSplitter, burn::tensor::Device};
///
/// # fn main() -> lloco_retrieval::Result<()> {
/// let embedder = Embedder::load("models/all-MiniLM-L6-v2", &Device::default())?;
/// let splitter = PassageSplitter::new(&embedder, PassageConfig::default())?;
/// let text = std::fs::read_to_string("log.txt").unwrap_or_default();
/// for passage in splitter.split(&text)? {
///     println!("{:?}: {}", passage.range, &text[passage.range.clone()]);
/// }
/// # Ok(())
/// # }
/// ```
pub struct PassageSplitter<'a> {
    tokenizer: &'a Tokenizer,
    max_tokens: usize,
    overlap: usize,
}

impl<'a> PassageSplitter<'a> {
    /// A splitter that counts tokens as `embedder` does and makes no passage longer than
    /// the embedder reads.
    ///
    /// # Errors
    /// `max_tokens` is 0, `overlap` is more than a quarter of it, or the embedder's
    /// passage prefix leaves no room for a passage.
    pub fn new(embedder: &'a Embedder, config: PassageConfig) -> Result<Self> {
        let PassageConfig { max_tokens, overlap } = config;
        if max_tokens == 0 {
            return Err(Error::InvalidConfig { field: "max_tokens", found: "0".into(), expected: "at least 1".into() });
        }
        if overlap > max_tokens / 4 {
            return Err(Error::InvalidConfig {
                field: "overlap",
                found: overlap.to_string(),
                expected: format!("at most {}, a quarter of `max_tokens`", max_tokens / 4),
            });
        }
        let tokenizer = embedder.tokenizer();
        let prefix = &embedder.config().passage_prefix;
        let read = embedder.config().max_seq_length;
        let room = read.saturating_sub(tokenizer.overhead(prefix)?);
        if room == 0 {
            return Err(Error::InvalidConfig {
                field: "passage_prefix",
                found: format!("{prefix:?}"),
                expected: format!("a prefix shorter than {read} tokens"),
            });
        }
        let max_tokens = max_tokens.min(room);
        Ok(Self { tokenizer, max_tokens, overlap: overlap.min(max_tokens / 4) })
    }

    /// Tokens of a passage at most, in force.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// The passages of `text` in order. Together they hold all its tokens; each begins
    /// before the one before it ends, or right behind it. Takes time in proportion to the
    /// text's length, and memory for its passages only.
    ///
    /// # Errors
    /// The tokenizer failed.
    pub fn split(&self, text: &str) -> Result<Vec<Passage>> {
        let mut passages = Vec::new();
        let mut window: VecDeque<Token> = VecDeque::with_capacity(self.max_tokens + 1);
        for token in Tokens::new(text, self.tokenizer) {
            window.push_back(token?);
            if window.len() > self.max_tokens {
                let end = self.end(&window);
                passages.extend(passage(window.range(..end)));
                window.drain(..self.next_start(&window, end));
            }
        }
        passages.extend(passage(window.range(..)));
        Ok(passages)
    }

    /// Where to end a passage: before the last sentence start, or else the last word
    /// start, that leaves it at least half full.
    fn end(&self, window: &VecDeque<Token>) -> usize {
        let choices = self.max_tokens.div_ceil(2).max(1)..self.max_tokens + 1;
        let last = |begins: fn(&Token) -> bool| {
            let mut choices = choices.clone().rev();
            choices.find(|&place| window.get(place).is_some_and(begins))
        };
        last(|token| token.begins_sentence).or_else(|| last(|token| token.begins_word)).unwrap_or(self.max_tokens)
    }

    /// Where to begin the passage after: at the first sentence start, or else word start,
    /// among the last `overlap` tokens.
    fn next_start(&self, window: &VecDeque<Token>, end: usize) -> usize {
        let choices = end.saturating_sub(self.overlap)..end;
        let first = |begins: fn(&Token) -> bool| {
            let mut choices = choices.clone();
            choices.find(|&place| window.get(place).is_some_and(begins))
        };
        first(|token| token.begins_sentence)
            .or_else(|| first(|token| token.begins_word))
            .unwrap_or(choices.start)
            .max(1)
    }
}

fn passage<'t>(mut tokens: impl ExactSizeIterator<Item = &'t Token>) -> Option<Passage> {
    let count = tokens.len();
    let first = tokens.next()?;
    // Offsets need not grow: a tokenizer may split one character into several tokens.
    let end = tokens.map(|token| token.end).max().unwrap_or(0);
    Some(Passage { range: first.start..end.max(first.end), tokens: count })
}

struct Token {
    start: usize,
    end: usize,
    begins_sentence: bool,
    /// Whether there is something between this token and the one before.
    begins_word: bool,
}

/// The tokens of a text, tokenised block by block.
struct Tokens<'a, S: Iterator<Item = usize>> {
    text: &'a str,
    tokenizer: &'a Tokenizer,
    sentences: Peekable<S>,
    /// Offsets of the current block's tokens in the text.
    block: std::vec::IntoIter<(usize, usize)>,
    block_end: usize,
    last_end: Option<usize>,
}

impl<'a> Tokens<'a, std::iter::Empty<usize>> {
    #[allow(clippy::new_ret_no_self, reason = "the iterator's type has no name")]
    fn new(text: &'a str, tokenizer: &'a Tokenizer) -> Tokens<'a, impl Iterator<Item = usize>> {
        Tokens {
            text,
            tokenizer,
            sentences: sentence_starts(text).peekable(),
            block: Vec::new().into_iter(),
            block_end: 0,
            last_end: None,
        }
    }
}

impl<S: Iterator<Item = usize>> Tokens<'_, S> {
    /// The next offsets, or none at the text's end.
    fn offsets(&mut self) -> Result<Option<(usize, usize)>> {
        loop {
            if let Some(offsets) = self.block.next() {
                return Ok(Some(offsets));
            }
            let start = self.block_end;
            let Some(rest) = self.text.get(start..).filter(|rest| !rest.is_empty()) else {
                return Ok(None);
            };
            let block = block(rest);
            self.block_end += block.len();
            let offsets = self.tokenizer.offsets(block)?;
            let absolute = offsets.into_iter().filter(|(from, to)| from < to);
            let absolute: Vec<_> = absolute
                .map(|(from, to)| {
                    let (from, to) = (start + from, start + to);
                    let from = self.text.floor_char_boundary(from);
                    (from, self.text.ceil_char_boundary(to))
                })
                .collect();
            self.block = absolute.into_iter();
        }
    }
}

impl<S: Iterator<Item = usize>> Iterator for Tokens<'_, S> {
    type Item = Result<Token>;

    fn next(&mut self) -> Option<Self::Item> {
        let (start, end) = match self.offsets().transpose()? {
            Ok(offsets) => offsets,
            Err(error) => return Some(Err(error)),
        };
        let mut begins_sentence = false;
        while self.sentences.next_if(|&place| place < end).is_some() {
            begins_sentence = true;
        }
        let begins_word = self.last_end.is_none_or(|last| last < start);
        self.last_end = Some(end);
        Some(Ok(Token { start, end, begins_sentence, begins_word }))
    }
}

/// The start of `text` to tokenise at once: up to `BLOCK` bytes, cut at whitespace if any.
fn block(text: &str) -> &str {
    if text.len() <= BLOCK {
        return text;
    }
    let end = text.floor_char_boundary(BLOCK);
    let head = text.get(..end).unwrap_or(text);
    match head.rfind(char::is_whitespace) {
        Some(cut) if cut > 0 => head.get(..cut).unwrap_or(head),
        _ => head,
    }
}
