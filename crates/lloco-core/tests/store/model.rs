//! Long random histories against a model of the store that is a map.

use std::collections::BTreeMap;

use lloco_core::Error;
use lloco_core::store::{EncoderInfo, LocalStore, NewDocument, Shard, Store};

use crate::{compress_some, directory, encoder, expected, files};

/// A document as it ought to be.
#[derive(Clone, Default)]
struct Model {
    group: String,
    shown: String,
    /// Index of the encoder whose summary is shown.
    encoder: Option<usize>,
    staged: Option<(String, String)>,
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// One of few texts, many of which begin alike.
fn text(random: &mut Random) -> String {
    let (start, length) = (random.below(2), 1 + random.below(3) * 5 + random.below(2));
    "The quick brown fox and the lazy dog"[start..start + length].to_owned()
}

#[test]
fn random_histories_agree_with_a_map() {
    let encoders = [encoder(), EncoderInfo::new("other", 3, 2, 3).recurrent(false)];
    for seed in 0..6 {
        let mut random = Random(seed);
        let directory = directory();
        let mut store = LocalStore::open(directory.path()).unwrap();
        let mut model: BTreeMap<String, Model> = BTreeMap::new();
        for _ in 0..120 {
            let (id, group) = (format!("doc {}", random.below(4)), format!("group {}", random.below(2)));
            match random.below(10) {
                0 | 1 => {
                    let text = text(&mut random);
                    let added = store.add(&NewDocument::new(&id, &text).group(&group).title("t"));
                    match model.get(&id) {
                        None => {
                            added.unwrap();
                            model.insert(id, Model { group, shown: text, ..Model::default() });
                        }
                        Some(known) => {
                            let latest = known.staged.clone().unwrap_or((known.group.clone(), known.shown.clone()));
                            let is_same = latest == (group, text);
                            assert!(is_same == added.is_ok());
                            assert!(is_same || matches!(added, Err(Error::DocumentExists { .. })));
                        }
                    }
                }
                2 | 3 => {
                    let text = text(&mut random);
                    store.replace(&NewDocument::new(&id, &text).group(&group).title("t")).unwrap();
                    let is_new = !model.contains_key(&id);
                    let known = model.entry(id).or_default();
                    if is_new || known.shown == text {
                        (known.group, known.shown, known.staged) = (group, text, None);
                    } else {
                        known.staged = Some((group, text));
                    }
                }
                4 => match model.get_mut(&id) {
                    None => assert!(matches!(store.append(&id, "!"), Err(Error::DocumentNotFound { .. }))),
                    Some(known) => {
                        store.append(&id, " and on").unwrap();
                        let (group, text) = known.staged.clone().unwrap_or((known.group.clone(), known.shown.clone()));
                        let text = text + " and on";
                        // Appending can lead back to what is shown.
                        let is_shown = known.shown == text;
                        known.staged = Some((group.clone(), text)).filter(|_| !is_shown);
                        known.group = if is_shown { group } else { known.group.clone() };
                    }
                },
                5 => assert_eq!(store.remove(&id).unwrap(), model.remove(&id).is_some()),
                6 => {
                    drop(store);
                    store = LocalStore::open(directory.path()).unwrap();
                }
                _ => {
                    let which = random.below(2);
                    let pending = store.pending(&encoders[which], Shard::ALL).unwrap();
                    let waits = |known: &Model| known.staged.is_some() || known.encoder != Some(which);
                    let expected: Vec<&String> =
                        model.iter().filter(|(_, known)| waits(known)).map(|(id, _)| id).collect();
                    assert_eq!(pending.iter().map(|work| &work.id).collect::<Vec<_>>(), expected);
                    if pending.is_empty() {
                        continue;
                    }
                    let work = &pending[random.below(pending.len())];
                    compress_some(&store, &encoders[which], work, 1 + random.below(6));
                    let summary = store.document(&work.id).unwrap().unwrap();
                    let known = model.get_mut(&work.id).unwrap();
                    if summary.text == work.text && summary.summary.is_some_and(|s| s.encoder == encoders[which]) {
                        if let Some((group, text)) = known.staged.take() {
                            (known.group, known.shown) = (group, text);
                        }
                        known.encoder = Some(which);
                    }
                }
            }
        }
        for (id, known) in &model {
            let document = store.document(id).unwrap().unwrap();
            assert_eq!((&document.group, store.text(&document.text).unwrap()), (&known.group, known.shown.clone()));
            let staged = document.staged.map(|staged| store.text(&staged.text).unwrap());
            assert_eq!(staged, known.staged.as_ref().map(|(_, text)| text.clone()));
            for (which, encoder) in encoders.iter().enumerate() {
                match (store.summary(id, encoder), known.encoder) {
                    (Ok(rows), Some(shown)) if shown == which => {
                        assert_eq!(rows.data(), expected(encoder, &known.shown));
                    }
                    (Err(Error::EncoderMismatch { .. }), Some(shown)) => assert_ne!(shown, which),
                    (Err(Error::NotCompressed { .. }), None) => {}
                    (other, shown) => panic!("{id}: {other:?}, {shown:?}"),
                }
            }
        }
        assert!(store.verify().unwrap().is_empty());
        assert_eq!(store.compact().unwrap().files, 0, "every file has a user");
        for id in model.keys() {
            store.remove(id).unwrap();
        }
        assert_eq!(files(directory.path()), ["format.json"], "no user is counted twice");
    }
}
