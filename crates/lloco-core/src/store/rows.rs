//! Rows of the catalogue, stored as JSON, and the tables that hold them.

use std::collections::BTreeMap;

use redb::{MultimapTableDefinition, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

type Hash = &'static [u8; 32];
type Json = &'static [u8];

/// `version`, `revision` -> number
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// document id -> [`DocumentRow`]
pub(super) const DOCUMENTS: TableDefinition<'_, &str, Json> = TableDefinition::new("documents");
/// group -> document ids
pub(super) const MEMBERS: MultimapTableDefinition<'_, &str, &str> = MultimapTableDefinition::new("members");
/// group -> [`GroupRow`]
pub(super) const GROUPS: TableDefinition<'_, &str, Json> = TableDefinition::new("groups");
/// digest of the text -> [`TextRow`]
pub(super) const TEXTS: TableDefinition<'_, Hash, Json> = TableDefinition::new("texts");
/// encoder id -> [`EncoderInfo`](super::EncoderInfo)
pub(super) const ENCODERS: TableDefinition<'_, Hash, Json> = TableDefinition::new("encoders");
/// (text, encoder) -> [`EncodingRow`]
pub(super) const ENCODINGS: TableDefinition<'_, (Hash, Hash), Json> = TableDefinition::new("encodings");
/// (text, encoder, number of the segment) -> [`SegmentRow`]
pub(super) const SEGMENTS: TableDefinition<'_, (Hash, Hash, u32), Json> = TableDefinition::new("segments");
/// key of the summary -> [`SummaryRow`]
pub(super) const SUMMARIES: TableDefinition<'_, Hash, Json> = TableDefinition::new("summaries");

/// A document.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct DocumentRow {
    pub(super) created: u64,
    #[serde(flatten)]
    pub(super) contents: Contents,
    /// The encoder whose encoding of the text is complete and shown to readers.
    pub(super) encoder: Option<Digest>,
    /// Newer contents, shown once they are compressed.
    pub(super) staged: Option<Contents>,
}

impl DocumentRow {
    pub(super) fn latest(&self) -> &Contents {
        self.staged.as_ref().unwrap_or(&self.contents)
    }
}

/// What a document consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Contents {
    pub(super) group: String,
    pub(super) title: String,
    pub(super) text: Digest,
    pub(super) bytes: u64,
}

/// A text; `users` counts the documents that show or stage it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct TextRow {
    pub(super) bytes: u64,
    pub(super) users: u64,
}

/// A text under an encoder; `users` counts the documents that show it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct EncodingRow {
    pub(super) tokens: u64,
    pub(super) segments: u32,
    pub(super) done: u32,
    pub(super) users: u64,
}

/// A finished segment of an encoding.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct SegmentRow {
    pub(super) key: Digest,
}

/// A summary file; `users` counts the encodings that contain it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SummaryRow {
    pub(super) sha256: Digest,
    pub(super) bytes: u64,
    pub(super) rows: u32,
    pub(super) users: u64,
}

/// A group and its adapters.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct GroupRow {
    pub(super) current: Option<u32>,
    pub(super) versions: BTreeMap<u32, AdapterRow>,
}

/// The files of an adapter version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct AdapterRow {
    pub(super) created: u64,
    pub(super) files: BTreeMap<String, Digest>,
}
