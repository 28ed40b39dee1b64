//! Text and token ids from files.

use std::{fs, path::Path};

use serde::Deserialize;

use crate::Result;

/// A JSON array of ids, or an object that holds one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Ids {
    List(Vec<u32>),
    Named {
        #[serde(alias = "document_ids")]
        ids: Vec<u32>,
    },
}

/// Token ids from a JSON file: `[1, 2]`, `{"ids": [1, 2]}` or `{"document_ids": [1, 2]}`.
///
/// # Errors
/// When the file cannot be read or holds something else.
pub fn read_ids(path: &Path) -> Result<Vec<u32>> {
    match serde_json::from_str(&read_text(path)?) {
        Ok(Ids::List(ids) | Ids::Named { ids }) => Ok(ids),
        Err(_) => Err(format!("{}: expected a JSON array of token ids, such as [1, 2]", path.display()).into()),
    }
}

/// A text file's contents.
///
/// # Errors
/// When the file cannot be read or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()).into())
}
