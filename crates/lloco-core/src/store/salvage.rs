//! What can be read of a damaged catalogue.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::{Key, ReadOnlyDatabase, ReadTransaction, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::de::DeserializeOwned;

use super::catalogue::{Failure, builder};
use super::layout::check_name;
use super::rows::{DOCUMENTS, DocumentRow, GROUPS, GroupRow, SUMMARIES, SummaryRow};
use crate::digest::Digest;
use crate::error::Error;

/// The rows that could be read.
#[derive(Default)]
pub(super) struct Old {
    pub(super) documents: BTreeMap<String, DocumentRow>,
    pub(super) groups: BTreeMap<String, GroupRow>,
    pub(super) summaries: BTreeMap<Digest, SummaryRow>,
    /// Whether every document was read.
    pub(super) is_complete: bool,
}

impl Old {
    /// Reads a copy, so that the damaged file stays as it is.
    pub(super) fn read(catalogue: &Path, aside: &Path) -> Self {
        let copy = aside.join("damaged.redb");
        let read = || -> Result<Self, Failure> {
            let mut bytes = fs::read(catalogue).map_err(|error| Error::io("read", catalogue, error))?;
            // Says that its writer closed it, or redb would want to repair it first.
            if let Some(state) = bytes.get_mut(9) {
                *state &= !2;
            }
            fs::write(&copy, bytes).map_err(|error| Error::io("write", &copy, error))?;
            let database: ReadOnlyDatabase = builder().open_read_only(&copy)?;
            let transaction = database.begin_read()?;
            let (documents, all) = rows(&transaction, DOCUMENTS, |id: &str| id.to_owned());
            let is_sound = |(id, row): &(&String, &DocumentRow)| {
                let group = check_name("group", &row.latest().group);
                check_name("document id", id).and(group).and(check_name("group", &row.contents.group)).is_ok()
            };
            let (groups, _) = rows(&transaction, GROUPS, |group: &str| group.to_owned());
            let (summaries, _) = rows(&transaction, SUMMARIES, |key: &[u8; 32]| Digest::from(*key));
            let is_complete = all && documents.iter().all(|row| is_sound(&row));
            let documents = documents.into_iter().filter(|(id, row)| is_sound(&(id, row))).collect();
            Ok(Self { documents, groups, summaries, is_complete })
        };
        // redb believes what it finds, and may panic over it.
        let old = catch_unwind(AssertUnwindSafe(read)).ok().and_then(Result::ok).unwrap_or_default();
        if let Err(error) = fs::remove_file(&copy) {
            tracing::debug!(%error, "a copy stays until the store is opened");
        }
        old
    }
}

/// The rows of a table that can be read, from both ends, and whether these are all.
fn rows<K: Key + 'static, O: Ord + Clone, T: DeserializeOwned>(
    transaction: &ReadTransaction,
    table: TableDefinition<'_, K, &'static [u8]>,
    own: impl for<'k> Fn(K::SelfType<'k>) -> O,
) -> (BTreeMap<O, T>, bool) {
    let mut found = BTreeMap::new();
    for backwards in [false, true] {
        let mut read = || -> Result<bool, Failure> {
            let table = transaction.open_table(table)?;
            let (mut rows, mut last, mut all) = (table.iter()?, None, true);
            while let Some(row) = if backwards { rows.next_back() } else { rows.next() } {
                let (key, value) = row?;
                let key = own(key.value());
                // Damaged pages may lead in circles.
                if last.is_some_and(|last: O| if backwards { key >= last } else { key <= last }) {
                    return Ok(false);
                }
                match serde_json::from_slice(value.value()) {
                    Ok(row) => drop(found.insert(key.clone(), row)),
                    Err(_) => all = false,
                }
                last = Some(key);
            }
            Ok(all)
        };
        if matches!(catch_unwind(AssertUnwindSafe(&mut read)), Ok(Ok(true))) {
            return (found, true);
        }
    }
    (found, false)
}
