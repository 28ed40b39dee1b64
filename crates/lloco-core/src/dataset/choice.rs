//! A choice of documents that follows from their ids alone.

use std::collections::{BTreeMap, HashSet};

use super::QaDocument;
use crate::digest::Digest;

/// The ids of every `every`th document, to be held out from training: in the order of the ids' SHA-256, the first document
/// and each that is `every` places behind one. The same documents give the same choice, in whatever order they come.
///
/// All of them for an `every` of 0 or 1.
pub fn held_out(documents: &[QaDocument], every: usize) -> HashSet<&str> {
    let digest = |document: &QaDocument| *Digest::of(document.id.as_bytes()).bytes();
    let ordered: BTreeMap<_, _> = documents.iter().map(|document| (digest(document), document.id.as_str())).collect();
    ordered.into_values().step_by(every.max(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(id: usize) -> QaDocument {
        QaDocument { id: id.to_string(), title: String::new(), text: "text".into(), questions: Vec::new() }
    }

    #[test]
    fn every_twelfth_of_232_documents_are_20_in_whatever_order_they_come() {
        let mut documents: Vec<QaDocument> = (0..232).map(document).collect();
        let chosen: HashSet<String> = held_out(&documents, 12).into_iter().map(str::to_owned).collect();
        assert_eq!(chosen.len(), 20);
        documents.rotate_left(100);
        assert!(held_out(&documents, 12).iter().all(|id| chosen.contains(*id)));
        // Their digests begin with 5f, 6b and d4.
        let few: Vec<QaDocument> = (0..3).map(document).collect();
        assert_eq!(held_out(&few, 2), HashSet::from(["0", "2"]));
        assert_eq!(held_out(&few, 3), HashSet::from(["0"]));
    }
}
