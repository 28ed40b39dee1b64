//! Whom a data set asks about: its documents and questions, looked up in a group.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use crate::{
    Error, Lloco, Result,
    dataset::{QaDocument, Question},
    store::{Document, Store},
};

/// A question about documents of a group.
#[derive(Debug, Clone)]
pub(crate) struct Asked<'d> {
    pub(crate) question: &'d Question,
    /// The documents as the store has them, in the order in which they are read; at least one.
    pub(crate) documents: Vec<Document>,
}

impl Asked<'_> {
    /// The wording that counts where there can be only one: the first that is not blank.
    pub(crate) fn answer(&self) -> &str {
        let mut answers = self.question.answers.iter().map(|answer| answer.trim());
        answers.find(|answer| !answer.is_empty()).unwrap_or_default()
    }
}

impl Lloco {
    /// The questions of a data set whose documents are all in a group; the others are left out, with a warning.
    /// `path` names the data set in errors.
    pub(crate) fn asked<'d>(
        &self,
        group: &str,
        data: impl IntoIterator<Item = &'d QaDocument>,
        path: &Path,
    ) -> Result<Vec<Asked<'d>>> {
        let members = Members::new(self.store.documents(Some(group))?);
        let mut asked = Vec::new();
        let mut missing = HashSet::new();
        let mut lines = 0;
        for line in data {
            lines += 1;
            for question in &line.questions {
                let own = std::slice::from_ref(&line.id);
                let names = if question.documents.is_empty() { own } else { &question.documents };
                let found: Vec<Document> = names.iter().filter_map(|name| members.find(name).cloned()).collect();
                match found.len() == names.len() {
                    true => asked.push(Asked { question, documents: found }),
                    false => missing.extend(names.iter().filter(|name| members.find(name).is_none())),
                }
            }
        }
        for document in missing {
            tracing::warn!(document, group, "not in the group: its questions are left out");
        }
        match asked.is_empty() {
            true => Err(Error::NothingToLearn { path: path.into(), documents: lines, group: group.into() }),
            false => Ok(asked),
        }
    }
}

/// A group's documents as a data set names them: by id, or, for documents that were added as files, by the file's
/// name without its extension.
struct Members {
    ids: HashMap<String, Document>,
    /// File name -> id; `None` where several documents share the name.
    files: HashMap<String, Option<String>>,
}

impl Members {
    fn new(documents: Vec<Document>) -> Self {
        let mut files = HashMap::new();
        for document in &documents {
            if let Some(name) = Path::new(&document.id).file_stem() {
                let name = name.to_string_lossy().into_owned();
                files.entry(name).and_modify(|id| *id = None).or_insert_with(|| Some(document.id.clone()));
            }
        }
        Self { ids: documents.into_iter().map(|document| (document.id.clone(), document)).collect(), files }
    }

    fn find(&self, name: &str) -> Option<&Document> {
        let as_file = || self.ids.get(self.files.get(name)?.as_deref()?);
        self.ids.get(name).or_else(as_file)
    }
}
