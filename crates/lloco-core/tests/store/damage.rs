//! Damaged files: found, named, the rest served, and repaired where that is possible.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use lloco_core::Error;
use lloco_core::store::{LocalStore, NewDocument, Precision, Shard, Store};

use crate::{adapter, compress, encoder, expected, files, seen};

/// Two documents, the second of them with an adapter's group.
fn filled(root: &Path, precision: Precision) -> LocalStore {
    let store = LocalStore::open(root.join("store")).unwrap();
    store.add(&NewDocument::new("a", "Thirty-two bytes of text, no less")).unwrap();
    store.add(&NewDocument::new("b", "Other text").group("g")).unwrap();
    compress(&store, &encoder().precision(precision));
    store.put_adapter("g", &adapter(root, b"weights")).unwrap();
    store
}

#[test]
fn every_flipped_byte_and_every_truncation_is_found_and_named() {
    let directory = crate::directory();
    let encoder = encoder().precision(Precision::Int8);
    let store = filled(directory.path(), Precision::Int8);
    let root = store.path().to_owned();
    let names: Vec<String> = files(&root).into_iter().filter(|name| name != "format.json").collect();
    assert_eq!(names.len(), 2 + 9 + 3 + 3, "{names:?}");
    for name in &names {
        let path = root.join(name);
        let good = fs::read(&path).unwrap();
        let step = (good.len() / 16).max(1);
        let flips = (0..good.len()).step_by(step).map(|at| {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            bytes
        });
        let cuts = (0..good.len()).step_by(step * 3).map(|length| good[..length].to_vec());
        for (i, bad) in flips.chain(cuts).enumerate() {
            // A new file, as a mapping of the old one may still exist.
            fs::remove_file(&path).unwrap();
            fs::write(&path, bad).unwrap();
            let damages = store.verify().unwrap();
            assert_eq!(damages.len(), 1, "{name}, change {i}");
            assert_eq!(damages[0].path, path);
        }
        fs::remove_file(&path).unwrap();
        let damages = store.verify().unwrap();
        assert_eq!((damages.len(), damages[0].reason.as_str()), (1, "it is missing"));
        fs::write(&path, good).unwrap();
    }
    assert!(store.verify().unwrap().is_empty());
    assert!(store.summary("a", &encoder).is_ok());
}

#[test]
fn the_rest_is_served_and_repair_makes_the_damaged_pending() {
    let directory = crate::directory();
    let encoder = encoder();
    let store = filled(directory.path(), Precision::F32);
    let before = seen(&store, &encoder);
    let key = store.document("a").unwrap().unwrap().summary.unwrap().segments[5].to_string();
    let path = store.path().join("summaries").join(&key[..2]).join(format!("{key}.safetensors"));
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();

    let error = store.summary("a", &encoder).unwrap_err();
    assert!(matches!(&error, Error::Damaged { path: named, .. } if *named == path), "{error}");
    assert_eq!(store.summary("b", &encoder).unwrap().data(), expected(&encoder, "Other text"));
    let damages = store.repair().unwrap();
    assert_eq!((damages.len(), damages[0].documents.clone()), (1, vec!["a".to_owned()]));
    assert!(matches!(store.summary("a", &encoder), Err(Error::NotCompressed { done: 5, total: 9, .. })));
    assert_eq!(store.pending(&encoder, Shard::ALL).unwrap().len(), 1);
    assert_eq!(compress(&store, &encoder), 4, "the segments before the damage are kept");
    assert_eq!(seen(&store, &encoder), before);
    assert!(store.verify().unwrap().is_empty());
    assert_eq!(store.compact().unwrap().files, 0);
    assert_eq!(store.repair().unwrap(), []);
    assert_eq!(seen(&store, &encoder), before);
}

#[test]
fn a_damaged_text_is_named_when_it_is_read() {
    let directory = crate::directory();
    let store = filled(directory.path(), Precision::F16);
    let digest = store.document("b").unwrap().unwrap().text;
    let name = digest.to_string();
    let path = store.path().join("text").join(&name[..2]).join(format!("{name}.txt"));
    fs::write(&path, b"\xff\xfe").unwrap();
    let error = store.text(&digest).unwrap_err();
    assert!(matches!(&error, Error::Damaged { path: named, .. } if *named == path), "{error}");
    fs::remove_file(&path).unwrap();
    assert!(matches!(store.text(&digest), Err(Error::Damaged { .. })));
}

#[test]
fn a_damaged_catalogue_gives_an_error_and_no_panic() {
    let directory = crate::directory();
    let encoder = encoder();
    let root = filled(directory.path(), Precision::F32).path().to_owned();
    let (path, before) = (root.join("catalog.redb"), seen(&LocalStore::open(&root).unwrap(), &encoder));
    let good = fs::read(&path).unwrap();
    let mut outcomes = BTreeSet::new();
    let mut attempt = |bytes: &[u8], what: &str| {
        fs::write(&path, bytes).unwrap();
        match LocalStore::open(&root) {
            // The change hit a page that is not in use.
            Ok(store) => {
                assert_eq!(seen(&store, &encoder), before, "{what}");
                outcomes.insert("same");
            }
            Err(Error::Catalogue { .. } | Error::Io { .. }) => {
                outcomes.insert("refused");
            }
            Err(other) => panic!("{what}: {other}"),
        }
    };
    for at in (0..512).step_by(7).chain((512..good.len()).step_by(331)) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x41;
        attempt(&bytes, &format!("byte {at}"));
    }
    for length in [0, 1, 100, 4096, good.len() / 2, good.len() - 1] {
        fs::write(&path, &good[..length]).unwrap();
        assert!(LocalStore::open(&root).is_err(), "cut to {length}");
    }
    attempt(&[good.as_slice(), b"more"].concat(), "longer");
    attempt(&good, "the original");
    assert_eq!(outcomes.len(), 2, "both outcomes occur");
}
