//! The embedder's tokenizer: ids for the encoder, byte offsets for passages.

use crate::{Error, Result};
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use tokenizers::TruncationParams;

/// Bytes of a text that are looked at for each token wanted. Words average 4 to 6 bytes a
/// token; the limit keeps a huge text from being tokenised whole for its first 512 tokens.
const BYTES_PER_TOKEN: usize = 64;

/// A tokenizer that cuts off after a fixed number of tokens.
pub(crate) struct Tokenizer {
    encoder: tokenizers::Tokenizer,
    /// The same without truncation.
    splitter: tokenizers::Tokenizer,
    max_length: usize,
}

impl Tokenizer {
    /// Reads `tokenizer.json`; truncation and padding settings in it give way to `max_length`.
    pub(crate) fn load(path: &Path, max_length: usize, vocab_size: usize) -> Result<Self> {
        let json = std::fs::read(path).map_err(Error::io("read", path))?;
        // What is no JSON makes the library panic, where it happens to read a decoder.
        serde_json::from_slice::<serde_json::Value>(&json).map_err(|e| Error::malformed(path, e))?;
        let mut splitter =
            guarded(|| tokenizers::Tokenizer::from_bytes(&json)).map_err(|e| Error::malformed(path, e))?;
        let largest = splitter.get_vocab(true).into_values().max().unwrap_or(0);
        if largest as usize >= vocab_size {
            return Err(Error::TokenizerMismatch { path: PathBuf::from(path), id: largest, vocab_size });
        }
        splitter.with_padding(None);
        let mut encoder = splitter.clone();
        let truncation = TruncationParams { max_length, ..TruncationParams::default() };
        encoder
            .with_truncation(Some(truncation))
            .and_then(|_| splitter.with_truncation(None))
            .map_err(|e| Error::malformed(path, e))?;
        Ok(Self { encoder, splitter, max_length })
    }

    /// Ids of each text behind `prefix`, special tokens included, cut to the maximum length.
    pub(crate) fn encode<T: AsRef<str>>(&self, prefix: &str, texts: &[T]) -> Result<Vec<Vec<u32>>> {
        let limit = self.max_length.saturating_mul(BYTES_PER_TOKEN);
        let inputs: Vec<Cow<'_, str>> = texts
            .iter()
            .map(|text| {
                let text = head(text.as_ref(), limit);
                match prefix {
                    "" => Cow::Borrowed(text),
                    _ => Cow::Owned(format!("{prefix}{text}")),
                }
            })
            .collect();
        let encodings = guarded(|| self.encoder.encode_batch_fast(inputs, true))?;
        Ok(encodings.iter().map(|e| e.get_ids().to_vec()).collect())
    }

    /// Byte range of each token of `text`, without special tokens.
    pub(crate) fn offsets(&self, text: &str) -> Result<Vec<(usize, usize)>> {
        let encoding = guarded(|| self.splitter.encode(text, false))?;
        Ok(encoding.get_offsets().to_vec())
    }

    /// Tokens that `prefix` and the special tokens take of the maximum length.
    pub(crate) fn overhead(&self, prefix: &str) -> Result<usize> {
        Ok(self.encode(prefix, &[""])?.iter().map(Vec::len).sum())
    }
}

/// What the tokenizer returns. It trusts its file: one that contradicts itself makes it panic, such as a template with a
/// token that is declared nowhere, which is read without a word.
fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|e| Error::Tokenize(e.to_string())),
        Err(_) => Err(Error::Tokenize("tokenizer.json contradicts itself; fetch it again".into())),
    }
}

/// The longest start of `text` of at most `limit` bytes that ends between characters.
fn head(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or(text)
}
