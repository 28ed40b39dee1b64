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
fn a_damaged_stamp_is_named_and_written_again() {
    let directory = crate::directory();
    let store = filled(directory.path(), Precision::F32);
    let (root, before) = (store.path().to_owned(), seen(&store));
    drop(store);
    let path = root.join("format.json");
    let good = fs::read(&path).unwrap();
    let flips = (0..good.len()).map(|at| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        bytes
    });
    let cuts = (0..good.len()).map(|length| good[..length].to_vec());
    for (i, bad) in flips.chain(cuts).enumerate() {
        fs::write(&path, bad).unwrap();
        for error in [LocalStore::open(&root).unwrap_err(), LocalStore::open_read_only(&root).unwrap_err()] {
            assert!(matches!(&error, Error::Damaged { path: named, .. } if *named == path), "change {i}: {error}");
            assert!(error.to_string().contains("`recover`"), "{error}");
        }
        if i % 9 == 0 {
            assert_eq!(LocalStore::recover(&root).unwrap(), None, "the catalogue is whole");
            assert_eq!(seen(&LocalStore::open(&root).unwrap()), before);
        }
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(LocalStore::open(&root), Err(Error::NotAStore { .. })));
    assert_eq!(LocalStore::recover(&root).unwrap(), None);
    assert_eq!((fs::read(&path).unwrap(), seen(&LocalStore::open(&root).unwrap())), (good, before));
    // Elsewhere, nothing is made.
    assert!(matches!(LocalStore::recover(directory.path()), Err(Error::NotAStore { .. })));
}

#[test]
fn the_rest_is_served_and_repair_makes_the_damaged_pending() {
    let directory = crate::directory();
    let encoder = encoder();
    let store = filled(directory.path(), Precision::F32);
    let before = seen(&store);
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
    assert_eq!(seen(&store), before);
    assert!(store.verify().unwrap().is_empty());
    assert_eq!(store.compact().unwrap().files, 0);
    assert_eq!(store.repair().unwrap(), []);
    assert_eq!(seen(&store), before);
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
    let root = filled(directory.path(), Precision::F32).path().to_owned();
    let (path, before) = (root.join("catalog.redb"), seen(&LocalStore::open(&root).unwrap()));
    let good = fs::read(&path).unwrap();
    let mut outcomes = BTreeSet::new();
    let mut attempt = |bytes: &[u8], what: &str| {
        fs::write(&path, bytes).unwrap();
        match LocalStore::open(&root) {
            // The change hit a page that is not in use.
            Ok(store) => {
                assert_eq!(seen(&store), before, "{what}");
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

/// Documents in several states, and an adapter that is not the newest.
fn varied(root: &Path) -> LocalStore {
    let store = filled(root, Precision::F32);
    store.add(&NewDocument::new("c", "Thirty-two bytes of text, no less").title("A twin").group("g")).unwrap();
    compress(&store, &encoder());
    store.replace(&NewDocument::new("b", "Other text, now longer").group("h")).unwrap();
    store.put_adapter("g", &adapter(root, b"newer weights")).unwrap();
    store.set_adapter("g", Some(1)).unwrap();
    store
}

/// Every document as far as people gave it: id, group, title, text.
fn given(store: &LocalStore) -> BTreeSet<[String; 4]> {
    let own = |document: lloco_core::store::Document| {
        let (group, title, text) = match document.staged {
            Some(staged) => (staged.group, staged.title, staged.text),
            None => (document.group, document.title, document.text),
        };
        [document.id, group, title, store.text(&text).unwrap()]
    };
    store.documents(None).unwrap().into_iter().map(own).collect()
}

#[test]
fn a_lost_catalogue_is_made_anew_from_the_files() {
    let directory = crate::directory();
    let encoder = encoder();
    let store = varied(directory.path());
    let (root, before) = (store.path().to_owned(), given(&store));
    drop(store);
    assert_eq!(LocalStore::recover(&root).unwrap(), None, "a whole store stays as it is");
    fs::remove_file(root.join("catalog.redb")).unwrap();
    assert!(LocalStore::open(&root).unwrap_err().to_string().contains("`recover`"));

    let recovered = LocalStore::recover(&root).unwrap().unwrap();
    assert_eq!((recovered.documents, recovered.nameless, recovered.adapters), (3, 3, 2));
    assert_eq!((recovered.summaries, recovered.unchecked, recovered.damaged.len()), (12, 12, 0));
    let store = LocalStore::open(&root).unwrap();
    let texts = |given: &BTreeSet<[String; 4]>| given.iter().map(|[.., text]| text.clone()).collect::<BTreeSet<_>>();
    let all = texts(&before).into_iter().chain(["Other text".to_owned()]).collect();
    assert_eq!(texts(&given(&store)), all);
    assert_eq!(compress(&store, &encoder), 4, "only what never was compressed is computed");
    assert_eq!(store.adapter("g").unwrap().unwrap().version, 2);
    // Under their own ids again, nothing is computed.
    for [id, group, title, text] in &before {
        store.add(&NewDocument::new(id, text).group(group).title(title)).unwrap();
    }
    assert_eq!(compress(&store, &encoder), 0);
    for lost in store.documents(Some("recovered")).unwrap() {
        assert!(store.remove(&lost.id).unwrap());
    }
    assert_eq!(given(&store), before);
    assert!(store.verify().unwrap().is_empty() && store.compact().is_ok());
}

#[test]
fn a_damaged_catalogue_is_read_as_far_as_it_goes() {
    let directory = crate::directory();
    let encoder = encoder();
    let store = varied(directory.path());
    let (root, before) = (store.path().to_owned(), given(&store));
    drop(store);
    let good = fs::read(root.join("catalog.redb")).unwrap();
    let (mut recoveries, mut all_named) = (0, 0);
    for at in (0..512).step_by(61).chain((512..good.len()).step_by(good.len() / 60)) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x41;
        fs::write(root.join("catalog.redb"), bytes).unwrap();
        let Some(recovered) = LocalStore::recover(&root).unwrap() else { continue };
        recoveries += 1;
        assert!(recovered.old.as_ref().is_some_and(|kept| kept.is_file()));
        fs::remove_file(recovered.old.unwrap()).unwrap();
        let store = LocalStore::open(&root).unwrap();
        let found = given(&store);
        let has = |text: &String| found.iter().any(|[.., found]| found == text);
        assert!(before.iter().all(|[.., text]| has(text)), "byte {at}: a text is lost");
        all_named += usize::from(found == before);
        assert_eq!((recovered.damaged.len(), store.verify().unwrap().len()), (0, 0), "byte {at}");
        assert!(compress(&store, &encoder) <= 4, "byte {at}: summaries are lost");
        assert_eq!(store.summary("a", &encoder).is_ok(), found.iter().any(|[id, ..]| id == "a"));
        drop(store);
        // What compressing added was not there before.
        fs::write(root.join("catalog.redb"), &good).unwrap();
        LocalStore::open(&root).unwrap().compact().unwrap();
    }
    assert!(recoveries > 5 && all_named * 2 > recoveries, "{recoveries} recoveries, {all_named} with all names");
}

#[test]
fn recovery_leaves_out_what_is_damaged_and_can_be_interrupted() {
    let directory = crate::directory();
    let encoder = encoder();
    let store = varied(directory.path());
    let (root, summary) = (store.path().to_owned(), store.document("a").unwrap().unwrap().summary.unwrap());
    drop(store);
    let names = files(&root);
    let path = |part: &str| root.join(names.iter().find(|name| name.contains(part)).unwrap());
    let key = summary.segments[3].to_string();
    fs::write(path(&key), b"not a summary").unwrap();
    fs::remove_file(path("2/lloco.json")).unwrap();
    fs::write(root.join("catalog.redb"), b"not a catalogue").unwrap();
    let mut step = 0;
    let recovered = loop {
        let (count, limit) = (std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0)), step);
        let hook: lloco_core::store::IoHook =
            std::sync::Arc::new(move |_| match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < limit {
                true => Ok(()),
                false => Err(std::io::Error::other("stopped here")),
            });
        match lloco_core::store::StoreOptions::new().io_hook(hook).recover(&root) {
            Ok(recovered) => break recovered,
            Err(error) => assert!(matches!(error, Error::Io { .. }), "{error}"),
        }
        step += 1;
    };
    assert!(step > 5, "{step}");
    if let Some(recovered) = recovered {
        let damaged: BTreeSet<_> = recovered.damaged.iter().map(|damage| damage.path.clone()).collect();
        assert_eq!(damaged, [path(&key), path("2/adapter_config.json").parent().unwrap().to_owned()].into());
        assert_eq!(recovered.adapters, 1);
    }
    let store = LocalStore::open(&root).unwrap();
    assert_eq!(compress(&store, &encoder), 6 + 4, "from the damaged segment on, and what never was compressed");
    assert!(store.verify().unwrap().is_empty());
}
