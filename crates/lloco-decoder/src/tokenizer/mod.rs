//! Text to token ids and back.

mod checks;
mod pieces;
mod stream;

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use sha2::{Digest, Sha256};
pub use stream::TextStream;

use crate::{ChatTemplate, Error, Result, chat::ChatSource, gguf::Gguf};
use checks::Declared;
use pieces::{Cut, Piece};

/// A model's tokenizer.
///
/// Control tokens written in a text, `<|im_start|>` for instance, are read as the tokens they name. Nothing is
/// added: no token that opens or closes a text, no padding, no truncation.
///
/// ```no_run
/// # use lloco_decoder::Tokenizer;
/// let tokenizer = Tokenizer::from_file("SmolLM2-135M-Instruct/tokenizer.json")?;
/// let ids = tokenizer.encode("The capital of France is")?;
/// assert_eq!(tokenizer.decode(&ids)?, "The capital of France is");
/// # Ok::<_, lloco_decoder::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Tokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
    cut: Cut,
    vocab_size: usize,
    max_id: u32,
    chat: ChatSource,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`. The chat template is looked for beside it when it is asked for.
    ///
    /// # Errors
    /// When the file cannot be read, is not a tokenizer, or uses what no LLaMA-family model has.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let json = fs::read(path).map_err(|source| Error::Io { path: path.into(), source })?;
        let unusable = |detail: String| Error::Tokenizer { path: path.into(), detail };
        let declared: Declared = serde_json::from_slice(&json).map_err(|e| unusable(e.to_string()))?;
        if let Some(detail) = declared.unsupported() {
            return Err(unusable(detail.into()));
        }
        let inner: tokenizers::Tokenizer = serde_json::from_slice(&json).map_err(|e| unusable(e.to_string()))?;
        if let Some(detail) = declared.misplaced(&inner) {
            return Err(unusable(detail));
        }
        let directory = path.parent().unwrap_or(Path::new("")).to_path_buf();
        Self::new(path, inner, ChatSource::Directory(directory))
    }

    /// The tokenizer and chat template in a GGUF file's metadata.
    ///
    /// # Errors
    /// When there is none, or it is of a kind that is not supported.
    pub fn from_gguf(file: &Gguf) -> Result<Self> {
        Self::new(file.path(), file.tokenizer()?, ChatSource::of(file)?)
    }

    fn new(path: &Path, mut inner: tokenizers::Tokenizer, chat: ChatSource) -> Result<Self> {
        let unusable = |detail: String| Error::Tokenizer { path: path.into(), detail };
        // Ids and offsets stay those of the text itself.
        inner.with_padding(None).with_post_processor(None::<tokenizers::PostProcessorWrapper>);
        inner.with_truncation(None).map_err(|e| unusable(e.to_string()))?;
        let vocabulary = inner.get_vocab(true);
        let max_id = vocabulary.values().max().copied().ok_or_else(|| unusable("it has no tokens".into()))?;
        let cut = Cut::of(&inner, &vocabulary);
        Ok(Self { path: path.into(), inner, cut, vocab_size: vocabulary.len(), max_id, chat })
    }

    /// The ids of `text`.
    ///
    /// # Errors
    /// When the text has a character that the tokenizer can neither name nor replace.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let ids = |piece: &Piece| Ok(self.encode_piece(text, piece)?.get_ids().to_vec());
        Ok(self.each_piece(text, ids)?.concat())
    }

    /// The ids of `text`, and for each the bytes of `text` that it stands for. The ranges are in order and leave
    /// no gap: a character that takes several tokens is in the range of each, and what the tokenizer drops
    /// belongs to the token before it.
    ///
    /// Long texts are read in pieces, so that time and memory grow with the length of the text only as the
    /// result does. The ids are those of the text read in one go.
    ///
    /// # Errors
    /// When the text has a character that the tokenizer can neither name nor replace.
    pub fn encode_with_offsets(&self, text: &str) -> Result<(Vec<u32>, Vec<Range<usize>>)> {
        let encoded = self.each_piece(text, |piece| {
            let (encoding, start) = (self.encode_piece(text, piece)?, piece.read.start);
            let mut offsets: Vec<_> =
                encoding.get_offsets().iter().map(|(from, to)| start + from..start + to).collect();
            if let Some(first) = offsets.first_mut() {
                first.start = first.start.min(piece.covers);
            }
            Ok((encoding.get_ids().to_vec(), offsets))
        })?;
        let (mut ids, mut offsets) = (Vec::new(), Vec::<Range<usize>>::new());
        for (piece_ids, piece_offsets) in encoded {
            ids.extend(piece_ids);
            offsets.extend(piece_offsets);
        }
        let mut next = text.len();
        for range in offsets.iter_mut().rev() {
            range.end = range.end.max(next);
            next = range.start;
        }
        if let Some(first) = offsets.first_mut() {
            first.start = 0;
        }
        Ok((ids, offsets))
    }

    /// What becomes of a text's pieces, in order.
    fn each_piece<T: Send>(&self, text: &str, encode: impl Fn(&Piece) -> Result<T> + Send + Sync) -> Result<Vec<T>> {
        match self.cut.pieces(text).as_slice() {
            [only] => Ok(vec![encode(only)?]),
            many => many.par_iter().map(encode).collect(),
        }
    }

    fn encode_piece(&self, text: &str, piece: &Piece) -> Result<tokenizers::Encoding> {
        let read = text.get(piece.read.clone()).unwrap_or_default();
        self.inner.encode(read, false).map_err(|e| self.unusable(e))
    }

    /// The text of `ids`, without control tokens.
    ///
    /// # Errors
    /// When an id is not in the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.decode_as(ids, true)
    }

    /// The text of `ids`, control tokens included.
    ///
    /// # Errors
    /// When an id is not in the vocabulary.
    pub fn decode_raw(&self, ids: &[u32]) -> Result<String> {
        self.decode_as(ids, false)
    }

    fn decode_as(&self, ids: &[u32], skip_control: bool) -> Result<String> {
        if let Some(position) = ids.iter().position(|id| self.inner.id_to_token(*id).is_none()) {
            let (id, vocab_size) = (ids[position], self.vocab_size);
            return Err(Error::OutOfVocabulary { id, position, vocab_size });
        }
        self.inner.decode(ids, skip_control).map_err(|e| self.unusable(e))
    }

    /// Turns ids into text one by one, without control tokens.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream::new(self)
    }

    /// Number of tokens, control tokens included.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The largest id. A model whose embedding has no such row does not belong to this tokenizer.
    pub fn max_id(&self) -> u32 {
        self.max_id
    }

    /// The id of `token`, for example `<|im_end|>`.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token with this id, as the vocabulary writes it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The model's chat template, if it has one.
    ///
    /// # Errors
    /// When it cannot be read or parsed.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>> {
        self.chat.template()
    }

    /// The tokenizer as the text of a `tokenizer.json`.
    ///
    /// # Errors
    /// When the tokenizer cannot be written as JSON.
    pub fn to_json(&self) -> Result<String> {
        self.inner.to_string(false).map_err(|e| self.unusable(e))
    }

    /// SHA-256 of the tokenizer, in hexadecimal: equal fingerprints give equal ids.
    ///
    /// # Errors
    /// When the tokenizer cannot be written as JSON.
    pub fn fingerprint(&self) -> Result<String> {
        Ok(Sha256::digest(self.to_json()?).iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn unusable(&self, source: impl ToString) -> Error {
        Error::Tokenizer { path: self.path.clone(), detail: source.to_string() }
    }
}
