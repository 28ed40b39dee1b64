//! The tokenizer that a GGUF file carries in its metadata.
//!
//! Two families: `gpt2`, byte-level BPE whose words are cut by a pattern that the file only names, and
//! `llama`, SentencePiece BPE, whose merges follow from the scores of its pieces.

use std::cmp::Reverse;

use tokenizers::{
    AddedToken, SplitDelimiterBehavior, Tokenizer,
    decoders::{DecoderWrapper, byte_fallback::ByteFallback, fuse::Fuse, sequence::Sequence as Decoders, strip::Strip},
    models::bpe::{BPE, Merges, Vocab},
    normalizers::{NFC, NormalizerWrapper, Prepend, Replace, Sequence as Normalizers},
    pre_tokenizers::{
        PreTokenizerWrapper,
        byte_level::ByteLevel,
        digits::Digits,
        sequence::Sequence as PreTokenizers,
        split::{Split, SplitPattern},
    },
};

use super::{Gguf, Value};
use crate::{Error, Result};

/// Words of Llama 3: numbers in groups of up to three digits.
pub(crate) const LLAMA3_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Words of Qwen 2 and 3: single digits.
pub(crate) const QWEN2_WORDS: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How SentencePiece writes a space.
pub(crate) const SPACE: &str = "▁";
/// Longer pieces than this would make the search for their merges expensive; real ones have some 50 bytes.
const MAX_PIECE_BYTES: usize = 1024;

const TOKENS: &str = "tokenizer.ggml.tokens";
const MERGES: &str = "tokenizer.ggml.merges";
const SCORES: &str = "tokenizer.ggml.scores";
const TYPES: &str = "tokenizer.ggml.token_type";

/// The kinds of `tokenizer.ggml.token_type` that matter here.
const NORMAL: u64 = 1;
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;

impl Gguf {
    /// The tokenizer of the metadata.
    ///
    /// # Errors
    /// When there is none, it is of an unsupported kind, or its lists do not fit each other.
    pub(crate) fn tokenizer(&self) -> Result<Tokenizer> {
        const KEY: &str = "tokenizer.ggml.model";
        match self.text(KEY)?.ok_or_else(|| self.invalid(KEY, "is missing".into()))? {
            "gpt2" => self.byte_level(),
            "llama" => self.sentence_piece(),
            other => Err(self.unsupported(KEY, other, "gpt2, llama")),
        }
    }

    /// The token with the id that `key` holds, for example `tokenizer.ggml.eos_token_id`.
    pub(crate) fn named_token(&self, key: &str) -> Result<Option<&str>> {
        let Some(id) = self.integer(key)? else { return Ok(None) };
        let tokens = self.array(TOKENS)?.ok_or_else(|| self.invalid(TOKENS, "is missing".into()))?;
        match usize::try_from(id).ok().and_then(|id| tokens.iter().nth(id)) {
            Some(Value::Text(token)) => Ok(Some(token)),
            _ => Err(self.invalid(key, format!("= {id}, but there are {} tokens", tokens.len()))),
        }
    }

    fn byte_level(&self) -> Result<Tokenizer> {
        let pieces = self.pieces()?;
        let merges = self.array(MERGES)?.ok_or_else(|| self.invalid(MERGES, "is missing".into()))?;
        let merges = merges.iter().map(|merge| match merge {
            Value::Text(pair) => pair.split_once(' ').map(|(left, right)| (left.to_owned(), right.to_owned())),
            _ => None,
        });
        let merges: Option<Merges> = merges.collect();
        let merges = merges.ok_or_else(|| self.invalid(MERGES, "must be texts of two tokens and a space".into()))?;

        let prefix_space = self.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(false);
        let bytes = |use_regex| ByteLevel::new(prefix_space, true, use_regex);
        let words = |pattern: &str| {
            let pattern = SplitPattern::Regex(pattern.into());
            Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(|e| self.unusable(e))
        };
        const KEY: &str = "tokenizer.ggml.pre";
        let pre = self.text(KEY)?.ok_or_else(|| {
            self.invalid(KEY, "is missing: the file is too old to say how words are cut; convert it anew".into())
        })?;
        let mut normalizer = None;
        let steps: Vec<PreTokenizerWrapper> = match pre {
            "gpt-2" | "default" => vec![bytes(true).into()],
            "smollm" => vec![Digits::new(true).into(), bytes(true).into()],
            "llama-bpe" | "llama3" | "llama-v3" => vec![words(LLAMA3_WORDS)?.into(), bytes(false).into()],
            "qwen2" => {
                normalizer = Some(NFC);
                vec![words(QWEN2_WORDS)?.into(), bytes(false).into()]
            }
            other => return Err(self.unsupported(KEY, other, "smollm, llama-bpe, qwen2, gpt-2")),
        };
        let whole_words_first = pre.starts_with("llama");
        let model = BPE::builder()
            .vocab_and_merges(self.vocabulary(&pieces)?, merges)
            .ignore_merges(whole_words_first)
            .build()
            .map_err(|e| self.unusable(e))?;
        let mut tokenizer = Tokenizer::new(model);
        tokenizer
            .with_normalizer(normalizer)
            .with_pre_tokenizer(Some(PreTokenizers::new(steps)))
            .with_decoder(Some(ByteLevel::default()));
        self.add_special(&mut tokenizer, &pieces);
        Ok(tokenizer)
    }

    fn sentence_piece(&self) -> Result<Tokenizer> {
        let pieces = self.pieces()?;
        let vocabulary = self.vocabulary(&pieces)?;
        let merges = self.merges_by_score(&pieces, &vocabulary)?;
        let mut model = BPE::builder().vocab_and_merges(vocabulary, merges).fuse_unk(true).byte_fallback(true);
        if let Some(unknown) = pieces.iter().find(|piece| piece.kind == UNKNOWN) {
            model = model.unk_token(unknown.text.clone());
        }
        let mut tokenizer = Tokenizer::new(model.build().map_err(|e| self.unusable(e))?);
        let spaces = |from: &str, to: &str| Replace::new(from.to_owned(), to).map_err(|e| self.unusable(e));
        let mut normalizers: Vec<NormalizerWrapper> = vec![spaces(" ", SPACE)?.into()];
        let mut decoders: Vec<DecoderWrapper> =
            vec![spaces(SPACE, " ")?.into(), ByteFallback::new().into(), Fuse::new().into()];
        if self.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true) {
            normalizers.insert(0, Prepend::new(SPACE.into()).into());
            decoders.push(Strip::new(' ', 1, 0).into());
        }
        tokenizer.with_normalizer(Some(Normalizers::new(normalizers))).with_decoder(Some(Decoders::new(decoders)));
        self.add_special(&mut tokenizer, &pieces);
        Ok(tokenizer)
    }

    /// The tokens in the order of their ids.
    fn pieces(&self) -> Result<Vec<Piece>> {
        let tokens = self.array(TOKENS)?.ok_or_else(|| self.invalid(TOKENS, "is missing".into()))?;
        let kinds: Vec<_> = match self.array(TYPES)? {
            Some(kinds) if kinds.len() != tokens.len() => {
                return Err(self.invalid(TYPES, format!("has {} items for {} tokens", kinds.len(), tokens.len())));
            }
            Some(kinds) => kinds.iter().collect(),
            None => Vec::new(),
        };
        let pieces = tokens.iter().enumerate().map(|(id, token)| {
            let kind = match kinds.get(id) {
                None => NORMAL,
                Some(Value::Unsigned(kind)) => *kind,
                Some(Value::Signed(kind)) => kind.unsigned_abs(),
                Some(_) => return Err(self.invalid(TYPES, "must hold integers".into())),
            };
            match token {
                // A placeholder without a text still occupies its id.
                Value::Text("") => Ok(Piece { text: format!("[EMPTY_{id}]"), kind }),
                Value::Text(text) => Ok(Piece { text: text.to_owned(), kind }),
                _ => Err(self.invalid(TOKENS, "must hold texts".into())),
            }
        });
        pieces.collect()
    }

    fn vocabulary(&self, pieces: &[Piece]) -> Result<Vocab> {
        let mut vocabulary = Vocab::with_capacity(pieces.len());
        for (id, piece) in (0_u32..).zip(pieces) {
            if let Some(first) = vocabulary.insert(piece.text.clone(), id) {
                return Err(self.invalid(TOKENS, format!("has {:?} as ids {first} and {id}", piece.text)));
            }
        }
        Ok(vocabulary)
    }

    /// SentencePiece joins the neighbours whose union has the best score, so every way to cut a piece into two
    /// others is a merge of the piece's rank.
    fn merges_by_score(&self, pieces: &[Piece], vocabulary: &Vocab) -> Result<Merges> {
        let scores = self.array(SCORES)?.ok_or_else(|| self.invalid(SCORES, "is missing".into()))?;
        if scores.len() != pieces.len() {
            return Err(self.invalid(SCORES, format!("has {} items for {} tokens", scores.len(), pieces.len())));
        }
        let mut merges = Vec::new();
        for (piece, score) in pieces.iter().zip(scores.iter()).filter(|(piece, _)| piece.kind == NORMAL) {
            let score = match score {
                Value::Float(score) if score.is_finite() => score,
                _ => return Err(self.invalid(SCORES, "must hold finite numbers".into())),
            };
            if piece.text.len() > MAX_PIECE_BYTES {
                return Err(self.invalid(TOKENS, format!("has a piece of {} bytes", piece.text.len())));
            }
            let cuts = piece.text.char_indices().skip(1).map(|(at, _)| piece.text.split_at(at));
            let mut cuts: Vec<_> = cuts
                .filter_map(|(left, right)| Some(((vocabulary.get(left)?, vocabulary.get(right)?), left, right)))
                .collect();
            cuts.sort_unstable_by_key(|(ids, _, _)| *ids);
            merges.extend(cuts.into_iter().map(|(_, left, right)| (score, left, right)));
        }
        let length = |text: &str| Reverse(text.chars().count());
        merges.sort_by(|(a, left_a, right_a), (b, left_b, right_b)| {
            let lengths = |left, right| (length(left), length(right));
            b.total_cmp(a).then_with(|| lengths(left_a, right_a).cmp(&lengths(left_b, right_b)))
        });
        Ok(merges.into_iter().map(|(_, left, right)| (left.to_owned(), right.to_owned())).collect())
    }

    fn add_special(&self, tokenizer: &mut Tokenizer, pieces: &[Piece]) {
        let tokens: Vec<_> = pieces
            .iter()
            .filter(|piece| matches!(piece.kind, UNKNOWN | CONTROL | USER_DEFINED))
            .map(|piece| AddedToken::from(piece.text.clone(), piece.kind != USER_DEFINED).normalized(false))
            .collect();
        tokenizer.add_tokens(&tokens);
    }

    fn unusable(&self, source: impl ToString) -> Error {
        Error::Tokenizer { path: self.path.clone(), detail: source.to_string() }
    }
}

/// A token of the metadata.
struct Piece {
    text: String,
    kind: u64,
}
